"""A request's head: what is taken of it, and that taking it costs little."""

from __future__ import annotations

import time

import pytest

from adapters.http.server.head import BrokenHead, Head, check_bytes, parse_head, too_large


def head(*lines: bytes, start: bytes = b"GET /a%20b?c=d HTTP/1.1") -> Head:
    return parse_head(b"\r\n".join([start, b"Host: x", *lines, b"", b""]))


def test_a_head_has_what_a_wsgi_environment_needs() -> None:
    """Path and query stay encoded; names are in upper case; repeated headers are joined."""
    got = head(b"accept: a/b", b"Accept:  c/d \t", b"X-Empty:", b"X_Underscore: 1")
    assert (got.method, got.path, got.query, got.version) == ("GET", "/a%20b", "c=d", "1.1")
    assert got.headers == {"HOST": "x", "ACCEPT": "a/b, c/d", "X_EMPTY": ""}
    assert (got.length, got.keeps_alive) == (0, True)


def test_a_target_with_a_host_is_a_path_and_a_host() -> None:
    """The target's host wins over the header's (RFC 9112, section 3.2.2)."""
    got = head(start=b"GET http://elsewhere:81/a?b HTTP/1.1")
    assert (got.path, got.query, got.headers["HOST"]) == ("/a", "b", "elsewhere:81")
    assert head(start=b"GET https://[::1]?b HTTP/1.1").path == "/"


@pytest.mark.parametrize(
    ("version", "connection", "keeps_alive"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"close", False),
        (b"1.1", b"Keep-Alive, CLOSE", False),
        (b"1.0", b"", False),
        (b"1.0", b"keep-alive", True),
        (b"1.0", b"x, keep-alive", True),
    ],
)
def test_a_connection_outlives_a_request(
    version: bytes, connection: bytes, keeps_alive: bool
) -> None:
    """By the version, and the words of the header Connection."""
    start = b"GET / HTTP/" + version
    assert head(b"Connection: " + connection, start=start).keeps_alive is keeps_alive


def test_a_length_has_leading_zeros() -> None:
    """They are digits, too."""
    assert head(b"Content-Length: 007").length == 7


@pytest.mark.parametrize("filling", [b" ", b"\t", b"a ", b"a", b",", b"\x80"])
@pytest.mark.parametrize("end", [b"", b"b", b"\x85"])
def test_a_long_header_costs_little(filling: bytes, end: bytes) -> None:
    """64 KiB of what made a regular expression try every split: it runs in the I/O thread."""
    start = time.process_time()
    head(b"A:" + filling * (65_536 // len(filling)) + end)
    assert time.process_time() - start < 0.5  # it was 20 s


def test_what_is_shown_of_a_broken_head_is_short() -> None:
    """And in ASCII, without control characters."""
    with pytest.raises(BrokenHead) as raised:
        head(b"\xff" * 5000)
    assert len(raised.value.answer.description) < 400
    assert raised.value.answer.description.isascii() or "…" in raised.value.answer.description


def test_a_line_end_may_come_in_two_pieces() -> None:
    """A CR at the end of what there is may still be followed by its LF."""
    for split in range(1, 12):
        whole = bytearray(b"GET /\r\nA: b\r\n\r\n")
        check_bytes(whole, 0, split)
        check_bytes(whole, max(0, split - 3), len(whole))


def test_the_token_is_blamed_where_it_takes_the_room() -> None:
    """Whichever header comes last: 401 for the token, 431 for anything else."""
    token, other = b"Authorization: bearer " + b"a" * 900, b"A: b"
    for lines in ([b"GET / HTTP/1.1", token, other], [b"GET / HTTP/1.1", other, token]):
        assert too_large(b"\r\n".join(lines), 800).status == 401
    assert (
        too_large(b"GET / HTTP/1.1\r\nAuthorization: bearer a\r\nA: " + b"b" * 900, 800).status
        == 431
    )
