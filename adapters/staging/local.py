"""Staging in a local folder: a file an upload, under a name that nobody can guess or reuse."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit
from uuid import uuid4

from adapters.bits import FileBits, copy_range, sync_folder
from domain.errors import BitsPathInvalid, StagedBitsMissing, UploadTooLarge
from domain.package import StagedBits

SCHEME = "staging"


class StagedFile:
    """A body on its way into staging: written, then sealed, or abandoned."""

    def __init__(self, staging: LocalStaging, name: str) -> None:
        self._staging = staging
        self.uri = f"{SCHEME}:{name}"
        self.path = staging.folder / name
        self.size = 0
        self._descriptor: int | None = os.open(
            self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
        )

    @property
    def descriptor(self) -> int:
        assert self._descriptor is not None, "the staged file is closed"
        return self._descriptor

    def write(self, data: bytes | memoryview) -> None:
        """Appends; raises `OSError` (a full disk, say)."""
        view = memoryview(data)
        while view:
            count = os.write(self.descriptor, view)
            self.size += count
            view = view[count:]

    def read_at(self, offset: int, length: int) -> bytes:
        return os.pread(self.descriptor, length, offset)

    def seal(self) -> None:
        """Returns when the bytes and the file's name are on the disk."""
        os.fdatasync(self.descriptor)
        sync_folder(self._staging.folder)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def abandon(self) -> None:
        """Removes the file: nothing names it."""
        self.close()
        self.path.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Consumed:
    """A file in the upload folder that an upload consumed, and what it was then."""

    path: str
    device: int
    inode: int
    modified: int  # nanoseconds

    def still(self, status: os.stat_result) -> bool:
        return (status.st_dev, status.st_ino, status.st_mtime_ns) == (
            self.device,
            self.inode,
            self.modified,
        )


class LocalStaging:
    """A `Staging` (see `domain.ports`) that also takes bits in.

    `upload_folder` is the only place that `take_file` takes files from.
    """

    def __init__(self, folder: Path, upload_folder: Path) -> None:
        self.folder = folder
        self._upload_folder = upload_folder

    def prepare(self) -> None:
        """Makes the folders. Raises `OSError`."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._upload_folder.mkdir(parents=True, exist_ok=True)

    def create(self) -> StagedFile:
        """A new, empty file. Raises `OSError`."""
        return StagedFile(self, uuid4().hex)

    def take_file(self, bits_path: str, limit: int) -> StagedBits:
        """Stages a file that a front server has put into the upload folder.

        The file gets a second name in staging, so nobody can swap it any more; where the
        folders are on different file systems it is copied. It keeps its own name until
        `discard`, so that a refusal can leave it. Raises `BitsPathInvalid`; `OSError`.
        """
        origin = self._resolve(bits_path)
        source = self._open_regular(origin, bits_path)
        try:
            status = os.fstat(source)
            if status.st_size > limit:
                raise UploadTooLarge(limit)
            name = uuid4().hex
            self._link_or_copy(source, status, origin, self.folder / name)
        finally:
            os.close(source)
        consumed = urlencode(
            {
                "path": str(origin.relative_to(self._upload_folder.resolve())),
                "device": status.st_dev,
                "inode": status.st_ino,
                "modified": status.st_mtime_ns,
            },
            errors="surrogateescape",
        )
        return StagedBits(f"{SCHEME}:{name}?{consumed}", 0, status.st_size)

    def release(self, uri: str) -> None:
        """Takes back `take_file` after a refusal: the file stays where it was found."""
        self._path(uri).unlink(missing_ok=True)

    def open(self, staged: StagedBits) -> FileBits:
        try:
            descriptor = os.open(self._path(staged.uri), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise StagedBitsMissing(f"{staged.uri} is not in {self.folder}") from None
        return FileBits(descriptor, staged.offset, staged.length)

    def consume(self, uri: str) -> None:
        consumed = self._consumed(uri)
        if consumed is not None:
            origin = self._upload_folder / consumed.path
            try:
                if consumed.still(origin.lstat()):
                    origin.unlink()
            except (FileNotFoundError, NotADirectoryError):
                pass  # gone already

    def discard(self, uri: str) -> None:
        self.consume(uri)
        self._path(uri).unlink(missing_ok=True)

    def names(self, older_than: float) -> Iterator[str]:
        """The names of the files staged before `older_than` (seconds since the epoch)."""
        with os.scandir(self.folder) as entries:
            for entry in entries:
                try:
                    # of a file taken by a link, the time of writing is its front server's
                    if entry.stat(follow_symlinks=False).st_ctime < older_than:
                        yield entry.name
                except FileNotFoundError:
                    continue

    def remove(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)

    @staticmethod
    def name_of(uri: str) -> str:
        """The file's name in staging."""
        return urlsplit(uri).path

    def _path(self, uri: str) -> Path:
        name = self.name_of(uri)
        if urlsplit(uri).scheme != SCHEME or not name.isalnum():
            raise StagedBitsMissing(f"{uri!r} does not name a file in staging")
        return self.folder / name

    @staticmethod
    def _consumed(uri: str) -> _Consumed | None:
        query = parse_qs(urlsplit(uri).query, errors="surrogateescape")
        if "path" not in query:
            return None
        return _Consumed(
            query["path"][0],
            int(query["device"][0]),
            int(query["inode"][0]),
            int(query["modified"][0]),
        )

    def _resolve(self, bits_path: str) -> Path:
        """Where the path leads when every symbolic link is followed: inside, or refused."""
        if "\0" in bits_path or not Path(bits_path).is_absolute():
            raise BitsPathInvalid(bits_path, "is not an absolute path")
        try:
            resolved = Path(bits_path).resolve(strict=True)
        except (OSError, RuntimeError, ValueError) as error:
            raise BitsPathInvalid(bits_path, f"can't be followed: {error}") from None
        if not resolved.is_relative_to(self._upload_folder.resolve()):
            raise BitsPathInvalid(bits_path, "is outside the upload directory")
        return resolved

    @staticmethod
    def _open_regular(origin: Path, bits_path: str) -> int:
        """Opens it without following a link put there meanwhile, or hanging on a FIFO."""
        try:
            source = os.open(origin, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise BitsPathInvalid(bits_path, f"can't be opened: {error.strerror}") from None
        status = os.fstat(source)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            os.close(source)
            raise BitsPathInvalid(bits_path, "is not a regular file with one name")
        return source

    def _link_or_copy(
        self, source: int, status: os.stat_result, origin: Path, target: Path
    ) -> None:
        try:
            os.link(origin, target, follow_symlinks=False)
        except OSError:  # another file system
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                copy_range(source, 0, status.st_size, descriptor)
                os.fdatasync(descriptor)
            except BaseException:
                target.unlink(missing_ok=True)
                raise
            finally:
                os.close(descriptor)
        else:
            linked = target.lstat()
            if (linked.st_dev, linked.st_ino) != (status.st_dev, status.st_ino):
                target.unlink()
                raise BitsPathInvalid(str(origin), "was replaced while it was taken")
            if linked.st_nlink != 2:
                target.unlink()
                raise BitsPathInvalid(str(origin), "is being taken by another upload")
            os.fdatasync(source)
        sync_folder(self.folder)
