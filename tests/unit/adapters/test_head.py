"""A request's head: what is taken of it, and that taking it costs little."""

from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@pytest.mark.parametrize("line", [b"a" * 60, b"\x80" * 500, b""])
def test_a_head_s_bytes_are_looked_at_in_a_moment(line: bytes) -> None:
    """It is done before anything is known of who sends them, again for each that connects."""
    whole = bytearray((b"A:" + line + b"\r\n") * (60_000 // (len(line) + 4)) + b"A:\r")
    took = []
    for _ in range(10):
        start = time.thread_time()
        check_bytes(whole, 0, len(whole))
        took.append(time.thread_time() - start)
    assert min(took) < 0.001, took


@given(
    st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b"a", b"\t", b"\0", b"\x7f", b"\xff"])),
    st.integers(0, 9),
    st.integers(0, 9),
)
def test_a_byte_that_is_none_of_a_head_is_found_wherever_it_is(
    pieces: list[bytes], start: int, more: int
) -> None:
    """A CR without its LF, an LF without its CR, and what controls."""
    head = bytearray(b"".join(pieces))
    start = min(start, len(head))
    end = min(start + more, len(head))
    broken = False
    for at in range(start, end):
        byte = bytes(head[at : at + 1])
        if byte == b"\r":
            broken = broken or (at + 1 < end and head[at + 1 : at + 2] != b"\n")
        elif byte == b"\n":
            broken = broken or head[max(0, at - 1) : at] != b"\r"
        else:
            broken = broken or byte in (b"\0", b"\x7f")
    with pytest.raises(BrokenHead) if broken else contextlib.nullcontext():
        check_bytes(head, start, end)


def test_what_is_shown_of_a_broken_head_is_short() -> None:
    """And in ASCII, without control characters."""
    with pytest.raises(BrokenHead) as raised:
        head(b"\xff" * 5000)
    assert len(raised.value.answer.description) < 400
    assert raised.value.answer.description.isascii() or "…" in raised.value.answer.description


@pytest.mark.parametrize(
    ("start", "line"),
    [
        (b"GET / HTTP/1.1", b"Authorization : bearer hunter2"),
        (b"GET / HTTP/1.1", b"Authorization bearer hunter2"),
        (b"GET / HTTP/1.1", b"Authorization bearer hunter2: "),
        (b"GET / HTTP/1.1", b"A: b\r\n bearer hunter2"),
        (b"GET http://user:hunter2@host/ HTTP/1.1", b"A: b"),
        (b"GET /?token=hunter2#part HTTP/1.1", b"A: b"),
    ],
)
def test_a_secret_in_a_broken_head_is_not_repeated(start: bytes, line: bytes) -> None:
    """An answer may be logged where the request was not."""
    with pytest.raises(BrokenHead) as raised:
        head(line, start=start)
    assert "hunter2" not in raised.value.answer.description


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
