"""Request smuggling and header injection, over raw sockets.

A request hidden in another one would create a package: so it shows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count

import pytest

from tests.support.raw_http import Answer, answers, connected, is_closed
from tests.support.service import Client, Service, token
from tests.support.zips import random_zip

AUTHORIZATION = f"Authorization: bearer {token()}\r\n".encode()
CREATE = b'{"type":"bits"}'
CHUNKED = b"Transfer-Encoding: chunked"
_numbers = count(1)


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[Client]:
    """One for all: making one takes longer than most of these tests."""
    client = service.client()
    yield client
    client.close()


def create(app: str, framing: bytes, body: bytes, version: bytes = b"HTTP/1.1") -> bytes:
    """A request that creates a package, with its framing headers and its body as they are told."""
    return (
        b"POST /v3/apps/" + app.encode() + b"/packages " + version + b"\r\nHost: x\r\n"
        + AUTHORIZATION + b"Content-Type: application/json\r\n" + framing + b"\r\n\r\n" + body
    )  # fmt: skip


def hidden(app: str) -> bytes:
    return create(app, b"Content-Length: %d" % len(CREATE), CREATE)


def length_of(body: bytes) -> bytes:
    return b"Content-Length: %d" % len(body)


def packages_of(client: Client, app: str) -> int:
    page = client.http.get(f"/v3/apps/{app}/packages").json()
    total: int = page["pagination"]["total_results"]
    return total


def assert_refused(found: list[Answer]) -> None:
    """One answer at most, of the contract's form, that ends the connection."""
    assert len(found) <= 1, found
    for answer in found:
        assert answer.status in (400, 431, 501), answer
        assert set(json.loads(answer.body)) == {"code", "description", "error_code"}
        assert answer.headers["connection"] == "close"
        assert answer.headers["x-content-type-options"] == "nosniff"


# each stands beside Content-Length, so that two readers might take another one for true
CODINGS = {
    "chunked": b"Transfer-Encoding: chunked",
    "another case": b"transfer-encoding: CHUNKED",
    "tab behind the colon": b"Transfer-Encoding:\tchunked",
    "xchunked": b"Transfer-Encoding: xchunked",
    "chunked, identity": b"Transfer-Encoding: chunked, identity",
    "identity, chunked": b"Transfer-Encoding: identity, chunked",
    "chunked, chunked": b"Transfer-Encoding: chunked, chunked",
    "an empty one": b"Transfer-Encoding:",
    "a comma": b"Transfer-Encoding: ,chunked",
    "a parameter": b"Transfer-Encoding: chunked;q=1",
    "quoted": b'Transfer-Encoding: "chunked"',
    "space before the colon": b"Transfer-Encoding : chunked",
    "tab before the colon": b"Transfer-Encoding\t: chunked",
    "space before the name": b" Transfer-Encoding: chunked",
    "vertical tab": b"Transfer-Encoding: \x0bchunked",
    "vertical tab behind": b"Transfer-Encoding: chunked\x0b",
    "NUL": b"Transfer-Encoding: chunked\x00",
    "NUL in the name": b"Transfer-Encoding\x00: chunked",
    "form feed": b"Transfer-Encoding: \x0cchunked",
    "next line": b"Transfer-Encoding: \x85chunked",
    "no-break space": b"Transfer-Encoding: \xa0chunked",
    "folded": b"Transfer-Encoding:\r\n chunked",
    "folded by a tab": b"X: y\r\n\tTransfer-Encoding: chunked",
    "behind a bare LF": b"X: y\nTransfer-Encoding: chunked",
    "behind a bare CR": b"X: y\rTransfer-Encoding: chunked",
    "behind two CRs": b"X: y\r\r\nTransfer-Encoding: chunked",
    "twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "twice, the second unknown": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
    "twice, the first unknown": b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
}


