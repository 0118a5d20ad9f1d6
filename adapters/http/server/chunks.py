"""Reads a chunked body (RFC 9112, section 7.1) in one pass, however small its chunks are."""

from __future__ import annotations

import re
from typing import Any

from adapters.http.answers import ErrorAnswer, unparsable
from adapters.http.server.body import SmallBody, UploadBody
from adapters.http.server.head import MAX_HEADERS, field_name, is_field_line

MAX_LINE = 1024  # bytes of a chunk's size with its extensions
MAX_TRAILERS = 16 * 1024  # bytes
# a size, and extensions that nobody here knows
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?")
# what may not come behind the body (RFC 9110, section 6.5.1): who reads it there reads otherwise
_NO_TRAILERS = frozenset(
    {"CONTENT_LENGTH", "TRANSFER_ENCODING", "HOST", "CONNECTION", "AUTHORIZATION", "CONTENT_TYPE"}
)
# what nearly all chunks begin with; the others go a slower way
_BEGINNING = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[^\x00-\x08\x0a-\x1f\x7f]{0,64})?\r\n")
_PIECE = 4096  # bytes from which a piece of a chunk is written by itself


class ChunkReceiver:
    """The receiver of a chunked body (waitress's receiver seam).

    `completed` is set behind the trailers; what breaks the coding is in `error`.
    """

    def __init__(self, body: UploadBody | SmallBody) -> None:
        self.completed = False
        self.error: ErrorAnswer | None = None
        self.coarse = False  # whether the last bytes held no small chunks, which take their time
        self._body = body
        self._left = 0  # bytes of the chunk that are still to come
        self._line = b""  # of a line that has not ended yet
        self._reads: str = "size"
        self._trailers = 0  # bytes
        self._trailer_lines = 0

    def __len__(self) -> int:
        return len(self._body)

    def getbuf(self) -> UploadBody | SmallBody:
        return self._body

    def getfile(self) -> Any:
        return self._body.getfile()

    def received(self, data: Any) -> int:
        """Takes bytes; how many of them belong to the body. Raises what the body does."""
        raw = data if isinstance(data, bytes) else bytes(data)
        view = memoryview(raw)
        small = bytearray()  # what many small chunks hold, written together
        at, end = 0, len(view)
        self.coarse = True
        while at < end and not self.completed and self.error is None:
            if self._reads == "content":
                count = min(self._left, end - at)
                if count >= _PIECE:
                    self._write(small)
                    self._body.append(view[at : at + count])
                else:
                    small += view[at : at + count]
                self._left -= count
                at += count
                if not self._left:
                    self._reads = "end"
                continue
            if self._reads == "size" and not self._line:
                first, at = at, _take_small(raw, at, small)
                self.coarse = self.coarse and at == first
                if at == end:
                    break
            at = self._read_line(raw, at)
        self._write(small)
        return at

    def _write(self, small: bytearray) -> None:
        if small:
            self._body.append(bytes(small))
            small.clear()

    def _read_line(self, raw: bytes, at: int) -> int:
        """Takes a line that begins at `at`, or what there is of it; where what follows begins."""
        limit = MAX_TRAILERS if self._reads == "trailer" else MAX_LINE
        found = raw.find(b"\n", at, at + limit + 1)
        if found < 0:
            rest = raw[at : at + limit + 1]
            self._line += rest
            if len(self._line) > limit:
                self.error = unparsable("a line of the chunked body is too long")
            return at + len(rest)
        line = self._line + raw[at : found + 1]
        self._line = b""
        if not line.endswith(b"\r\n") or len(line) > limit:
            self.error = unparsable("a line of the chunked body is broken")
        else:
            self._take_line(line[:-2])
        return found + 1

    def _take_line(self, line: bytes) -> None:
        if self._reads == "end":
            if line:
                self.error = unparsable("a chunk is longer than its size")
            self._reads = "size"
        elif self._reads == "trailer":
            self._take_trailer(line)
        else:
            match = _SIZE.fullmatch(line)
            if match is None:
                self.error = unparsable("a chunk's size is no number")
                return
            self._left = int(match[1], 16)
            self._body.check(self._left)
            self.coarse = self.coarse and not 0 < self._left < _PIECE
            self._reads = "content" if self._left else "trailer"

    def _take_trailer(self, line: bytes) -> None:
        """Trailers are read over; they must be some, and none that tell where the body ends."""
        self._trailers += len(line) + 2
        self._trailer_lines += 1
        if self._trailers > MAX_TRAILERS or self._trailer_lines > MAX_HEADERS:
            self.error = unparsable("the trailers are too long")
        elif not line:
            self.completed = True
        elif not is_field_line(line):
            self.error = unparsable("a trailer is not a name, a colon and a value")
        elif field_name(line) in _NO_TRAILERS:
            self.error = unparsable(f"{field_name(line).replace('_', '-').title()} is no trailer")


def _take_small(raw: bytes, at: int, small: bytearray) -> int:
    """Takes the small chunks from `at` on that are there whole; where what follows begins.

    There may be a hundred thousand of them in one read, and the I/O thread does nothing else
    meanwhile: so this does little.
    """
    while match := _BEGINNING.match(raw, at):
        start = match.end()
        end = start + int(match[1], 16)
        if not start < end < start + _PIECE or raw[end : end + 2] != b"\r\n":
            break
        small += raw[start:end]
        at = end + 2
    return at
