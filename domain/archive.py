"""What a zip must be to become a package; checked without unpacking it.

Only the records are read, never an entry's data but for a symbolic link's target, which
is bounded. Whoever unpacks must enforce the real sizes: here only the declared are known.
"""

from __future__ import annotations

import re
import stat
import zlib
from array import array
from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from domain.errors import BitsAtFault
from domain.zip_records import (
    Directory,
    Entry,
    check_local_header,
    decoded,
    find_directory,
    read_entries,
    shown,
    unreadable,
)

if TYPE_CHECKING:
    from domain.ports import Bits

STORED, DEFLATED = 0, 8
METHODS = frozenset((STORED, DEFLATED, 12, 14))  # and bzip2, LZMA
MAX_NAME = 4096  # bytes
MAX_LINKS = 10_000
MAX_TARGET = 4096  # bytes
MAX_HOPS = 40  # symbolic links followed on one path, as Linux has it
_DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True)
class ArchiveLimits:
    """What a package may unpack to: bytes in all, as declared, and entries."""

    max_unpacked_size: int
    max_entries: int = 250_000


def check_archive(bits: Bits, limits: ArchiveLimits) -> None:
    """Raises `BitsAtFault` with a sentence that says what is wrong, and with which entry."""
    directory = find_directory(bits)
    if directory.entries > limits.max_entries:
        raise BitsAtFault(
            f"The package holds {directory.entries} entries; the limit is {limits.max_entries}"
        )
    starts, ends = array("Q"), array("Q")
    links: dict[str, str] = {}
    unpacked = 0
    for entry in read_entries(bits, directory):
        name = _checked_name(entry)
        _check_kind(entry)
        unpacked += entry.uncompressed
        if unpacked > limits.max_unpacked_size:
            raise BitsAtFault(
                f"The package would unpack to {unpacked} bytes or more; "
                f"the limit is {limits.max_unpacked_size}"
            )
        data = check_local_header(bits, entry)
        if data + entry.compressed > directory.offset:
            raise unreadable(f"entry {_shown(entry)} reaches into the central directory")
        starts.append(entry.offset)
        ends.append(data + entry.compressed)
        if stat.S_ISLNK(entry.mode):
            _add_link(links, name, _target(bits, entry, data), entry)
    _check_overlaps(bits, directory, starts, ends)
    if links:
        _check_links(links)
        _check_paths_through_links(bits, directory, links)


def _shown(entry: Entry) -> str:
    return shown(entry.name, entry.flags)


def _checked_name(entry: Entry) -> str:
    """The entry's name as text, if it stays inside the folder that it is unpacked into."""
    if not entry.name or len(entry.name) > MAX_NAME:
        raise BitsAtFault(
            f"The package has an entry whose name is {len(entry.name)} bytes long; "
            f"it may have 1 to {MAX_NAME}"
        )
    try:
        name = decoded(entry.name, entry.flags)
    except UnicodeDecodeError:
        raise unreadable(f"the name of entry {_shown(entry)} is not valid UTF-8") from None
    if "\0" in name:
        raise BitsAtFault(f"The package's entry {_shown(entry)} has a NUL in its name")
    parts = re.split(r"[/\\]", name)
    if not parts[0] or _DRIVE.match(name) or ".." in parts:
        raise BitsAtFault(
            f"The package's entry {_shown(entry)} would be unpacked outside its folder"
        )
    return name


def _check_kind(entry: Entry) -> None:
    if entry.encrypted:
        raise BitsAtFault(f"The package's entry {_shown(entry)} is encrypted")
    if entry.method not in METHODS:
        raise BitsAtFault(
            f"The package's entry {_shown(entry)} is compressed by method {entry.method}, "
            "which is not supported"
        )
    if entry.method == STORED and entry.compressed != entry.uncompressed:
        raise unreadable(f"entry {_shown(entry)} is not compressed, yet has two sizes")
    kind = stat.S_IFMT(entry.mode)
    if kind in (stat.S_IFBLK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK):
        raise BitsAtFault(
            f"The package's entry {_shown(entry)} is neither a file, a folder nor a link"
        )


def _check_overlaps(bits: Bits, directory: Directory, starts: array[int], ends: array[int]) -> None:
    """No two entries share bytes: that is how a small zip unpacks to a huge one."""
    order = sorted(range(len(starts)), key=starts.__getitem__)
    for before, after in pairwise(order):
        if ends[before] > starts[after]:
            for number, entry in enumerate(read_entries(bits, directory)):
                if number == after:
                    raise BitsAtFault(f"The package's entry {_shown(entry)} overlaps another")


def _target(bits: Bits, entry: Entry, data: int) -> str:
    """Where a symbolic link leads."""
    too_long = BitsAtFault(f"The package's symbolic link {_shown(entry)} has no usable target")
    if entry.uncompressed > MAX_TARGET or entry.compressed > 2 * MAX_TARGET:
        raise too_long
    raw = bits.read_at(data, entry.compressed)
    if entry.method == DEFLATED:
        try:
            raw = zlib.decompressobj(-zlib.MAX_WBITS).decompress(raw, MAX_TARGET + 1)
        except zlib.error:
            raise unreadable(f"entry {_shown(entry)} can't be decompressed") from None
    elif entry.method != STORED:
        raise too_long
    if len(raw) != entry.uncompressed:
        raise too_long
    target = raw.decode("utf-8", "surrogateescape")
    if not target or "\0" in target:
        raise too_long
    return target


def _add_link(links: dict[str, str], name: str, target: str, entry: Entry) -> None:
    path = _plain(name)
    if path in links:
        raise BitsAtFault(f"The package has two symbolic links named {_shown(entry)}")
    if len(links) == MAX_LINKS:
        raise BitsAtFault(f"The package has more than {MAX_LINKS} symbolic links")
    links[path] = target


def _plain(name: str) -> str:
    """The path without empty and `.` parts."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _check_links(links: dict[str, str]) -> None:
    """Follows every link through the others: none may lead out of the folder."""
    for path, target in links.items():
        shown_path = shown(path.encode("utf-8", "surrogateescape"), 1 << 11)
        escapes = BitsAtFault(f"The package's symbolic link {shown_path} leads outside its folder")
        if target.startswith(("/", "\\")) or _DRIVE.match(target):
            raise escapes
        where = path.split("/")[:-1]
        to_go = deque(re.split(r"[/\\]", target))
        hops = 0
        while to_go:
            part = to_go.popleft()
            if part in ("", "."):
                continue
            if part == "..":
                if not where:
                    raise escapes
                where.pop()
                continue
            where.append(part)
            next_target = links.get("/".join(where))
            if next_target is not None:
                hops += 1
                if hops > MAX_HOPS:
                    raise BitsAtFault(
                        f"The package's symbolic link {shown_path} leads through too many others"
                    )
                where.pop()
                to_go.extendleft(reversed(re.split(r"[/\\]", next_target)))


def _check_paths_through_links(bits: Bits, directory: Directory, links: dict[str, str]) -> None:
    """No other entry is unpacked over, or through, a symbolic link."""
    for entry in read_entries(bits, directory):
        parts = _plain(decoded(entry.name, entry.flags).replace("\\", "/")).split("/")
        own = len(parts) if stat.S_ISLNK(entry.mode) else len(parts) + 1
        if any("/".join(parts[:count]) in links for count in range(1, own)):
            raise BitsAtFault(
                f"The package's entry {_shown(entry)} would be unpacked through a symbolic link"
            )
