"""The blob store in a bucket: the store itself copies, and clients download from it."""

from __future__ import annotations

from collections.abc import Iterator

from adapters.object_store import Bucket, ObjectBits
from adapters.staging.s3 import S3Staging
from domain.errors import BlobMissing, StagedBitsMissing
from domain.package import StagedBits, StoredBits
from domain.processing import is_blob_key

PREFIX = "blobs"
LINK_SECONDS = 300  # that a download may begin in


class S3Blobs:
    """A `BlobStore` (see `domain.ports`). An object appears whole or not at all."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def prepare(self, identity: str) -> None:
        """Raises `NotOurFolder`; `StoreAway`."""
        self._bucket.claim(identity)

    def store(self, key: str, staged: StagedBits) -> StoredBits:
        source = S3Staging.key_of(staged.uri)
        try:
            with self._bucket.open(source) as bits:
                if (staged.offset, staged.length) != (0, bits.size):
                    raise OSError(f"{staged.uri} has {bits.size} bytes, and not {staged.length}")
            size = self._bucket.copy(source, object_of(key))
        except FileNotFoundError:
            raise StagedBitsMissing(f"{staged.uri} is not in the bucket") from None
        return StoredBits(key, size)

    def copy(self, source_key: str, key: str) -> StoredBits:
        try:
            return StoredBits(key, self._bucket.copy(object_of(source_key), object_of(key)))
        except FileNotFoundError:
            raise BlobMissing(f"there is no blob {source_key!r} in the bucket") from None

    def open(self, key: str) -> ObjectBits:
        try:
            return self._bucket.open(object_of(key))
        except FileNotFoundError:
            raise BlobMissing(f"there is no blob {key!r} in the bucket") from None

    def delete(self, key: str) -> None:
        self._bucket.delete(object_of(key))

    def link(self, key: str) -> str | None:
        """Where a client may download the blob."""
        return self._bucket.link(object_of(key), LINK_SECONDS)

    def check(self) -> None:
        self._bucket.check()

    def keys(self, older_than: float) -> Iterator[str]:
        """The keys of blobs made before `older_than` (seconds since the epoch)."""
        return filter(is_blob_key, self._bucket.list(PREFIX, older_than))

    def clear_incoming(self, older_than: float) -> None:
        """Nothing: what was not put whole is not there."""


def object_of(key: str) -> str:
    """Under which key of the bucket a blob is kept."""
    return f"{PREFIX}/{key}"
