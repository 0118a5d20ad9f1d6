"""A package that means harm makes no droplet: it ends in a sentence, and costs little memory."""

from __future__ import annotations

import bz2
import io
import lzma
import stat
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapters.droplet_archive import CannotBuild, build

FILE, LINK, FOLDER = stat.S_IFREG | 0o644, stat.S_IFLNK | 0o777, stat.S_IFDIR | 0o755
MIB = 1 << 20
MEMORY = 16 * MIB  # bytes that the building of any package may take
# offsets of fields in an entry's record in the central directory
FLAGS, METHOD, CRC, COMPRESSED, SIZE, OFFSET = 8, 10, 16, 20, 24, 42
Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path) -> Refused:
    """Builds a package, with `disk` MiB of disk, and gives the sentence that it ends with."""

    def refused(package: bytes, disk: int = 4096) -> str:
        (tmp_path / "package.zip").write_bytes(package)
        droplet: dict[str, Any] = {
            "buildpack": None,
            "environment_variables": {"VCAP_APPLICATION": {"limits": {"disk": disk}}},
        }
        tracemalloc.start()
        try:
            with pytest.raises(CannotBuild) as caught:
                build(tmp_path / "package.zip", tmp_path / "droplet.tgz", droplet)
            assert tracemalloc.get_traced_memory()[1] < MEMORY
        finally:
            tracemalloc.stop()
        return str(caught.value)

    return refused


def package(*entries: tuple[str, int, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip of a Procfile and then entries with a name, a Unix mode and a content."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("Procfile", b"web: run\n", zipfile.ZIP_STORED)
        for name, mode, content in entries:
            info = zipfile.ZipInfo("x")
            info.filename = name  # as it is: the constructor would clean it
            info.create_system = 3  # Unix
            info.external_attr = mode << 16
            archive.writestr(info, content, compression)
    return buffer.getvalue()


def with_record(zipped: bytes, **fields: tuple[int, int]) -> bytes:
    """The zip with other values in the last entry's record, each `name=(offset, value)`."""
    changed = bytearray(zipped)
    start = changed.rindex(b"PK\1\2")
    for offset, value in fields.values():
        struct.pack_into("<H" if offset < CRC else "<I", changed, start + offset, value)
    return bytes(changed)


def packed(method: int, raw: bytes, size: int, crc: int) -> bytes:
    """A package whose last entry's data are `raw`, and which declares what it likes of them."""
    zipped = package(("data", FILE, raw))
    return with_record(zipped, method=(METHOD, method), size=(SIZE, size), crc=(CRC, crc))


def deflated(content: bytes) -> bytes:
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush()


def lzma_of(content: bytes) -> bytes:
    """As it is in a zip: a version, the length of the properties, and they."""
    packer = lzma.LZMACompressor(lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA1}])
    properties = struct.pack("<BI", 0x5D, 1 << 23)
    return struct.pack("<BBH", 9, 4, 5) + properties + packer.compress(content) + packer.flush()


# Names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "..", "../x", "a/../../x", "a/../x", "a/..", "/etc/passwd", "//x", "..\\x", "a\\..\\..\\x",
        "\\x", "\\\\server\\x", "C:/x", "C:\\x", "c:x", "./C:/x",
    ],
)  # fmt: skip
def test_names_that_lead_out_are_refused(refused: Refused, name: str) -> None:
    """However they are written."""
    assert "would be unpacked outside its folder" in refused(package((name, FILE, b"x")))


@pytest.mark.parametrize("kind", [LINK, FOLDER])
def test_links_and_folders_are_named_by_the_same_rule(refused: Refused, kind: int) -> None:
    """It is not files alone that may not be put elsewhere."""
    name = "../x/" if kind == FOLDER else "../x"
    content = b"" if kind == FOLDER else b"Procfile"
    assert "outside its folder" in refused(package((name, kind, content)))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["a/b", "./a/b", "a//b", "a/./b", "a\\b", ".\\a\\b"])
def test_a_name_that_is_there_twice_is_refused(refused: Refused, name: str) -> None:
    """However it is written the second time."""
    twice = package(("a/b", FILE, b"1"), (name, FILE, b"2"))
    assert "in the way of another" in refused(twice)


