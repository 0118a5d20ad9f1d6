"""The contract's table of errors, and its order of checks, on a real service."""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import json
import sqlite3
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from adapters.tokens import Scope
from tests.support.service import SECRET, Client, Service, bearer, token
from tests.support.waiting import eventually
from tests.support.zips import random_zip

NOT_AUTHENTICATED = (401, 10002, "CF-NotAuthenticated", "Authentication error")
INVALID_TOKEN = (401, 1000, "CF-InvalidAuthToken", "Invalid Auth Token")
NOT_AUTHORIZED = (
    403, 10003, "CF-NotAuthorized", "You are not authorized to perform the requested action",
)  # fmt: skip
FEATURE_DISABLED = (403, 330002, "CF-FeatureDisabled", "Feature Disabled: app_bits_upload")
UNKNOWN_REQUEST = (404, 10000, "CF-NotFound", "Unknown request")
NO_PACKAGE = (404, 10010, "CF-ResourceNotFound", "Package not found")
ALREADY_UPLOADED = (
    400, 150004, "CF-PackageBitsAlreadyUploaded",
    "Bits may be uploaded only once. Create a new package to upload different bits.",
)  # fmt: skip


def unprocessable(reason: str) -> tuple[int, int, str, str]:
    return (
        422, 10008, "CF-UnprocessableEntity", f"The request is semantically invalid: {reason}",
    )  # fmt: skip


def bad_query(reason: str) -> tuple[int, int, str, str]:
    return (400, 10005, "CF-BadQueryParameter", f"The query parameter is invalid: {reason}")


def parse_error(reason: str) -> tuple[int, int, str, str]:
    return (
        400, 1001, "CF-MessageParseError", f"Request invalid due to parse error: {reason}",
    )  # fmt: skip


PART_HEAD = b'--edge\r\nContent-Disposition: form-data; name="bits"; filename="a.zip"\r\n\r\n'
NO_BITS = unprocessable("Bits path An application zip file must be uploaded")
Expected = tuple[int, int, str, str]


def expect(response: httpx.Response, expected: Expected) -> None:
    """Status, body to the byte, and the headers of every JSON answer."""
    status, code, error_code, description = expected
    assert response.text == (
        f'{{\n  "code": {code},\n  "description": "{description}",\n'
        f'  "error_code": "{error_code}"\n}}'
    )
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/json;charset=utf-8"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Content-Length"] == str(len(response.content))
    assert response.headers["X-VCAP-Request-ID"]


@dataclass(frozen=True)
class World:
    """One package in each state that the rows need."""

    awaiting: str
    ready: str
    failed: str
    docker: str
    http: httpx.Client


@pytest.fixture(scope="module")
def world(service: Service) -> Iterator[World]:
    client = service.client()
    docker = client.http.post(
        "/v3/apps/app-1/packages", json={"type": "docker", "url": "registry/image"}
    )
    http = httpx.Client(base_url=service.url, timeout=30)
    yield World(
        awaiting=client.create(),
        ready=client.push(random_zip(500))["guid"],
        failed=client.push(b"no zip")["guid"],
        docker=docker.json()["guid"],
        http=http,
    )
    http.close()
    client.close()


UNKNOWN = [
    ("GET", "/nope"), ("GET", "/v3"), ("GET", "/v3/packages/"), ("PUT", "/v3/packages"),
    ("POST", "/v3/packages"), ("PATCH", "/v3/packages/x"), ("OPTIONS", "/v3/packages"),
    ("HEAD", "/v3/packages"), ("GET", "/v3/packages/x/upload"), ("DELETE", "/v3/apps/a/packages"),
    ("GET", "/v3/packages/x/y"), ("TRACE", "/"), ("PUT", "/v3/packages/x"),
    ("PUT", "/v3/packages/x/upload"), ("OPTIONS", "/v3/packages/x"), ("HEAD", "/v3/packages/x"),
    ("OPTIONS", "/v3/packages/x/upload"), ("HEAD", "/v3/packages/x/download"),
    ("HEAD", "/healthz"), ("POST", "/v3/packages/x/download"), ("PUT", "/v3/apps/a/packages"),
    ("GET", "/v3/packages/x/"), ("POST", "/v3/packages/x/upload/"),
    ("GET", "/v3/packages/x/download/"), ("GET", "/v3/apps/a/packages/"), ("GET", "//v3/packages"),
    ("GET", "/v3/apps//packages"), ("POST", "/v3/packages//upload"),
    ("GET", "/v3/packages/%ff"), ("POST", "/v3/apps/%fe/packages"), ("GET", "//v3/packages/x"),
    ("WEBSOCKET", "/v3/packages"), ("WEBSOCKET", "/healthz"), ("PROPFIND", "/v3/packages"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), UNKNOWN)
