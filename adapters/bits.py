"""Bits in a local file: read at any place without holding them, and made durable."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from domain.errors import NoRoomForUpload

# Bytes read at a time. Another thread that computes may make each piece wait for the interpreter,
# 5 ms every time: so there are few.
CHUNK = 4 << 20
ROOM_KEPT = 64 << 20  # bytes, or a hundredth of the file system where that is less


class FileBits:
    """`length` bytes from `offset` of an open file (a `Bits`, see `domain.ports`)."""

    def __init__(self, descriptor: int, offset: int, length: int) -> None:
        self._descriptor = descriptor
        self._offset = offset
        self.size = length

    @classmethod
    def of_file(cls, path: Path | str) -> Self:
        """The whole file. Raises `OSError`, also for what is no file: a pipe has no end."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "it is no file", str(path))
        return cls(descriptor, 0, found.st_size)

    def read_at(self, offset: int, length: int) -> bytes:
        wanted = max(0, min(length, self.size - offset))
        return os.pread(self._descriptor, wanted, self._offset + offset)

    def chunks(self) -> Iterator[memoryview]:
        buffer = before = memoryview(bytearray(min(CHUNK, self.size)))
        if self.size > CHUNK:
            before = memoryview(bytearray(CHUNK))
        position, end = self._offset, self._offset + self.size
        while position < end:
            count = os.preadv(self._descriptor, [buffer[: end - position]], position)
            if not count:
                raise OSError(f"the file ends {end - position} bytes too early")
            yield buffer[:count]
            position += count
            buffer, before = before, buffer

    def fileno(self) -> int:
        return self._descriptor

    def file_at(self, start: int) -> io.FileIO:
        """The open file, standing at byte `start` of the bits; closing it is the caller's."""
        file = io.FileIO(self._descriptor, "rb", closefd=True)
        file.seek(self._offset + start)
        return file

    def close(self) -> None:
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class GrowingFile:
    """An open file that a body is written to, and read from again before it is whole."""

    def __init__(self, descriptor: int) -> None:
        self.size = 0
        self._descriptor: int | None = descriptor

    @property
    def descriptor(self) -> int:
        assert self._descriptor is not None, "the growing file is closed"
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

    def wait_for_disk(self, then: Callable[[], None]) -> bool:
        """No: nobody waits for these bytes to be on the disk."""
        return False

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def require_room(folder: Path, size: int) -> None:
    """Whether `size` bytes fit into a folder's file system, and the log can go on beside them.

    Raises `NoRoomForUpload`; `OSError`.
    """
    found = os.statvfs(folder)
    kept = min(found.f_blocks * found.f_frsize // 100, ROOM_KEPT)
    room = found.f_bavail * found.f_frsize - kept
    if size > room:
        raise NoRoomForUpload(f"{size} bytes, and there is room for {max(0, room)}")


def is_within(name: str) -> bool:
    """Whether what has this name in a folder is not outside of it."""
    return not name.startswith("/") and ".." not in name.split("/") and "\0" not in name


def sync_folder(folder: Path | str) -> None:
    """Makes the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def copy_range(source: int, offset: int, length: int, target: int) -> None:
    """Copies `length` bytes from `offset` of one descriptor to another, in the kernel.

    Falls back to `sendfile` where the file systems can't do it. Raises `OSError`.
    """
    copy = _copy_file_range
    while length:
        try:
            count = copy(source, target, offset, length)
        except OSError:
            if copy is _sendfile:
                raise
            copy = _sendfile
            continue
        if not count:
            raise OSError(f"the file ends {length} bytes too early")
        offset += count
        length -= count


def _copy_file_range(source: int, target: int, offset: int, length: int) -> int:
    return os.copy_file_range(source, target, length, offset_src=offset)


def _sendfile(source: int, target: int, offset: int, length: int) -> int:
    return os.sendfile(target, source, offset, min(length, 1 << 30))
