"""Reads a request's head as RFC 9112 has it, and no laxer.

A front server that reads a head otherwise than this one would take other bytes for the next
request. So what can be read in two ways is refused. All of it takes time in proportion to the
head's length: it runs in the I/O thread.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from adapters.http.answers import (
    INVALID_TOKEN,
    NOT_AUTHENTICATED,
    ErrorAnswer,
    unparsable,
)

MAX_HEADERS = 100
REMEMBERED_NAME = 64  # bytes of a header's name up to which it is remembered
_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Z]+) ([!-~]+) (HTTP/[0-9]\.[0-9])")
_VERSIONS = {b"HTTP/1.0": "1.0", b"HTTP/1.1": "1.1"}
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_FORBIDDEN = bytes({*range(0x20), 0x7F} - set(b"\t\r\n"))
_BROKEN = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r[^\n]|(?<!\r)\n")
_AUTHORITY = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9\-._~!$&'()*+,;=%]+)(?::[0-9]{0,5})?")
_ABSOLUTE = re.compile(r"https?://([^/?]+)(.*)", re.IGNORECASE)
_LENGTH = re.compile(r"[0-9]{1,18}")
# more than one of these, and two readers may each believe another
_SINGLE = frozenset({"HOST", "CONTENT_LENGTH", "TRANSFER_ENCODING", "CONTENT_TYPE", "EXPECT"})
# codings that exist, and are not spoken here
_CODINGS = frozenset({"gzip", "x-gzip", "deflate", "compress", "x-compress"})


class BrokenHead(Exception):
    """A head that is refused. `answer` is what its sender gets."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.answer = unparsable(reason, status)


class Head(NamedTuple):
    """A request line and headers that can be read in one way alone.

    `path` and `query` are as they were sent, percent-encoded. `headers` has upper-case names
    with underscores; values of a repeated header are joined with commas. A header whose name
    has an underscore is left out: it would be taken for the one with a hyphen. `length` is the
    body's, in bytes; None where it is chunked.
    """

    method: str
    target: str
    path: str
    query: str
    version: str
    headers: dict[str, str]
    length: int | None
    keeps_alive: bool


def check_bytes(head: bytearray, start: int, end: int) -> None:
    """Whether what there is of a head from `start` on may be part of one. Raises `BrokenHead`."""
    piece = head[start - (start > 0 and head.startswith(b"\n", start)) : end]
    ends = piece.count(b"\r\n")
    if (
        piece.count(b"\n") == ends
        and piece.count(b"\r") == ends + piece.endswith(b"\r")
        and len(piece.translate(None, _FORBIDDEN)) == len(piece)
    ):
        return  # in a tenth of the time that it takes to find what is wrong
    broken = _BROKEN.search(head, start, end)
    if broken is not None:
        found = bytes(head[broken.start() : broken.start() + 1])
        if found in (b"\r", b"\n"):
            raise BrokenHead("a line does not end with CR LF")
        raise BrokenHead(f"a control character: {_shown(found)}")


def parse_head(head: bytes) -> Head:
    """Takes a head up to its empty line, whose bytes are checked. Raises `BrokenHead`."""
    request_line, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    match = _REQUEST_LINE.fullmatch(request_line)
    if match is None:
        raise BrokenHead(f"not a method, a target and a version: {_shown(request_line)}")
    version = _VERSIONS.get(match[3])
    if version is None:
        raise BrokenHead(f"{_shown(match[3])} is not spoken here, but HTTP/1.0 and HTTP/1.1")
    headers = _fields(lines)
    method, target = match[1].decode(), match[2].decode()
    authority, path, query = _split(method, target)
    host = headers.get("HOST")
    if host is None and version == "1.1":
        raise BrokenHead("HTTP/1.1 needs the header Host")
    if host and not _AUTHORITY.fullmatch(host):
        raise BrokenHead(f"Host is {_shown_host(host)}: a name or address, and perhaps a port")
    if authority is not None:
        headers["HOST"] = authority  # RFC 9112, section 3.2.2: the target's wins
    length = _body_length(version, headers)
    return Head(
        method, target, path, query, version, headers, length, _keeps_alive(version, headers)
    )


def too_large(head: bytes, limit: int) -> ErrorAnswer:
    """The answer to a head of more than `limit` bytes.

    A token that takes all the room is a bad token.
    """
    longest = max(head.split(b"\r\n"), key=len)
    name, _, value = longest.partition(b":")
    if name.lower() == b"authorization":
        bearer = value.strip(b" \t")[:7].lower() == b"bearer "
        return INVALID_TOKEN if bearer else NOT_AUTHENTICATED
    return unparsable(f"request line and headers have more than {limit} bytes, the limit", 431)


