"""The blob store in a local folder, on the file system that staging is on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

from adapters.bits import FileBits, copy_range, is_within, sync_folder
from adapters.folders import BitsFolder
from adapters.staging.local import LocalStaging
from domain.errors import BlobMissing
from domain.package import StagedBits, StoredBits
from domain.processing import is_blob_key

INCOMING = "incoming"


class LocalBlobs:
    """A `BlobStore` (see `domain.ports`).

    Storing is a hard link where the bits are a whole staged file and a copy made by the
    kernel where they are a slice of one. A blob is made under another name and renamed,
    so it appears whole or not at all.
    """

    def __init__(self, folder: Path, staging: LocalStaging) -> None:
        self.folder = folder
        self.place = BitsFolder(folder, marks_in=folder)
        self._root = str(folder)  # the work on each package goes without Path, which takes longer
        self._synced: set[str] = set()  # folders whose names are known to be on the disk
        self._staging = staging

    def prepare(self, identity: str) -> None:
        """Makes the folders, for the log of that identity. Raises `NotOurFolder`; `OSError`."""
        self.place.claim(identity)
        (self.folder / INCOMING).mkdir(mode=0o700, exist_ok=True)

    def store(self, key: str, staged: StagedBits) -> StoredBits:
        with self._staging.open(staged) as bits:
            path = self._staging.file_of(staged.uri)
            whole = staged.offset == 0 and os.fstat(bits.fileno()).st_size == staged.length
            self._appear(
                key,
                (lambda target: self._link(path, target))
                if whole
                else (lambda target: self._copy(bits, staged.offset, staged.length, target)),
            )
        return StoredBits(key, staged.length)

    def copy(self, source_key: str, key: str) -> StoredBits:
        with self.open(source_key) as bits:
            size = bits.size
            try:
                self._appear(key, lambda target: self._link(self._path(source_key), target))
            except FileNotFoundError:
                raise BlobMissing(f"blob {source_key!r} was deleted meanwhile") from None
        return StoredBits(key, size)

    def open(self, key: str) -> FileBits:
        try:
            return FileBits.of_file(self._path(key))
        except FileNotFoundError:
            self.place.require()
            raise BlobMissing(f"there is no blob {key!r} in {self.folder}") from None

    def delete(self, key: str) -> None:
        with contextlib.suppress(BlobMissing):
            _remove(self._path(key))

    def link(self, key: str) -> str | None:
        """None: clients get the blob through the API."""
        return None

    def check(self) -> None:
        """Raises `StoreAway`, or `PermissionError`, if nothing can be stored."""
        self.place.check()

    def keys(self, older_than: float) -> Iterator[str]:
        """The keys of blobs made before `older_than` (seconds since the epoch).

        Other files that somebody has put there are none of ours.
        """
        for folder, _, names in os.walk(self.folder):
            for name in names:
                path = Path(folder, name)
                key = str(path.relative_to(self.folder))
                with contextlib.suppress(FileNotFoundError):
                    if is_blob_key(key) and path.stat().st_ctime < older_than:
                        yield key

    def clear_incoming(self, older_than: float) -> None:
        """Removes what a crash left of blobs that had not appeared yet."""
        for path in (self.folder / INCOMING).iterdir():
            with contextlib.suppress(FileNotFoundError):  # it appeared as a blob meanwhile
                # a link has its file's time of writing: what counts is when it was linked
                if path.stat().st_ctime < older_than:
                    path.unlink()

    def _path(self, key: str) -> str:
        """Raises `BlobMissing` for a key that leads out of the folder, whoever wrote it."""
        if not is_within(key):
            raise BlobMissing(f"{key!r} is no key of a blob in {self.folder}")
        return f"{self._root}/{key}"

    def _appear(self, key: str, make: Callable[[str], None]) -> None:
        """`make` makes the file that becomes the blob. Returns when its name is on the disk."""
        self.place.require()
        target = self._path(key)
        incoming = f"{self._root}/{INCOMING}/{uuid4().hex}"
        unsure = [f for f in self._folders_of(key) if f not in self._synced or not _is_folder(f)]
        try:
            _make_folder(f"{self._root}/{INCOMING}")
            make(incoming)
            for folder in unsure:
                _make_folder(folder)
            os.rename(incoming, target)  # noqa: PTH104
        finally:
            # also where rename found both names to be one file, which leaves both
            _remove(incoming)
        # all at the end: the file system has to write its journal once then
        for folder in unsure:
            sync_folder(folder.rpartition("/")[0])
            self._synced.add(folder)
        sync_folder(target.rpartition("/")[0])

    def _folders_of(self, key: str) -> Iterator[str]:
        """The folders that a key's blob is in, the outer one first."""
        folder = self._root
        for name in key.split("/")[:-1]:
            folder = f"{folder}/{name}"
            yield folder

    def _link(self, source: str, target: str) -> None:
        """Another name for the same file: its bytes were synced when it was staged or stored."""
        try:
            os.link(source, target)
        except FileNotFoundError:
            raise
        except OSError:  # no hard links here: another file system, or too many names
            with FileBits.of_file(source) as bits:
                self._copy(bits, 0, bits.size, target)

    @staticmethod
    def _copy(bits: FileBits, offset: int, length: int, target: str) -> None:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            copy_range(bits.fileno(), offset, length, descriptor)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _is_folder(path: str) -> bool:
    return os.path.isdir(path)  # noqa: PTH112


def _make_folder(path: str) -> None:
    """For its owner alone."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)  # noqa: PTH102


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108
