"""Where a request's body goes: an upload's into staging, any other into bounded memory."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from waitress.buffers import OverflowableBuffer

from adapters.http.faults import BodyTooLarge
from domain.errors import UploadTooLarge

logger = logging.getLogger("packtrail.http")


class StagedBody(Protocol):
    """A body that is received into staging: it is written, and then kept or abandoned."""

    @property
    def size(self) -> int:
        """Bytes that were written."""

    @property
    def kept(self) -> bool:
        """Whether the log may name it."""

    def write(self, data: bytes | memoryview) -> None: ...

    def read_at(self, offset: int, length: int) -> bytes: ...

    def wait_for_disk(self, then: Callable[[], None]) -> bool:
        """Whether so much is not on the disk yet that more should wait.

        If so, `then` is called once when it may go on, from any thread.
        """

    def close(self) -> None: ...

    def abandon(self) -> None: ...


class UploadBody:
    """The buffer of an upload (waitress's buffer seam): each piece goes to staging at once.

    If nobody has staged it when the request is closed, it is removed.
    """

    def __init__(
        self,
        staged: StagedBody,
        max_size: int,
        overhead: int,
        release: Callable[[], None] = lambda: None,
    ) -> None:
        """`max_size` bytes of bits may come, and `overhead` bytes of the form around them.

        `release` is called when the request is closed.
        """
        self.staged = staged
        self._release = release
        self._max_size = max_size
        self._overhead = overhead

    def check(self, count: int) -> None:
        """Whether there is room for `count` bytes more. Raises `UploadTooLarge`."""
        if self.staged.size + count > self._max_size + self._overhead:
            raise UploadTooLarge(self._max_size)

    def append(self, data: bytes | memoryview) -> None:
        """Raises `UploadTooLarge`; `OSError`."""
        self.check(len(data))
        self.staged.write(data)

    def wait_for_disk(self, then: Callable[[], None]) -> bool:
        return self.staged.wait_for_disk(then)

    def close(self) -> None:
        """What can't be removed is left to the sweep: the request ends all the same."""
        try:
            if self.staged.kept:
                self.staged.close()
            else:
                self.staged.abandon()
        except OSError:
            logger.warning("the rest of an upload can't be removed from staging", exc_info=True)
        finally:
            self._release()

    def __len__(self) -> int:
        return self.staged.size

    def getfile(self) -> EmptyFile:
        return EmptyFile()


class SmallBody(OverflowableBuffer):  # type: ignore[misc]
    """A body that stays in memory, because it may not be large. Raises `BodyTooLarge`."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit + 1)
        self._limit = limit

    def check(self, count: int) -> None:
        """Whether there is room for `count` bytes more. Raises `BodyTooLarge`."""
        if len(self) + count > self._limit:
            raise BodyTooLarge(self._limit)

    def append(self, data: bytes | memoryview) -> None:
        self.check(len(data))
        super().append(bytes(data))


class EmptyFile:
    """What `wsgi.input` is of an upload: its body is in staging, and not to be read."""

    def read(self, size: int = -1) -> bytes:
        return b""

    def readline(self, size: int = -1) -> bytes:
        return b""
