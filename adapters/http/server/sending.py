"""A file that leaves through the kernel: its bytes go from the page cache to the socket."""

from __future__ import annotations

import errno
import io
import os
from typing import Any

from waitress.buffers import ReadOnlyFileBasedBuffer

COPIED_AT_ONCE = 256 * 1024  # bytes, where they can't leave by the kernel
SENT_AT_ONCE = 1 << 20  # bytes to one client, before it is somebody else's turn
SENT_ALONE = 8 << 20  # where nobody else waits for a turn when it begins: some milliseconds


class FileEndsEarly(Exception):
    """A file has become shorter than what was promised of it."""


class SentFile(ReadOnlyFileBasedBuffer):  # type: ignore[misc]
    """The rest of an open file, from where it stands (`wsgi.file_wrapper`; a waitress buffer)."""

    def __init__(self, file: io.FileIO, block_size: int = 0) -> None:
        """`block_size` is WSGI's, and means nothing here."""
        self.file = file
        self.remain = 0
        self._offset = 0

    def prepare(self, size: int | None = None) -> int:
        """How many bytes are to be sent: what was promised, else all there are."""
        descriptor = self.file.fileno()
        self._offset = self.file.tell()
        there = os.fstat(descriptor).st_size - self._offset
        self.remain = max(0, there) if size is None else size
        os.posix_fadvise(descriptor, self._offset, self.remain, os.POSIX_FADV_SEQUENTIAL)
        return self.remain

    def send_to(self, descriptor: int, most: int) -> int:
        """Sends up to `most` bytes to a socket; how many it has taken.

        Raises `FileEndsEarly`; `BlockingIOError` where it takes none now; `OSError`.
        """
        wanted = min(most, self.remain)
        try:
            count = os.sendfile(descriptor, self.file.fileno(), self._offset, wanted)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS):
                raise
            # a file system that can't do it
            piece = os.pread(self.file.fileno(), min(wanted, COPIED_AT_ONCE), self._offset)
            count = os.write(descriptor, piece) if piece else 0
        if not count:
            raise FileEndsEarly(f"{self.remain} bytes are missing")
        self._offset += count
        self.remain -= count
        return count

    def get(self, numbytes: int = -1, skip: bool = False) -> Any:
        raise NotImplementedError("no byte of it comes by here")
