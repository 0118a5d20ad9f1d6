"""Zips that mean harm, and zips that only look like it: what becomes of each.

`CORPUS` is the table that `docs/hostile-zips.md` shows. Each case is made on the spot, by a
writer that writes what it is told, whether it is true or not.
"""

from __future__ import annotations

import bz2
import functools
import gzip
import io
import lzma
import stat
import struct
import tarfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

STORED, DEFLATED, BZIP2, LZMA = 0, 8, 12, 14
FILE, LINK, FOLDER = stat.S_IFREG | 0o644, stat.S_IFLNK | 0o777, stat.S_IFDIR | 0o755
ENCRYPTED, DESCRIPTOR, STRONG, UTF8, MASKED = 1, 1 << 3, 1 << 6, 1 << 11, 1 << 13
FULL, FULL_SHORT, FULL64 = 0xFFFFFFFF, 0xFFFF, (1 << 64) - 1
MIB = 1 << 20
ALL_IN_ZIP64 = {"here": FULL_SHORT, "entries": FULL_SHORT, "size": FULL, "offset": FULL}
READY, FAILED, STAGED = "READY", "FAILED", "STAGED"


# A writer of zips ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Item:
    """An entry. `data` are the bytes in the zip; what is None is told truly of stored data."""

    name: bytes = b"file"
    data: bytes = b"content"
    method: int = STORED
    flags: int = 0
    size: int | None = None
    crc: int | None = None
    mode: int = FILE
    extra: bytes = b""
    local_extra: bytes = b""
    local: Mapping[str, int | bytes] = field(default_factory=dict)  # what only this header says
    central: Mapping[str, int | bytes] = field(default_factory=dict)
    behind: bytes = b""  # what lies behind the data

    def told(self, own: Mapping[str, Any]) -> dict[str, Any]:
        size = len(self.data) if self.size is None else self.size
        crc = zlib.crc32(self.data) if self.crc is None else self.crc
        return {
            "name": self.name, "flags": self.flags, "method": self.method, "crc": crc,
            "compressed": len(self.data), "size": size, **own,
        }  # fmt: skip

    def local_record(self) -> bytes:
        told = self.told(self.local)
        return local_header(told, self.local_extra) + self.data + self.behind

    def central_record(self, offset: int) -> bytes:
        told = {"disk": 0, "offset": offset, "extra": self.extra, **self.told(self.central)}
        name, extra = told["name"], told["extra"]
        head = struct.pack(
            "<4s6H3L5H2L", b"PK\1\2", 0x314, 20, told["flags"], told["method"], 0, 33,
            told["crc"], told["compressed"], told["size"], len(name), len(extra),
            0, told["disk"], 0, self.mode << 16, told["offset"],
        )  # fmt: skip
        return b"".join((head, name, extra))


def local_header(told: Mapping[str, Any], extra: bytes = b"") -> bytes:
    head = struct.pack(
        "<4s5H3L2H", b"PK\3\4", 20, told["flags"], told["method"], 0, 33, told["crc"],
        told["compressed"], told["size"], len(told["name"]), len(extra),
    )  # fmt: skip
    return b"".join((head, told["name"], extra))


Told = Mapping[str, int]


def end_record(
    entries: int, size: int, offset: int, comment: bytes = b"", own: Told = MappingProxyType({})
) -> bytes:
    told = {
        "disk": 0, "start": 0, "here": entries, "entries": entries, "size": size,
        "offset": offset, "comment": len(comment), **own,
    }  # fmt: skip
    return struct.pack("<4s4H2LH", b"PK\5\6", *told.values()) + comment


def zip64_end(entries: int, size: int, offset: int, at: int, own: Told) -> bytes:
    """The zip64 end record at `at`, and its locator."""
    told = {
        "length": 44, "disk": 0, "start": 0, "here": entries, "entries": entries, "size": size,
        "offset": offset, "locator_disk": 0, "record": at, "disks": 1, **own,
    }  # fmt: skip
    record = struct.pack(
        "<4sQ2H2L4Q", b"PK\6\6", told["length"], 45, 45, told["disk"], told["start"],
        told["here"], told["entries"], told["size"], told["offset"],
    )  # fmt: skip
    locator = struct.pack("<4sLQL", b"PK\6\7", told["locator_disk"], told["record"], told["disks"])
    return record + locator


