"""You read what you wrote: reads wait for the read model, a little, and never answer stale."""

from __future__ import annotations

import logging

from adapters.http.faults import ReadModelBehind
from domain.ports import EventLog
from projections.progress import Progress

logger = logging.getLogger("packtrail.http")

BOUND = 1.5  # seconds that a request waits for the read model


class Freshness:
    """Once somebody has waited in vain, nobody waits until the read model has caught up with that.

    It is behind for longer than the bound then, and who waits keeps a worker thread.
    """

    def __init__(self, progress: Progress, log: EventLog, bound: float = BOUND) -> None:
        self._progress = progress
        self._log = log
        self._bound = bound
        self._missed = 0  # the position that was waited for in vain

    def after(self, position: int | None) -> None:
        """Waits until the read model has what a command wrote. It has succeeded either way."""
        if position is None:
            return
        try:
            self._reaches(position)
        except Exception:
            logger.warning("committed; whether it can be read yet is not known", exc_info=True)

    def require(self) -> None:
        """Waits until the read model has all that the log had. Raises `ReadModelBehind`."""
        head = self._log.head()
        if not self._reaches(head):
            raise ReadModelBehind(f"the read models are not at position {head} yet")

    def _reaches(self, position: int) -> bool:
        now = self._progress.position
        if now >= position:
            return True
        if now < self._missed:
            return False
        if self._progress.wait_for(position, self._bound):
            return True
        self._missed = position
        return False