@pytest.mark.parametrize("case", CODINGS)
@pytest.mark.parametrize("first", ["length", "coding"])
def test_a_length_beside_a_transfer_coding_is_refused(
    service: Service, client: Client, case: str, first: str
) -> None:
    """CL.TE, TE.CL and obfuscated codings: neither of two readings is taken."""
    app = f"coding-{next(_numbers)}"
    body = b"0\r\n\r\n" + hidden(app)
    lines = [length_of(body), CODINGS[case]]
    framing = b"\r\n".join(lines if first == "length" else lines[::-1])
    found = answers(service.port, create(app, framing, body))
    assert_refused(found)
    assert found, "there is an answer"
    assert packages_of(client, app) == 0


@pytest.mark.parametrize("case", [name for name in CODINGS if name not in list(CODINGS)[:3]])
def test_an_obfuscated_coding_alone_is_refused(service: Service, client: Client, case: str) -> None:
    """What is not plainly chunked is not taken for it, nor for a body of no length."""
    app = f"coding-{next(_numbers)}"
    found = answers(service.port, create(app, CODINGS[case], b"0\r\n\r\n" + hidden(app)))
    assert_refused(found)
    assert packages_of(client, app) == 0


def test_a_coding_under_an_underscore_is_no_coding(service: Service, client: Client) -> None:
    """Transfer_Encoding is left out, as front servers do: the length holds."""
    app = f"coding-{next(_numbers)}"
    body = b"0\r\n\r\n" + hidden(app)
    found = answers(
        service.port, create(app, b"Transfer_Encoding: chunked\r\n" + length_of(body), body)
    )
    assert [answer.status for answer in found] == [400]
    assert packages_of(client, app) == 0


LENGTHS = {
    "plus": b"Content-Length: +15",
    "minus": b"Content-Length: -15",
    "a list": b"Content-Length: 15, 15",
    "two": b"Content-Length: 15 15",
    "hexadecimal": b"Content-Length: 0xf",
    "underscore": b"Content-Length: 1_5",
    "exponent": b"Content-Length: 15e0",
    "point": b"Content-Length: 15.0",
    "empty": b"Content-Length:",
    "a word": b"Content-Length: chunked",
    "Arabic digits": "Content-Length: ١٥".encode(),
    "vertical tab": b"Content-Length: \x0b15",
    "NUL": b"Content-Length: 15\x00",
    "twenty digits": b"Content-Length: 18446744073709551631",
    "space before the colon": b"Content-Length : 15",
    "folded": b"Content-Length: 1\r\n 5",
    "twice the same": b"Content-Length: 15\r\nContent-Length: 15",
    "twice": b"Content-Length: 0\r\nContent-Length: 15",
    "twice in another case": b"content-length: 15\r\nCONTENT-LENGTH: 0",
}


@pytest.mark.parametrize("case", LENGTHS)
def test_a_length_that_is_none_is_refused(service: Service, client: Client, case: str) -> None:
    """Content-Length is digits, once."""
    app = f"length-{next(_numbers)}"
    found = answers(service.port, create(app, LENGTHS[case], CREATE + hidden(app)))
    assert_refused(found)
    assert found, "there is an answer"
    assert packages_of(client, app) == 0


