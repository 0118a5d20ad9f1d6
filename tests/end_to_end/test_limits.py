"""What one caller may ask for, and what is refused before a body is received."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from adapters.tokens import Scope
from tests.support.service import Client, Service, token
from tests.support.waiting import eventually
from tests.support.zips import random_zip

pytestmark = pytest.mark.slow

LIMITS = {
    "PACKTRAIL_MAX_UPLOADS_PER_USER": "2",
    "PACKTRAIL_MAX_PACKAGES_PER_APP": "3",
    "PACKTRAIL_MAX_PACKAGE_SIZE": str(1 << 60),
    "PACKTRAIL_AUTHORIZATION": "scopes",
}


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("limited"), LIMITS) as service:
        yield service


class Opened:
    """An upload whose headers, and a little of whose body, are sent."""

    def __init__(
        self, service: Service, guid: str, user: str, declared: int = 100_000, expect: bool = False
    ) -> None:
        self.socket = socket.create_connection(("127.0.0.1", service.port), timeout=20)
        lines = [
            f"POST /v3/packages/{guid}/upload HTTP/1.1",
            "Host: packtrail",
            f"Authorization: bearer {token(user)}",
            "Content-Type: multipart/form-data; boundary=b",
            f"Content-Length: {declared}",
            *(["Expect: 100-continue"] if expect else []),
        ]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())

    def answer(self) -> bytes:
        """What the service says, up to the end of the headers, or of the connection."""
        said = b""
        while b"\r\n\r\n" not in said:
            piece = self.socket.recv(65536)
            if not piece:
                break
            said += piece
        return said

    def close(self) -> None:
        self.socket.close()


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def test_a_caller_uploads_to_so_many_packages_at_once(limited: Service) -> None:
    """One more is told to come again, before its body; others are not held up."""
    client = Client(limited, token=token("busy"))
    guids = [client.create(f"busy-{number}") for number in range(3)]
    open_ones = [Opened(limited, guid, "busy", expect=True) for guid in guids[:2]]
    for upload in open_ones:
        assert status_of(upload.answer()) == 100
    refused = Opened(limited, guids[2], "busy", expect=True)
    answer = refused.answer()
    assert status_of(answer) == 429
    assert b"\r\nRetry-After: 1\r\n" in answer
    response = client.upload(guids[2], random_zip(1000))
    assert response.status_code == 429
    assert response.json() == {
        "code": 10013, "description": "Rate Limit Exceeded: 2 uploads at once",
        "error_code": "CF-RateLimitExceeded",
    }  # fmt: skip
    other = Client(limited, token=token("calm"))
    assert other.upload(other.create("calm"), random_zip(1000)).status_code == 200
    open_ones[0].close()
    eventually(lambda: client.upload(guids[2], random_zip(1000)).status_code == 200, 10)
    open_ones[1].close()


def test_slots_come_back(limited: Service) -> None:
    """However uploads end: done, refused in their form, or broken off."""
    client = Client(limited, token=token("slots"))
    guid = client.create("slots")
    for _ in range(5):
        assert client.upload(guid, b"").status_code in (200, 400)
        form = {"other": ("a.zip", b"x" * 100)}
        assert client.http.post(f"/v3/packages/{guid}/upload", files=form).status_code == 422
        assert client.http.post("/v3/packages/none/upload", files=form).status_code == 422
        assert client.upload("none", random_zip(100)).status_code == 404


def test_an_upload_that_the_disk_has_no_room_for_is_not_begun(limited: Service) -> None:
    """507 at its headers; nothing is in staging, and nothing was asked to be sent."""
    client = Client(limited, token=token("huge"))
    guid = client.create("huge")
    for expect in (True, False):
        upload = Opened(limited, guid, "huge", declared=1 << 58, expect=expect)
        answer = upload.answer()
        assert status_of(answer) == 507
        assert b"\r\nConnection: close\r\n" in answer
        upload.close()
    assert limited.staged_files() == []
    assert client.upload(guid, random_zip(1000)).status_code == 200


def test_an_app_has_so_many_packages(limited: Service) -> None:
    """Copies count; who deletes one may create one; a repeated request gets its answer."""
    client = Client(limited)
    source = client.push(random_zip(1000), "full-2")
    key = {"Idempotency-Key": "the-third"}
    path = "/v3/apps/full/packages"
    first = client.create("full")
    client.create("full")
    third = client.http.post(path, json={"type": "bits"}, headers=key)
    assert third.status_code == 201
    for response in (
        client.http.post(path, json={"type": "bits"}),
        client.http.post(f"{path}?source_package_guid={source['guid']}"),
    ):
        assert response.status_code == 422
        assert response.json()["description"].endswith("App has 3 packages, the limit")
    again = client.http.post(path, json={"type": "bits"}, headers=key)
    assert (again.status_code, again.json()["guid"]) == (201, third.json()["guid"])
    assert client.http.delete(f"/v3/packages/{first}").status_code == 204
    assert client.http.post(path, json={"type": "bits"}).status_code == 201


def test_requests_in_a_minute_are_counted(tmp_path: Path) -> None:
    """Every answer tells where its caller stands; admins are not counted, nor is who is nobody."""
    with Service(tmp_path, {"PACKTRAIL_MAX_REQUESTS_PER_MINUTE": "10"}) as service:
        client = Client(service, token=token("eager"))

        def answers() -> list[httpx.Response]:
            asked = [client.http.get("/v3/packages") for _ in range(11)]
            return [*asked, client.upload("any", b"x" * 100_000)]

        found: list[httpx.Response] = []

        def within_a_minute() -> bool:
            found[:] = answers()
            return len({response.headers["X-RateLimit-Reset"] for response in found}) == 1

        eventually(within_a_minute, 10)
        for refused in found[-2:]:
            assert refused.status_code == 429
            assert refused.json()["error_code"] == "CF-RateLimitExceeded"
            assert 1 <= int(refused.headers["Retry-After"]) <= 60
        for response in found:
            assert response.headers["X-RateLimit-Limit"] == "10"
            left = int(response.headers["X-RateLimit-Remaining"])
            assert 0 <= left <= 9 and (left == 0 or response.status_code == 200)
        scopeless = Client(service, token=token("scopeless", ())).http.get("/v3/packages")
        assert (scopeless.status_code, scopeless.headers["X-RateLimit-Remaining"]) == (403, "9")
        refused = Client(service, token=token("lost")).upload("none", b"x" * 100_000)
        assert (refused.status_code, refused.headers["X-RateLimit-Remaining"]) == (404, "9")
        for other in (
            Client(service, token=token("calm")),
            Client(service, token=token("a", (Scope.ADMIN,))),
        ):
            assert other.http.get("/v3/packages").status_code == 200
        assert httpx.get(f"{service.url}/v3/packages").status_code == 401
        assert httpx.get(f"{service.url}/healthz").status_code == 200


@pytest.mark.parametrize("expect", [True, False])
def test_who_lacks_the_role_never_sends_a_large_body(tmp_path: Path, expect: bool) -> None:
    """The answer comes at the headers, and the connection ends."""
    with Service(tmp_path, {"PACKTRAIL_AUTHORIZATION": "roles"}) as service:
        admin = Client(service, token=token("admin", (Scope.ADMIN,)))
        guid = admin.create()
        upload = Opened(service, guid, "stranger", declared=1 << 20, expect=expect)
        answer = upload.answer()
        assert status_of(answer) == 404
        assert b"\r\nConnection: close\r\n" in answer
        assert service.staged_files() == []