@pytest.mark.parametrize(
    "entries",
    [
        [("a/", FOLDER, b""), ("a", FILE, b"x")],
        [("a", FILE, b"x"), ("a/", FOLDER, b"")],
        [("a", FILE, b"x"), ("a/b", FILE, b"x")],
        [("a/b", FILE, b"x"), ("a", FILE, b"x")],
    ],
    ids=["folder, file", "file, folder", "file, file in it", "file in it, file"],
)
def test_nothing_is_a_file_and_a_folder(
    refused: Refused, entries: list[tuple[str, int, bytes]]
) -> None:
    """Nobody could unpack that."""
    assert "'a" in refused(package(*entries))


@pytest.mark.parametrize("name", [".", "/", "", "\0x"], ids=repr)
@pytest.mark.parametrize("kind", [FILE, LINK], ids=["file", "link"])
def test_an_entry_without_a_name_is_refused(refused: Refused, name: str, kind: int) -> None:
    """It would be put where the app's folder is."""
    assert refused(package((name, kind, b"Procfile")))


def test_a_name_that_is_not_text_is_refused(refused: Refused) -> None:
    """It says of itself that it is UTF-8, and is not."""
    broken = package(("näme", FILE, b"x")).replace("näme".encode(), b"n\xff\xffme")
    assert "not valid UTF-8" in refused(broken)


# Links --------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "entries",
    [
        [("l", LINK, b"d"), ("l/x", FILE, b"x")],
        [("l", LINK, b"d"), ("l/y/x", FILE, b"x")],
        [("l", LINK, b"d"), ("l", FILE, b"x")],
        [("l", LINK, b"d"), ("l/", FOLDER, b"")],
        [("l", LINK, b"d"), ("l", LINK, b"e")],
        [("d/l", LINK, b"x"), ("d\\l\\x", FILE, b"x")],
        [("l/x", FILE, b"x"), ("l", LINK, b"d")],
    ],
    ids=["in it", "below it", "over it", "a folder", "a link", "backslashes", "the link is last"],
)
def test_entries_through_a_link_are_refused(
    refused: Refused, entries: list[tuple[str, int, bytes]]
) -> None:
    """They would be put where it leads, whichever comes first."""
    assert "'" in refused(package(*entries))


@pytest.mark.parametrize(
    "target",
    ["..", "../x", "a/../../x", "/etc/passwd", "/", "//etc/passwd", "//", "./..", "x/../.."],
)
def test_links_that_lead_out_are_refused(refused: Refused, target: str) -> None:
    """Absolute or not, however they are written."""
    assert "'l' leads outside its folder" in refused(package(("l", LINK, target.encode())))


def test_a_link_deep_inside_may_not_climb_too_far(refused: Refused) -> None:
    """As far as its own depth, and no further."""
    assert "outside" in refused(package(("a/b/l", LINK, b"../../../x")))


def test_links_that_lead_out_together_are_refused(refused: Refused) -> None:
    """Each alone stays inside: one leads up, and another through it further up."""
    pair = package(("d/up", LINK, b".."), ("out", LINK, b"d/up/../../etc/passwd"))
    assert "outside its folder" in refused(pair)


@pytest.mark.parametrize("target", [b"", b"x" * 4097, b"a\0b"], ids=["none", "long", "NUL"])
def test_a_link_needs_a_usable_target(refused: Refused, target: bytes) -> None:
    """Nobody could make it."""
    assert "'l' has no usable target" in refused(package(("l", LINK, target)))


# Data that are not what they say -------------------------------------------------------------

TEN = b"0123456789"
TEXT = TEN * 1000
METHODS = {"stored": (0, TEXT), "deflated": (8, deflated(TEXT)), "bzip2": (12, bz2.compress(TEXT)),
           "LZMA": (14, lzma_of(TEXT))}  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("crc", [TEXT, TEN], ids=["of all", "of what is declared"])
def test_more_than_is_declared_is_refused(refused: Refused, method: str, crc: bytes) -> None:
    """Also where the checksum is that of the declared part: else the rest would be lost."""
    number, raw = METHODS[method]
    assert refused(packed(number, raw, len(TEN), zlib.crc32(crc)))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [len(TEXT) + 1, 3_000_000_000])
