"""The server itself, over raw sockets: what is decided at the headers, and what breaks HTTP."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.raw_http import answer, answers, connected, form, head, is_closed
from tests.support.service import Client, Service, bearer, token
from tests.support.waiting import eventually
from tests.support.zips import random_zip, sha1

GIB = 1 << 30


REFUSALS = {
    "no token": ("Basic abc", 401, "CF-NotAuthenticated"),
    "a bad token": ("bearer nonsense", 401, "CF-InvalidAuthToken"),
    "no scope": (f"bearer {token(scopes=())}", 403, "CF-NotAuthorized"),
}


@pytest.mark.parametrize("case", REFUSALS)
@pytest.mark.parametrize("expect", [True, False])
def test_a_bad_token_is_refused_before_the_body(
    service: Service, client: Client, case: str, expect: bool
) -> None:
    """401 and 403 come at the headers, with the contract's JSON and Connection: close."""
    authorization, status, error_code = REFUSALS[case]
    guid = client.create()
    expectation = ["Expect: 100-continue"] if expect else []
    with connected(service.port) as connection:
        connection.sendall(
            head(guid, f"Content-Length: {GIB}", *expectation, authorization=authorization)
        )
        got, headers, body = answer(connection)
        assert (got, json.loads(body)["error_code"]) == (status, error_code)
        assert headers["connection"] == "close"
        assert headers["content-type"] == "application/json;charset=utf-8"
        assert "x-vcap-request-id" in headers
        assert is_closed(connection)
    assert service.staged_files() == []


def test_an_unknown_package_is_refused_before_the_body(service: Service) -> None:
    """404 without 100 Continue: the client never sends a byte, of either form."""
    multipart = head("nobody", "Content-Length: 1000", "Expect: 100-continue")
    urlencoded = multipart.replace(
        b"multipart/form-data; boundary=edge", b"application/x-www-form-urlencoded"
    )
    for sent in (multipart, urlencoded):
        with connected(service.port) as connection:
            connection.sendall(sent)
            status, headers, body = answer(connection)
            assert (status, json.loads(body)["description"]) == (404, "Package not found")
            assert headers["connection"] == "close"


def test_a_package_that_has_its_bits_is_refused_before_the_body(
    service: Service, client: Client
) -> None:
    """400 CF-PackageBitsAlreadyUploaded, while the body is still to come."""
    guid = client.push(random_zip(1000))["guid"]
    with connected(service.port) as connection:
        connection.sendall(head(guid, f"Content-Length: {GIB // 2}"))
        status, _, body = answer(connection)
        assert (status, json.loads(body)["error_code"]) == (400, "CF-PackageBitsAlreadyUploaded")


def test_a_declared_length_over_the_limit_is_refused_before_the_body(
    service: Service, client: Client
) -> None:
    """413 names the limit in bytes."""
    with connected(service.port) as connection:
        connection.sendall(head(client.create(), f"Content-Length: {GIB + 70_000}"))
        status, _, body = answer(connection)
        assert status == 413
        assert str(GIB) in json.loads(body)["description"]


def test_a_refused_client_that_goes_on_sending_reads_its_answer(service: Service) -> None:
    """The refusal is not lost to a reset while the client is still sending its body."""
    with connected(service.port) as connection:
        connection.sendall(head("nobody", f"Content-Length: {64 << 20}"))
        block = bytes(1 << 20)
        for _ in range(64):
            connection.sendall(block)
        status, _, _ = answer(connection)
        assert status == 404
    assert service.staged_files() == []


def test_an_upload_continues_when_it_is_admitted(service: Service, client: Client) -> None:
    """100 Continue comes once the upload is let in; then its body is taken."""
    guid, bits = client.create(), random_zip(200_000)
    body = form(bits)
    with connected(service.port) as connection:
        connection.sendall(head(guid, f"Content-Length: {len(body)}", "Expect: 100-continue"))
        assert connection.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        status, _, _ = answer(connection)
        assert status == 200
    assert client.settled(guid)["hash"]["value"] == sha1(bits)


@pytest.mark.parametrize("size", [1, 7, 1000, 65_536])
def test_a_chunked_upload_is_taken(service: Service, client: Client, size: int) -> None:
    """Chunks of any size give the same bits, also sent byte by byte."""
    guid, bits = client.create(), random_zip(3000 if size < 1000 else 300_000)
    body = form(bits)
    with connected(service.port) as connection:
        connection.sendall(head(guid, "Transfer-Encoding: chunked"))
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        sent = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        connection.sendall(sent + b"0\r\n\r\n")
        status, _, _ = answer(connection)
        assert status == 200
    assert client.settled(guid)["hash"]["value"] == sha1(bits)