PROCFILE = Item(b"Procfile", b"web: run\n")


def archive(
    *items: Item,
    before: bytes = b"",
    stub: bytes = b"",
    gap: bytes = b"",
    behind: bytes = b"",
    comment: bytes = b"",
    end: Told | None = None,
    zip64: Told | None = None,
) -> bytes:
    """A zip of a Procfile, so that a droplet can be made of it, and of the items.

    `stub` is put in front of it and counted in no offset, `before` is; `gap` lies before the
    directory, `behind` before the end record. `end` and `zip64` are what those records say
    instead of the truth; there is a zip64 record if `zip64` is given.
    """
    body, central = bytearray(before), bytearray()
    items = (PROCFILE, *items)
    for item in items:
        central += item.central_record(len(body))
        body += item.local_record()
    body += gap
    count, size, offset = len(items), len(central), len(body)
    body += central
    own = end or {}
    if zip64 is not None:
        body += zip64_end(count, size, offset, len(body), zip64)
        own = {**ALL_IN_ZIP64, **own}
    body += behind
    return stub + bytes(body) + end_record(min(count, FULL_SHORT), size, offset, comment, own)


def extra_field(kind: int, body: bytes) -> bytes:
    return struct.pack("<2H", kind, len(body)) + body


def unicode_path(name: bytes, real: bytes) -> bytes:
    return extra_field(0x7075, b"\1" + zlib.crc32(name).to_bytes(4, "little") + real)


def zip64_field(*values: int) -> bytes:
    return extra_field(1, struct.pack(f"<{len(values)}Q", *values))


def deflated(content: bytes) -> bytes:
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush()


@functools.cache
def zeros(mebibytes: int) -> bytes:
    """So many MiB of zeros, deflated, made without deflating them all."""
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    one = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    return one * mebibytes + b"\3\0"


@functools.cache
def crc_of_zeros(mebibytes: int) -> int:
    block, crc = bytes(MIB), 0
    for _ in range(mebibytes):
        crc = zlib.crc32(block, crc)
    return crc


def lzma_of(content: bytes, dictionary: int = 1 << 23) -> bytes:
    packer = lzma.LZMACompressor(lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA1}])
    head = struct.pack("<BBHBI", 9, 4, 5, 0x5D, dictionary)
    return head + packer.compress(content) + packer.flush()


# Makers -------------------------------------------------------------------------------------


def link(name: bytes, target: bytes, **more: Any) -> Item:
    return Item(name, target, mode=LINK, **more)


def named(*names: bytes, flags: int = 0) -> Callable[[], bytes]:
    return lambda: archive(*(Item(name, flags=flags) for name in names))


def of(*items: Item, **more: Any) -> Callable[[], bytes]:
    return lambda: archive(*items, **more)


def bomb_of_zeros(mebibytes: int) -> Callable[[], bytes]:
    def make() -> bytes:
        size = mebibytes * MIB
        return archive(
            Item(b"zeros", zeros(mebibytes), DEFLATED, size=size, crc=crc_of_zeros(mebibytes))
        )

    return make


def bomb_of_many() -> bytes:
    files = [
        Item(b"zeros-%d" % number, zeros(16), DEFLATED, size=16 * MIB, crc=crc_of_zeros(16))
        for number in range(65)
    ]
    return archive(*files)


def lying_bomb(method: int, data: Callable[[], bytes]) -> Callable[[], bytes]:
    """It declares ten bytes, and their checksum; its data unpack to many MiB."""
    return lambda: archive(Item(b"bomb", data(), method, size=10, crc=zlib.crc32(bytes(10))))


def nested_bomb() -> bytes:
    """Sixteen zips of sixteen zips and so on, five deep; unpacked to the last, 1 TiB."""
    inner = archive(Item(b"zeros", zeros(1), DEFLATED, size=MIB, crc=crc_of_zeros(1)))
    for _ in range(5):
        packed = deflated(inner)
        item = Item(b"", packed, DEFLATED, size=len(inner), crc=zlib.crc32(inner))
        inner = archive(*(replace(item, name=b"%d.zip" % number) for number in range(16)))
    return inner


def with_directory(body: bytes, *records: bytes) -> bytes:
    return body + b"".join(records) + end_record(len(records), len(b"".join(records)), len(body))


