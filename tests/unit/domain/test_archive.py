"""Which zips may become packages, and what is said of those that may not."""

from __future__ import annotations

import io
import stat
import struct
import time
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain import archive
from domain.archive import ArchiveLimits, check_archive
from domain.errors import BitsAtFault

LIMITS = ArchiveLimits(max_unpacked_size=10_000_000, max_entries=1000)


class BytesBits:
    """Bits that are in memory, and can be asked for no more than a file can."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read_at(self, offset: int, length: int) -> bytes:
        if offset < 0 or length < 0 or offset >= 1 << 63:
            raise OverflowError(f"no file has {length} bytes at {offset}")
        return self._data[offset : offset + length]

    def chunks(self) -> Iterator[memoryview]:
        yield memoryview(self._data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class Pipe(io.RawIOBase):
    """A stream that can't seek: zipfile then writes data descriptors."""

    def __init__(self) -> None:
        self.data = b""

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.data += bytes(data)
        return len(data)


def patched(data: bytes, signature: bytes, offset: int, value: bytes) -> bytes:
    at = data.index(signature) + offset
    return data[:at] + value + data[at + len(value) :]


def info(name: str, mode: int = 0) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo("x")
    entry.filename = name
    entry.create_system = 3
    entry.external_attr = mode << 16
    return entry


def zipped(*entries: tuple[str | zipfile.ZipInfo, bytes], method: int = 0) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for entry, content in entries:
            archive.writestr(entry, content, compress_type=method)
    return buffer.getvalue()


def links(*pairs: tuple[str, str | None]) -> bytes:
    """A zip with symbolic links; a pair without a target is a file."""
    return zipped(
        *(
            (info(name, stat.S_IFLNK | 0o777), target.encode())
            if target is not None
            else (name, b"content")
            for name, target in pairs
        )
    )


def fault(data: bytes, limits: ArchiveLimits = LIMITS) -> str:
    with pytest.raises(BitsAtFault) as raised:
        check_archive(BytesBits(data), limits)
    sentence = str(raised.value)
    assert sentence.startswith("The package")
    assert sentence.isprintable()
    return sentence


def streamed(*, force_zip64: bool = False) -> bytes:
    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w") as archive:
        with archive.open("streamed", "w", force_zip64=force_zip64) as entry:
            entry.write(b"hello")
        archive.writestr("a", b"hello")
        archive.writestr("b", b"hello" * 100, compress_type=zipfile.ZIP_DEFLATED)
    return pipe.data


def zip64() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, archive.open("big", "w", force_zip64=True) as f:
        f.write(b"x" * 1000)
    return buffer.getvalue()


def zip64_directory(*, told_twice: bool = False) -> bytes:
    """A zip whose end record leaves everything to the zip64 records, or repeats it."""
    data = zipped(("a", b"hello"))
    end = data.rindex(b"PK\5\6")
    _, _, _, here, entries, size, offset, _ = struct.unpack("<4s4H2LH", data[end : end + 22])
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, here, entries, size, offset)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, end, 1)
    last = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return data[:end] + record + locator + (data[end:] if told_twice else last)


def central_extra(data: bytes, extra: bytes) -> bytes:
    """The zip of one entry with an extra field in its central directory."""
    at, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    central = patched(data[at:end], b"PK\1\2", 30, struct.pack("<H", len(extra))) + extra
    last = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(central), at, 0)
    return data[:at] + central + last


def raw_zip(*entries: tuple[bytes, int, str | None]) -> bytes:
    """A zip with names and flags as given; an entry with a target is a symbolic link."""
    local = central = b""
    for name, flags, target in entries:
        content = b"content" if target is None else target.encode()
        mode = stat.S_IFREG if target is None else stat.S_IFLNK
        known = (zlib.crc32(content), len(content), len(content), len(name), 0)
        central += struct.pack(
            "<4s6H3L5H2L", b"PK\1\2", 0x314, 20, flags, 0, 0, 0, *known, 0, 0, 0,
            mode << 16, len(local),
        ) + name  # fmt: skip
        local += struct.pack("<4s5H3L2H", b"PK\3\4", 20, flags, 0, 0, 0, *known) + name + content
    count = len(entries)
    last = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(central), len(local), 0)
    return local + central + last


