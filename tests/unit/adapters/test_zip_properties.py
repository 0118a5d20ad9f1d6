"""Zips that are broken at random: at fault, or accepted and then the same to every reader."""

from __future__ import annotations

import zipfile
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.bits import FileBits
from adapters.unzip import Content, entries_of
from domain.archive import ArchiveLimits, check_archive
from domain.errors import BitsAtFault
from domain.zip_records import Entry, decoded
from tests.support.hostile_zips import (
    DEFLATED,
    FULL,
    PROCFILE,
    UTF8,
    Item,
    archive,
    deflated,
    link,
    streamed,
    unicode_path,
    zip64_field,
)

LIMITS = ArchiveLimits(10_000_000, max_entries=1000)
TEXT = b"hello " * 20
PACKED = Item(b"packed", deflated(TEXT), DEFLATED, size=len(TEXT), crc=zlib.crc32(TEXT))
ZIP64 = {"compressed": FULL, "size": FULL, "offset": FULL}
SEEDS = {
    "stored": archive(Item(), Item(b"folder/", b""), Item(b"folder/file")),
    "deflated": archive(PACKED),
    "streamed": archive(streamed(PACKED), streamed(Item())),
    "zip64 directory": archive(Item(), zip64={}),
    "zip64 fields": archive(
        Item(central=ZIP64, extra=zip64_field(7, 7, len(PROCFILE.local_record()))),
        PACKED,
    ),
    "unicode names": archive(
        Item("größe".encode(), flags=UTF8), Item(b"old", extra=unicode_path(b"old", b"new"))
    ),
    "links": archive(link(b"a/link", b"../file"), Item()),
    "comment": archive(Item(), comment=b"made by hand"),
    "stub": archive(Item(), stub=b"#!/bin/sh\n"),
    "nothing": archive(),
}
FIELDS = [0, 1, 2, 7, 8, 0x14, 0x2D, 0x7F, 0xFF]


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """A zip of which bytes were changed, put in, left out, or cut off."""
    data = bytearray(SEEDS[draw(st.sampled_from(sorted(SEEDS)))])
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        if draw(st.booleans()):  # near the records, where most of it is decided
            at = max(0, data.rfind(draw(st.sampled_from([b"PK\1\2", b"PK\5\6", b"PK\3\4"]))))
            at += draw(st.integers(0, 60))
        value = bytes([draw(st.sampled_from(FIELDS) | st.integers(0, 255))])
        run = draw(st.sampled_from([1, 1, 1, 2, 4, 8]))
        match draw(st.sampled_from(["change", "change", "change", "insert", "delete", "cut"])):
            case "change":
                data[at : at + run] = value * min(run, len(data[at:]))
            case "insert":
                data[at:at] = value * run
            case "delete":
                del data[at : at + run]
            case "cut":
                del data[at:]
    return bytes(data)


def theirs(data: bytes) -> list[zipfile.ZipInfo] | None:
    """What Python's own reader sees; None if it refuses."""
    try:
        return zipfile.ZipFile(BytesIO(data)).infolist()
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError):
        return None


def content_of(bits: FileBits, entry: Entry) -> bytes | None:
    """What the entry holds; None if that is not what it declares."""
    try:
        content = Content(bits, entry)
        pieces = [content.read(7)]
        while pieces[-1]:
            pieces.append(content.read(1000))
    except BitsAtFault:
        return None
    return b"".join(pieces)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("zips")


@settings(max_examples=250, suppress_health_check=[HealthCheck.too_slow])
@given(data=broken())
def test_what_is_accepted_is_the_same_to_every_reader(folder: Path, data: bytes) -> None:
    """Entries, names and sizes; and what an entry holds, wherever it can be read."""
    path = folder / "package.zip"
    path.write_bytes(data)
    with FileBits.of_file(path) as bits:
        try:
            check_archive(bits, LIMITS)
        except BitsAtFault as fault:
            assert str(fault).startswith("The package") and str(fault).isprintable()
            return
        entries = list(entries_of(bits))
        found = theirs(data)
        if found is None:
            return
        ours: list[Any] = [
            (decoded(entry.name, entry.flags), entry.uncompressed, entry.compressed, entry.method)
            for entry in entries
        ]
        assert ours == [
            (info.orig_filename, info.file_size, info.compress_size, info.compress_type)
            for info in found
        ]
        with zipfile.ZipFile(BytesIO(data)) as opened:
            for entry, info in zip(entries, found, strict=True):
                content = content_of(bits, entry)
                try:
                    other = opened.read(info)
                except (zipfile.BadZipFile, NotImplementedError, zlib.error, EOFError, OSError):
                    continue
                if content is not None:
                    assert content == other


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_not_broken_is_accepted(seed: str, folder: Path) -> None:
    """Each of the zips that are broken is good before that, to each reader."""
    path = folder / "good.zip"
    path.write_bytes(SEEDS[seed])
    with FileBits.of_file(path) as bits:
        check_archive(bits, LIMITS)
        contents = [content_of(bits, entry) for entry in entries_of(bits)]
    with zipfile.ZipFile(path) as opened:
        assert contents == [opened.read(info) for info in opened.infolist()]