def full_overlap() -> bytes:
    """A thousand entries of the directory that share one body (Fifield, 2019)."""
    item = Item(b"kernel", zeros(1), DEFLATED, size=MIB, crc=crc_of_zeros(1))
    return with_directory(item.local_record(), *[item.central_record(0)] * 1000)


def quoted_overlap() -> bytes:
    """Each body begins with a stored block that quotes the next local header (Fifield, 2019)."""
    data, content = zeros(1), bytes(MIB)
    central: list[tuple[Item, int]] = []
    for number in reversed(range(50)):
        item = Item(b"%02d" % number, data, DEFLATED, size=len(content), crc=zlib.crc32(content))
        header = local_header(item.told({}))
        central.append((item, len(header) + len(data)))
        block = struct.pack("<BHH", 0, len(header), len(header) ^ 0xFFFF)
        data, content = block + header + data, header + content
    body = data[len(block) :]
    return with_directory(
        body, *(item.central_record(len(body) - length) for item, length in reversed(central))
    )


def entry_in_entry() -> bytes:
    inner = Item(b"inner", b"x")
    outer = Item(b"outer", inner.local_record())
    at = len(local_header(outer.told({})))
    return with_directory(outer.local_record(), outer.central_record(0), inner.central_record(at))


def directory_twice() -> bytes:
    item = Item(b"twice", b"x")
    return with_directory(item.local_record(), item.central_record(0), item.central_record(0))


def reaches_into_directory() -> bytes:
    item = Item(b"long", b"x")
    told = {"compressed": 40, "size": 40}
    return archive(replace(item, local=told, central=told))


def many_entries(count: int, end: Told | None = None) -> bytes:
    """So many empty files, with what a large zip needs: a zip64 end record."""
    local, central = bytearray(), bytearray()
    head = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 33, 0, 0, 0, 8, 0)
    record = struct.pack("<4s6H3L5H", b"PK\1\2", 0x314, 20, 0, 0, 0, 33, 0, 0, 0, 8, 0, 0, 0, 0)
    mode = struct.pack("<L", FILE << 16)
    for number in range(count - 1):
        name = b"%08d" % number
        central += record + mode + len(local).to_bytes(4, "little") + name
        local += head + name
    central += PROCFILE.central_record(len(local))
    local += PROCFILE.local_record()
    place = (count, len(central), len(local))
    if end:
        return bytes(local + central) + end_record(*place, own=end)
    zip64 = zip64_end(*place, len(local) + len(central), {})
    return bytes(local + central) + zip64 + end_record(0, 0, 0, own=ALL_IN_ZIP64)


