"""Staging in a local folder: a file an upload, under a name that nobody can guess or reuse.

The name ends with the package's guid, where that is plain: so the log can be asked about a file.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit
from uuid import uuid4

from adapters.bits import FileBits, GrowingFile, copy_range, require_room, sync_folder
from adapters.cores import use_all
from adapters.folders import BitsFolder
from adapters.staging.found import FoundObject
from domain.errors import BitsPathInvalid, StagedBitsMissing, UploadTooLarge
from domain.package import StagedBits

SCHEME = "staging"
WRITE_BACK = 8 << 20  # bytes by which a file grows before it is synced again
MOST_AHEAD = 64 << 20  # bytes by which it grows before its sender waits for the disk
_NAME = re.compile(r"[0-9a-f]{32}(?:-([A-Za-z0-9_-]{1,200}))?")
_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,200}")


def new_name(guid: str) -> str:
    """A name for bits of a package."""
    return f"{uuid4().hex}-{guid}" if _PLAIN.fullmatch(guid) else uuid4().hex


def checked_name(uri: str) -> str:
    """The name that a URI of staged bits tells. Raises `StagedBitsMissing` where it is none."""
    parts = urlsplit(uri)
    if parts.scheme != SCHEME or not _NAME.fullmatch(parts.path):
        raise StagedBitsMissing(f"{uri!r} does not name anything in staging")
    return parts.path


def guid_in(name: str) -> str | None:
    """The guid of the package that a file is for; None if its name does not tell."""
    match = _NAME.fullmatch(name)
    return match[1] if match else None


class StagedFile(GrowingFile):
    """A body on its way into staging: written, then sealed, or abandoned."""

    def __init__(self, staging: LocalStaging, name: str) -> None:
        self._staging = staging
        self.uri = f"{SCHEME}:{name}"
        self._name = staging.file_of(self.uri)
        self.kept = False  # from `stage` on the log may name it
        self._writing_back: _WriteBack | None = None
        self._handed_over = 0  # bytes that write-back has been asked to write
        super().__init__(
            os.open(self._name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        )

    @property
    def path(self) -> Path:
        return Path(self._name)

    def write(self, data: bytes | memoryview) -> None:
        """Appends, and lets the disk begin: `seal` has less to wait for. Raises `OSError`."""
        super().write(data)
        if self.size - self._handed_over >= WRITE_BACK:
            if self._writing_back is not None:
                if not self._writing_back.is_done:
                    return
                self._writing_back.finish()
            self._handed_over = self.size
            self._writing_back = _WriteBack(self._staging.disk, self.descriptor)

    def wait_for_disk(self, then: Callable[[], None]) -> bool:
        """Else the system would make the writer wait, and with it all who are received there."""
        if self._writing_back is None or self.size - self._handed_over < MOST_AHEAD:
            return False
        self._writing_back.call_when_done(then)
        return True

    def cut(self, size: int) -> None:
        """Only the first `size` bytes stay. Raises `OSError`."""
        if size < self.size:
            os.ftruncate(self.descriptor, size)
            self.size = size

    def seal(self) -> None:
        """Returns when the bytes and the file's name are on the disk. Raises `OSError`."""
        self._end_write_back()
        os.fdatasync(self.descriptor)
        sync_folder(self._staging.folder)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # it is abandoned, or `seal` has told
            self._end_write_back(wait=False)
        super().close()

    def abandon(self) -> None:
        """Removes the file: nothing names it."""
        self.close()
        self.path.unlink(missing_ok=True)

    def _end_write_back(self, wait: bool = True) -> None:
        writing_back, self._writing_back = self._writing_back, None
        if writing_back is not None and not writing_back.cancel() and wait:
            writing_back.finish()


class _WriteBack:
    """A sync of what a file holds by now, that others may have to wait for."""

    def __init__(self, disk: ThreadPoolExecutor, descriptor: int) -> None:
        self._descriptor = os.dup(descriptor)  # its file may be closed before
        self._sync: Future[None] = disk.submit(self._run)

    @property
    def is_done(self) -> bool:
        return self._sync.done()

    def call_when_done(self, then: Callable[[], None]) -> None:
        """At once if it is done already, or does not come to be."""
        self._sync.add_done_callback(lambda _: then())

    def finish(self) -> None:
        """Waits for it. Raises `OSError`: the system tells a failed write to one sync alone."""
        self._sync.result()

    def cancel(self) -> bool:
        """Whether it had not begun, and does not any more."""
        cancelled = self._sync.cancel()
        if cancelled:
            os.close(self._descriptor)
        return cancelled

    def _run(self) -> None:
        try:
            os.fdatasync(self._descriptor)
        finally:
            os.close(self._descriptor)


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


