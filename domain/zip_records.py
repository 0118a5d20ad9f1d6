"""Reads the records of a zip file (APPNOTE.TXT 6.3.10) without unpacking anything."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from domain.errors import BitsAtFault

if TYPE_CHECKING:
    from domain.ports import Bits

_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_MAX_COMMENT = 0xFFFF
_ZIP64, _UNICODE_PATH = 0x0001, 0x7075  # kinds of extra fields
_USUAL_EXTRA = 36  # bytes of extra fields that are read with a local header
_MAX_SHOWN = 100  # characters
_BLOCK = 256 * 1024  # bytes of the central directory read at a time
_IN_ZIP64, _IN_ZIP64_SHORT = 0xFFFFFFFF, 0xFFFF
_ZIP64_FIELDS = ((_IN_ZIP64, 8), (_IN_ZIP64, 8), (_IN_ZIP64, 8), (_IN_ZIP64_SHORT, 4))

ENCRYPTED = 1 << 0
DESCRIPTOR_FOLLOWS = 1 << 3
STRONGLY_ENCRYPTED = 1 << 6
UTF8 = 1 << 11
MASKED_HEADERS = 1 << 13
ANY_ENCRYPTION = ENCRYPTED | STRONGLY_ENCRYPTED | MASKED_HEADERS


def unreadable(reason: str) -> BitsAtFault:
    return BitsAtFault(f"The package is not a readable zip file: {reason}")


@dataclass(frozen=True)
class Directory:
    """Where the central directory lies, in bytes, and how many entries it should have.

    `base` is the length of what was put in front of the zip (a self-extractor, say): it is
    added to every offset that the zip states.
    """

    offset: int
    size: int
    entries: int
    base: int


class Entry(NamedTuple):
    """An entry as the central directory has it. Sizes and offsets are in bytes."""

    name: bytes
    flags: int
    method: int
    crc: int
    compressed: int
    uncompressed: int
    offset: int
    mode: int  # Unix file mode, 0 where there is none
    unicode_name: bytes | None = None  # UTF-8, which some tools take instead of `name`

    @property
    def encrypted(self) -> bool:
        return bool(self.flags & ANY_ENCRYPTION)


def find_directory(bits: Bits) -> Directory:
    """Finds the central directory by the record at the end. Raises `BitsAtFault`."""
    tail_offset = max(0, bits.size - _END.size - _MAX_COMMENT)
    tail = bits.read_at(tail_offset, bits.size - tail_offset)
    at = len(tail) - _END.size
    while (at := tail.rfind(b"PK\5\6", 0, at + 4)) >= 0:
        comment = int.from_bytes(tail[at + 20 : at + 22], "little")
        if at + _END.size + comment == len(tail):
            break
        at -= 1
    if at < 0:
        raise unreadable("it has no central directory at its end")
    if b"PK\5\6" in tail[at + 4 :]:  # some tools would take that one for the end record
        raise unreadable("its comment holds a second end record")
    earlier = at
    while (earlier := tail.rfind(b"PK\5\6", 0, earlier)) >= 0:
        comment = int.from_bytes(tail[earlier + 20 : earlier + 22], "little")
        if earlier + _END.size + comment == len(tail):  # and some that one
            raise unreadable("its end record is the comment of another")
    _, disk, start_disk, here, entries, size, offset, _ = _END.unpack_from(tail, at)
    end = tail_offset + at
    record_stated = None
    zip64 = _find_zip64(bits, end)
    if zip64 is not None:
        stated = (disk, start_disk, here, entries, size, offset)
        end, record_stated, *values = zip64
        saturated = (_IN_ZIP64_SHORT,) * 4 + (_IN_ZIP64,) * 2
        for value, told, full in zip(values, stated, saturated, strict=True):
            if told not in (value, full):
                raise unreadable("its two end records disagree")
        disk, start_disk, here, entries, size, offset = values
    if disk or start_disk or here != entries:
        raise unreadable("it is one part of several")
    base = end - size - offset
    if base < 0:
        raise unreadable("its central directory lies outside the file")
    if record_stated is not None and record_stated + base != end:
        raise unreadable("its zip64 end record is not where it says")
    return Directory(offset + base, size, entries, base)


def _find_zip64(bits: Bits, end: int) -> tuple[int, ...] | None:
    """The zip64 end record; None if there is none before `end`.

    First where it begins, then where the zip says that it begins (which does not count what
    was put in front of the zip), then its disks, entries, size and offset.
    """
    at = end - _LOCATOR.size
    locator = bits.read_at(at, _LOCATOR.size) if at >= 0 else b""
    if len(locator) < _LOCATOR.size or not locator.startswith(b"PK\6\7"):
        return None
    _, disk, stated, disks = _LOCATOR.unpack(locator)
    if disk or disks > 1:
        raise unreadable("it is one part of several")
    # A longer record is only for encrypted directories. As it could hold a second record,
    # which some tools would take for the first, it is refused.
    record_at = at - _END64.size
    record = bits.read_at(record_at, _END64.size) if record_at >= 0 else b""
    if len(record) < _END64.size or not record.startswith(b"PK\6\6"):
        raise unreadable("its zip64 end record is not where it says")
    _, length, _, _, disk, start, here, entries, size, offset = _END64.unpack(record)
    if length != _END64.size - 12:
        raise unreadable("its zip64 end record has another length than it says")
    return record_at, stated, disk, start, here, entries, size, offset


def read_entries(bits: Bits, directory: Directory) -> Iterator[Entry]:
    """The entries of the central directory, in order. Raises `BitsAtFault`."""
    block, block_at = b"", directory.offset
    at, end = directory.offset, directory.offset + directory.size
    for _ in range(directory.entries):
        if at + _CENTRAL.size > block_at + len(block):
            block, block_at = bits.read_at(at, min(_BLOCK, end - at)), at
        if len(block) < at - block_at + _CENTRAL.size:
            raise unreadable("its central directory breaks off")
        fields = _CENTRAL.unpack_from(block, at - block_at)
        name_length, extra_length, comment_length = fields[10:13]
        length = _CENTRAL.size + name_length + extra_length + comment_length
        if at + length > end:
            raise unreadable("its central directory breaks off")
        if at + length > block_at + len(block):
            block, block_at = bits.read_at(at, min(max(_BLOCK, length), end - at)), at
        name_at = at - block_at + _CENTRAL.size
        name = block[name_at : name_at + name_length]
        extra = block[name_at + name_length : name_at + name_length + extra_length]
        if len(name) + len(extra) < name_length + extra_length:
            raise unreadable("its central directory breaks off")
        yield _entry(fields, name, extra, directory)
        at += length
    if at != end:
        raise unreadable("its central directory has another length than it says")


def _entry(fields: tuple[Any, ...], name: bytes, extra: bytes, directory: Directory) -> Entry:
    if fields[0] != b"PK\1\2":
        raise unreadable("its central directory holds something else than entries")
    flags, method = fields[3], fields[4]
    crc, compressed, uncompressed = fields[7:10]
    disk, external, offset = fields[13], fields[15], fields[16]
    if _IN_ZIP64 in (uncompressed, compressed, offset) or disk == _IN_ZIP64_SHORT:
        uncompressed, compressed, offset, disk = _zip64(
            extra, (uncompressed, compressed, offset, disk), shown(name, flags)
        )
    if disk:
        raise unreadable("it is one part of several")
    offset += directory.base
    if offset >= directory.offset:
        raise unreadable(f"entry {shown(name, flags)} does not lie before the central directory")
    return Entry(
        name, flags, method, crc, compressed, uncompressed, offset, external >> 16,
        _unicode_name(extra, name),
    )  # fmt: skip


def _field(extra: bytes, wanted: int) -> bytes | None:
    """The extra field of a kind.

    Raises `BitsAtFault` where it is longer than there is, or not the only one of its kind:
    some tools would take the first, and some the last.
    """
    at, found = 0, None
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == wanted:
            if at + 4 + length > len(extra):
                raise unreadable("an extra field of an entry is longer than there is")
            if found is not None:
                raise unreadable("an entry has two extra fields of one kind")
            found = extra[at + 4 : at + 4 + length]
        at += 4 + length
    return found


def _unicode_name(extra: bytes, name: bytes) -> bytes | None:
    """The name that the Info-ZIP Unicode Path field gives; it counts only for this very name."""
    field = _field(extra, _UNICODE_PATH) if extra else None
    if field is None or len(field) < 5 or field[0] != 1:
        return None
    return field[5:] if int.from_bytes(field[1:5], "little") == zlib.crc32(name) else None


def _zip64(extra: bytes, values: tuple[int, ...], name: str) -> tuple[int, ...]:
    """The values, with those that did not fit taken from the zip64 extra field.

    They are the unpacked size, the packed size, the offset and the disk, or the first of these.
    """
    field = _field(extra, _ZIP64)
    if field is None:
        raise unreadable(f"entry {name} has no zip64 field, and needs one")
    found, taken = [], 0
    for value, (full, width) in zip(values, _ZIP64_FIELDS, strict=False):
        if value == full:
            value = int.from_bytes(field[taken : taken + width], "little")
            taken += width
        found.append(value)
    if len(field) < taken:
        raise unreadable(f"the zip64 field of entry {name} is too short")
    return tuple(found)


def check_local_header(bits: Bits, entry: Entry) -> int:
    """Where the entry's data begins. Raises `BitsAtFault` where the headers disagree."""
    name_end = _LOCAL.size + len(entry.name)
    header = bits.read_at(entry.offset, name_end + _USUAL_EXTRA)
    if len(header) < _LOCAL.size or not header.startswith(b"PK\3\4"):
        raise _local_fault(entry, "is not where the central directory says")
    fields = _LOCAL.unpack_from(header)
    flags, method = fields[2], fields[3]
    crc, compressed, uncompressed, name_length, extra_length = fields[6:11]
    if header[_LOCAL.size : name_end] != entry.name or name_length != len(entry.name):
        raise _local_fault(entry, "has another name in its own header")
    extra_at = entry.offset + name_end
    extra = header[name_end : name_end + extra_length]
    if extra_length > _USUAL_EXTRA:
        extra = bits.read_at(extra_at, extra_length)
    if _unicode_name(extra, entry.name) not in (None, entry.unicode_name):
        raise _local_fault(entry, "has another Unicode name in its own header")
    if _IN_ZIP64 in (compressed, uncompressed):
        name = shown(entry.name, entry.flags)
        uncompressed, compressed = _zip64(extra, (uncompressed, compressed), name)
    stated = (crc, compressed, uncompressed)
    known = (entry.crc, entry.compressed, entry.uncompressed)
    if method != entry.method:
        raise _local_fault(entry, "has another method in its own header")
    if flags & ANY_ENCRYPTION != entry.flags & ANY_ENCRYPTION:
        raise _local_fault(entry, "is encrypted by only one of its headers")
    if stated != known:
        later = flags & DESCRIPTOR_FOLLOWS and all(
            value in (0, told) for value, told in zip(stated, known, strict=True)
        )
        if not later:
            raise _local_fault(entry, "has another size or checksum in its own header")
    return int(extra_at + extra_length)


def _local_fault(entry: Entry, reason: str) -> BitsAtFault:
    return unreadable(f"entry {shown(entry.name, entry.flags)} {reason}")


def decoded(name: bytes, flags: int) -> str:
    """An entry's name as text. Raises `UnicodeDecodeError`."""
    return name.decode("utf-8" if flags & UTF8 else "cp437")


def shown(name: bytes, flags: int) -> str:
    """An entry's name as an error shows it: quoted, printable, and not too long."""
    text = name.decode("utf-8" if flags & UTF8 else "cp437", "replace")
    quoted = repr(text[:_MAX_SHOWN])  # escapes can make it ten times as long
    return quoted if len(quoted) <= _MAX_SHOWN else f"{quoted[: _MAX_SHOWN - 4]}...{quoted[-1]}"