def test_requests_behind_an_upload_are_answered_in_order(service: Service, client: Client) -> None:
    """Pipelined: a read, an upload and another read in one write get three answers in order."""
    guid, bits = client.create(), random_zip(100_000)
    body = form(bits)
    read = (
        f"GET /v3/packages/{guid} HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: {bearer()['Authorization']}\r\n\r\n"
    ).encode()
    with connected(service.port) as connection:
        connection.sendall(read + head(guid, f"Content-Length: {len(body)}") + body + read)
        buffered = connection.makefile("rb")
        states = []
        for _ in range(3):
            assert b" 200 " in buffered.readline()
            length = 0
            while (line := buffered.readline()) != b"\r\n":
                name, _, value = line.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            states.append(json.loads(buffered.read(length))["state"])
    assert states[:2] == ["AWAITING_UPLOAD", "PROCESSING_UPLOAD"]
    assert states[2] in ("PROCESSING_UPLOAD", "READY")


def test_an_upload_that_breaks_off_leaves_nothing(service: Service, client: Client) -> None:
    """A client that goes away in the middle leaves the package awaiting, and staging empty."""
    guid = client.create()
    with connected(service.port) as connection:
        connection.sendall(head(guid, "Content-Length: 5000000") + form(random_zip(100_000)))
        eventually(lambda: service.staged_files() != [])
    eventually(lambda: service.staged_files() == [])
    assert client.show(guid)["state"] == "AWAITING_UPLOAD"


POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
BROKEN = {
    "no HTTP": (b"hello\r\n\r\n", 400),
    "bare LF in a header": (b"GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n", 400),
    "a bad length": (POST + b"Content-Length: 5x\r\n\r\n", 400),
    "two lengths": (POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
    "chunks in HTTP/1.0": (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "chunked twice": (POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
    "an unknown coding": (POST + b"Transfer-Encoding: gzip\r\n\r\n", 501),
    "a bad chunk": (CHUNKED + b"xyz\r\n", 400),
    "huge headers": (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 300_000 + b"\r\n\r\n", 431),
    "101 headers": (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 100 + b"\r\n", 431),
    "a length of 5,000 digits": (POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", 400),
    "a chunk's size without an end": (CHUNKED + b"5;" + b"x" * 20_000, 400),
    "a trailer without an end": (CHUNKED + b"0\r\nA: " + b"x" * 20_000, 400),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_breaks_http_gets_the_contracts_json(service: Service, case: str) -> None:
    """Requests that the application never sees are refused in JSON, and the connection ends."""
    request, status = BROKEN[case]
    with connected(service.port) as connection:
        connection.sendall(request)
        got, headers, body = answer(connection)
        assert got == status
        assert set(json.loads(body)) == {"code", "description", "error_code"}
        assert headers["connection"] == "close"
        assert is_closed(connection)


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 10000000\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n20000\r\n" + b" " * 0x20000,
    ],
    ids=["length", "chunked"],
)
def test_a_large_body_where_none_is_large_is_cut_off(service: Service, framing: bytes) -> None:
    """413 with the limit, the connection ends, and the body is not taken for a request."""
    with connected(service.port) as connection:
        connection.sendall(
            b"POST /v3/apps/a/packages HTTP/1.1\r\nHost: x\r\nAuthorization: bearer "
            + token().encode() + b"\r\n" + framing
        )  # fmt: skip
        status, headers, body = answer(connection)
        assert (status, headers["connection"]) == (413, "close")
        assert json.loads(body)["description"].endswith("larger than 65536 bytes, the limit")
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert is_closed(connection)


def test_clients_that_do_not_read_hold_up_nobody(service: Service, client: Client) -> None:
    """Pipelined downloads whose answers are not read: there are more of them than workers."""
    guid = client.push(random_zip(20_000_000))["guid"]
    request = (
        f"GET /v3/packages/{guid}/download HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: bearer {token()}\r\n\r\n"
    ).encode()
    with ExitStack() as stack:
        for _ in range(12):
            stack.enter_context(connected(service.port)).sendall(request * 3)
        for _ in range(20):
            assert client.http.get("/healthz", timeout=5).status_code == 200
            assert client.show(guid)["state"] == "READY"


def test_tiny_chunks_hold_up_nobody(service: Service, client: Client) -> None:
    """A body in chunks of one byte costs time in proportion to its length."""
    guid = client.create()
    bits = random_zip(200_000)
    body = b"".join(b"1\r\n%c\r\n" % byte for byte in form(bits)) + b"0\r\n\r\n"
    with connected(service.port) as connection:
        start = time.monotonic()
        connection.sendall(head(guid, "Transfer-Encoding: chunked") + body)
        status, _, _ = answer(connection)
        assert status == 200
        assert time.monotonic() - start < 10  # it took minutes when each cost a copy of the rest
    assert client.settled(guid)["hash"]["value"] == sha1(bits)


def test_more_connections_than_select_can_take(service: Service, client: Client) -> None:
    """1,200 connections are open at once, and the service goes on answering."""
    connections = []
    try:
        for _ in range(1200):
            connections.append(socket.create_connection(("127.0.0.1", service.port), timeout=20))
        assert client.push(random_zip(1000))["state"] == "READY"
    finally:
        for connection in connections:
            connection.close()


def test_a_full_disk_is_507_and_leaves_no_trace(tmp_path: Path) -> None:
    """No room: 507, nothing staged, and the package still awaits its upload."""
    prlimit = shutil.which("prlimit")
    assert prlimit is not None, "prlimit is part of util-linux"
    with Service(tmp_path, prefix=(prlimit, "--fsize=4000000")) as service:
        client = service.client()
        guid = client.create()
        response = client.upload(guid, random_zip(6_000_000))
        assert (response.status_code, response.json()["error_code"]) == (507, "UnknownError")
        eventually(lambda: service.staged_files() == [])
        assert client.upload(guid, random_zip(1000)).status_code == 200
        assert client.settled(guid)["state"] == "READY"


@pytest.mark.slow
def test_reads_are_never_stale(service: Service) -> None:
    """16 clients at once: what was written and answered is what the next read shows."""
    bits = random_zip(2000)
    stale: list[str] = []

    def write_and_read(number: int) -> None:
        client = service.client()
        for _ in range(6):
            guid = client.create(f"app-{number}")
            if client.show(guid)["state"] != "AWAITING_UPLOAD":
                stale.append(guid)
            assert client.upload(guid, bits).status_code == 200
            if client.show(guid)["state"] == "AWAITING_UPLOAD":
                stale.append(guid)
            assert client.http.delete(f"/v3/packages/{guid}").status_code == 204
            if client.http.get(f"/v3/packages/{guid}").status_code != 404:
                stale.append(guid)
        client.close()

    clients = [threading.Thread(target=write_and_read, args=(n,)) for n in range(16)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    assert stale == []


SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
}


def get(path: str, *lines: str, method: str = "GET") -> bytes:
    """A request with a good token."""
    all_lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Authorization: bearer {token()}", *lines]
    return "".join(f"{line}\r\n" for line in [*all_lines, ""]).encode()


ANSWERS = {
    "200": (get("/v3/packages/{ready}"), 200),
    "a page": (get("/v3/packages"), 200),
    "what did not change": (get("/v3/packages/{ready}", "If-None-Match: *"), 304),
    "metrics": (get("/metrics"), 200),
    "alive": (get("/healthz"), 200),
    "ready": (get("/readyz"), 200),
    "a download": (get("/v3/packages/{ready}/download"), 200),
    "a part of a download": (get("/v3/packages/{ready}/download", "Range: bytes=0-9"), 206),
    "a download that did not change": (
        get("/v3/packages/{ready}/download", "If-None-Match: *"),
        304,
    ),
    "a range that there is not": (
        get("/v3/packages/{ready}/download", "Range: bytes=99999999-"),
        416,
    ),
    "204": (get("/v3/packages/{gone}", method="DELETE"), 204),
    "404 of the router": (get("/nowhere"), 404),
    "404 of a HEAD": (get("/v3/packages", method="HEAD"), 404),
    "401 of the application": (b"GET /v3/packages HTTP/1.1\r\nHost: x\r\n\r\n", 401),
    "401 at the headers": (head("x", "Content-Length: 1000000", authorization="bearer x"), 401),
    "400 of the parser": (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
    "400 of the parser, HTTP/1.0": (b"GET healthz HTTP/1.0\r\n\r\n", 400),
    "431": (b"GET / HTTP/1.1\r\nA: " + b"a" * 70_000 + b"\r\n\r\n", 431),
    "501": (POST + b"Transfer-Encoding: gzip\r\n\r\n", 501),
    "a broken body": (CHUNKED + b"xyz\r\n", 400),
    "a body that is cut off": (POST + b"Content-Length: 70000\r\n\r\n", 404),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_every_answer_has_the_security_headers(
    service: Service, client: Client, packages: dict[str, str], case: str
) -> None:
    """Whatever made the answer; and each has a request id, and none a Server header."""
    request, status = ANSWERS[case]
    for name, guid in packages.items():
        request = request.replace(f"{{{name}}}".encode(), guid.encode())
    (found,) = answers(service.port, request)
    assert found.status == status
    expected = dict(SECURITY_HEADERS)
    if "etag" in found.headers:
        expected["cache-control"] = "private, no-cache"
    assert {name: found.headers.get(name) for name in expected} == expected
    assert found.headers["x-vcap-request-id"]
    assert "server" not in found.headers
    assert "via" not in found.headers
    if status in (204, 304):
        assert "content-type" not in found.headers
        assert "content-length" not in found.headers


@pytest.fixture(scope="module")
def packages(service: Service) -> dict[str, str]:
    client = service.client()
    guids = {"ready": client.push(random_zip(1000))["guid"], "gone": client.create()}
    client.close()
    return guids


@pytest.mark.parametrize("size", [70_000, 1 << 20])
@pytest.mark.parametrize("before", [[], ["A: b"] * 20])
def test_a_token_that_is_too_long_is_a_bad_token(
    service: Service, size: int, before: list[str]
) -> None:
    """401, which the client reads that has sent all of it."""
    lines = ["GET /v3/packages HTTP/1.1", "Host: x", *before]
    lines += [f"Authorization: bearer {'a' * size}", "Accept: */*", "", ""]
    (found,) = answers(service.port, "\r\n".join(lines).encode())
    assert (found.status, json.loads(found.body)["code"]) == (401, 1000)
    assert found.headers["connection"] == "close"


def test_another_scheme_that_is_too_long_is_no_token(service: Service) -> None:
    """As it is where it is short."""
    request = b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Basic " + b"a" * 70_000 + b"\r\n\r\n"
    (found,) = answers(service.port, request)
    assert (found.status, json.loads(found.body)["code"]) == (401, 10002)


def test_headers_have_a_limit_together(service: Service) -> None:
    """65,536 bytes of request line and headers are taken; of one more the limit is told."""

    def request(size: int) -> bytes:
        start, end = b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: ", b"\r\n\r\n"
        return start + b"a" * (size - len(start) - len(end)) + end

    (taken,) = answers(service.port, request(65_536))
    assert taken.status == 200
    (refused,) = answers(service.port, request(65_537))
    assert refused.status == 431
    assert "65536 bytes, the limit" in json.loads(refused.body)["description"]


def test_limits_are_settings(tmp_path: Path) -> None:
    """The operator's own are what holds."""
    settings = {"PACKTRAIL_MAX_HEADER_SIZE": "5000", "PACKTRAIL_MAX_BODY_SIZE": "1024"}
    with Service(tmp_path, settings) as service:
        (found,) = answers(service.port, get("/healthz", f"A: {'a' * 5000}"))
        assert found.status == 431
        request = get("/v3/apps/a/packages", "Content-Length: 1025", method="POST")
        (found,) = answers(service.port, request + bytes(1025))
        assert found.status == 413
        assert "1024 bytes, the limit" in json.loads(found.body)["description"]
        form = head("x", "Content-Length: 1025").replace(
            b"multipart/form-data; boundary=edge", b"application/x-www-form-urlencoded"
        )
        (found,) = answers(service.port, form + b"a" * 1025)
        assert found.status == 413


def test_an_unauthenticated_upload_is_refused_before_a_mebibyte_was_sent(service: Service) -> None:
    """1 GiB is announced, half a MiB is sent: the 401 is there, and nothing was ever staged."""
    with connected(service.port) as connection:
        connection.sendall(head("x", f"Content-Length: {GIB}", authorization="bearer nonsense"))
        connection.sendall(bytes(512 * 1024))
        status, headers, _ = answer(connection)
        assert (status, headers["connection"]) == (401, "close")
        assert service.staged_files() == []
        assert is_closed(connection)
    assert service.staged_files() == []