def test_unknown_routes_come_first(world: World, method: str, path: str) -> None:
    """An unknown path or method is 404, whatever token there is: none, a bad or a good one."""
    for headers in ({}, bearer("garbage"), bearer()):
        response = world.http.request(method, path, headers=headers)
        if method == "HEAD":
            assert (response.status_code, response.content) == (404, b"")
            assert response.headers["X-VCAP-Request-ID"]
        else:
            expect(response, UNKNOWN_REQUEST)


@pytest.mark.parametrize(
    ("path", "headers", "expected"),
    [
        ("/v3/nope", {}, UNKNOWN_REQUEST),
        ("/v3/apps/a/packages", {}, NOT_AUTHENTICATED),
        ("/v3/apps/a/packages", bearer("garbage"), INVALID_TOKEN),
        ("/v3/apps/a/packages", bearer(token(scopes=(Scope.READ,))), NOT_AUTHORIZED),
    ],
    ids=["route", "no token", "garbage", "scope"],
)
def test_a_body_over_the_limit_does_not_overtake(
    world: World, path: str, headers: dict[str, str], expected: Expected
) -> None:
    """Route, token and scope come before the size of a body that is no upload."""
    expect(world.http.post(path, headers=headers, content=b" " * 70_000), expected)


def signed(secret: str = SECRET, algorithm: str = "HS256", **changes: Any) -> dict[str, str]:
    """A token with claims changed, or left out where the change is None."""
    claims = {
        "user_id": "u", "scope": [Scope.READ.value, Scope.WRITE.value],
        "aud": ["cloud_controller"], "exp": int(time.time()) + 3600, **changes,
    }  # fmt: skip
    kept = {name: value for name, value in claims.items() if value is not None}
    return bearer(jwt.encode(kept, secret, algorithm=algorithm))


def signed_text(payload: bytes) -> dict[str, str]:
    """A token that is signed well, whatever its claims are."""
    parts = [base64.urlsafe_b64encode(part).rstrip(b"=") for part in (b'{"alg":"HS256"}', payload)]
    signature = hmac.new(SECRET.encode(), b".".join(parts), hashlib.sha256).digest()
    parts.append(base64.urlsafe_b64encode(signature).rstrip(b"="))
    return bearer(b".".join(parts).decode())


TOKENS: dict[str, tuple[dict[str, str], Expected]] = {
    "no token": ({}, NOT_AUTHENTICATED),
    "an empty header": ({"Authorization": ""}, NOT_AUTHENTICATED),
    "another scheme": ({"Authorization": "Basic dTpw"}, NOT_AUTHENTICATED),
    "bearer without a token": ({"Authorization": "bearer"}, NOT_AUTHENTICATED),
    "garbage": (bearer("garbage"), INVALID_TOKEN),
    "three parts of garbage": (bearer("a.b.c"), INVALID_TOKEN),
    "expired": (signed(exp=int(time.time()) - 60), INVALID_TOKEN),
    "no expiry": (signed(exp=None), INVALID_TOKEN),
    "no subject": (signed(user_id=None), INVALID_TOKEN),
    "half a character as subject": (signed_text(
        b'{"user_id":"\\ud800","scope":["cloud_controller.read","cloud_controller.write"],'
        b'"aud":["cloud_controller"],"exp":9999999999}'
    ), INVALID_TOKEN),
    "a subject that is no text": (signed(user_id=5), INVALID_TOKEN),
    "a client without an id": (signed(user_id=None, client_id=""), INVALID_TOKEN),
    "an expiry without an end": (signed(exp=float("inf")), INVALID_TOKEN),
    "claims that are no object": (signed_text(b"[]"), INVALID_TOKEN),
    "claims nested without an end": (signed_text(b"[" * 50_000), INVALID_TOKEN),
    "not valid yet": (signed(nbf=int(time.time()) + 600), INVALID_TOKEN),
    "expired and without scopes": (
        signed(exp=int(time.time()) - 60, scope=[]), INVALID_TOKEN,
    ),
    "no audience": (signed(aud=None), INVALID_TOKEN),
    "another audience": (signed(aud=["other"]), INVALID_TOKEN),
    "another secret": (signed(secret="x" * 40), INVALID_TOKEN),
    "unsigned": (signed(secret="", algorithm="none"), INVALID_TOKEN),
    "another algorithm": (signed(secret=SECRET * 2, algorithm="HS512"), INVALID_TOKEN),
    "scope that is no list": (signed(scope={"a": 1}), INVALID_TOKEN),
    "no scope": (signed(scope=None), NOT_AUTHORIZED),
    "other scopes": (signed(scope=["openid"]), NOT_AUTHORIZED),
}  # fmt: skip


