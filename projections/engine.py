"""Feeds read models from the log, and rebuilds them.

The rows of a read model and the position that they stand for are written in one
transaction: what a reader sees is always the log up to some position, whole.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

from sqlalchemy import Connection, Engine, Table, delete, inspect

from domain.ports import EventLog, LoggedEvent
from projections.positions import Position, Standing, lowest, place, standings, versions_of

BATCH = 500  # events applied in one transaction
PATIENCE = 1.0  # seconds between looks at the log when nothing wakes the projector
MAX_DELAY = 1.0  # seconds between tries while the log can't be read or applied
logger = logging.getLogger("packtrail.projector")


class Projection(Protocol):
    """One read model: tables, and how events change their rows.

    `version` changes whenever the same events would give other rows; a read model of
    another version is dropped and built anew.
    """

    name: str
    version: int
    tables: Sequence[Table]

    def apply(self, connection: Connection, events: Sequence[LoggedEvent]) -> None: ...


class Projector:
    """Follows the log on a thread and applies it to projections.

    `writing` is entered around each transaction (an SQLite file has one writer at a time).
    `announce` tells other processes, in the transaction, which position it reaches.

    Two projectors on one database do no harm: each holds the positions' rows while it
    applies what is behind them.
    """

    def __init__(
        self,
        log: EventLog,
        engine: Engine,
        projections: Sequence[Projection],
        writing: AbstractContextManager[object] | None = None,
        announce: Callable[[Connection, int], None] = lambda connection, position: None,
    ) -> None:
        self._log = log
        self._engine = engine
        self._projections = projections
        self._versions = versions_of(projections)
        self._announce = announce
        self._writing = writing or nullcontext()
        self._advanced = threading.Condition()
        self._position = 0
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def position(self) -> int:
        """The log's position up to which every read model is there."""
        return self._position

    @property
    def names(self) -> list[str]:
        return [projection.name for projection in self._projections]

    def prepare(self) -> None:
        """Makes the read models that are not there; empties those that are not of this log.

        That is what an older version built, and what stands in another history.

        Raises `NewerData` for one that a newer version built.
        """
        with self._transaction() as connection:
            found = standings(connection, for_update=True)
            lowest(found, self._versions)
            has_table = inspect(connection).has_table
            for projection in self._projections:
                name = projection.name
                standing = found.get(name)
                if standing is None or standing.version != projection.version:
                    self._empty(connection, projection)
                elif not all(has_table(table.name) for table in projection.tables):
                    logger.warning("a table of read model %s is gone: it is built anew", name)
                    self._empty(connection, projection)
                elif not standing.at.is_in(self._log):
                    logger.warning(
                        "read model %s stands at position %d of another history than the log's "
                        "(was the log restored?): it is built anew",
                        name,
                        standing.at.position,
                    )
                    self._empty(connection, projection)

    def catch_up(self, progress: Callable[[int], None] = lambda position: None) -> None:
        """Applies all there is in the log now, telling `progress` each position reached."""
        while self._step():
            progress(self._position)

    def rebuild(
        self,
        names: Sequence[str],
        progress: Callable[[int], None] = lambda position: None,
    ) -> None:
        """Drops the named read models and builds them again, in one transaction.

        Readers see the old rows until the new ones are all there; a crash leaves the old.
        """
        chosen = [projection for projection in self._projections if projection.name in names]
        with self._transaction() as connection:
            lowest(standings(connection, for_update=True), self._versions)
            for projection in chosen:
                for table in projection.tables:
                    connection.execute(delete(table))
            at = Position()
            while events := self._log.read(at.position, BATCH):
                for projection in chosen:
                    projection.apply(connection, events)
                at = Position.of(events[-1])
                progress(at.position)
            for projection in chosen:
                self._place(connection, projection, at)

    def wait_for(self, position: int, timeout: float) -> bool:
        """Whether the read models have `position`, within `timeout` seconds."""
        if self._position >= position:
            return True
        with self._advanced:
            return self._advanced.wait_for(lambda: self._position >= position, timeout)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._follow, name="projector", daemon=True)
        self._thread.start()

    def stop(self, timeout: float | None = None) -> bool:
        """Ends following; whether the thread has ended within `timeout` seconds."""
        self._stopping.set()
        self._log.wake()
        if self._thread is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _follow(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                if not self._step():
                    self._log.wait(self._position, PATIENCE)
                failures = 0
            except Exception:
                failures += 1
                delay = min(0.25 * 2.0 ** min(failures - 1, 10), MAX_DELAY)
                logger.exception(
                    "read models stay at position %d; trying again in %.1f s", self._position, delay
                )
                self._stopping.wait(delay)

    def _step(self) -> bool:
        """Applies the next batch; whether there was one."""
        events: Sequence[LoggedEvent] = []
        if self._position:  # known: nothing to ask the database first
            events = self._log.read(self._position, BATCH)
            if not events:
                return False
        with self._transaction() as connection:
            found = standings(connection, for_update=True)
            start = lowest(found, self._versions)
            if not events or events[0].position <= start or start < self._position:
                events = self._log.read(start, BATCH)
            for projection in self._projections:
                reached = found[projection.name].at.position
                fresh = [e for e in events if e.position > reached]
                if fresh:
                    projection.apply(connection, fresh)
                    self._place(connection, projection, Position.of(fresh[-1]))
            if events:
                self._announce(connection, events[-1].position)
        self._advance(events[-1].position if events else start)
        return bool(events)

    def _advance(self, position: int) -> None:
        with self._advanced:
            self._position = position
            self._advanced.notify_all()

    def _place(self, connection: Connection, projection: Projection, at: Position) -> None:
        place(connection, projection.name, Standing(projection.version, at))

    def _empty(self, connection: Connection, projection: Projection) -> None:
        for table in projection.tables:  # another version may have other columns
            table.drop(connection, checkfirst=True)
            table.create(connection)
        self._place(connection, projection, Position())

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self._writing, self._engine.begin() as connection:
            yield connection