ONE = zipped(("name", b"hello world"))
GOOD = {
    "stored": zipped(("a", b"hello"), ("b/c", b"x" * 1000)),
    "deflated": zipped(("a", b"hello" * 100), method=zipfile.ZIP_DEFLATED),
    "with data descriptors": streamed(),
    "with data descriptors of zip64": streamed(force_zip64=True),
    "with zip64 fields": zip64(),
    "with a zip64 directory": zip64_directory(),
    "with a zip64 directory that the end record repeats": zip64_directory(told_twice=True),
    "bzip2": zipped(("a", b"hello" * 100), method=zipfile.ZIP_BZIP2),
    "LZMA": zipped(("a", b"hello" * 100), method=zipfile.ZIP_LZMA),
    "backslashes in names": zipped((info("a\\b"), b"x")),
    "with a name in code page 437": raw_zip((b"\x81.txt", 0, None)),
    "unicode names": zipped(("ünïcödé/日本", b"x")),
    "folders": zipped(("folder/", b""), ("folder/file", b"x")),
    "behind a self-extractor": b"#!/bin/sh\nexec java -jar $0\n" + zipped(("a", b"hello")),
    "zip64 behind a self-extractor": b"#!/bin/sh\n" + zip64_directory(),
    "empty": zipped(),
    "dots in names": zipped(("a..b/...", b"x"), ("./c", b"x")),
    "links inside": links(("a/link", "../b/file"), ("b/file", None), ("up", "a")),
    "chained links inside": links(("p/q/d", ".."), ("p/q/z", "d/q/../x"), ("p/x", None)),
    "a data descriptor told of by one header": patched(
        patched(ONE, b"PK\3\4", 6, b"\x08\0"), b"PK\3\4", 14, bytes(12)
    ),
}


@pytest.mark.parametrize("kind", GOOD)
def test_a_good_zip_passes(kind: str) -> None:
    """What tools commonly write is accepted."""
    check_archive(BytesBits(GOOD[kind]), LIMITS)


def test_a_comment_passes() -> None:
    """A comment at the end belongs to the zip."""
    check_archive(BytesBits(commented(b"made by hand")), LIMITS)


def commented(comment: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a", b"x")
        archive.comment = comment
    return buffer.getvalue()


def test_a_second_end_record_in_the_comment_is_refused() -> None:
    """Some tools take the last signature for the end record: they would see another zip."""
    assert "second end record" in fault(commented(b"made by PK\5\6 hand"))
    hidden = commented(b"")
    assert "second end record" in fault(commented(hidden[hidden.index(b"PK\1\2") :] + b"junk"))


def unicode_path(name: bytes, real: bytes) -> bytes:
    """The Info-ZIP Unicode Path field of an entry."""
    body = b"\1" + zlib.crc32(name).to_bytes(4, "little") + real
    return struct.pack("<2H", 0x7075, len(body)) + body


@pytest.mark.parametrize("real", [b"../../evil", b"/etc/evil", b"a/../../evil", b"C:evil"])
def test_a_unicode_name_that_leads_out_is_refused(real: bytes) -> None:
    """Some tools unpack to the name in that field, and not to the entry's own."""
    entry = info("good")
    entry.extra = unicode_path(b"good", real)
    assert "outside its folder" in fault(zipped((entry, b"x")))


def test_a_unicode_name_is_what_other_entries_meet() -> None:
    """A link under its Unicode name is not unpacked through."""
    link = info("good", stat.S_IFLNK | 0o777)
    link.extra = unicode_path(b"good", b"folder")
    assert "through a symbolic link" in fault(zipped((link, b"x"), ("folder/file", b"x")))


def test_a_unicode_name_for_an_old_name_passes() -> None:
    """What Info-ZIP writes for a name outside ASCII; one for another name counts for nothing."""
    entry = info("gr\u00fcn")
    entry.extra = unicode_path("gr\u00fcn".encode(), "gr\u00fcn".encode())
    check_archive(BytesBits(zipped((entry, b"x"))), LIMITS)
    stale = info("good")
    stale.extra = unicode_path(b"renamed", b"../evil")
    check_archive(BytesBits(zipped((stale, b"x"))), LIMITS)


def test_headers_with_two_unicode_names_are_refused() -> None:
    """The local header and the central directory must tell the same."""
    entry = info("good")
    entry.extra = unicode_path(b"good", b"nice")
    data = zipped((entry, b"x"))
    at = data.rindex(b"nice")
    assert "another Unicode name" in fault(data[:at] + b"mean" + data[at + 4 :])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK",
        b"this is no zip",
        GOOD["stored"][:-3],
        GOOD["stored"] + b"\0",
        GOOD["stored"][4:],
    ],
    ids=["empty", "two bytes", "text", "cut off", "data behind it", "beheaded"],
)
def test_what_is_no_zip_is_refused(data: bytes) -> None:
    """The sentence says that it is not readable, and why."""
    assert "not a readable zip file" in fault(data)


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../x", "a/../../b", "a/..", "..", "\\x", "..\\x", "a\\..\\b", "C:\\x", "c:/x",
     "//host/x"],
)  # fmt: skip
def test_names_that_lead_out_are_refused(name: str) -> None:
    """The sentence names the entry."""
    sentence = fault(zipped((info(name), b"x")))
    assert "outside its folder" in sentence
    assert repr(name) in sentence


