"""Fails at once while something is known to be away, so that nobody waits in line for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PAUSE = 0.5  # seconds after a failure in which nobody tries
MEMORY = 2.0  # seconds behind that in which a failure is news


class Breaker:
    """After a failure one caller at a time finds out whether it is back; the others are refused.

    `failures` are the errors that say that it is away; `refuse` makes the error for those
    who are not let through.
    """

    def __init__(
        self,
        failures: tuple[type[Exception], ...],
        refuse: Callable[[], Exception],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._failures = failures
        self._refuse = refuse
        self._clock = clock
        self._lock = threading.Lock()
        self._away_until: float | None = None
        self._somebody_tries = False

    @property
    def is_away(self) -> bool:
        """Whether it failed a moment ago, and has not answered since.

        An older failure says little: perhaps nobody has asked since.
        """
        until = self._away_until
        return until is not None and self._clock() < until + MEMORY

    @contextmanager
    def __call__(self) -> Iterator[None]:
        tries = self._enter()
        try:
            yield
        except self._failures:
            with self._lock:
                self._away_until = self._clock() + PAUSE
            raise
        except Exception:
            self._answered()
            raise
        else:
            self._answered()
        finally:
            if tries:
                with self._lock:
                    self._somebody_tries = False

    def _answered(self) -> None:
        with self._lock:
            self._away_until = None

    def _enter(self) -> bool:
        """Whether the caller is the one who finds out. Raises what `refuse` makes."""
        with self._lock:
            if self._away_until is None:
                return False
            if self._somebody_tries or self._clock() < self._away_until:
                raise self._refuse()
            self._somebody_tries = True
            return True