@pytest.mark.parametrize("case", TOKENS)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v3/packages"), ("GET", "/v3/packages/nobody"), ("DELETE", "/v3/packages/nobody"),
        ("POST", "/v3/packages/nobody/upload"), ("GET", "/v3/packages/nobody/download"),
        ("POST", "/v3/apps/a/packages"), ("GET", "/v3/apps/a/packages?nonsense=1"),
        ("POST", "/v3/apps/a/packages?source_package_guid=nobody"),
    ],
)  # fmt: skip
def test_tokens_come_next(world: World, case: str, method: str, path: str) -> None:
    """401, then 403 for the scope, before anything of the request itself is looked at."""
    headers, expected = TOKENS[case]
    expect(world.http.request(method, path, headers=headers), expected)


@pytest.mark.parametrize("scheme", ["bearer", "Bearer", "BEARER"])
def test_the_scheme_is_read_without_case(world: World, scheme: str) -> None:
    """RFC 9110: a scheme's name has no case."""
    headers = {"Authorization": f"{scheme} {token()}"}
    assert world.http.get("/v3/packages", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v3/apps/a/packages"), ("POST", "/v3/apps/a/packages?source_package_guid=x"),
        ("POST", "/v3/packages/nobody/upload"), ("DELETE", "/v3/packages/nobody"),
    ],
)  # fmt: skip
def test_a_write_needs_the_scope_to_write(world: World, method: str, path: str) -> None:
    """Who may only read is refused before the request is looked at."""
    read = bearer(token(scopes=(Scope.READ,)))
    expect(world.http.request(method, path, headers=read), NOT_AUTHORIZED)


@pytest.mark.parametrize(
    "path",
    ["/v3/packages", "/v3/packages/nobody", "/v3/packages/nobody/download", "/v3/apps/a/packages"],
)
def test_a_read_needs_the_scope_to_read(world: World, path: str) -> None:
    """Who may only write sees nothing."""
    write = bearer(token(scopes=(Scope.WRITE,)))
    expect(world.http.get(path, headers=write), NOT_AUTHORIZED)


def test_the_scopes_are_told_apart(world: World) -> None:
    """Reading needs read, writing needs write; an admin may do both; a client has an id, too."""
    read, write = bearer(token(scopes=(Scope.READ,))), bearer(token(scopes=(Scope.WRITE,)))
    body = {"type": "bits"}
    assert world.http.get("/v3/packages", headers=read).status_code == 200
    expect(world.http.get("/v3/packages", headers=write), NOT_AUTHORIZED)
    expect(world.http.post("/v3/apps/a/packages", headers=read, json=body), NOT_AUTHORIZED)
    created = world.http.post("/v3/apps/a/packages", headers=write, json=body)
    assert created.status_code == 201
    admin = bearer(token(scopes=(Scope.ADMIN,)))
    assert world.http.get("/v3/packages", headers=admin).status_code == 200
    url = f"/v3/packages/{created.json()['guid']}"
    assert world.http.delete(url, headers=admin).status_code == 204
    client = signed(user_id=None, client_id="robot")
    assert world.http.get("/v3/packages", headers=client).status_code == 200