def test_a_nul_in_a_name_is_refused() -> None:
    """Some tools would cut the name off there."""
    data = zipped(("a_b", b"x")).replace(b"a_b", b"a\0b")
    assert "NUL" in fault(data)


def test_an_overlong_name_is_cut_in_the_sentence() -> None:
    """A name of thousands of bytes is refused, or shown in short."""
    for character in ("x", "\x1b"):
        assert len(fault(zipped((info("../" + character * 3000), b"x")))) < 200
    assert "5000 bytes" in fault(zipped((info("x" * 5000), b"x")))


DISAGREEING = {
    "name": patched(ONE, b"PK\3\4", 30, b"eman"),
    "method": patched(ONE, b"PK\3\4", 8, b"\x08\0"),
    "checksum": patched(ONE, b"PK\3\4", 14, b"\1\2\3\4"),
    "compressed size": patched(ONE, b"PK\3\4", 18, b"\1\0\0\0"),
    "size": patched(ONE, b"PK\3\4", 22, b"\1\0\0\0"),
    "signature": patched(ONE, b"PK\3\4", 0, b"PKxx"),
    "offset": patched(ONE, b"PK\1\2", 42, b"\5\0\0\0"),
    "central signature": patched(ONE, b"PK\1\2", 0, b"PKxx"),
    "entries": patched(patched(ONE, b"PK\5\6", 8, b"\2\0"), b"PK\5\6", 10, b"\2\0"),
    "disk": patched(ONE, b"PK\5\6", 4, b"\1\0"),
    "directory size": patched(ONE, b"PK\5\6", 12, b"\xff\xff\0\0"),
    "two sizes though stored": patched(
        patched(ONE, b"PK\1\2", 24, b"\xff\0\0\0"), b"PK\3\4", 22, b"\xff\0\0\0"
    ),
    "size with a descriptor": patched(
        patched(ONE, b"PK\3\4", 6, b"\x08\0"), b"PK\3\4", 22, b"\1\0\0\0"
    ),
    "encryption": patched(ONE, b"PK\3\4", 6, b"\1\0"),
    "masked headers": patched(ONE, b"PK\3\4", 6, b"\0\x20"),
    "fewer entries": patched(
        patched(GOOD["stored"], b"PK\5\6", 8, b"\1\0"), b"PK\5\6", 10, b"\1\0"
    ),
    "entry's disk": patched(ONE, b"PK\1\2", 34, b"\1\0"),
    "entry's zip64 disk": patched(
        central_extra(ONE, struct.pack("<2HL", 1, 4, 3)), b"PK\1\2", 34, b"\xff\xff"
    ),
    "zip64 without a field": patched(ONE, b"PK\1\2", 24, b"\xff\xff\xff\xff"),
    "zip64 field too short": patched(
        central_extra(ONE, struct.pack("<2HL", 1, 4, 11)), b"PK\1\2", 24, b"\xff\xff\xff\xff"
    ),
    "zip64 field longer than there is": patched(
        central_extra(ONE, struct.pack("<2HQ", 1, 99, 11)), b"PK\1\2", 24, b"\xff\xff\xff\xff"
    ),
    "zip64 offset no file has": patched(
        central_extra(ONE, struct.pack("<2HQ", 1, 8, 2**64 - 1)), b"PK\1\2", 42, b"\xff" * 4
    ),
    "two end records": patched(zip64_directory(), b"PK\6\6", 24, struct.pack("<2Q", 2, 2)),
    "two end records that are full": patched(
        zip64_directory(told_twice=True), b"PK\6\6", 24, struct.pack("<2Q", 2, 2)
    ),
    "zip64 record's place": patched(zip64_directory(), b"PK\6\7", 8, struct.pack("<Q", 1)),
    "zip64 record's length": patched(zip64_directory(), b"PK\6\6", 4, struct.pack("<Q", 45)),
    "zip64 record's signature": patched(zip64_directory(), b"PK\6\6", 0, b"PKxx"),
    "zip64 disks": patched(zip64_directory(), b"PK\6\7", 16, b"\2\0\0\0"),
    "a name that is not UTF-8": raw_zip((b"\xff\xfe", 1 << 11, None)),
}


