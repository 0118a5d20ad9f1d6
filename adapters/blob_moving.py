"""Copies blobs from a folder into a bucket, where a log goes from the one to the other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, Row, Select, select

from adapters.bits import FileBits, is_within
from adapters.blob_store.s3 import object_of
from adapters.object_store import Bucket
from adapters.staging.s3 import attributes_of
from projections.droplets import droplets
from projections.packages import packages


@dataclass(frozen=True)
class NamedBlob:
    """A blob that the log names: under which file name it is downloaded, and its checksum."""

    of: str
    key: str
    file_name: str
    sha256: str | None


@dataclass
class Outcome:
    copied: int = 0
    there: int = 0  # in the bucket already
    faults: list[str] = field(default_factory=list)


def blobs_named(reader: Engine) -> Iterator[NamedBlob]:
    """All blobs that packages and droplets name, as the read models have it."""
    of_packages = select(
        packages.c.guid, packages.c.blob_key, packages.c.sha256, packages.c.file_name
    ).where(packages.c.blob_key.is_not(None))
    of_droplets = select(droplets.c.guid, droplets.c.blob_key, droplets.c.sha256).where(
        droplets.c.blob_key.is_not(None)
    )
    for row in _rows(reader, of_packages):
        yield NamedBlob(
            f"package {row.guid}", row.blob_key, row.file_name or f"{row.guid}.zip", row.sha256
        )
    for row in _rows(reader, of_droplets):
        yield NamedBlob(f"droplet {row.guid}", row.blob_key, f"{row.guid}.tgz", row.sha256)


def _rows(reader: Engine, query: Select[Any]) -> Iterator[Row[Any]]:
    with reader.connect() as connection:
        yield from connection.execution_options(yield_per=1000).execute(query)


def copy_blobs(
    folder: Path,
    bucket: Bucket,
    blobs: Iterator[NamedBlob],
    progress: Callable[[], object] = lambda: None,
) -> Outcome:
    """Copies each that is not there yet. Raises `StoreAway`.

    What is no longer what its checksum says is copied, and told of: it is no better where it is.
    """
    outcome = Outcome()
    for blob in blobs:
        if not is_within(blob.key):
            outcome.faults.append(f"{blob.key!r}, of {blob.of}, is no blob in {folder}")
            continue
        try:
            bits = FileBits.of_file(folder / blob.key)
        except FileNotFoundError:
            outcome.faults.append(f"there is no {folder / blob.key}, the blob of {blob.of}")
            continue
        with bits:
            if _is_there(bucket, blob.key, bits.size):
                outcome.there += 1
            else:
                digest = hashlib.sha256()
                pieces = _pieces(bits, digest.update)
                bucket.put(object_of(blob.key), pieces, attributes_of(blob.file_name))
                outcome.copied += 1
                if blob.sha256 is not None and digest.hexdigest() != blob.sha256:
                    outcome.faults.append(
                        f"{folder / blob.key}, the blob of {blob.of}, has not the SHA-256 that the "
                        f"log tells: {digest.hexdigest()}, and not {blob.sha256}"
                    )
        progress()
    return outcome


def _is_there(bucket: Bucket, key: str, size: int) -> bool:
    try:
        with bucket.open(object_of(key)) as found:
            return found.size == size
    except FileNotFoundError:
        return False


def _pieces(bits: FileBits, look: Callable[[bytes], object]) -> Iterator[bytes]:
    for chunk in bits.chunks():
        piece = bytes(chunk)
        look(piece)
        yield piece
