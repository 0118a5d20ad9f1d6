"""What this process does along with its appends to an SQLite file.

Read models are written in the transaction of the events: there is no second one, and nobody waits
for another thread. Followers get the events from memory.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Protocol

from sqlalchemy import Connection

from adapters.event_store.log import Stored
from adapters.event_store.tail import Tail
from adapters.event_store.transcoding import EventMapper
from domain.ports import LoggedEvent
from projections.bulk import driver_of

LARGEST_HELD = 16 << 10  # bytes of an event as it is stored; larger ones are read again


class Projecting(Protocol):
    """Whoever keeps read models (see `projections.engine`)."""

    def apply_along(
        self, connection: Connection, events: Sequence[LoggedEvent]
    ) -> Callable[[], None] | None: ...

    def look(self) -> None: ...


class Along:
    """Is told of what is appended by whoever has the turn to write."""

    def __init__(self, mapper: EventMapper) -> None:
        self.tail = Tail()
        self.projector: Projecting | None = None
        self._event_of = mapper.event_of
        self._events: list[LoggedEvent] = []
        self._are_small = True
        self._applied: Callable[[], None] | None = None

    def appending(self, connection: Connection, stored: Sequence[Stored]) -> None:
        """In the transaction, behind the events. What fails here does not fail the append.

        Raises `sqlite3.Error` where the whole transaction is gone: the disk is full, say.
        """
        self._events, self._applied = [], None
        self._are_small = all(len(row[-1]) <= LARGEST_HELD for row in stored)
        if self.projector is None:
            return
        try:
            self._events = [LoggedEvent(row[0], self._event_of(*row[1:])) for row in stored]
        except Exception:  # noqa: BLE001 - whoever reads it is told
            return
        driver = driver_of(connection)
        driver.execute("SAVEPOINT along")
        try:
            self._applied = self.projector.apply_along(connection, self._events)
        except Exception as error:  # the projector meets it again, and deals with it
            if not driver.in_transaction:
                raise sqlite3.OperationalError(
                    f"SQLite has taken all of it back: {error}"
                ) from error
            driver.execute("ROLLBACK TO along")
        driver.execute("RELEASE along")

    def appended(self) -> None:
        """What was told last is committed."""
        if self._events and self._are_small:
            self.tail.add(self._events)
        if self._applied is not None:
            self._applied()
        elif self.projector is not None:
            self.projector.look()
