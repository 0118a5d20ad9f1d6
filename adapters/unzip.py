"""Unpacks what is in a zip, piece by piece: what an entry declares, and neither more nor less.

`domain.archive` has checked the records. What the data really hold is known only here.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Iterator
from typing import Protocol

from domain.errors import BitsAtFault
from domain.ports import Bits
from domain.zip_records import (
    Entry,
    check_local_header,
    decoded,
    find_directory,
    read_entries,
    shown,
    unreadable,
)

STORED, DEFLATED, BZIP2, LZMA = 0, 8, 12, 14
PIECE = 256 * 1024  # bytes read at a time
MAX_DICTIONARY = 64 << 20  # bytes of memory that LZMA data may ask for


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class Content:
    """An entry's content, to be read once, front to back."""

    def __init__(self, bits: Bits, entry: Entry) -> None:
        self.size = entry.uncompressed
        self._bits = bits
        self._entry = entry
        self._at = check_local_header(bits, entry)
        self._end = self._at + entry.compressed
        self._left = entry.uncompressed
        self._crc = 0
        self._decompressor: _Decompressor | None = None
        if entry.method == LZMA:
            self._decompressor = self._lzma()
        elif entry.method == BZIP2:
            self._decompressor = bz2.BZ2Decompressor()
        elif entry.method != STORED:
            self._decompressor = _Inflate()

    def read(self, size: int = PIECE, /) -> bytes:
        """`size` bytes, or all that are left. Raises `BitsAtFault` where the data lie."""
        pieces = []
        wanted = min(size, self._left)
        while wanted:
            piece = self._more(wanted)
            if not piece:
                raise self._fault("ends too early")
            pieces.append(piece)
            wanted -= len(piece)
            self._left -= len(piece)
            self._crc = zlib.crc32(piece, self._crc)
        if not self._left:
            self._check_end()
        return b"".join(pieces)

    def _more(self, size: int) -> bytes:
        decompressor = self._decompressor
        if decompressor is None:
            return self._input(size)
        while not decompressor.eof:
            data = self._input(PIECE) if decompressor.needs_input else b""
            if decompressor.needs_input and not data:
                return b""
            try:
                piece = decompressor.decompress(data, size)
            except (zlib.error, lzma.LZMAError, OSError, ValueError, EOFError):
                raise self._fault("can't be decompressed") from None
            if piece:
                return piece
        return b""

    def _input(self, size: int) -> bytes:
        data = self._bits.read_at(self._at, min(size, self._end - self._at))
        self._at += len(data)
        return data

    def _check_end(self) -> None:
        if self._more(1):
            raise self._fault(f"is larger than the {self.size} bytes that it declares")
        if self._crc != self._entry.crc:
            raise self._fault("has another checksum than it declares")

    def _lzma(self) -> _Decompressor:
        """LZMA in a zip begins with a version, the length of the properties, and they (5.8.8)."""
        header = self._input(9)
        if len(header) < 9 or int.from_bytes(header[2:4], "little") != 5 or header[4] >= 225:
            raise self._fault("can't be decompressed")
        properties, dictionary = header[4], int.from_bytes(header[5:9], "little")
        if min(dictionary, self.size) > MAX_DICTIONARY:
            raise self._fault(f"needs {dictionary} bytes of memory; the limit is {MAX_DICTIONARY}")
        filters = [
            {
                "id": lzma.FILTER_LZMA1,
                "dict_size": max(4096, min(dictionary, self.size)),
                "lc": properties % 9,
                "lp": properties // 9 % 5,
                "pb": properties // 45,
            }
        ]
        try:
            return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters)
        except (lzma.LZMAError, ValueError):
            raise self._fault("can't be decompressed") from None

    def _fault(self, reason: str) -> BitsAtFault:
        return unreadable(f"entry {shown(self._entry.name, self._entry.flags)} {reason}")


class _Inflate:
    """zlib's decompressor with the interface of the two others."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(-zlib.MAX_WBITS)
        self._waiting = b""

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._waiting

    def decompress(self, data: bytes, max_length: int) -> bytes:
        piece = self._inner.decompress(self._waiting + data, max_length)
        self._waiting = self._inner.unconsumed_tail
        return piece


def entries_of(bits: Bits) -> Iterator[Entry]:
    """All entries, in the directory's order. Raises `BitsAtFault`."""
    return read_entries(bits, find_directory(bits))


def name_of(entry: Entry) -> str:
    """The entry's name as text: its Unicode name, where it has one. Raises `BitsAtFault`."""
    try:
        if entry.unicode_name is not None:
            return entry.unicode_name.decode()
        return decoded(entry.name, entry.flags)
    except UnicodeDecodeError:
        raise unreadable(f"the name {shown(entry.name, entry.flags)} is no UTF-8") from None