FILE: dict[str, Any] = {"files": {"bits": ("app.zip", random_zip(100))}}
NO_FILE: dict[str, Any] = {"files": {"other": ("app.zip", b"x")}}
UPLOADS: list[tuple[str, dict[str, Any], Expected]] = [
    # form before package, package before type, type before state
    ("nobody", NO_FILE, NO_BITS),
    ("nobody", {"data": {"bits_name": "x"}}, NO_BITS),
    ("nobody", {"data": {"bits_path": ""}}, NO_BITS),
    ("nobody", {"content": b""}, NO_BITS),
    ("nobody", {"json": {"bits": "x"}}, NO_BITS),
    ("nobody", {"data": {"bits_path": "/etc/passwd"}}, unprocessable("Bits path is invalid")),
    ("nobody", FILE, NO_PACKAGE),
    ("docker", NO_FILE, NO_BITS),
    ("docker", FILE, unprocessable("Package type must be bits.")),
    ("ready", NO_FILE, NO_BITS),
    ("ready", {"data": {"bits_path": "/etc/passwd"}}, unprocessable("Bits path is invalid")),
    ("ready", FILE, ALREADY_UPLOADED),
    ("failed", NO_FILE, NO_BITS),
    ("failed", FILE, ALREADY_UPLOADED),
    ("awaiting", NO_FILE, NO_BITS),
    ("awaiting", {"files": {"bits": (None, b"a field, and no file")}}, NO_BITS),
]


@pytest.mark.parametrize("row", range(len(UPLOADS)))
def test_an_upload_is_checked_in_order(world: World, service: Service, row: int) -> None:
    """Form 422, package 404, type 422, state 400; and a refusal leaves nothing in staging."""
    which, request, expected = UPLOADS[row]
    guid = getattr(world, which, which)
    expect(world.http.post(f"/v3/packages/{guid}/upload", headers=bearer(), **request), expected)
    eventually(lambda: service.staged_files() == [])


CREATES: list[tuple[bytes, Expected]] = [
    (b"", parse_error("invalid request body")),
    (b"[]", parse_error("invalid request body")),
    (b'"bits"', parse_error("invalid request body")),
    (b"null", parse_error("invalid request body")),
    (b"{}", unprocessable("Type must be one of 'bits, docker'")),
    (b'{"type":null}', unprocessable("Type must be one of 'bits, docker'")),
    (b'{"type":"zip"}', unprocessable("Type must be one of 'bits, docker'")),
    (b'{"type":"bits","url":"x"}', unprocessable("Url must be blank when type is bits")),
    (b'{"type":"docker"}', unprocessable("Url can not be blank when type is docker")),
    (b'{"type":"docker","url":""}', unprocessable("Url can not be blank when type is docker")),
    (
        b'{"type":"docker","url":"https://ada:hunter2@registry/image"}',
        unprocessable("Url must not hold credentials"),
    ),
    (b'{"type":"bits","a":1,"b":2}', unprocessable("Unknown field(s): 'a', 'b'")),
    (b'{"type":["bits"]}', unprocessable("Type must be one of 'bits, docker'")),
    (b'{"type":"docker","url":null}', unprocessable("Url can not be blank when type is docker")),
    (
        b'{"type":"docker","url":"https://user:hunter2@registry/app"}',
        unprocessable("Url must not hold credentials"),
    ),
    (
        b'{"type":"docker","url":"hunter2%40registry/app@sha256:0"}',
        unprocessable("Url must not hold credentials"),
    ),
    (
        b'{"type":"docker","url":"' + b"x" * 4097 + b'"}',
        unprocessable("Url must be between 1 and 4096 characters"),
    ),
    (
        b'{"url":"x","b":1,"type":"bits","a":1}',
        unprocessable("Unknown field(s): 'b', 'a', Url must be blank when type is bits"),
    ),
    (
        b'{"type":"zip","x":1}',
        unprocessable("Unknown field(s): 'x', Type must be one of 'bits, docker'"),
    ),
]


@pytest.mark.parametrize(("body", "expected"), CREATES)
def test_a_create_is_checked(world: World, body: bytes, expected: Expected) -> None:
    """JSON 400, then all fields at once 422, unknown ones first."""
    expect(world.http.post("/v3/apps/app-1/packages", headers=bearer(), content=body), expected)


def test_credentials_in_an_image_are_left_nowhere(world: World, service: Service) -> None:
    """Neither in the answer, nor in the log's lines or its events."""
    body = {"type": "docker", "url": "https://user:correct-horse@registry/app"}
    answer = world.http.post("/v3/apps/app-1/packages", headers=bearer(), json=body)
    assert answer.status_code == 422
    files = [path for path in service.data_dir.rglob("packtrail.db*") if path.is_file()]
    assert files
    for text in (answer.content, service.log.read_bytes(), *map(Path.read_bytes, files)):
        assert b"correct-horse" not in text


