"""How much one caller may ask of a process: requests in a minute, uploads at once."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from adapters.http.faults import RateLimited, TooManyUploads
from adapters.tokens import Caller

WINDOW = 60.0  # seconds
RETRY_UPLOAD = 1  # seconds


@dataclass(frozen=True)
class Standing:
    """How many requests a caller may still send, until when (seconds since the epoch)."""

    limit: int
    remaining: int
    reset: int

    def headers(self) -> dict[str, str]:
        return {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(self.reset),
        }


class RequestRate:
    """Counts requests in windows of a minute, that begin for all callers at once.

    Admins and builders are not counted.
    """

    def __init__(self, limit: int | None, clock: Callable[[], float] = time.time) -> None:
        self._limit = limit
        self._clock = clock
        self._window = 0
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def count(self, caller: Caller) -> Standing | None:
        """Where the caller stands with this request; None where nobody counts.

        Raises `RateLimited`.
        """
        if self._limit is None or caller.is_admin or caller.is_builder:
            return None
        count, reset = self._counted(caller, 1)
        standing = Standing(self._limit, max(0, self._limit - count), reset)
        if count > self._limit:
            again = max(1, math.ceil(reset - self._clock()))
            raise RateLimited(again, standing.headers())
        return standing

    def standing(self, caller: Caller) -> Standing | None:
        """Where the caller stands without one more request; None where nobody counts."""
        if self._limit is None or caller.is_admin or caller.is_builder:
            return None
        count, reset = self._counted(caller, 0)
        return Standing(self._limit, max(0, self._limit - count), reset)

    def _counted(self, caller: Caller, more: int) -> tuple[int, int]:
        """How many requests there are with `more`, and when the window ends."""
        window = int(self._clock() // WINDOW)
        with self._lock:
            if window != self._window:
                self._window = window
                self._counts.clear()  # so that there are as many counts as callers in a minute
            count = self._counts[caller.guid] + more
            self._counts[caller.guid] = count
        return count, math.ceil((window + 1) * WINDOW)


class UploadSlots:
    """Counts the uploads of each caller that are being received or taken in."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken: Counter[str] = Counter()
        self._lock = threading.Lock()

    def take(self, caller: Caller) -> Callable[[], None]:
        """Takes a slot; what is returned gives it back, once. Raises `TooManyUploads`."""
        with self._lock:
            if self._taken[caller.guid] >= self._limit:
                raise TooManyUploads(self._limit, RETRY_UPLOAD)
            self._taken[caller.guid] += 1
        given_back = threading.Lock()

        def release() -> None:
            if given_back.acquire(blocking=False):
                with self._lock:
                    self._taken[caller.guid] -= 1
                    if not self._taken[caller.guid]:
                        del self._taken[caller.guid]

        return release
