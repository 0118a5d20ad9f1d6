"""Limits of forms, bodies and zips: each is a setting, and its refusal names it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.support.service import Client, Service
from tests.support.zips import zip_of

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    limits = {
        "MAX_BODY_SIZE": "2000",
        "MAX_JSON_DEPTH": "3",
        "MAX_FORM_OVERHEAD": "1500",
        "MAX_FORM_PARTS": "3",
        "MAX_FORM_FIELDS": "4",
        "MAX_ENTRIES": "5",
        "MAX_UNPACKED_SIZE": "1000",
        "MAX_PATH_LENGTH": "10",
    }
    settings = {f"PACKTRAIL_{name}": value for name, value in limits.items()}
    with Service(tmp_path_factory.mktemp("limits"), settings) as service:
        yield service


def refusal(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["description"].split(": ", 1)[1]


def upload(client: Client, parts: list[tuple[str, tuple[str | None, bytes]]]) -> httpx.Response:
    return client.http.post(f"/v3/packages/{client.create()}/upload", files=parts)


def test_a_form_may_have_so_many_parts(client: Client) -> None:
    """The bits are looked for among as many as may be; the package still awaits them after that."""
    fields = [(f"field-{number}", (None, b"x")) for number in range(3)]
    bits = ("bits", ("app.zip", zip_of({"a": b"x"})))
    assert upload(client, [*fields[:2], bits]).status_code == 200
    refused = upload(client, [*fields, bits])
    assert refusal(refused) == (422, "The form has 4 parts or more; the limit is 3")


def test_a_form_may_have_so_many_bytes_around_the_bits(client: Client) -> None:
    """The limit of the bits themselves is another."""
    bits = ("bits", ("app.zip", zip_of({"a": b"x" * 900, "b": b""})))
    assert upload(client, [("a", (None, b"x" * 900)), bits]).status_code == 200
    status, reason = refusal(upload(client, [("a", (None, b"x" * 1500)), bits]))
    assert status == 413
    assert reason.startswith("The form has 1") and reason.endswith("the limit is 1500")


def test_a_url_encoded_form_may_have_so_many_fields(client: Client) -> None:
    """Four pass and are looked at; five are not."""
    path = f"/v3/packages/{client.create()}/upload"
    four = client.http.post(path, headers=FORM, content="a=1&b=2&c=3&d=4")
    assert refusal(four) == (422, "Bits path An application zip file must be uploaded")
    five = client.http.post(path, headers=FORM, content="a=1&b=2&c=3&d=4&bits_path=/x")
    assert refusal(five) == (422, "The form has 5 fields; the limit is 4")


def test_json_may_be_so_deep(client: Client) -> None:
    """The answer tells how deep it was."""
    path = "/v3/apps/app-1/packages"
    assert "Unknown field" in client.http.post(path, json={"a": {"b": {}}}).text
    four = client.http.post(path, json={"a": {"b": [[]]}})
    assert refusal(four) == (400, "it is nested 4 levels deep; the limit is 3")
    deep = client.http.post(path, content=b'{"a":' * 300 + b"1" + b"}" * 300)
    assert refusal(deep) == (400, "it is nested 300 levels deep; the limit is 3")


def test_a_form_without_bits_may_be_so_large(client: Client) -> None:
    """One that names its bits has none of them in it. Of JSON it is the same limit."""
    path = f"/v3/packages/{client.create()}/upload"
    fits = client.http.post(path, headers=FORM, content=b"x" * 2000)
    assert refusal(fits) == (422, "Bits path An application zip file must be uploaded")
    for to in (path, "/v3/apps/app-1/packages"):
        for content in (b"x" * 2001, iter([b"x" * 1000, b"x" * 1001])):
            refused = client.http.post(to, headers=FORM, content=content)
            assert refusal(refused) == (413, "The body is larger than 2000 bytes, the limit")


@pytest.mark.parametrize(
    ("files", "error"),
    [
        (
            {str(number): b"" for number in range(6)},
            "The package holds 6 entries; the limit is 5",
        ),
        (
            {"a": b"x" * 600, "b": b"x" * 401},
            "The package would unpack to 1001 bytes or more; the limit is 1000",
        ),
        (
            {"a" * 11: b"x"},
            "The package has an entry whose name is 11 bytes long; it may have 1 to 10",
        ),
    ],
    ids=["entries", "unpacked size", "path length"],
)
def test_a_zip_is_limited(client: Client, files: dict[str, bytes], error: str) -> None:
    """Exactly the limits pass; beyond them the package ends FAILED, and says why."""
    package = client.push(zip_of(files))
    assert (package["state"], package["error"]) == ("FAILED", error)
    most = {"a" * 10: b"x" * 1000, **{str(number): b"" for number in range(4)}}
    assert client.push(zip_of(most))["state"] == "READY"