@pytest.mark.parametrize("body", [b"{", b"{'type':'bits'}", b"\xff", b'{"type":"bits"}}'])
def test_broken_json_is_a_parse_error(world: World, body: bytes) -> None:
    """The answer says what is wrong with it."""
    response = world.http.post("/v3/apps/app-1/packages", headers=bearer(), content=body)
    assert response.status_code == 400
    error = response.json()
    assert error["code"] == 1001
    assert error["description"].startswith("Request invalid due to parse error: ")
    assert error["description"] != "Request invalid due to parse error: invalid request body"


def test_json_is_read_before_the_fields_are_checked(world: World) -> None:
    """400 for the JSON, though the app's guid is too long; then all reasons of the 422 at once."""
    path = f"/v3/apps/{'a' * 201}/packages"
    broken = world.http.post(path, headers=bearer(), content=b"{")
    assert (broken.status_code, broken.json()["error_code"]) == (400, "CF-MessageParseError")
    expect(
        world.http.post(path, headers=bearer(), content=b""), parse_error("invalid request body")
    )
    expect(
        world.http.post(path, headers=bearer(), json={"type": "zip", "x": 1}),
        unprocessable(
            "Unknown field(s): 'x', Type must be one of 'bits, docker', "
            "App guid must be between 1 and 200 characters"
        ),
    )


@pytest.mark.parametrize("length", [201, 1000])
def test_an_app_guid_has_up_to_200_characters(world: World, length: int) -> None:
    """200 pass, more do not."""
    body = {"type": "bits"}
    refused = world.http.post(f"/v3/apps/{'a' * length}/packages", headers=bearer(), json=body)
    expect(refused, unprocessable("App guid must be between 1 and 200 characters"))
    passed = world.http.post(f"/v3/apps/{'ä' * 200}/packages", headers=bearer(), json=body)
    assert passed.status_code == 201


def test_a_copy_is_checked_in_order(world: World) -> None:
    """Source 404, same app 422, not READY 422."""

    def copy(app: str, source: str) -> httpx.Response:
        return world.http.post(
            f"/v3/apps/{app}/packages", params={"source_package_guid": source}, headers=bearer()
        )

    same_app = unprocessable("Source and destination app cannot be the same")
    expect(copy("app-1", "nobody"), NO_PACKAGE)
    expect(copy("app-1", world.awaiting), same_app)
    expect(copy("app-1", world.ready), same_app)
    not_ready = unprocessable("Source package must be READY")
    expect(copy("app-2", world.awaiting), not_ready)
    expect(copy("app-2", world.failed), not_ready)
    expect(copy("app-2", ""), NO_PACKAGE)


def test_the_body_of_a_copy_is_ignored(world: World) -> None:
    """Whatever it is, and however long."""
    for content in (b"{", b" " * 200_000):
        copied = world.http.post(
            "/v3/apps/app-9/packages", params={"source_package_guid": world.ready},
            headers=bearer(), content=content,
        )  # fmt: skip
        assert copied.status_code == 201, copied.text


def test_any_text_is_an_app_guid(world: World) -> None:
    """Also one with a slash in it, as the links to it are written."""
    path = "/v3/apps/a%2Fb%3Fc%23d/packages"
    created = world.http.post(path, headers=bearer(), json={"type": "bits"})
    assert created.status_code == 201
    assert created.json()["links"]["app"]["href"] == "/v3/apps/a%2Fb%3Fc%23d"
    listed = world.http.get(path, headers=bearer()).json()
    assert [package["guid"] for package in listed["resources"]] == [created.json()["guid"]]
    assert listed["pagination"]["first"]["href"] == f"{path}?page=1&per_page=50"


def test_a_download_is_checked_in_order(world: World) -> None:
    """404, type 422, not READY 422."""

    def download(guid: str) -> httpx.Response:
        return world.http.get(f"/v3/packages/{guid}/download", headers=bearer())

    expect(download("nobody"), NO_PACKAGE)
    expect(download(world.docker), unprocessable("Package type must be bits."))
    no_bits = unprocessable("Package has no bits to download.")
    expect(download(world.awaiting), no_bits)
    expect(download(world.failed), no_bits)


