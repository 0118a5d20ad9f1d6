"""Feeds read models from the log, and rebuilds them.

The rows of a read model and the position that they stand for are written in one
transaction: what a reader sees is always the log up to some position, whole.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    Table,
    Text,
    insert,
    select,
    update,
)

from domain.ports import EventLog, LoggedEvent

BATCH = 500  # events applied in one transaction
PATIENCE = 1.0  # seconds between looks at the log when nothing wakes the projector
logger = logging.getLogger("packtrail.projector")

metadata = MetaData()
positions = Table(
    "projection_positions",
    metadata,
    Column("name", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("position", BigInteger, nullable=False),
)


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
    """

    def __init__(
        self,
        log: EventLog,
        engine: Engine,
        projections: Sequence[Projection],
        writing: AbstractContextManager[object] | None = None,
    ) -> None:
        self._log = log
        self._engine = engine
        self._projections = projections
        self._writing = writing or nullcontext()
        self._advanced = threading.Condition()
        self._position = 0
        self._level_at = time.monotonic()
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
        """Makes the tables; empties read models that were built by another version."""
        with self._transaction() as connection:
            metadata.create_all(connection)
            found = {row.name: row for row in connection.execute(select(positions))}
            for projection in self._projections:
                row = found.get(projection.name)
                if row is None:
                    connection.execute(
                        insert(positions).values(
                            name=projection.name, version=projection.version, position=0
                        )
                    )
                elif row.version != projection.version:
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
            for projection in chosen:
                self._empty(connection, projection)
            position = 0
            while events := self._log.read(position, BATCH):
                for projection in chosen:
                    projection.apply(connection, events)
                position = events[-1].position
                progress(position)
            for projection in chosen:
                self._set_position(connection, projection, position)

    def wait_for(self, position: int, timeout: float) -> bool:
        """Whether the read models have `position`, within `timeout` seconds."""
        if self._position >= position:
            return True
        with self._advanced:
            return self._advanced.wait_for(lambda: self._position >= position, timeout)

    def seconds_behind(self) -> float:
        """For how long the read models have not been level with the log; 0 if they are."""
        if self._position >= self._log.head():
            self._level_at = time.monotonic()
            return 0.0
        return time.monotonic() - self._level_at

    def start(self) -> None:
        self._thread = threading.Thread(target=self._follow, name="projector", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._log.wake()
        if self._thread is not None:
            self._thread.join()

    def _follow(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                if not self._step():
                    self._level_at = time.monotonic()
                    self._log.wait(self._position, PATIENCE)
                failures = 0
            except Exception:
                failures += 1
                delay = min(2.0 ** (failures - 1), 60.0)
                logger.exception(
                    "read models stay at position %d; trying again in %d s", self._position, delay
                )
                self._stopping.wait(delay)

    def _step(self) -> bool:
        """Applies the next batch; whether there was one."""
        asked_at = time.monotonic()
        events: Sequence[LoggedEvent] = []
        if self._position:  # known: nothing to ask the database first
            events = self._log.read(self._position, BATCH)
            if not events:
                return False
        with self._transaction() as connection:
            reached = self._positions(connection)
            start = min(reached.values())
            if not events or events[0].position <= start or start < self._position:
                events = self._log.read(start, BATCH)
            for projection in self._projections:
                fresh = [e for e in events if e.position > reached[projection.name]]
                if fresh:
                    projection.apply(connection, fresh)
                    self._set_position(connection, projection, fresh[-1].position)
        self._advance(events[-1].position if events else start)
        if len(events) < BATCH:
            self._level_at = asked_at
        return bool(events)

    def _advance(self, position: int) -> None:
        with self._advanced:
            self._position = position
            self._advanced.notify_all()

    def _positions(self, connection: Connection) -> dict[str, int]:
        return {row.name: row.position for row in connection.execute(select(positions))}

    def _set_position(self, connection: Connection, projection: Projection, position: int) -> None:
        connection.execute(
            update(positions)
            .where(positions.c.name == projection.name)
            .values(version=projection.version, position=position)
        )

    def _empty(self, connection: Connection, projection: Projection) -> None:
        for table in projection.tables:
            table.drop(connection, checkfirst=True)
            table.create(connection)
        self._set_position(connection, projection, 0)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self._writing, self._engine.begin() as connection:
            yield connection
