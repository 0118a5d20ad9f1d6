"""Appends that come at the same time share one transaction, and its wait for the disk.

Whoever comes first commits for all who have come by then; who comes meanwhile is in the next
transaction. So nobody waits for a timer, and the busier it is the less each append costs.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from eventsourcing.persistence import StoredEvent


class Append:
    """Events that are appended together or not at all, and what came of it."""

    def __init__(self, events: Sequence[StoredEvent]) -> None:
        self.events = events
        self.positions: list[int] = []
        self.error: BaseException | None = None
        self.leads = False  # it is this one's turn to commit for all
        self._told = threading.Lock()
        self._told.acquire()

    def tell(self) -> None:
        self._told.release()

    def is_told(self, timeout: float = -1) -> bool:
        """Whether it was told something, within `timeout` seconds; -1 waits until it was."""
        return self._told.acquire(timeout=timeout)


class GroupCommit:
    """`commit` writes several appends in one transaction, and keeps with each what came of it.

    What it raises came of all of them. `turn` is entered around it, for as long as its argument
    says (seconds) at most, or raises; `refuse` makes the error for who has waited in vain.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[Append]], None],
        turn: Callable[[float], AbstractContextManager[object]],
        refuse: Callable[[], Exception],
        patience: float,
    ) -> None:
        self._commit = commit
        self._turn = turn
        self._refuse = refuse
        self._patience = patience
        self._lock = threading.Lock()
        self._waiting: list[Append] = []
        self._led = False  # somebody commits, or is about to

    def append(self, events: Sequence[StoredEvent]) -> list[int]:
        """The events' positions, when they are on the disk. Raises what came of it instead."""
        mine = Append(events)
        deadline = time.monotonic() + self._patience
        with self._lock:
            self._waiting.append(mine)
            mine.leads, self._led = not self._led, True
        if not mine.leads and not mine.is_told(self._patience):
            with self._lock:
                gives_up = mine in self._waiting and not mine.leads
                if gives_up:
                    self._waiting.remove(mine)
            if gives_up:
                raise self._refuse()
            mine.is_told()  # it is being committed: that ends, and is not to be taken back
        if mine.leads:
            self._lead(mine, deadline)
        if mine.error is not None:
            raise mine.error
        return mine.positions

    def _lead(self, mine: Append, deadline: float) -> None:
        taken: list[Append] = [mine]
        try:
            with self._turn(max(0.0, deadline - time.monotonic())):
                with self._lock:
                    taken, self._waiting = self._waiting, []
                self._commit(taken)
        except BaseException as error:
            for append in taken:
                append.error = append.error or _of_ones_own(error)
            if not isinstance(error, Exception):
                raise
        finally:
            with self._lock:
                if mine in self._waiting:
                    self._waiting.remove(mine)
                self._led = bool(self._waiting)
                if self._led:
                    self._waiting[0].leads = True
                    self._waiting[0].tell()
            for append in taken:
                if append is not mine:
                    append.tell()


def _of_ones_own(error: BaseException) -> BaseException:
    """Several threads raise it, each with its own way to it; the same, if it can't be copied."""
    try:
        same = copy.copy(error)
    except Exception:  # noqa: BLE001 - nobody may be left without an error: that is success
        return error
    same.__cause__ = error.__cause__ or error
    return same
