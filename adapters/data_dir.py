"""The data folder belongs to one process at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class DataDirInUse(Exception):
    """Another process serves from what is for one alone: a data folder, or a bus in memory."""


class DataDirLock:
    """Held while a process serves: the embedded engines are for one process."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # who may open it can hold it, and keep the service from starting
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        self._file = os.fdopen(os.open(folder / "serve.lock", flags, 0o600), "w")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise DataDirInUse(f"{folder} is in use by another packtrail serve") from None

    def release(self) -> None:
        self._file.close()
