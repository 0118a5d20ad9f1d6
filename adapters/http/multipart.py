"""Finds the bits in a multipart/form-data body (RFC 7578) that lies in staging.

The body is searched, not copied: the answer is where in it the bits are. Most of the search
is done while the body passes by (see `Delimiters`), and not in the file.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol
from urllib.parse import unquote

import falcon

from adapters.limits import Limits
from domain.errors import FormOverLimit, NoBitsInForm

FIELD = "bits"
MAX_PART_HEADERS = 16 * 1024  # bytes
MAX_FILE_NAME = 255  # characters
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]")
_BLOCK = 1 << 20  # bytes searched at a time
_MAX_LINE_END = 256  # bytes of padding and CRLF
_LINE_END = re.compile(rb"[ \t]{0,%d}\r\n" % (_MAX_LINE_END - 2))
_MAX_NOTED = 1000  # of what looks like a delimiter


class Body(Protocol):
    size: int

    def read_at(self, offset: int, length: int) -> bytes: ...


@dataclass(frozen=True)
class FilePart:
    """Where a file lies in the body, in bytes, and the name its sender gave it."""

    offset: int
    length: int
    file_name: str | None


@dataclass(frozen=True)
class FileStart:
    """Where a file begins in the body, in bytes, and the name that its sender gave it."""

    offset: int
    file_name: str


@lru_cache(64)
def parsed_content_type(content_type: str) -> tuple[str, Mapping[str, str]]:
    """The media type, and its parameters; asked for more than once for each upload."""
    return falcon.parse_header(content_type)


def boundary_of(content_type: str) -> bytes:
    """The boundary that a Content-Type declares. Raises `NoBitsInForm`."""
    _, parameters = parsed_content_type(content_type)
    boundary = parameters.get("boundary", "")
    if not _BOUNDARY.fullmatch(boundary):
        raise NoBitsInForm(f"the boundary {boundary[:100]!r} is not one")
    return boundary.encode("ascii")


class Delimiters:
    """Where the delimiters of a body may be, noted while its pieces pass by.

    A piece is in the processor's cache then, so that this costs less than to read the file again.
    """

    def __init__(self, boundary: bytes) -> None:
        self._line = b"\r\n--" + boundary
        self._offsets: list[int] = []
        self._end: bytes | bytearray = b""  # of the last piece: a delimiter may go on in the next
        self._passed = 0  # bytes
        self._gave_up_at: int | None = None

    @property
    def known_until(self) -> int:
        """The offset up to which each place is noted where a delimiter may begin."""
        return self._passed if self._gave_up_at is None else self._gave_up_at

    def look(self, piece: bytes | memoryview) -> None:
        """Takes note of the next bytes of the body."""
        if self._gave_up_at is None:
            data, line = _searchable(piece), self._line
            seam = self._end + data[: len(line) - 1]
            if self._note(seam, self._passed - len(self._end)):
                self._note(data, self._passed)
            self._end = data[1 - len(line) :] if len(data) >= len(line) else seam[1 - len(line) :]
        self._passed += len(piece)

    def after(self, start: int) -> Iterator[int]:
        """The noted offsets from `start` on."""
        yield from self._offsets[bisect_left(self._offsets, start) :]

    def _note(self, data: bytes | bytearray, offset: int) -> bool:
        """Whether there was room for all that is in the data."""
        if data.rfind(self._line) < 0:  # nearly always, and CPython is faster from behind
            return True
        at = data.find(self._line)
        while at >= 0:
            if len(self._offsets) == _MAX_NOTED:
                # somebody's bits are full of it: a search that knows more goes on from there
                self._gave_up_at = offset + at
                return False
            self._offsets.append(offset + at)
            at = data.find(self._line, at + 1)
        return True


def _searchable(piece: bytes | memoryview) -> bytes | bytearray:
    """What has a fast `find`: what is behind a view of all of it, else a copy of a piece."""
    if isinstance(piece, bytes):
        return piece
    behind = piece.obj
    if isinstance(behind, bytes | bytearray) and len(behind) == piece.nbytes:
        return behind
    return bytes(piece)


def find_bits(
    body: Body,
    boundary: bytes,
    max_parts: int = Limits.max_form_parts,
    seen: Delimiters | None = None,
) -> FilePart:
    """The first file part named `bits`. Raises `NoBitsInForm`, `FormOverLimit`.

    `seen`: what was noted of the body as it passed.
    """
    seen = seen or Delimiters(boundary)
    return to_its_end(_start_of_bits(body, boundary, max_parts, seen), body, boundary, seen)


def start_of_bits(beginning: Body, boundary: bytes, max_parts: int) -> FileStart | None:
    """Where the bits begin, if that much of a body tells it already."""
    try:
        return _start_of_bits(beginning, boundary, max_parts, Delimiters(boundary))
    except (NoBitsInForm, FormOverLimit):
        return None  # perhaps because more is to come


def to_its_end(start: FileStart, body: Body, boundary: bytes, seen: Delimiters) -> FilePart:
    """The file that begins there. Raises `NoBitsInForm` if it has no end."""
    end = _find_delimiter(body, b"--" + boundary, start.offset - 2, seen)
    length = max(0, end - start.offset)
    return FilePart(start.offset, length, plain_file_name(start.file_name))


def _start_of_bits(body: Body, boundary: bytes, max_parts: int, seen: Delimiters) -> FileStart:
    for number, (headers, offset) in enumerate(_parts(body, b"--" + boundary, seen)):
        if number == max_parts:
            raise FormOverLimit(
                f"The form has {max_parts + 1} parts or more; the limit is {max_parts}"
            )
        name, file_name = _disposition(headers)
        if name == FIELD and file_name is not None:
            return FileStart(offset, file_name)
    raise NoBitsInForm(f"the form has no file part named {FIELD}")


def plain_file_name(name: str) -> str | None:
    """A name that a sender gave, without folders and control characters; None if none is left."""
    last = re.split(r"[/\\]", name)[-1]
    kept = "".join(c for c in last if unicodedata.category(c)[0] != "C").strip()
    return None if kept in (".", "..") else kept[:MAX_FILE_NAME] or None


def _parts(body: Body, delimiter: bytes, seen: Delimiters) -> Iterator[tuple[bytes, int]]:
    """Each part's headers, and the offset of its content."""
    if body.read_at(0, len(delimiter)) == delimiter and _line_end(body, len(delimiter)):
        at = len(delimiter)
    else:
        at = _find_delimiter(body, delimiter, 0, seen) + len(delimiter) + 2
    while body.read_at(at, 2) != b"--":
        at += _line_end(body, at)
        # the headers' first line may be the empty one: look from the line end before it
        head = body.read_at(at - 2, MAX_PART_HEADERS)
        end = head.find(b"\r\n\r\n")
        if end < 0:
            raise NoBitsInForm(f"the headers of a part do not end within {MAX_PART_HEADERS} bytes")
        offset = at - 2 + end + 4
        yield head[2:end], offset
        at = _find_delimiter(body, delimiter, offset - 2, seen) + 2 + len(delimiter)