@pytest.mark.parametrize("what", DISAGREEING)
def test_headers_that_disagree_are_refused(what: str) -> None:
    """The central directory, the local headers and the end record must tell the same."""
    assert "not a readable zip file" in fault(DISAGREEING[what])


def test_an_empty_name_is_refused() -> None:
    """There is nothing to unpack it to."""
    assert "0 bytes long" in fault(raw_zip((b"", 0, None)))


@pytest.mark.parametrize("flags", [b"\1\0", b"\x41\0", b"\x40\0", b"\0\x20"])
def test_encrypted_entries_are_refused(flags: bytes) -> None:
    """Nobody could unpack them."""
    data = patched(patched(ONE, b"PK\3\4", 6, flags), b"PK\1\2", 8, flags)
    assert fault(data) == "The package's entry 'name' is encrypted"


def test_unknown_methods_are_refused() -> None:
    """The sentence names the method."""
    data = patched(patched(ONE, b"PK\3\4", 8, b"\x63\0"), b"PK\1\2", 10, b"\x63\0")
    assert "method 99" in fault(data)


def test_overlapping_entries_are_refused() -> None:
    """Two entries of the directory that share one local header: how flat bombs are made."""
    data = zipped(("same", b"x" * 1000))
    at, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    directory = data[at:end] * 2
    last = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 2, 2, len(directory), at, 0)
    assert "overlaps" in fault(data[:at] + directory + last)


def test_the_order_of_the_directory_is_free() -> None:
    """Only entries that share bytes overlap, in whatever order they are listed."""
    data = zipped(("a", b"hello"), ("b", b"world"))
    first, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    second = data.index(b"PK\1\2", first + 1)
    check_archive(
        BytesBits(data[:first] + data[second:end] + data[first:second] + data[end:]), LIMITS
    )


def test_an_entry_inside_another_is_refused() -> None:
    """A zip in a zip is data, and not also an entry of the outer one."""
    inner = ONE[: ONE.index(b"PK\1\2")]
    outer = zipped(("outer", inner))
    at, end = outer.index(b"PK\1\2"), outer.index(b"PK\5\6")
    central = patched(ONE[len(inner) : ONE.index(b"PK\5\6")], b"PK\1\2", 42, b"\x23\0\0\0")
    directory = central + outer[at:end]
    last = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 2, 2, len(directory), at, 0)
    assert fault(outer[:at] + directory + last) == "The package's entry 'name' overlaps another"


def test_an_entry_may_not_reach_into_the_directory() -> None:
    """Data ends before the central directory begins."""
    data = patched(ONE, b"PK\1\2", 20, struct.pack("<2L", 5000, 5000))
    data = patched(data, b"PK\3\4", 18, struct.pack("<2L", 5000, 5000))
    assert "reaches into the central directory" in fault(data)


def test_the_unpacked_size_is_limited() -> None:
    """Exactly the maximum passes; one byte more does not, and both numbers are said."""
    data = zipped(("a", b"x" * 600), ("b", b"x" * 400), method=zipfile.ZIP_DEFLATED)
    check_archive(BytesBits(data), ArchiveLimits(1000))
    sentence = fault(data, ArchiveLimits(999))
    assert "1000" in sentence and "999" in sentence