def half_million_in_one(size: int = 40 * MIB) -> bytes:
    """One stored file that is full of local headers, as one who searches for them finds."""
    header = Item(b"x", b"").local_record()
    return archive(Item(b"headers", header * (size // len(header))))


def descriptor(crc: int, compressed: int, size: int) -> bytes:
    return struct.pack("<4s3L", b"PK\7\x08", crc, compressed, size)


def streamed(item: Item, behind: bytes | None = None) -> Item:
    """The entry as one writes it who knows its size only afterwards."""
    told = item.told({})
    true = descriptor(told["crc"], told["compressed"], told["size"])
    return replace(
        item, flags=item.flags | DESCRIPTOR, local={"crc": 0, "compressed": 0, "size": 0},
        behind=true if behind is None else behind,
    )  # fmt: skip


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        entry = tarfile.TarInfo("Procfile")
        entry.size = len(PROCFILE.data)
        file.addfile(entry, io.BytesIO(PROCFILE.data))
    return buffer.getvalue()


def tangle() -> bytes:
    """Each link leads through thousands of folders, again and again."""
    links = [link(b"b%d" % number, b"a/../" * 800 + b"b%d" % (number + 1)) for number in range(38)]
    return archive(*links, *(link(b"c%d" % number, b"b0") for number in range(100)))


def deep_names_beside_a_link() -> bytes:
    """Each name is deep, and read in several ways: slashes or backslashes, recoded or not."""
    items = (Item(b"\xe9/a\\" * 1020 + b"%05d" % number, b"") for number in range(6000))
    return archive(link(b"link", b"file"), *items)


def cut_tail(count: int) -> Callable[[], bytes]:
    return lambda: archive(Item())[:-count]


# The corpus ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """What a zip ends as, a part of the sentence if it FAILED, and what is made of it if READY.

    `staged` is STAGED, or a part of the sentence with which its droplet FAILED. `note` is for
    people.
    """

    make: Callable[[], bytes]
    outcome: str
    sentence: str = ""
    staged: str = STAGED
    note: str = ""
    large: bool = False  # takes seconds to make


def failed(make: Callable[[], bytes], sentence: str, note: str = "", **more: Any) -> Case:
    return Case(make, FAILED, sentence, "", note, **more)


def ready(make: Callable[[], bytes], staged: str = STAGED, note: str = "", **more: Any) -> Case:
    return Case(make, READY, "", staged, note, **more)


OUTSIDE = "would be unpacked outside its folder"
UNREADABLE = "is not a readable zip file"
OUT = "leads outside its folder"
THROUGH = "would be unpacked through a symbolic link"
IN_THE_WAY = "is in the way of another"
NO_PLACE = "does not lie before the central directory"
E_ACUTE, E_COMBINED = "é".encode(), "e\u0301".encode()

CORPUS: dict[str, Case] = {
    # bombs
    "bomb: 2 GiB of zeros in 2 MB": failed(bomb_of_zeros(2048), "would unpack to"),
    "bomb: 65 files of 16 MiB": failed(bomb_of_many, "would unpack to"),
    "bomb: 128 MiB of zeros in 128 KB": ready(
        bomb_of_zeros(128), note="the ratio does not matter, the size does"
    ),
    "bomb: declares 10 bytes, deflated 64 MiB": ready(
        lying_bomb(DEFLATED, lambda: zeros(64)), "is larger than the 10 bytes",
        "nothing is unpacked before a droplet is made",
    ),
    "bomb: declares 10 bytes, bzip2 of 16 MiB": ready(
        lying_bomb(BZIP2, lambda: bz2.compress(bytes(16 * MIB))), "is larger than the 10 bytes"
    ),
    "bomb: declares 10 bytes, LZMA of 16 MiB": ready(
        lying_bomb(LZMA, lambda: lzma_of(bytes(16 * MIB))), "is larger than the 10 bytes"
    ),
    "bomb: declares 10 bytes, holds none": ready(
        of(Item(b"bomb", deflated(b""), DEFLATED, size=10)), "ends too early"
    ),
    "bomb: LZMA that asks for 4 GiB of memory": ready(
        of(Item(b"bomb", lzma_of(b"x", FULL), LZMA, size=1000 * MIB)), "bytes of memory"
    ),
    "bomb: zips in zips, 1 TiB in the end": ready(
        nested_bomb, note="a zip in a zip is a file; nobody here unpacks it"
    ),
    "damaged data": ready(
        of(Item(b"data", b"\xff" * 50, DEFLATED, size=50)), "can't be decompressed"
    ),
    "another checksum than declared": ready(of(Item(crc=1)), "has another checksum"),
    # entries that share bytes
    "overlap: 1000 entries of one body": failed(full_overlap, "overlaps another"),
    "overlap: bodies that quote the next header": failed(quoted_overlap, "overlaps another"),
    "overlap: an entry in another's data": failed(entry_in_entry, "overlaps another"),
    "overlap: an entry listed twice": failed(directory_twice, "overlaps another"),
    "overlap: data that reach into the directory": failed(
        reaches_into_directory, "reaches into the central directory"
    ),
    # zip64
    "zip64: correct": ready(of(Item(), zip64={})),
    "zip64: sizes of 2⁶⁴-1": failed(
        of(Item(central={"compressed": FULL, "size": FULL}, extra=zip64_field(FULL64, FULL64))),
        "would unpack to 18446744073709551",
    ),
    "zip64: packed size of 2⁶⁴-1": failed(
        of(Item(
            data=deflated(b"x"), method=DEFLATED, size=1, central={"compressed": FULL},
            extra=zip64_field(FULL64), local={"compressed": FULL, "size": FULL},
            local_extra=zip64_field(1, FULL64),
        )),
        "reaches into the central directory",
    ),
    "zip64: offset of 2⁶⁴-1": failed(
        of(Item(central={"offset": FULL}, extra=zip64_field(FULL64))), NO_PLACE
    ),
    "zip64: field beside sizes that need none": ready(
        of(Item(extra=zip64_field(FULL64, FULL64))), note="the field counts only where it must"
    ),
    "zip64: local field with another size": failed(
        of(Item(local={"compressed": FULL, "size": FULL}, local_extra=zip64_field(1, 1))),
        "has another size or checksum in its own header",
    ),
    "zip64: no field where it must be": failed(
        of(Item(central={"size": FULL})), "has no zip64 field"
    ),
    "zip64: field too short": failed(
        of(Item(central={"size": FULL}, extra=extra_field(1, b"\1\0\0\0"))), "is too short"
    ),
    "zip64: two fields": failed(
        of(
            Item(
                extra=zip64_field(7, 7) + zip64_field(9, 9),
                central={"size": FULL, "compressed": FULL},
            )
        ),
        "two extra fields of one kind",
    ),
    "zip64: field longer than there is": failed(
        of(Item(central={"size": FULL}, extra=struct.pack("<2HQ", 1, 99, 7))),
        "is longer than there is",
    ),
    "zip64: 2⁶⁴-1 entries": failed(
        of(Item(), zip64={"here": FULL64, "entries": FULL64}),
        "holds 18446744073709551615 entries",
    ),
    "zip64: fewer entries than there are": failed(
        of(Item(), zip64={"here": 1, "entries": 1}), "another length than it says"
    ),
    "zip64: more entries than there are": failed(
        of(Item(), zip64={"here": 3, "entries": 3}), "breaks off"
    ),
    "zip64: the two end records disagree": failed(
        of(Item(), zip64={}, end={"entries": 1, "here": 1}), "its two end records disagree"
    ),
    "zip64: directory of 2⁶⁴-1 bytes": failed(
        of(Item(), zip64={"size": FULL64}), "lies outside the file"
    ),
    "zip64: directory at 2⁶⁴-1": failed(
        of(Item(), zip64={"offset": FULL64}), "lies outside the file"
    ),
    "zip64: locator that points elsewhere": failed(
        of(Item(), zip64={"record": 0}), "is not where it says"
    ),
    "zip64: locator that points to itself": failed(
        lambda: _locator_loop(), "is not where it says"
    ),
    "zip64: locator that points behind the end": failed(
        of(Item(), zip64={"record": FULL64}), "is not where it says"
    ),
    "zip64: end record of another length": failed(
        of(Item(), zip64={"length": FULL64}), "another length than it says"
    ),
    "zip64: several disks": failed(of(Item(), zip64={"disks": 2}), "one part of several"),
    # counts and disks
    "fewer entries than there are": failed(
        of(Item(), end={"here": 1, "entries": 1}), "another length than it says"
    ),
    "more entries than there are": failed(of(Item(), end={"here": 3, "entries": 3}), "breaks off"),
    "65535 entries, without zip64": failed(
        of(Item(), end={"here": FULL_SHORT, "entries": FULL_SHORT}), "breaks off"
    ),
    "1,000,000 entries": failed(
        lambda: many_entries(1_000_000), "holds 1000000 entries; the limit is 250000", large=True
    ),
    "1,000,000 entries that say to be one": failed(
        lambda: many_entries(1_000_000, {"here": 1, "entries": 1}), "another length", large=True
    ),
    "250,000 entries": ready(lambda: many_entries(250_000), note="the limit", large=True),
    "a file full of local headers": ready(half_million_in_one, note="only the directory counts"),
    "one disk of several": failed(of(Item(), end={"disk": 1}), "one part of several"),
    "directory on another disk": failed(of(Item(), end={"start": 1}), "one part of several"),
    "entry on another disk": failed(of(Item(central={"disk": 1})), "one part of several"),
    # encryption and methods
    "encrypted": failed(of(Item(flags=ENCRYPTED)), "is encrypted"),
    "strongly encrypted": failed(of(Item(flags=ENCRYPTED | STRONG)), "is encrypted"),
    "encrypted by AES": failed(
        of(Item(
            flags=ENCRYPTED, method=99,
            extra=extra_field(0x9901, struct.pack("<H2sBH", 2, b"AE", 3, 0)),
        )),
        "is encrypted",
    ),
    "encrypted by AES, without the flag": failed(of(Item(method=99)), "by method 99"),
    "encrypted by one header": failed(
        of(Item(local={"flags": ENCRYPTED})), "is encrypted by only one of its headers"
    ),
    "encrypted directory": failed(of(Item(flags=MASKED)), "is encrypted"),
    "encrypted directory, by its record": failed(
        of(Item(), zip64={"length": 44 + 28}), "another length than it says"
    ),
    "packed by Deflate64": failed(of(Item(method=9)), "by method 9, which is not supported"),
    "packed by Zstandard": failed(of(Item(method=93)), "by method 93, which is not supported"),
    "packed by a method there is not": failed(of(Item(method=FULL_SHORT)), "by method 65535"),
    "stored, with two sizes": failed(of(Item(size=1000)), "yet has two sizes"),
    # names
    "name with a NUL": failed(named(b"a\0b"), "has a NUL in its name"),
    "name with backslashes": ready(named(b"a\\b"), note="taken for a folder and a file in it"),
    "name with backslashes that leads out": failed(named(b"a\\..\\..\\b"), OUTSIDE),
    "name with ..": failed(named(b"../evil"), OUTSIDE),
    "name with .. in the middle": failed(named(b"a/../../evil"), OUTSIDE),
    "name with .. that stays inside": failed(named(b"a/../b"), OUTSIDE, "tools differ: refused"),
    "absolute name": failed(named(b"/etc/evil"), OUTSIDE),
    "name with a drive": failed(named(b"C:\\evil"), OUTSIDE),
    "name with a drive, relative": failed(named(b"C:evil"), OUTSIDE),
    "name on a server": failed(named(b"\\\\server\\share\\evil"), OUTSIDE),
    "name of a device on Windows": ready(named(b"CON", b"aux.txt"), note="harmless on Linux"),
    "name with a stream of NTFS": ready(named(b"file.txt:stream"), note="harmless on Linux"),
    "empty name": failed(named(b""), "0 bytes long"),
    "name of one dot": ready(named(b"."), "has no name"),
    "name with trailing dots and blanks": ready(
        named(b"a", b"a.", b"a "), note="three names; Windows drops the ends"
    ),
    "name of 4096 bytes": ready(named(b"x" * 200 + b"/x" * 1948), "is deeper than 250 folders"),
    "name of 4097 bytes": failed(named(b"x" * 4097), "4097 bytes long; it may have 1 to 4096"),
    "name of 65535 bytes": failed(named(b"x" * 65535), "65535 bytes long"),
    "name with control characters": ready(
        named(b"a\r\nb\x1b[31m\x07"), note="shown escaped, never raw"
    ),
    "name that is not UTF-8, and says to be": failed(
        named(b"\xff\xfe", flags=UTF8), "is not valid UTF-8"
    ),
    "name that is not UTF-8": ready(named(b"\xff\xfe"), note="read as code page 437"),
    "name with an overlong slash": failed(
        named(b"..\xc0\xafevil", flags=UTF8), "is not valid UTF-8"
    ),
    "name with a surrogate": failed(named(b"\xed\xa0\x80", flags=UTF8), "is not valid UTF-8"),
    "name that only one header says to be UTF-8": ready(
        of(Item(E_ACUTE, local={"flags": UTF8})), note="the directory counts"
    ),
    "names that look alike": ready(
        named(b"paypal", "p\u0430ypal".encode(), flags=UTF8), note="two names"
    ),
    "names that turn the text around": ready(named("a\u202egpj.exe".encode(), flags=UTF8)),
    "names that look like .. and /": ready(
        named("\uff0e\uff0e\u2215evil".encode(), flags=UTF8), note="no tool takes them for those"
    ),
    "names that are one when normalized": ready(
        named(E_ACUTE, E_COMBINED, flags=UTF8), note="two names, as on Linux"
    ),
    "names that differ by case": ready(named(b"File", b"file"), note="two names, as on Linux"),
    "one name twice": ready(
        named(b"same", b"same"), IN_THE_WAY, "tools differ in which one they keep"
    ),
    "one name twice, once with ./": ready(named(b"same", b"./same"), IN_THE_WAY),
    "a file and a folder of one name": ready(named(b"same", b"same/"), IN_THE_WAY),
    "a file and a file in it": ready(named(b"same", b"same/file"), IN_THE_WAY),
    "a folder with content": ready(of(Item(b"folder/", mode=FOLDER)), note="it is left out"),
    "Unicode name that is another": ready(
        of(Item(extra=unicode_path(b"file", b"other"))), note="both names are checked"
    ),
    "Unicode name that leads out": failed(
        of(Item(extra=unicode_path(b"file", b"../evil"))), OUTSIDE
    ),
    "Unicode name for another name": ready(
        of(Item(extra=unicode_path(b"renamed", b"../evil"))), note="it does not count"
    ),
    "Unicode name in one header": failed(
        of(Item(local_extra=unicode_path(b"file", b"other"))), "another Unicode name"
    ),
    "two Unicode names": failed(
        of(Item(extra=unicode_path(b"file", b"other") + unicode_path(b"file", b"../evil"))),
        "two extra fields of one kind", "tools differ in which one they take",
    ),
    "Unicode name of 5000 bytes": failed(
        of(Item(extra=unicode_path(b"file", b"x" * 5000))), "5000 bytes long"
    ),
    # symbolic links and other kinds
    "link inside": ready(of(link(b"a/link", b"../file"), Item())),
    "link to an absolute path": failed(of(link(b"link", b"/etc/passwd")), OUT),
    "link that leads out": failed(of(link(b"a/link", b"../../evil")), OUT),
    "link that leads out on Windows": failed(of(link(b"link", b"..\\evil")), OUT),
    "links that lead out together": failed(
        of(link(b"p/q/up", b"../.."), link(b"out", b"p/q/up/../evil")), OUT
    ),
    "links that lead out together, by Unicode names with backslashes": failed(
        of(
            link(b"k", b".", extra=unicode_path(b"k", b"d\\k")),
            link(b"out", b"d/k/../.."),
            Item(b"d/file"),
        ),
        OUT,
    ),
    "link to itself": failed(of(link(b"link", b"link")), "leads through too many others"),
    "links in a circle": failed(
        of(link(b"a", b"b"), link(b"b", b"a")), "leads through too many others"
    ),
    "links in a chain of 40": ready(
        of(*(link(b"%d" % number, b"%d" % (number + 1)) for number in range(40)))
    ),
    "links in a chain of 42": failed(
        of(*(link(b"%d" % number, b"%d" % (number + 1)) for number in range(42))),
        "leads through too many others",
    ),
    "links that take too long to follow": failed(tangle, "too entangled to follow"),
    "names that take too long to look for links in": failed(
        deep_names_beside_a_link, "too many parts", large=True
    ),
    "10,001 links": failed(
        of(*(link(b"%d" % number, b"file") for number in range(10_001))),
        "more than 10000 symbolic links",
    ),
    "a file through a link": failed(of(link(b"link", b"d"), Item(b"link/file")), THROUGH),
    "a file through a link, by backslashes": failed(
        of(link(b"d/link", b"x"), Item(b"d\\link\\file")), THROUGH
    ),
    "a file through a link, by a Unicode name with backslashes": failed(
        of(
            link(b"link", b"folder"),
            Item(b"file", extra=unicode_path(b"file", b"link\\evil")),
        ),
        THROUGH,
    ),
    "a file in place of a link": failed(of(link(b"link", b"file"), Item(b"link")), THROUGH),
    "two links of one name": failed(
        of(link(b"link", b"a"), link(b"link", b"b")), "two symbolic links named"
    ),
    "link whose size comes behind it": ready(of(streamed(link(b"link", b"file")), Item())),
    "link whose size comes behind it, and leads out": failed(
        of(streamed(link(b"link", b"../evil"))), OUT
    ),
    "link whose target is a bomb": failed(
        of(link(b"link", zeros(64), method=DEFLATED, size=10)), "has no usable target"
    ),
    "link without a target": failed(of(link(b"link", b"")), "has no usable target"),
    "link that is named as a folder": failed(of(link(b"link/", b"..")), OUT),
    "hard link, by its extra field": ready(
        of(Item(extra=extra_field(0x000D, bytes(12) + b"/etc/passwd"))), note="it is a file"
    ),
    "device": failed(of(Item(b"sda", b"", mode=stat.S_IFBLK | 0o666)), "neither a file"),
    "character device": failed(of(Item(b"tty", b"", mode=stat.S_IFCHR | 0o666)), "neither a file"),
    "named pipe": failed(of(Item(b"pipe", b"", mode=stat.S_IFIFO | 0o666)), "neither a file"),
    "socket": failed(of(Item(b"socket", b"", mode=stat.S_IFSOCK | 0o666)), "neither a file"),
    "setuid": ready(of(Item(mode=stat.S_IFREG | 0o6755)), note="the droplet has it without"),
    # headers that disagree, and sizes that come behind the data
    "another name in the local header": failed(
        of(Item(local={"name": b"evil"})), "has another name in its own header"
    ),
    "another size in the local header": failed(
        of(Item(local={"size": 1})), "has another size or checksum in its own header"
    ),
    "another checksum in the local header": failed(
        of(Item(local={"crc": 1})), "has another size or checksum in its own header"
    ),
    "another method in the local header": failed(
        of(Item(local={"method": DEFLATED})), "has another method in its own header"
    ),
    "sizes behind the data": ready(of(streamed(Item()))),
    "sizes behind the data that are others": ready(
        of(streamed(Item(), descriptor(1, FULL, FULL))), note="the directory counts"
    ),
    "sizes said to be behind the data that are not": ready(
        of(streamed(Item(), b"")), note="the directory counts"
    ),
    # what lies around the entries
    "a program in front": ready(
        of(Item(), stub=b"#!/bin/sh\nexec unzip $0\n"), note="a self-extractor"
    ),
    "a program in front that is counted": ready(of(Item(), before=b"MZ" + bytes(1000))),
    "a zip in front": ready(
        of(Item(), stub=archive(Item(b"hidden"))), note="the last one counts, for every tool"
    ),
    "bytes between two entries": ready(of(Item(behind=bytes(1000)), Item(b"other"))),
    "bytes before the directory": ready(of(Item(), gap=b"PK\3\4" * 100)),
    "bytes before the end record": failed(of(Item(), behind=bytes(10)), UNREADABLE),
    "bytes behind the end": failed(lambda: archive(Item()) + b"\0", "no central directory"),
    "a zip behind the end": ready(
        lambda: archive(Item(b"hidden")) + archive(Item()), note="the last one counts"
    ),
    "comment of 65535 bytes": ready(of(Item(), comment=b"x" * 65535)),
    "comment of another length": failed(
        of(Item(), comment=b"x" * 10, end={"comment": 9}), "no central directory"
    ),
    "an end record in the comment": failed(
        of(Item(), comment=end_record(0, 0, 0)), "is the comment of another"
    ),
    "a signature in the comment": failed(of(Item(), comment=b"PK\5\6"), "second end record"),
    # what is none, or nothing
    "empty zip": ready(lambda: end_record(0, 0, 0), "needs a Procfile"),
    "zip of one empty file": ready(of(Item(data=b""))),
    "cut off by a byte": failed(cut_tail(1), "no central directory"),
    "cut off by its end record": failed(cut_tail(22), "no central directory"),
    "cut off in front": failed(lambda: archive(Item())[10:], UNREADABLE),
    "end record alone, that says more": failed(lambda: end_record(1, 46, 0), "outside the file"),
    "no byte at all": failed(lambda: b"", "no central directory"),
    "text": failed(lambda: b"this is no zip\n" * 100, "no central directory"),
    "tar": failed(tar, "no central directory"),
    "gzip": failed(lambda: gzip.compress(tar()), "no central directory"),
    "noise": failed(lambda: bytes(range(256)) * 1000, "no central directory"),
}  # fmt: skip


def _locator_loop() -> bytes:
    plain = archive(Item(), zip64={})
    return archive(Item(), zip64={"record": plain.rindex(b"PK\6\7")})


# The table of the documentation --------------------------------------------------------------


def table() -> str:
    """The corpus as a Markdown table: `python -m tests.support.hostile_zips` prints it."""
    lines = ["| zip | package | droplet | |", "|---|---|---|---|"]
    for name, case in CORPUS.items():
        package = case.outcome if case.outcome == READY else f"FAILED: … {case.sentence} …"
        droplet = case.staged
        if case.outcome == READY and droplet != STAGED:
            droplet = f"FAILED: … {droplet} …"
        lines.append(f"| {name} | {package} | {droplet} | {case.note} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
