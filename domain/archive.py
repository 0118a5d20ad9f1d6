"""What a zip must be to become a package; checked without unpacking it.

Only the records are read, never an entry's data but for a symbolic link's target, which
is bounded. Whoever unpacks must enforce the real sizes: here only the declared are known.
"""

from __future__ import annotations

import operator
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
MAX_NAMES = 128 << 20  # bytes of all names together: whoever unpacks must make every folder
MAX_LINKS = 10_000
MAX_TARGET = 4096  # bytes
MAX_HOPS = 40  # symbolic links followed on one path, as Linux has it
MAX_STEPS = 1_000_000  # parts of targets read while all links are followed, to bound the time
MAX_PARTS = 25_000_000  # of names, where there are links: 100 for each of the most entries
_READINGS = 7
_DRIVE = re.compile(rb"[A-Za-z]:")
# Names that need no closer look, unless there are two dots in a row.
_USUAL_NAME = re.compile(rb"[\w.@+=~,() -][\w.@+=~,() /-]*")


@dataclass(frozen=True)
class ArchiveLimits:
    """What a package may unpack to: bytes in all, as declared, entries, and bytes of a name."""

    max_unpacked_size: int
    max_entries: int = 250_000
    max_path_length: int = 4096


@dataclass(frozen=True)
class Link:
    """A symbolic link, and where it leads."""

    entry: Entry
    target: bytes


def check_archive(bits: Bits, limits: ArchiveLimits) -> None:
    """Raises `BitsAtFault` with a sentence that says what is wrong, and with which entry."""
    directory = find_directory(bits)
    if directory.entries > limits.max_entries:
        raise BitsAtFault(
            f"The package holds {directory.entries} entries; the limit is {limits.max_entries}"
        )
    starts, ends = array("Q"), array("Q")
    links: list[Link] = []
    unpacked = names = 0
    for entry in read_entries(bits, directory):
        _check_name(entry, limits.max_path_length)
        _check_kind(entry)
        names += len(entry.name) + len(entry.unicode_name or b"")
        if names > MAX_NAMES:
            raise BitsAtFault(
                f"The names of the package's entries have more than {MAX_NAMES} bytes together"
            )
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
            if len(links) == MAX_LINKS:
                raise BitsAtFault(f"The package has more than {MAX_LINKS} symbolic links")
            links.append(Link(entry, _target(bits, entry, data)))
    _check_overlaps(bits, directory, starts, ends)
    if links:
        _check_links(links)
        _check_paths_through_links(bits, directory, links)


def _shown(entry: Entry) -> str:
    return shown(entry.name, entry.flags)


def _check_name(entry: Entry, max_length: int) -> None:
    """The name can be read, and stays inside the folder that the entry is unpacked into."""
    longest = max(len(entry.name), len(entry.unicode_name or b""))
    if not entry.name or longest > max_length:
        raise BitsAtFault(
            f"The package has an entry whose name is {longest} bytes long; "
            f"it may have 1 to {max_length}"
        )
    if entry.unicode_name is None and b".." not in entry.name and _USUAL_NAME.fullmatch(entry.name):
        return
    try:
        decoded(entry.name, entry.flags)
        (entry.unicode_name or b"").decode()
    except UnicodeDecodeError:
        raise unreadable(f"the name of entry {_shown(entry)} is not valid UTF-8") from None
    for name in (entry.name, entry.unicode_name):
        if name is None:
            continue
        if b"\0" in name:
            raise BitsAtFault(f"The package's entry {_shown(entry)} has a NUL in its name")
        parts = name.replace(b"\\", b"/").split(b"/")
        first = next((part for part in parts if part not in (b"", b".")), b"")
        if not parts[0] or b".." in parts or _DRIVE.match(first):
            raise BitsAtFault(
                f"The package's entry {_shown(entry)} would be unpacked outside its folder"
            )


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
    if all(map(operator.le, ends, starts[1:])):
        return  # in order already, as nearly every tool writes them
    order = sorted(range(len(starts)), key=starts.__getitem__)
    for before, after in pairwise(order):
        if ends[before] > starts[after]:
            for number, entry in enumerate(read_entries(bits, directory)):
                if number == after:
                    raise BitsAtFault(f"The package's entry {_shown(entry)} overlaps another")