def test_the_number_of_entries_is_limited() -> None:
    """The limit passes, one more does not."""
    data = zipped(*((str(number), b"") for number in range(5)))
    check_archive(BytesBits(data), ArchiveLimits(1000, max_entries=5))
    told = patched(patched(data, b"PK\5\6", 8, b"\xff\xff"), b"PK\5\6", 10, b"\xff\xff")
    assert "holds 65535 entries" in fault(told)
    assert fault(data, ArchiveLimits(1000, max_entries=4)) == (
        "The package holds 5 entries; the limit is 4"
    )


@pytest.mark.parametrize(
    "entries",
    [
        [("link", "/etc/passwd")],
        [("link", "../x")],
        [("a/link", "../../x")],
        [("link", "C:\\x")],
        [("p/q/d", "../.."), ("p/q/z", "d/..")],
        [("a", "b"), ("b", "..")],
    ],
)
def test_links_that_lead_out_are_refused(entries: list[tuple[str, str]]) -> None:
    """Also through other links, which no look at one target alone would show."""
    assert "leads outside its folder" in fault(links(*entries))


ACUTE = "é".encode()
UTF8 = 1 << 11


@pytest.mark.parametrize(
    "entries",
    [
        [(b"c", 0, "x\\y/../..")],
        [(b"x\\y", 0, "."), (b"c", 0, "x\\y/..")],
        [(b"a\\d", 0, "."), (b"c", 0, "a/d/../..")],
        [(b"p/q/" + ACUTE, 0, "../.."), (b"p/q/z", 0, "é/..")],
        [(b"p/q/" + ACUTE, UTF8, "../.."), (b"p/q/z", 0, "é/..")],
        [(b"p/q/\x81", 0, "../.."), (b"p/q/z", 0, "ü/..")],
        [(b"./", 0, "a")],
    ],
    ids=["folder", "link name", "parted link name", "raw name", "UTF-8", "code page 437", "root"],
)
def test_links_that_lead_out_for_one_tool_are_refused(
    entries: list[tuple[bytes, int, str]],
) -> None:
    """Whether a backslash parts names, and what bytes a name is written with, is up to the tool."""
    assert "leads outside its folder" in fault(raw_zip(*entries))


@pytest.mark.parametrize(("name", "target"), [("link", ""), ("link", "a\0b"), ("link", "x" * 4097)])
def test_unusable_targets_are_refused(name: str, target: str) -> None:
    """A target is a path: not empty, without NUL, and of 4096 bytes at most."""
    assert "no usable target" in fault(links((name, target)))


def test_a_longer_target_than_declared_is_refused() -> None:
    """It is not inflated beyond what a target may be."""
    bomb = (info("link", stat.S_IFLNK | 0o777), b"x" * 1_000_000)
    data = zipped(bomb, method=zipfile.ZIP_DEFLATED)
    size = struct.pack("<L", 10)
    data = patched(patched(data, b"PK\3\4", 22, size), b"PK\1\2", 24, size)
    assert "no usable target" in fault(data)


def test_links_by_other_methods_are_refused() -> None:
    """Only stored and deflated targets are read."""
    entry = (info("link", stat.S_IFLNK | 0o777), b"a")
    assert "no usable target" in fault(zipped(entry, method=zipfile.ZIP_BZIP2))


def test_a_link_whose_data_is_damaged_is_refused() -> None:
    """Its target can't be read."""
    data = zipped((info("link", stat.S_IFLNK | 0o777), b"a" * 50), method=zipfile.ZIP_DEFLATED)
    assert "can't be decompressed" in fault(patched(data, b"PK\3\4", 34, b"\xff\xff"))


def test_the_number_of_links_is_limited() -> None:
    """10,000 pass, one more does not."""
    limits = ArchiveLimits(1_000_000)
    many = links(*((str(number), "x") for number in range(10_000)))
    check_archive(BytesBits(many), limits)
    more = links(*((str(number), "x") for number in range(10_001)))
    assert "more than 10000 symbolic links" in fault(more, limits)


def test_forty_links_may_follow_each_other() -> None:
    """As many as Linux follows; with one more it would refuse to."""
    chain = [(f"link-{number}", f"link-{number + 1}") for number in range(41)]
    check_archive(BytesBits(links(*chain)), LIMITS)
    assert "too many" in fault(links(*chain, ("link-41", "x")))