CHUNKS = {
    "plus": b"+f\r\n" + CREATE + b"\r\n0\r\n\r\n",
    "minus": b"-f\r\n" + CREATE + b"\r\n0\r\n\r\n",
    "0x": b"0xf\r\n" + CREATE + b"\r\n0\r\n\r\n",
    "underscore": b"0_f\r\n" + CREATE + b"\r\n0\r\n\r\n",
    "space before": b" f\r\n" + CREATE + b"\r\n0\r\n\r\n",
    "space behind": b"f \r\n" + CREATE + b"\r\n0\r\n\r\n",
    "tab behind": b"f\t\r\n" + CREATE + b"\r\n0\r\n\r\n",
    "no size": b"\r\n" + CREATE + b"\r\n0\r\n\r\n",
    "no digit": b";f\r\n" + CREATE + b"\r\n0\r\n\r\n",
    "overflow": b"1000000000000000f\r\n" + CREATE + b"\r\n0\r\n\r\n",
    "many zeros": b"0000000000000000f\r\n" + CREATE + b"\r\n0\r\n\r\n",
    "bare LF behind the size": b"f\n" + CREATE + b"\r\n0\r\n\r\n",
    "bare CR behind the size": b"f\r" + CREATE + b"\r\n0\r\n\r\n",
    "bare LF in an extension": b"f;a\nb\r\n" + CREATE + b"\r\n0\r\n\r\n",
    "bare CR in an extension": b"f;a\rb\r\n" + CREATE + b"\r\n0\r\n\r\n",
    "NUL in an extension": b"f;a\x00\r\n" + CREATE + b"\r\n0\r\n\r\n",
    "an endless extension": b"f;" + b"a" * 2000 + b"\r\n" + CREATE + b"\r\n0\r\n\r\n",
    "bare LF behind the chunk": b"f\r\n" + CREATE + b"\n0\r\n\r\n",
    "nothing behind the chunk": b"f\r\n" + CREATE + b"0\r\n\r\n",
    "longer than its size": b"5\r\n" + CREATE + b"\r\n0\r\n\r\n",
    "bare LF at the end": b"f\r\n" + CREATE + b"\r\n0\n\n",
    "a trailer that tells a length": b"f\r\n" + CREATE + b"\r\n0\r\nContent-Length: 9\r\n\r\n",
    "a trailer that tells a coding": b"f\r\n" + CREATE + b"\r\n0\r\n" + CHUNKED + b"\r\n\r\n",
    "a trailer that is a token": b"f\r\n" + CREATE + b"\r\n0\r\n" + AUTHORIZATION + b"\r\n",
    "a trailer that is a request": b"f\r\n" + CREATE + b"\r\n0\r\nGET / HTTP/1.1\r\n\r\n",
    "a folded trailer": b"f\r\n" + CREATE + b"\r\n0\r\nA: b\r\n c\r\n\r\n",
    "a trailer with a bare LF": b"f\r\n" + CREATE + b"\r\n0\r\nA: b\nC: d\r\n\r\n",
    "a trailer with NUL": b"f\r\n" + CREATE + b"\r\n0\r\nA: \x00\r\n\r\n",
    "101 trailers": b"f\r\n" + CREATE + b"\r\n0\r\n" + b"A: b\r\n" * 101 + b"\r\n",
}


@pytest.mark.parametrize("case", CHUNKS)
def test_a_broken_chunk_is_refused(service: Service, client: Client, case: str) -> None:
    """Sizes are hexadecimal digits, lines end with CR LF, and trailers tell no framing."""
    app = f"chunk-{next(_numbers)}"
    found = answers(service.port, create(app, CHUNKED, CHUNKS[case] + hidden(app)))
    assert_refused(found)
    assert found, "there is an answer"
    assert packages_of(client, app) == 0


def test_extensions_and_trailers_that_are_some_are_read_over(
    service: Service, client: Client
) -> None:
    """They end where RFC 9112 says; what follows is the next request."""
    app = f"chunk-{next(_numbers)}"
    body = b'F ;name="value"\r\n' + CREATE + b"\r\n0;last\r\nX-Checksum: 1\r\n\r\n"
    found = answers(service.port, create(app, CHUNKED, body) + hidden(app))
    assert [answer.status for answer in found] == [201, 201]
    assert all("x-checksum" not in answer.headers for answer in found)
    assert packages_of(client, app) == 2


