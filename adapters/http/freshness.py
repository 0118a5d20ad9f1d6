"""You read what you wrote: reads wait for the read model, a little, and never answer stale."""

from __future__ import annotations

import logging

from adapters.http.faults import ReadModelBehind
from domain.ports import EventLog
from projections.progress import Progress

logger = logging.getLogger("packtrail.http")

BOUND = 1.5  # seconds that a request waits for the read model


class Freshness:
    def __init__(self, progress: Progress, log: EventLog, bound: float = BOUND) -> None:
        self._progress = progress
        self._log = log
        self._bound = bound

    def after(self, position: int | None) -> None:
        """Waits until the read model has what a command wrote. It has succeeded either way."""
        if position is None:
            return
        try:
            self._progress.wait_for(position, self._bound)
        except Exception:
            logger.warning("committed; whether it can be read yet is not known", exc_info=True)

    def require(self) -> None:
        """Waits until the read model has all that the log had. Raises `ReadModelBehind`.

        A read model that has been behind for longer than the bound is refused at once.
        """
        head = self._log.head()
        if self._progress.position >= head:
            return
        left = self._bound - self._progress.seconds_behind()
        if left <= 0 or not self._progress.wait_for(head, left):
            raise ReadModelBehind