def test_links_that_take_too_long_to_follow_are_refused() -> None:
    """The time is bounded: each of these leads through thousands of folders, again and again."""
    tangle = [(f"b{number}", "a/../" * 800 + f"b{number + 1}") for number in range(38)]
    tangle += [(f"c{number}", "b0") for number in range(100)]
    assert "too entangled" in fault(links(*tangle))


def test_deep_names_beside_a_link_are_checked_in_linear_time() -> None:
    """Seen once: 2000 names of 2000 folders took 40 seconds."""
    names = [("a/" * 2000 + str(number), None) for number in range(300)]
    began = time.process_time()
    check_archive(BytesBits(links(("link", "x"), *names)), LIMITS)
    assert time.process_time() - began < 3


def test_a_deflated_link_is_followed_too() -> None:
    """A target may be compressed."""
    entry = (info("link", stat.S_IFLNK | 0o777), b"../" * 50)
    assert "leads outside" in fault(zipped(entry, method=zipfile.ZIP_DEFLATED))


def test_circular_links_are_refused() -> None:
    """They lead through too many others."""
    assert "too many" in fault(links(("a", "b"), ("b", "a")))


@pytest.mark.parametrize("name", ["d/file", "d", "./d/x", "d\\x"])
def test_nothing_is_unpacked_through_a_link(name: str) -> None:
    """Neither over a link nor beneath it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # zipfile says that the name is there twice
        data = links(("d", "e"), (name, None))
    assert "through a symbolic link" in fault(data)


@pytest.mark.parametrize(
    ("link", "name"),
    [
        ((b"a\\d", 0), (b"a/d/file", 0)),
        ((ACUTE, 0), (ACUTE + b"/file", UTF8)),
        ((b"\x81", 0), ("ü/file".encode(), UTF8)),
    ],
)
def test_nothing_is_unpacked_through_what_one_tool_takes_for_a_link(
    link: tuple[bytes, int], name: tuple[bytes, int]
) -> None:
    """The two names differ, and are the same path to some tool."""
    assert "through a symbolic link" in fault(raw_zip((*link, "x"), (*name, None)))


def test_no_link_lies_beneath_another() -> None:
    """Where it leads would depend on the order in which they are made."""
    assert "through a symbolic link" in fault(links(("d", "e/f"), ("d/l", "..")))


def test_two_links_of_one_name_are_refused() -> None:
    """Which of them counts would depend on the tool."""
    with pytest.warns(UserWarning, match="Duplicate name"):
        data = links(("d", "e"), ("d", "f"))
    assert "two symbolic links" in fault(data)


@pytest.mark.parametrize("kind", [stat.S_IFBLK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK])
def test_devices_are_refused(kind: int) -> None:
    """A package holds files, folders and links."""
    assert "neither" in fault(zipped((info("device", kind | 0o666), b"")))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(GOOD)), st.data())
def test_broken_zips_never_cause_another_error(kind: str, data: st.DataObject) -> None:
    """Whatever bytes are flipped or cut off, the zip passes or is at fault."""
    broken = bytearray(GOOD[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(broken) - 1))
        run = data.draw(st.sampled_from([1, 1, 2, 4, 8]))  # as long as a field
        broken[at : at + run] = bytes([data.draw(st.integers(0, 255))]) * run
    cut = bytes(broken[: data.draw(st.integers(0, len(broken)))])
    for candidate in (bytes(broken), cut):
        try:
            check_archive(BytesBits(candidate), LIMITS)
        except BitsAtFault as error:
            assert str(error).startswith("The package")


def test_names_have_so_many_bytes_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever unpacks makes every folder in them, and a zip may be nothing but names."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for number in range(10):
            made.writestr(f"{number:010}", b"")
    monkeypatch.setattr(archive, "MAX_NAMES", 100)
    check_archive(BytesBits(buffer.getvalue()), LIMITS)
    monkeypatch.setattr(archive, "MAX_NAMES", 99)
    with pytest.raises(BitsAtFault, match="have more than 99 bytes together"):
        check_archive(BytesBits(buffer.getvalue()), LIMITS)