def _find_delimiter(body: Body, delimiter: bytes, start: int, seen: Delimiters) -> int:
    """Where the next CRLF with a delimiter behind it begins. Raises `NoBitsInForm`."""
    line = b"\r\n" + delimiter
    for at in seen.after(start):
        behind = at + len(line)
        if body.read_at(behind, 2) == b"--" or _line_end(body, behind):
            return at
    start = max(start, seen.known_until)
    # one search by `re`: data can be full of what begins like a delimiter, and is none
    wanted = re.compile(re.escape(line) + rb"(?:--|" + _LINE_END.pattern + rb")")
    while start < body.size:
        block = body.read_at(start, _BLOCK + len(line) + _MAX_LINE_END)
        found = wanted.search(block)
        if found is not None and found.start() < _BLOCK:
            return start + found.start()
        start += _BLOCK
    raise NoBitsInForm("the form breaks off before its closing boundary")


def _line_end(body: Body, at: int) -> int:
    """How long the padding and CRLF are that end a delimiter's line; 0 if they are not there."""
    match = _LINE_END.match(body.read_at(at, _MAX_LINE_END))
    return match.end() if match else 0


def _disposition(headers: bytes) -> tuple[str | None, str | None]:
    """The field's name and the file's name in a part's headers."""
    unfolded = re.sub(r"\r\n[ \t]+", " ", headers.decode("utf-8", "replace"))
    for line in unfolded.split("\r\n"):
        header, _, value = line.partition(":")
        if header.strip().lower() == "content-disposition":
            kind, parameters = falcon.parse_header(value.strip())
            if kind.lower() != "form-data":
                return None, None
            return parameters.get("name"), _file_name(parameters)
    return None, None


def _file_name(parameters: dict[str, str]) -> str | None:
    extended = parameters.get("filename*")
    if extended is not None and extended.lower().startswith("utf-8'"):
        return unquote(extended.split("'", 2)[-1], errors="replace")
    name = parameters.get("filename")
    return None if name is None else name.replace("%22", '"')