def test_a_deleted_package_is_unknown(world: World, client: Client) -> None:
    """404 for all that can be done with a package, also to delete it again, or copy it."""
    guid = client.push(random_zip(200))["guid"]
    assert client.http.delete(f"/v3/packages/{guid}").status_code == 204
    expect(client.http.get(f"/v3/packages/{guid}"), NO_PACKAGE)
    expect(client.http.delete(f"/v3/packages/{guid}"), NO_PACKAGE)
    expect(client.http.get(f"/v3/packages/{guid}/download"), NO_PACKAGE)
    expect(client.upload(guid, random_zip(200)), NO_PACKAGE)
    copy = client.http.post("/v3/apps/app-2/packages", params={"source_package_guid": guid})
    expect(copy, NO_PACKAGE)


def test_what_is_unknown_is_not_shown_or_deleted(world: World) -> None:
    """404 for a package that is not there."""
    expect(world.http.get("/v3/packages/nobody", headers=bearer()), NO_PACKAGE)
    expect(world.http.delete("/v3/packages/nobody", headers=bearer()), NO_PACKAGE)
    expect(world.http.get("/v3/packages/a%00b", headers=bearer()), NO_PACKAGE)


QUERIES = {
    "per_page=0": "Per page must be greater than 0",
    "per_page=-1": "Per page must be greater than 0",
    "per_page=5001": "Per page must be between 1 and 5000",
    "per_page=x": "Per page is not a number",
    "per_page=": "Per page is not a number",
    "per_page=1.5": "Per page is not a number",
    f"per_page={10**20}": "Per page must be between 1 and 5000",
    f"per_page=-{10**20}": "Per page must be greater than 0",
    f"page=-{10**20}": "Page must be greater than 0",
    "page=x&per_page=0": "Per page must be greater than 0, Page is not a number",
    "page=0": "Page must be greater than 0",
    "page=-5": "Page must be greater than 0",
    "page=x": "Page is not a number",
    "x=1&y=2": "Unknown query parameter(s): 'x', 'y'",
    "order_by=created_at": "Unknown query parameter(s): 'order_by'",
    "x=1&page=0": "Unknown query parameter(s): 'x', Page must be greater than 0",
}


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("path", ["/v3/packages", "/v3/apps/app-1/packages"])
def test_a_lists_parameters_are_checked(world: World, path: str, query: str) -> None:
    """400 says which parameter, and what it must be."""
    expect(world.http.get(f"{path}?{query}", headers=bearer()), bad_query(QUERIES[query]))


def test_a_number_of_any_length_is_a_number(world: World) -> None:
    """A page far beyond the last is as empty as one just beyond it."""
    response = world.http.get(f"/v3/packages?page={10**20}", headers=bearer())
    assert response.status_code == 200, response.text
    assert response.json()["resources"] == []


def test_uploads_can_be_switched_off(tmp_path: Path) -> None:
    """403 behind token and scope, before the form and the package; admins pass that check only."""
    with Service(tmp_path, {"PACKTRAIL_APP_BITS_UPLOAD": "off"}) as service:
        client = service.client()
        guid = client.create()
        requests: list[dict[str, Any]] = [FILE, NO_FILE, {"content": b""}]
        for request in requests:
            for package in (guid, "nobody"):
                response = client.http.post(f"/v3/packages/{package}/upload", **request)
                expect(response, FEATURE_DISABLED)
        url = f"/v3/packages/{guid}/upload"
        expect(client.http.post(url, headers=bearer("bad"), **FILE), INVALID_TOKEN)
        read = bearer(token(scopes=(Scope.READ,)))
        expect(client.http.post(url, headers=read, **FILE), NOT_AUTHORIZED)
        admin = service.client(token=token(scopes=(Scope.ADMIN,)))
        expect(admin.http.post(url, **NO_FILE), NO_BITS)
        expect(admin.upload("nobody", random_zip(100)), NO_PACKAGE)
        assert admin.upload(guid, random_zip(100)).status_code == 200