LINES = {
    "no version": b"GET /healthz\r\n\r\n",
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/1.2": b"GET /healthz HTTP/1.2\r\nHost: x\r\n\r\n",
    "HTTP/1.10": b"GET /healthz HTTP/1.10\r\nHost: x\r\n\r\n",
    "HTTP/01.1": b"GET /healthz HTTP/01.1\r\nHost: x\r\n\r\n",
    "http/1.1": b"GET /healthz http/1.1\r\nHost: x\r\n\r\n",
    "two spaces": b"GET  /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "a tab": b"GET\t/healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "a space at the end": b"GET /healthz HTTP/1.1 \r\nHost: x\r\n\r\n",
    "a space at the beginning": b" GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "a space in the target": b"GET /health z HTTP/1.1\r\nHost: x\r\n\r\n",
    "NUL in the target": b"GET /healthz\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
    "bytes above ASCII in the target": b"GET /health\xc3\xa4 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a fragment": b"GET /healthz#x HTTP/1.1\r\nHost: x\r\n\r\n",
    "a relative target": b"GET healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "an asterisk": b"GET * HTTP/1.1\r\nHost: x\r\n\r\n",
    "an authority": b"CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n",
    "another scheme": b"GET file:///etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
    "a user in the target": b"GET http://a@b/healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "an open bracket": b"GET http://[::1/healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "bare LFs": b"GET /healthz HTTP/1.1\nHost: x\n\n",
    "bare CRs": b"GET /healthz HTTP/1.1\rHost: x\r\r",
    "a method in lower case": b"get /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "a method with a bracket": b"G[T /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "a method with NUL": b"G\x00T /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "no Host": b"GET /healthz HTTP/1.1\r\nAccept: */*\r\n\r\n",
    "two Hosts": b"GET /healthz HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "Host with a space": b"GET /healthz HTTP/1.1\r\nHost: x y\r\n\r\n",
    "Host with a path": b"GET /healthz HTTP/1.1\r\nHost: x/y\r\n\r\n",
    "Host with a user": b"GET /healthz HTTP/1.1\r\nHost: x@y\r\n\r\n",
    "Hosts in a list": b"GET /healthz HTTP/1.1\r\nHost: x, y\r\n\r\n",
    "Host with a long port": b"GET /healthz HTTP/1.1\r\nHost: x:999999\r\n\r\n",
    "a header without a colon": b"GET /healthz HTTP/1.1\r\nHost: x\r\nabc\r\n\r\n",
    "a header without a name": b"GET /healthz HTTP/1.1\r\nHost: x\r\n: abc\r\n\r\n",
    "two content types": b"GET / HTTP/1.1\r\nHost: x\r\n" + b"Content-Type: a/b\r\n" * 2 + b"\r\n",
}  # fmt: skip


@pytest.mark.parametrize("case", LINES)
def test_a_broken_head_is_refused(service: Service, case: str) -> None:
    """400 in the contract's JSON at once, and the connection ends."""
    followed = LINES[case] + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    found = answers(service.port, followed)
    assert_refused(found)
    assert found, "there is an answer"


TARGETS = {
    "/healthz": 200,
    "http://x/healthz": 200,
    "HTTP://elsewhere:80/healthz?a=b": 200,
    "http://x": 200,
    "//healthz": 404,
    "///v3/packages": 404,
    "//v3/packages": 404,
    "/v3//packages": 404,
    "/v3/packages/": 404,
    "/v3/packages/../x": 404,
    "/v3/packages/%2e%2e%2fx": 404,
    "/v3/packages/..%2f..%2fetc%2fpasswd": 404,
    "/v3/packages/%00": 404,
    "/v3/packages/a%00b": 404,
    "/v3/packages/%ff": 404,
    "/v3/packages/%": 404,
    "/v3/packages/x%0d%0aX-Injected:%20y": 404,
    "/v3/packages/x;y": 404,
    "/%2fhealthz": 404,
    "/healthz%00": 404,
    "/HEALTHZ": 404,
    "\\healthz": 400,
    "/v3/packages?page=1%0d%0aX-Injected:%20y": 400,
    "/v3/packages?%0d%0aX-Injected:%20y": 400,
    "/v3/packages?per_page=%00": 400,
}


@pytest.mark.parametrize("target", TARGETS)
def test_odd_targets_get_a_plain_answer(service: Service, target: str) -> None:
    """Paths are matched as they were sent: nothing is resolved, decoded twice or injected."""
    request = f"GET {target} HTTP/1.1\r\nHost: x\r\n".encode() + AUTHORIZATION + b"\r\n"
    (answer,) = answers(service.port, request)
    assert answer.status == TARGETS[target]
    assert "x-injected" not in answer.headers
    assert json.loads(answer.body)


@pytest.mark.parametrize(
    "method", ["PUT", "TRACE", "OPTIONS", "PROPFIND", "PACKTRAIL", "GET_", "M-"]
)
def test_other_methods_are_unknown_requests(service: Service, method: str) -> None:
    """The contract knows no 405."""
    request = f"{method} /v3/packages HTTP/1.1\r\nHost: x\r\n".encode() + AUTHORIZATION + b"\r\n"
    (answer,) = answers(service.port, request)
    assert (answer.status, json.loads(answer.body)["code"]) == (404, 10000)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_body_where_none_is_expected_is_read_over(
    service: Service, client: Client, method: str
) -> None:
    """It is not taken for the next request."""
    app = f"body-{next(_numbers)}"
    body = hidden(app)
    target = f"/v3/packages/{client.create()}"
    found = answers(
        service.port,
        f"{method} {target} HTTP/1.1\r\nHost: x\r\n".encode() + AUTHORIZATION
        + length_of(body) + b"\r\n\r\n" + body,
    )  # fmt: skip
    assert [answer.status for answer in found] == [{"GET": 200, "DELETE": 204}[method]]
    assert packages_of(client, app) == 0


def test_a_body_that_is_cut_off_is_not_the_next_request(service: Service, client: Client) -> None:
    """413 ends the connection: what follows is thrown away."""
    app = f"body-{next(_numbers)}"
    body = bytes(100_000) + hidden(app)
    found = answers(service.port, create(app, b"Content-Length: 100000", body))
    assert [answer.status for answer in found] == [413]
    assert packages_of(client, app) == 0


def test_many_pipelined_requests_are_answered_in_order(service: Service, client: Client) -> None:
    """2,000 in one write: as many answers, in order."""
    guid = client.create()
    one = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    other = f"GET /v3/packages/{guid} HTTP/1.1\r\nHost: x\r\n".encode() + AUTHORIZATION + b"\r\n"
    found = answers(service.port, (one * 9 + other) * 200)
    assert len(found) == 2000
    assert all(("guid" in json.loads(a.body)) == (n % 10 == 9) for n, a in enumerate(found))


@pytest.mark.parametrize(
    "headers",
    [
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk",
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13",
        b"Connection: keep-alive, Host, Authorization",
        b"Proxy-Connection: close\r\nKeep-Alive: timeout=0",
    ],
)
def test_nobody_upgrades(service: Service, headers: bytes) -> None:
    """HTTP/1.1 goes on: the next request is answered as the first one is."""
    one = b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n\r\n"
    assert [answer.status for answer in answers(service.port, one * 2)] == [200, 200]


@pytest.mark.parametrize("value", [b"close", b"Close", b"keep-alive, close", b"x,\tclose"])
def test_close_among_other_words_closes(service: Service, value: bytes) -> None:
    """A client that says close gets one answer, whatever else it says."""
    one = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: " + value + b"\r\n\r\n"
    (answer,) = answers(service.port, one * 2)
    assert answer.headers["connection"] == "close"


def test_what_proxies_tell_is_not_believed(service: Service, client: Client) -> None:
    """No header changes the method, the path, the host or who asks."""
    guid = client.create()
    request = f"GET /v3/packages/{guid} HTTP/1.1\r\nHost: x\r\n".encode() + AUTHORIZATION
    told = (
        b"X-Forwarded-For: 10.9.8.7\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Proto: gopher\r\n"
        b"X-Forwarded-Port: 1\r\nX-Forwarded-Prefix: /evil\r\nForwarded: for=10.9.8.7;host=evil\r\n"
        b"X-Original-URL: /v3/apps/evil\r\nX-Rewrite-URL: /evil\r\n"
        b"X-HTTP-Method-Override: DELETE\r\n"
    )
    (plain,), (other,) = (
        answers(service.port, request + b"\r\n"),
        answers(service.port, request + told + b"\r\n"),
    )
    assert (other.status, other.body) == (plain.status, plain.body)
    assert not any("evil" in value for value in other.headers.values())
    log = service.log.read_text()
    assert "10.9.8.7" not in log


@pytest.mark.parametrize("name", [b"X-VCAP-Request-ID", b"X-Request-ID"])
@pytest.mark.parametrize("value", [b"a%0d%0aX-Injected: y", b"a b", b'"', b"\xff", b"a" * 201])
def test_request_ids_inject_nothing(service: Service, name: bytes, value: bytes) -> None:
    """An id that is not plain is left out: the answer has one of ours alone."""
    request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + name + b": " + value + b"\r\n\r\n"
    (answer,) = answers(service.port, request)
    assert len(answer.headers["x-vcap-request-id"]) == 36
    assert "x-injected" not in answer.headers


@pytest.mark.parametrize("name", [b"X-VCAP-Request-ID", b"Idempotency-Key", b"If-None-Match"])
@pytest.mark.parametrize("end", [b"\n", b"\r", b"\x00", b"\r\n "])
def test_a_header_that_breaks_its_line_is_refused(
    service: Service, client: Client, name: bytes, end: bytes
) -> None:
    """Neither what stands before the break is taken nor what stands behind it."""
    app = f"broken-{next(_numbers)}"
    line = name + b": a" + end + b"X-Injected: y\r\n"
    found = answers(service.port, create(app, line + length_of(CREATE), CREATE))
    assert_refused(found)
    assert packages_of(client, app) == 0


@pytest.mark.parametrize(
    "file_name",
    [
        b"a%0d%0aX-Injected: y.zip",
        b'a\\"; X-Injected=y.zip',
        b"a\rX-Injected: y.zip",
        b"..\\..\\a;b\xc2\x85\xe2\x80\xa8.zip",
        "\u202epiz.a".encode(),
    ],
)
def test_file_names_inject_nothing_into_a_download(
    service: Service, client: Client, file_name: bytes
) -> None:
    """The name that an uploader gave comes out encoded, on one line."""
    guid = client.create()
    body = (
        b'--edge\r\nContent-Disposition: form-data; name="bits"; filename="' + file_name
        + b'"\r\n\r\n' + random_zip(1000) + b"\r\n--edge--\r\n"
    )  # fmt: skip
    headers = {"Content-Type": "multipart/form-data; boundary=edge"}
    uploaded = client.http.post(f"/v3/packages/{guid}/upload", content=body, headers=headers)
    assert uploaded.status_code == 200
    assert client.settled(guid)["state"] == "READY"
    request = f"GET /v3/packages/{guid}/download HTTP/1.1\r\nHost: x\r\n".encode()
    (answer,) = answers(service.port, request + AUTHORIZATION + b"\r\n")
    assert answer.status == 200
    assert "x-injected" not in answer.headers
    disposition = answer.headers["content-disposition"]
    assert disposition.startswith('attachment; filename="')
    assert disposition.isascii()
    assert disposition.isprintable()
    assert disposition.count('"') == 2


def test_an_empty_line_before_a_request_is_read_over(service: Service) -> None:
    """As RFC 9112 asks of servers, for old clients; any other byte is not."""
    one = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    found = answers(service.port, one + b"\r\n\r\n" + one)
    assert [answer.status for answer in found] == [200, 200]
    assert_refused(answers(service.port, b"\n" + one))


def test_a_head_that_comes_byte_by_byte_is_the_same_head(service: Service) -> None:
    """Where the pieces end makes no difference."""
    with connected(service.port) as connection:
        for byte in b"\r\nGET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n":
            connection.sendall(bytes([byte]))
        assert connection.recv(15) == b"HTTP/1.1 200 OK"
        while connection.recv(65536):
            pass
        assert is_closed(connection)
