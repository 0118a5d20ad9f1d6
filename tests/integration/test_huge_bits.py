"""Bits of more than 4 GiB: sizes and offsets that 32 bits do not hold. The files have holes."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

from adapters.bits import FileBits, copy_range
from adapters.blob_store.local import LocalBlobs
from adapters.staging.local import LocalStaging
from domain.archive import ArchiveLimits, check_archive
from domain.errors import BitsAtFault
from domain.package import PackageState, PackageType, StagedBits
from domain.processing import Processing, blob_key
from tests.support.memory import MIB, little_memory
from tests.support.packages import BY, LocalStore

GIB = 1 << 30
BLOCK = bytes(16 * MIB)


class SparseFile(io.FileIO):
    """A file in which the block of zeros becomes a hole."""

    def write(self, data: Any) -> int:
        if data is BLOCK:
            self.seek(len(BLOCK), os.SEEK_CUR)
            return len(BLOCK)
        return super().write(data)


def write_zip(path: Path, blocks: int) -> None:
    """A zip with an entry of so many blocks of zeros, and one behind it."""
    with SparseFile(path, "w+b") as file, zipfile.ZipFile(file, "w") as archive:
        with archive.open(zipfile.ZipInfo("zeros.bin"), "w", force_zip64=True) as entry:
            for _ in range(blocks):
                entry.write(BLOCK)
        archive.writestr(zipfile.ZipInfo("behind.txt"), b"behind")


def test_entries_may_begin_behind_4_gib(tmp_path: Path) -> None:
    """What is in front of the zip counts, and is no reason to refuse it; how far it reaches is."""
    path = tmp_path / "app.zip"
    with path.open("wb") as file:
        file.truncate(4 * GIB + 5)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo("app.txt"), b"content")
    with FileBits.of_file(path) as bits:
        assert bits.size > 4 * GIB
        check_archive(bits, ArchiveLimits(7))
    with path.open("r+b") as file:
        file.seek(4 * GIB + 5)
        file.write(b"no header")
    with (
        FileBits.of_file(path) as bits,
        pytest.raises(BitsAtFault, match=r"app\.txt.* is not where"),
    ):
        check_archive(bits, ArchiveLimits(7))


def test_a_slice_may_lie_behind_4_gib(tmp_path: Path) -> None:
    """It is read, in pieces or here and there, and copied, to the byte."""
    content = os.urandom(3000)
    at = 4 * GIB + 7
    with (tmp_path / "body").open("w+b") as body, (tmp_path / "copy").open("w+b") as copy:
        body.seek(at)
        body.write(content + b"tail")
        body.flush()
        bits = FileBits(body.fileno(), at, len(content))
        assert b"".join(bytes(chunk) for chunk in bits.chunks()) == content
        assert bits.read_at(2990, 100) == content[2990:]
        copy_range(body.fileno(), at, len(content), copy.fileno())
        copy.seek(0)
        assert copy.read() == content


@pytest.mark.slow
def test_bits_of_more_than_4_gib_become_a_package(tmp_path: Path) -> None:
    """Checked, stored and hashed as others are, and in as little memory."""
    store = LocalStore.open(tmp_path / "log.db")
    staging = LocalStaging(tmp_path / "staging", tmp_path / "uploads")
    staging.prepare("identity-1")
    blobs = LocalBlobs(tmp_path / "blobs", staging)
    blobs.prepare("identity-1")
    guid = store.service.create("app-1", PackageType.BITS, None, BY).aggregate.guid
    staged = staging.create(guid)
    path = staging.folder / staging.name_of(staged.uri)
    write_zip(path, 4 * GIB // len(BLOCK) + 1)
    size = path.stat().st_size
    assert size > 4 * GIB + len(BLOCK)
    staged.seal()
    staged.close()
    store.service.start_upload(guid, StagedBits(staged.uri, 0, size), "app.zip", BY)

    unpacked = 4 * GIB + len(BLOCK) + len(b"behind")
    with FileBits.of_file(path) as bits, pytest.raises(BitsAtFault, match=f"{unpacked} bytes"):
        check_archive(bits, ArchiveLimits(unpacked - 1))
    processing = Processing(store.service, staging, blobs, ArchiveLimits(unpacked))
    with little_memory(32 * MIB):
        processing.store(guid, BY)
        processing.hash(guid, BY)
    package = store.service.load(guid)
    assert package.state is PackageState.READY
    assert package.stored is not None and package.stored.size == size
    assert package.digests is not None
    with (blobs.folder / blob_key(guid)).open("rb") as blob:
        assert package.digests.sha256 == hashlib.file_digest(blob, "sha256").hexdigest()
    store.close()