def test_the_size_is_limited(tmp_path: Path) -> None:
    """Exactly the maximum passes; one byte more is 413, in either form, with the limit."""
    bits = random_zip(100_000)
    with Service(tmp_path, {"PACKTRAIL_MAX_PACKAGE_SIZE": str(len(bits))}) as service:
        client = service.client()
        assert client.push(bits)["state"] == "READY"
        guid = client.create()
        too_large = (
            413, 10008, "CF-UnprocessableEntity",
            "The request is semantically invalid: "
            f"The upload is larger than {len(bits)} bytes, the limit",
        )  # fmt: skip
        expect(client.upload(guid, bits + b"x"), too_large)
        path = service.upload_dir / "app.zip"
        path.write_bytes(bits + b"x")
        in_form = {"bits_name": "app.zip", "bits_path": str(path)}
        expect(client.http.post(f"/v3/packages/{guid}/upload", data=in_form), too_large)
        assert path.exists()
        assert service.staged_files() == []


def test_the_limit_is_named_to_a_chunked_upload_too(tmp_path: Path) -> None:
    """A body of undeclared length is cut off, and told the limit that it must keep to."""
    with Service(tmp_path, {"PACKTRAIL_MAX_PACKAGE_SIZE": "100000"}) as service:
        client = service.client()
        guid = client.create()
        response = client.http.post(
            f"/v3/packages/{guid}/upload",
            headers={"Content-Type": "multipart/form-data; boundary=edge"},
            content=iter([PART_HEAD, bytes(300_000), b"\r\n--edge--\r\n"]),
        )
        too_large = "The upload is larger than 100000 bytes, the limit"
        expect(response, (413, *unprocessable(too_large)[1:]))
        eventually(lambda: service.staged_files() == [])
        assert client.show(guid)["state"] == "AWAITING_UPLOAD"


def test_declared_unpacked_sizes_are_limited(tmp_path: Path) -> None:
    """A package that would unpack to more than the maximum ends FAILED; the maximum passes."""
    with Service(tmp_path, {"PACKTRAIL_MAX_PACKAGE_SIZE": "2000000"}) as service:
        client = service.client()
        assert client.push(zeros_zip(2_000_000))["state"] == "READY"
        package = client.push(zeros_zip(2_000_001))
        assert package["state"] == "FAILED"
        assert "2000001" in package["error"] and "2000000" in package["error"]


def zeros_zip(size: int) -> bytes:
    """A small zip whose one entry unpacks to `size` bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(size))
    return buffer.getvalue()


def test_a_fault_of_ours_is_told_to_the_log_alone(client: Client, service: Service) -> None:
    """500 without details; what happened is in the log, with the request's id."""
    guid = client.push(random_zip(300))["guid"]
    (blob,) = [path for path in service.blobs() if path.name == guid]
    blob.unlink()
    response = client.http.get(f"/v3/packages/{guid}/download")
    expect(response, (500, 10001, "UnknownError", "An unknown error occurred."))
    request_id = response.headers["X-VCAP-Request-ID"]

    def logged() -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in service.log.read_text().splitlines() if line]
        return [
            line
            for line in lines
            if line.get("request_id") == request_id and line["level"] == "error"
        ]

    assert "BlobMissing" in str(eventually(logged))


@pytest.mark.slow
def test_a_database_that_is_away_is_503(own_service: Service) -> None:
    """503 with Retry-After, soon, however many ask; it works again once the database is back."""
    with own_service as service:
        client = service.client()
        database = sqlite3.connect(service.data_dir / "packtrail.db", isolation_level=None)
        database.execute("BEGIN IMMEDIATE")

        def create(number: int) -> httpx.Response:
            return client.http.post("/v3/apps/app-1/packages", json={"type": "bits"})

        with ThreadPoolExecutor(8) as pool:
            responses = list(pool.map(create, range(8)))
        database.execute("ROLLBACK")
        database.close()
        for response in responses:
            expect(response, (503, 10011, "CF-DatabaseError", "Database error"))
            assert int(response.headers["Retry-After"]) >= 1
            assert response.elapsed.total_seconds() < 3  # two, and some for a busy machine
        eventually(
            lambda: client.http.post("/v3/apps/a/packages", json={"type": "bits"}).is_success
        )


def test_clients_see_no_traceback(client: Client) -> None:
    """Odd but well-formed requests get the contract's JSON, whatever they ask."""
    for path in ("/v3/packages/%ff%fe", "/v3/packages/..%2f..", "/v3/apps/%0d%0aX: y/packages"):
        response = client.http.get(path)
        assert response.status_code in (200, 404)
        assert "Traceback" not in response.text
