"""Parts of which one runs at a time, in whatever process: the others stand by."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

logger = logging.getLogger("packtrail.leadership")

LOOK = 1.0  # seconds between looks at the lock
MAX_PAUSE = 10.0  # seconds between tries of a part that can't be started


class Part(Protocol):
    """Something that runs on threads of its own."""

    def start(self) -> None: ...

    def stop(self, timeout: float | None = None) -> bool:
        """Whether it has ended within `timeout` seconds."""


class Lock(Protocol):
    """Held by one process at a time, and lost with it."""

    def acquire(self) -> bool: ...

    def held(self) -> bool: ...

    def release(self) -> None: ...


class Led:
    """Runs a part while this process has the lock; made anew for each time it does."""

    def __init__(self, name: str, lock: Lock, make: Callable[[], Part]) -> None:
        self.name = name
        self._lock = lock
        self._make = make
        self._stopping = threading.Event()
        self._timeout: float | None = None
        self._finished = True
        self._thread = threading.Thread(target=self._run, name=f"{name}-lead", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float | None = None) -> bool:
        self._timeout = timeout
        self._stopping.set()
        self._thread.join(None if timeout is None else timeout + 2)
        return self._finished and not self._thread.is_alive()

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                if self._lock.acquire():
                    self._lead()
                failures = 0
            except Exception:
                failures += 1
                logger.exception("%s does not run here", self.name)
            finally:
                self._lock.release()
            self._stopping.wait(min(LOOK * 2.0 ** min(failures, 10), MAX_PAUSE))

    def _lead(self) -> None:
        part = self._make()
        part.start()
        logger.info("runs here", extra={"part": self.name})
        try:
            while not self._stopping.wait(LOOK):
                if not self._lock.held():
                    logger.warning("runs here no more", extra={"part": self.name})
                    return
        finally:
            self._finished = part.stop(self._timeout)