def _target(bits: Bits, entry: Entry, data: int) -> bytes:
    unusable = BitsAtFault(f"The package's symbolic link {_shown(entry)} has no usable target")
    if entry.uncompressed > MAX_TARGET or entry.compressed > 2 * MAX_TARGET:
        raise unusable
    target = bits.read_at(data, entry.compressed)
    if entry.method == DEFLATED:
        try:
            target = zlib.decompressobj(-zlib.MAX_WBITS).decompress(target, MAX_TARGET + 1)
        except zlib.error:
            raise unreadable(f"entry {_shown(entry)} can't be decompressed") from None
    elif entry.method != STORED:
        raise unusable
    if not target or len(target) != entry.uncompressed or b"\0" in target:
        raise unusable
    return target


def _names(entry: Entry) -> tuple[bytes, ...]:
    r"""What tools take an entry's name for, in each reading.

    It is as it is, recoded, or the Unicode name where it has one; and parted by `/` alone, or by
    `\` too.
    """
    recoded = decoded(entry.name, entry.flags).encode()
    told = entry.unicode_name or recoded
    parted = told.replace(b"\\", b"/")
    return (
        entry.name, recoded, told,
        entry.name.replace(b"\\", b"/"), recoded.replace(b"\\", b"/"), parted, parted,
    )  # fmt: skip


def _targets(link: Link) -> tuple[bytes, ...]:
    """What tools take a link's target for, in each reading: in the last they part names alone."""
    parted = link.target.replace(b"\\", b"/")
    return *(link.target,) * 3, *(parted,) * 3, link.target


def _keys(path: bytes) -> list[int]:
    """A number for each folder on the way and for the path itself, equal for equal paths.

    Paths can have thousands of parts, and to compare the paths themselves would take the
    square of that. Two paths share a number as seldom as 64-bit hashes collide.
    """
    keys = [0]
    for part in path.split(b"/"):
        if part not in (b"", b"."):
            keys.append(hash((keys[-1], part)))
    return keys[1:]


def _check_links(links: list[Link]) -> None:
    """Follows every link through the others: none may lead out of the folder.

    What is harmless as one tool reads the names may lead out as another does, so this is
    done for each reading.
    """
    for number in range(_READINGS):
        targets: dict[int, bytes] = {}
        for link in links:
            place = _keys(_names(link.entry)[number])
            if not place:
                raise _escapes(link)
            if place[-1] in targets:
                raise BitsAtFault(f"The package has two symbolic links named {_shown(link.entry)}")
            targets[place[-1]] = _targets(link)[number]
        steps = 0
        for link in links:
            steps += _follow(link, _keys(_names(link.entry)[number]), targets)
            if steps > MAX_STEPS:
                raise BitsAtFault("The package's symbolic links are too entangled to follow")


def _follow(link: Link, place: list[int], targets: dict[int, bytes]) -> int:
    """Follows a link from its place to its end. Returns how many steps that took."""
    if link.target.startswith((b"/", b"\\")) or _DRIVE.match(link.target):
        raise _escapes(link)
    where = place[:-1]
    to_go = deque(targets[place[-1]].split(b"/"))
    steps = hops = 0
    while to_go:
        steps += 1
        part = to_go.popleft()
        if part in (b"", b"."):
            continue
        if part == b"..":
            if not where:
                raise _escapes(link)
            where.pop()
            continue
        key = hash((where[-1] if where else 0, part))
        if key not in targets:
            where.append(key)
            continue
        hops += 1
        if hops > MAX_HOPS:
            raise BitsAtFault(
                f"The package's symbolic link {_shown(link.entry)} leads through too many others"
            )
        to_go.extendleft(reversed(targets[key].split(b"/")))
    return steps


def _escapes(link: Link) -> BitsAtFault:
    return BitsAtFault(f"The package's symbolic link {_shown(link.entry)} leads outside its folder")


def _check_paths_through_links(bits: Bits, directory: Directory, links: list[Link]) -> None:
    """No other entry is unpacked over, or through, a symbolic link."""
    places = {_keys(name)[-1] for link in links for name in _names(link.entry)}
    parts = 0
    for entry in read_entries(bits, directory):
        for name in set(_names(entry)):
            on_the_way = _keys(name)
            parts += len(on_the_way)
            if parts > MAX_PARTS:
                raise BitsAtFault(
                    "The package's names have too many parts to look for symbolic links in them"
                )
            if stat.S_ISLNK(entry.mode):
                on_the_way.pop()
            if not places.isdisjoint(on_the_way):
                raise BitsAtFault(
                    f"The package's entry {_shown(entry)} would be unpacked through a symbolic link"
                )