class FoundFile:
    """A file in the upload folder that may be taken: open, so that it stays the same one."""

    def __init__(self, staging: LocalStaging, origin: Path, descriptor: int) -> None:
        self._staging = staging
        self._origin = origin
        self._descriptor = descriptor
        self._status = os.fstat(descriptor)

    def take(self, guid: str) -> StagedBits:
        """Stages the file for a package. Raises `BitsPathInvalid`; `OSError`.

        It gets a second name in staging, so nobody can swap it any more; where the folders
        are on different file systems it is copied. It keeps its own name until `consume`,
        so that a refusal can leave it.
        """
        staging, status = self._staging, self._status
        name = new_name(guid)
        staging.place.require()
        self._link_or_copy(staging.folder / name)
        try:
            self.check_unshared(guid)  # another package may have linked it in the same moment
        except BitsPathInvalid:
            (staging.folder / name).unlink()
            raise
        consumed = urlencode(
            {
                "path": str(self._origin.relative_to(staging.upload_folder.resolve())),
                "device": status.st_dev,
                "inode": status.st_ino,
                "modified": status.st_mtime_ns,
            },
            errors="surrogateescape",
        )
        return StagedBits(f"{SCHEME}:{name}?{consumed}", 0, status.st_size)

    @property
    def descriptor(self) -> int:
        return self._descriptor

    @property
    def size(self) -> int:
        return self._status.st_size

    def remove(self) -> None:
        """Removes it, if it is still the file that was found."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            now = self._origin.lstat()
            if (now.st_dev, now.st_ino) == (self._status.st_dev, self._status.st_ino):
                self._origin.unlink()

    def check_unshared(self, guid: str) -> None:
        """The file has one name, or besides that only those that this package's uploads gave it.

        An upload that got no answer, or that runs right now, may be tried again: the package
        decides then. Raises `BitsPathInvalid`.
        """
        names = os.fstat(self._descriptor).st_nlink
        if names > 1:
            names -= sum(1 for name in self._names_in_staging() if guid_in(name) == guid)
        if names != 1:
            raise BitsPathInvalid(str(self._origin), "is not a regular file with one name")

    def _names_in_staging(self) -> Iterator[str]:
        with os.scandir(self._staging.folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    found = entry.stat(follow_symlinks=False)
                    if (found.st_dev, found.st_ino) == (self._status.st_dev, self._status.st_ino):
                        yield entry.name

    def _link_or_copy(self, target: Path) -> None:
        status = self._status
        try:
            os.link(self._origin, target, follow_symlinks=False)
        except OSError:  # another file system
            _copy_to(self._descriptor, status.st_size, target)
        else:
            linked = target.lstat()
            if (linked.st_dev, linked.st_ino) != (status.st_dev, status.st_ino):
                target.unlink()
                raise BitsPathInvalid(str(self._origin), "was replaced while it was taken")
            os.fdatasync(self._descriptor)
        sync_folder(self._staging.folder)

    def __enter__(self) -> FoundFile:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._descriptor)


class LocalStaging:
    """A `Staging` (see `domain.ports`) that also takes bits in.

    `upload_folder` is the only place that files are taken from.
    """

    def __init__(self, folder: Path, upload_folder: Path) -> None:
        self.folder = folder
        self._root = str(folder)
        self.place = BitsFolder(folder, marks_in=folder.parent)
        self.upload_folder = upload_folder
        # one thread: two syncs at once would take a disk as long as one after the other
        self.disk = ThreadPoolExecutor(1, "write-back", initializer=use_all)

    def prepare(self, identity: str) -> None:
        """Makes the folders, for the log of that identity. Raises `NotOurFolder`; `OSError`."""
        self.place.claim(identity)
        self.upload_folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def require_room(self, size: int) -> None:
        require_room(self.folder, size)

    def create(self, guid: str) -> StagedFile:
        """A new, empty file for bits of a package. Raises `OSError`."""
        self.place.require()
        return StagedFile(self, new_name(guid))

    def stage(
        self, body: StagedFile, offset: int, length: int, guid: str, file_name: str | None
    ) -> StagedBits:
        """Makes a received body durable; its bits are a slice of it. Raises `OSError`.

        What is behind the slice goes: bits that the file begins with are the whole file then, and
        storing them needs no copy.
        """
        body.cut(offset + length)
        body.seal()
        body.kept = True
        return StagedBits(body.uri, offset, length)

    def find_object(self, bits_url: str, limit: int) -> FoundObject:
        raise BitsPathInvalid(bits_url, "is in an object store, and the service's is a folder")

    def take(self, found: FoundFile | FoundObject, guid: str, file_name: str | None) -> StagedBits:
        """Stages a front server's file. Raises `BitsPathInvalid`; `OSError`."""
        assert isinstance(found, FoundFile), "a folder has no objects"
        return found.take(guid)

    def accepted(self, found: FoundFile | FoundObject) -> None:
        """The upload is in the log: `consume` removes the file."""

    def find_file(self, bits_path: str, limit: int, guid: str) -> FoundFile:
        """A file that a front server has put into the upload folder for a package.

        Raises `BitsPathInvalid`; `UploadTooLarge`.
        """
        origin = self._resolve(bits_path)
        found = FoundFile(self, origin, self._open_regular(origin, bits_path))
        try:
            if found.size > limit:
                raise UploadTooLarge(limit)
            found.check_unshared(guid)
        except BaseException:
            found.__exit__()
            raise
        return found

    def release(self, uri: str) -> None:
        """Takes back `stage` or `take` after a refusal: a file stays where it was found."""
        self._remove(uri)

    def open(self, staged: StagedBits) -> FileBits:
        try:
            descriptor = os.open(self.file_of(staged.uri), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self.place.require()
            raise StagedBitsMissing(f"{staged.uri} is not in {self.folder}") from None
        return FileBits(descriptor, staged.offset, staged.length)

    def make_private(self, uri: str) -> None:
        """Whoever has the file open that bits were taken from could still write to it."""
        consumed = self._consumed(uri)
        if consumed is None:
            return
        path = Path(self.file_of(uri))
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # done with, by another worker: `open` will tell
        copy = self.folder / new_name(guid_in(path.name) or "")
        try:
            status = os.fstat(descriptor)
            if (status.st_dev, status.st_ino) != (consumed.device, consumed.inode):
                return
            _copy_to(descriptor, status.st_size, copy)
            copy.rename(path)
        finally:
            os.close(descriptor)
            copy.unlink(missing_ok=True)
        sync_folder(self.folder)

    def consume(self, uri: str) -> None:
        consumed = self._consumed(uri)
        if consumed is not None:
            origin = self.upload_folder / consumed.path
            try:
                if consumed.still(origin.lstat()):
                    origin.unlink()
            except (FileNotFoundError, NotADirectoryError):
                pass  # gone already

    def discard(self, uri: str) -> None:
        self.consume(uri)
        self._remove(uri)

    def check(self) -> None:
        """Raises `StoreAway`, or `PermissionError`, if nothing can be staged."""
        self.place.check()

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

    def file_of(self, uri: str) -> str:
        """The path of what a URI names. Raises `StagedBitsMissing` where it names nothing."""
        return f"{self._root}/{checked_name(uri)}"

    def _remove(self, uri: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.file_of(uri))  # noqa: PTH108 - for each upload: a Path takes longer

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
        if not resolved.is_relative_to(self.upload_folder.resolve()):
            raise BitsPathInvalid(bits_path, "is outside the upload directory")
        return resolved

    @staticmethod
    def _open_regular(origin: Path, bits_path: str) -> int:
        """Opens it without following a link put there meanwhile, or hanging on a FIFO."""
        try:
            source = os.open(origin, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise BitsPathInvalid(bits_path, f"can't be opened: {error.strerror}") from None
        if not stat.S_ISREG(os.fstat(source).st_mode):
            os.close(source)
            raise BitsPathInvalid(bits_path, "is not a regular file with one name")
        return source


def _copy_to(source: int, size: int, target: Path) -> None:
    """Copies an open file to a new one, durably. Raises `OSError`, and leaves nothing then."""
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        copy_range(source, 0, size, descriptor)
        os.fdatasync(descriptor)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
