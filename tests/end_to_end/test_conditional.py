"""GETs of what a client has already: told by its tag, and answered without a body."""

from __future__ import annotations

import hashlib

import pytest

from tests.support.raw_http import answer, connected
from tests.support.service import Client, Service, token
from tests.support.zips import random_zip


@pytest.fixture(scope="module")
def ready(service: Service) -> str:
    client = service.client()
    guid: str = client.push(random_zip(1000))["guid"]
    client.close()
    return guid


@pytest.fixture
def path(request: pytest.FixtureRequest, ready: str) -> str:
    named: str = request.param
    return named.format(ready=ready)


SHOWN = ["/v3/packages/{ready}", "/v3/packages", "/v3/apps/app-1/packages", "/v3/droplets"]


@pytest.mark.parametrize("path", SHOWN, indirect=True)
def test_what_is_shown_has_a_tag_of_its_bytes(client: Client, path: str) -> None:
    """The same tag gets 304 and no body, and another one all of it."""
    shown = client.http.get(path)
    tag = f'"{hashlib.sha256(shown.content).hexdigest()}"'
    assert (shown.status_code, shown.headers["ETag"]) == (200, tag)
    assert shown.headers["Cache-Control"] == "private, no-cache"
    for held in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        same = client.http.get(path, headers={"If-None-Match": held})
        assert (same.status_code, same.content, same.headers["ETag"]) == (304, b"", tag)
        assert same.headers["Cache-Control"] == "private, no-cache"
    for held in ('"x"', tag.strip('"'), ""):
        assert client.http.get(path, headers={"If-None-Match": held}).content == shown.content


def test_what_has_changed_is_shown(client: Client) -> None:
    """By the very next request: a tag is never older than what was written."""
    guid = client.create("app-changing")
    paths = (f"/v3/packages/{guid}", "/v3/apps/app-changing/packages")
    tags = {path: client.http.get(path).headers["ETag"] for path in paths}
    assert client.upload(guid, random_zip(1000)).status_code == 200
    for path, tag in tags.items():
        changed = client.http.get(path, headers={"If-None-Match": tag})
        assert changed.status_code == 200
        assert changed.headers["ETag"] != tag
    client.settled(guid)
    assert client.http.delete(f"/v3/packages/{guid}").status_code == 204
    for held in (tags[paths[0]], "*"):
        gone = client.http.get(paths[0], headers={"If-None-Match": held})
        assert gone.status_code == 404
        assert "ETag" not in gone.headers


def test_what_must_not_be_seen_has_no_tag(client: Client, ready: str) -> None:
    """A tag that fits opens nothing: the token is looked at first."""
    path = f"/v3/packages/{ready}"
    tag = client.http.get(path).headers["ETag"]
    for wrong in ("bearer x", f"bearer {token(expires_in=-60)}"):
        refused = client.http.get(path, headers={"If-None-Match": tag, "Authorization": wrong})
        assert refused.status_code == 401
        assert "ETag" not in refused.headers


def test_a_connection_outlives_what_has_no_body(service: Service, ready: str) -> None:
    """304 and 204 end with their headers: the next request goes over the same connection."""
    lines = f"Host: x\r\nAuthorization: bearer {token()}\r\nIf-None-Match: *\r\n\r\n"
    with connected(service.port) as connection:
        for _ in range(3):
            connection.sendall(f"GET /v3/packages/{ready} HTTP/1.1\r\n{lines}".encode())
            status, headers, _ = answer(connection)
            assert status == 304
            assert "connection" not in headers
            assert "transfer-encoding" not in headers
        connection.sendall(
            f"GET /v3/packages/{ready} HTTP/1.1\r\nConnection: close\r\n{lines}".encode()
        )
        status, headers, _ = answer(connection)
        assert (status, headers["connection"]) == (304, "close")
        assert connection.recv(1) == b""