def is_field_line(line: bytes) -> bool:
    """Whether a line is a header or trailer: a name, a colon and a value."""
    name, colon, value = line.partition(b":")
    return bool(colon and _NAME.fullmatch(name) and not _CONTROL.search(value))


def field_name(line: bytes) -> str:
    """The upper-case name, with underscores, of a line that is a field's."""
    return _name(line.partition(b":")[0])


def _name(written: bytes) -> str:
    """A field's name in upper case, with underscores; empty for what is none."""
    return written.decode().upper().replace("-", "_") if _NAME.fullmatch(written) else ""


_known_name = lru_cache(256)(_name)  # clients send the same ones again and again


def _fields(lines: list[bytes]) -> dict[str, str]:
    if len(lines) > MAX_HEADERS:
        raise BrokenHead(f"there are {len(lines)} headers, and {MAX_HEADERS} are the most", 431)
    headers: dict[str, str] = {}
    for line in lines:
        if line[:1] in (b" ", b"\t"):
            raise BrokenHead("a header goes on in a second line")
        written, colon, rest = line.partition(b":")
        name = _known_name(written) if len(written) <= REMEMBERED_NAME else _name(written)
        if not colon or not name:
            raise BrokenHead(f"not a header's name, a colon and a value: {_name_in(line)}")
        if b"_" in written:
            continue
        value = rest.strip(b" \t").decode("latin-1")
        if name not in headers:
            headers[name] = value
        elif name in _SINGLE:
            raise BrokenHead(f"the header {name.replace('_', '-').title()} is given twice")
        else:
            headers[name] += f", {value}"
    return headers


def _split(method: str, target: str) -> tuple[str | None, str, str]:
    """A target's authority, path and query (RFC 9112, section 3.2)."""
    authority = None
    rest = target
    absolute = None if target.startswith("/") else _ABSOLUTE.fullmatch(target)
    if absolute is not None:
        authority, rest = absolute[1], absolute[2]
        if not _AUTHORITY.fullmatch(authority):
            raise BrokenHead(f"the target's host is {_shown_host(authority)}")
        if not rest.startswith("/"):
            rest = f"/{rest}"
    elif not (target.startswith("/") or (target == "*" and method == "OPTIONS")):
        raise BrokenHead(f"the target is {_shown(target)}: a path, or a URL")
    if "#" in rest:
        raise BrokenHead("the target has a fragment")
    path, _, query = rest.partition("?")
    return authority, path, query


def _body_length(version: str, headers: dict[str, str]) -> int | None:
    """The body's length in bytes, None where it is chunked (RFC 9112, section 6.3)."""
    coding = headers.get("TRANSFER_ENCODING")
    declared = headers.get("CONTENT_LENGTH")
    if coding is None:
        if declared is None:
            return 0
        if not _LENGTH.fullmatch(declared):
            raise BrokenHead(f"Content-Length is {_shown(declared)}: up to 18 digits")
        return int(declared)
    if version != "1.1":
        raise BrokenHead("Transfer-Encoding needs HTTP/1.1")
    if declared is not None:
        raise BrokenHead("Content-Length and Transfer-Encoding exclude each other")
    codings = [name.strip(" \t").lower() for name in coding.split(",")]
    if codings == ["chunked"]:
        return None
    known = _CODINGS.issuperset(codings[:-1]) and codings[-1] in _CODINGS | {"chunked"}
    raise BrokenHead(
        f"Transfer-Encoding is {_shown(coding)}, and only chunked is spoken here",
        501 if known else 400,
    )


def _keeps_alive(version: str, headers: dict[str, str]) -> bool:
    """Whether the connection outlives the request; leaves the header Connection as one word."""
    if "CONNECTION" not in headers:
        return version == "1.1"
    options = {o.strip(" \t").lower() for o in headers["CONNECTION"].split(",")}
    keeps = "close" not in options and (version == "1.1" or "keep-alive" in options)
    if "close" in options:
        headers["CONNECTION"] = "close"
    elif "keep-alive" in options:
        headers["CONNECTION"] = "keep-alive"
    return keeps


def _shown(value: bytes | str) -> str:
    """What was found, short enough and plain enough for an answer."""
    text = value if isinstance(value, str) else value.decode("latin-1")
    return ascii(text if len(text) <= 60 else f"{text[:60]}…")


def _name_in(line: bytes) -> str:
    """What seems to be a broken header's name. Its value may be a token, and is not shown."""
    name, colon, _ = line.partition(b":")
    return (
        f"{_shown(name.split()[0] if name.split() else name)}…" if colon else "a line without one"
    )


def _shown_host(authority: str) -> str:
    """A host, without the user and the password that may come before it."""
    _, at, host = authority.rpartition("@")
    return f"…@{_shown(host)}" if at else _shown(host)