def test_less_than_is_declared_is_refused(refused: Refused, method: str, size: int) -> None:
    """The checksum is right; no tar can be made of what does not come."""
    number, raw = METHODS[method]
    assert refused(packed(number, raw, size, zlib.crc32(TEXT)))


@pytest.mark.parametrize("method", METHODS)
def test_damaged_data_are_refused(refused: Refused, method: str) -> None:
    """Whatever the library says of them, which differs by the way they are compressed."""
    number, raw = METHODS[method]
    damaged = raw[:20] + bytes(byte ^ 0x5A for byte in raw[20:40]) + raw[40:]
    assert refused(packed(number, damaged, len(TEXT), zlib.crc32(TEXT)))


@pytest.mark.parametrize("flags", [0x1, 0x1 | 0x40])
def test_encrypted_entries_are_refused(refused: Refused, flags: int) -> None:
    """This builder has no password."""
    assert "encrypt" in refused(with_record(package(("x", FILE, b"x")), flags=(FLAGS, flags)))


def test_an_unknown_compression_is_refused(refused: Refused) -> None:
    """As what it is: nothing that can be waited for."""
    unknown = with_record(package(("x", FILE, b"x")), method=(METHOD, 97))
    assert "not supported" in refused(unknown)


@pytest.mark.parametrize("offset", [1 << 31, 0xFFFF_FFF0, 3])
def test_an_entry_that_is_not_where_it_is_said_to_be_is_refused(
    refused: Refused, offset: int
) -> None:
    """Behind the end, or in the middle of another."""
    assert refused(with_record(package(("x", FILE, b"x")), offset=(OFFSET, offset)))


def test_a_directory_that_is_said_to_be_further_back_is_refused(refused: Refused) -> None:
    """Its entries would begin before the file does."""
    lying = bytearray(package(("x", FILE, b"x")))
    end = lying.rindex(b"PK\5\6")
    (where,) = struct.unpack_from("<I", lying, end + 16)
    struct.pack_into("<I", lying, end + 16, where + 40)
    assert refused(bytes(lying))


@pytest.mark.parametrize("left", [0, 1, 10, 40, 100, -1, -30])
def test_a_truncated_zip_is_refused(refused: Refused, left: int) -> None:
    """However much of it there is."""
    whole = package(("x", FILE, bytes(100)))
    assert "not a readable zip file" in refused(whole[:left])


def test_what_is_no_zip_is_refused(refused: Refused) -> None:
    """The sentence says so."""
    assert "not a readable zip file" in refused(b"this is no zip" * 1000)


# Bombs --------------------------------------------------------------------------------------


def test_a_bomb_is_refused_by_what_it_declares(refused: Refused) -> None:
    """Before anything of it is unpacked."""
    bomb = package(("data", FILE, bytes(64 * MIB)), compression=zipfile.ZIP_DEFLATED)
    assert "the limit is 1048576" in refused(bomb, disk=1)


def test_files_count_together(refused: Refused) -> None:
    """Each of them alone would fit."""
    files = [(f"f{number}", FILE, bytes(MIB // 4)) for number in range(5)]
    assert "the limit is 1048576" in refused(
        package(*files, compression=zipfile.ZIP_DEFLATED), disk=1
    )


@pytest.mark.parametrize(
    ("method", "pack"),
    [("deflated", deflated), ("bzip2", bz2.compress), ("LZMA", lzma_of)],
    ids=["deflated", "bzip2", "LZMA"],
)
def test_a_bomb_that_declares_little_takes_no_memory(
    refused: Refused, method: str, pack: Callable[[bytes], bytes]
) -> None:
    """What it unpacks to is never held."""
    raw = pack(bytes(64 * MIB))
    assert refused(packed(METHODS[method][0], raw, 10, zlib.crc32(bytes(10))), disk=1)


@pytest.mark.parametrize("method", ["bzip2", "LZMA"])
def test_a_large_file_that_packs_well_takes_no_memory(refused: Refused, method: str) -> None:
    """It fits the limit and is unpacked, until a damaged one comes behind it."""
    number = {"bzip2": zipfile.ZIP_BZIP2, "LZMA": zipfile.ZIP_LZMA}[method]
    files = [("data", FILE, bytes(63 * MIB)), ("damaged", FILE, b"x" * 10)]
    assert "damaged" in refused(with_record(package(*files, compression=number), crc=(CRC, 1)))
