"""Staging in a bucket: received bits are there before the answer leaves, whatever machine dies.

A body is received into a file without a name first, because its size may be unknown and its bits
are found in it when it is whole; that file goes with its process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from adapters.bits import GrowingFile, require_room
from adapters.http.disposition import attachment
from adapters.object_store import PART, Bucket, ObjectBits, ObjectDenied
from adapters.staging.found import FoundObject
from adapters.staging.local import SCHEME, FoundFile, LocalStaging, checked_name, new_name
from domain.errors import BitsPathInvalid, StagedBitsMissing, UploadTooLarge
from domain.package import StagedBits

PREFIX = "staging"
UPLOADS = "uploads"  # behind it others put objects that commands name


class ReceivedFile(GrowingFile):
    """A body on its way in: a file that nobody else sees."""

    def __init__(self, folder: Path) -> None:
        self.kept = False
        super().__init__(os.open(folder, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600))

    def abandon(self) -> None:
        self.close()


class S3Staging:
    """A `Staging` (see `domain.ports`) that also takes bits in; `folder` is for receiving."""

    def __init__(self, bucket: Bucket, folder: Path, upload_folder: Path) -> None:
        self._bucket = bucket
        self._folder = folder
        self._files = LocalStaging(folder, upload_folder)

    def prepare(self, identity: str) -> None:
        """Makes the folders, marks the bucket. Raises `NotOurFolder`; `OSError`."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._files.upload_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._bucket.claim(identity)

    def require_room(self, size: int) -> None:
        require_room(self._folder, size)

    def create(self, guid: str) -> ReceivedFile:
        return ReceivedFile(self._folder)

    def stage(
        self, body: ReceivedFile, offset: int, length: int, guid: str, file_name: str | None
    ) -> StagedBits:
        """Puts a slice of a received body into the bucket. Raises `StoreAway`; `OSError`."""
        return self._put(body.descriptor, offset, length, guid, file_name)

    def find_file(self, bits_path: str, limit: int, guid: str) -> FoundFile:
        return self._files.find_file(bits_path, limit, guid)

    def find_object(self, bits_url: str, limit: int) -> FoundObject:
        """An object behind the prefix `uploads` of our own. Raises `StoreAway` too."""
        key = self._bucket.key_of(bits_url)
        if key is None or not key.startswith(f"{UPLOADS}/"):
            raise BitsPathInvalid(bits_url, f"is not behind {self._bucket.url_of(UPLOADS)}/")
        try:
            with self._bucket.open(key) as bits:
                size = bits.size
        except FileNotFoundError:
            raise BitsPathInvalid(bits_url, "is not there") from None
        except ObjectDenied:
            raise BitsPathInvalid(bits_url, "can't be read, or is not there") from None
        if size > limit:
            raise UploadTooLarge(limit)
        return FoundObject(key, size)

    def take(self, found: FoundFile | FoundObject, guid: str, file_name: str | None) -> StagedBits:
        """Puts a front server's file into the bucket, or copies an object inside it.

        Raises `BitsPathInvalid`, `StoreAway`; `OSError`.
        """
        if isinstance(found, FoundFile):
            return self._put(found.descriptor, 0, found.size, guid, file_name)
        name = new_name(guid)
        try:
            self._bucket.copy(
                found.key, f"{PREFIX}/{name}", attributes_of(file_name or f"{guid}.zip")
            )
            with self._bucket.open(f"{PREFIX}/{name}") as bits:
                size = bits.size
        except FileNotFoundError:
            raise BitsPathInvalid(self._bucket.url_of(found.key), "is not there") from None
        if size != found.size:
            self._bucket.delete(f"{PREFIX}/{name}")
            raise BitsPathInvalid(self._bucket.url_of(found.key), "was replaced meanwhile")
        return StagedBits(f"{SCHEME}:{name}", 0, size)

    def accepted(self, found: FoundFile | FoundObject) -> None:
        """The log names its bits: it may go; workers on other machines can't reach a file."""
        if isinstance(found, FoundFile):
            found.remove()
        else:
            self._bucket.delete(found.key)

    def release(self, uri: str) -> None:
        self._bucket.delete(self.key_of(uri))

    def open(self, staged: StagedBits) -> ObjectBits:
        try:
            return self._bucket.open(self.key_of(staged.uri))
        except FileNotFoundError:
            raise StagedBitsMissing(f"{staged.uri} is not in the bucket") from None

    def make_private(self, uri: str) -> None:
        """They are: the bucket is written to by nobody else."""

    def consume(self, uri: str) -> None:
        """Nothing: the API has done it."""

    def discard(self, uri: str) -> None:
        self._bucket.delete(self.key_of(uri))

    def names(self, older_than: float) -> Iterator[str]:
        """The names of what was staged before `older_than` (seconds since the epoch)."""
        return self._bucket.list(PREFIX, older_than)

    def remove(self, name: str) -> None:
        self._bucket.delete(f"{PREFIX}/{name}")

    def check(self) -> None:
        self._bucket.check()

    @staticmethod
    def name_of(uri: str) -> str:
        return urlsplit(uri).path

    @staticmethod
    def key_of(uri: str) -> str:
        """The object that a URI names. Raises `StagedBitsMissing` where it names none."""
        return f"{PREFIX}/{checked_name(uri)}"

    def _put(
        self, descriptor: int, offset: int, length: int, guid: str, file_name: str | None
    ) -> StagedBits:
        self._bucket.check()  # soon told: a store that hangs would keep the request for minutes
        name = new_name(guid)
        self._bucket.put(
            f"{PREFIX}/{name}",
            _pieces(descriptor, offset, length),
            attributes_of(file_name or f"{guid}.zip"),
        )
        return StagedBits(f"{SCHEME}:{name}", 0, length)


def attributes_of(file_name: str) -> dict[str, str]:
    """What an object is kept with, since signed links can't carry it; copies keep it, too."""
    is_tar = file_name.endswith((".tgz", ".tar.gz"))
    return {
        "Content-Disposition": attachment(file_name),
        "Content-Type": "application/gzip" if is_tar else "application/zip",
    }


def _pieces(descriptor: int, offset: int, length: int) -> Iterator[bytes]:
    while length:
        piece = os.pread(descriptor, min(PART, length), offset)
        if not piece:
            raise OSError(f"the file ends {length} bytes too early")
        yield piece
        offset += len(piece)
        length -= len(piece)
