"""Feeds read models from the log.

The rows of a read model and the position that they stand for are written in one
transaction: what a reader sees is always the log up to some position, whole. A read model that
meets an event that it can't digest stops before it; the others go on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Protocol

from sqlalchemy import Connection, Engine, Table, inspect

from domain.errors import UnreadableEvent
from domain.ports import EventLog, LoggedEvent
from projections import positions
from projections.digestion import apply_one_by_one, is_of_the_event
from projections.positions import (
    FOR_EVER,
    NOWHERE,
    Position,
    Standing,
    Stop,
    lowest,
    place,
    standings,
    versions_of,
)

BATCH = 500  # events applied in one transaction
LONG = 5_000  # events of a log, from which on a missing read model is built, not followed to
PATIENCE = 1.0  # seconds between looks at the log when nothing wakes the projector
MAX_DELAY = 1.0  # seconds between tries while the log can't be read or applied
AGAIN = 60.0  # seconds between tries of an event that can't be digested
logger = logging.getLogger("packtrail.projector")


class Projection(Protocol):
    """One read model: tables, and how events change their rows.

    `version` changes whenever the same events would give other rows; a read model of
    another version is built anew.
    """

    name: str
    version: int
    tables: Sequence[Table]

    def apply(self, connection: Connection, events: Sequence[LoggedEvent]) -> None: ...


class _Indigestible(Exception):
    """A projection has failed for what an event is."""


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
        self._position = NOWHERE
        self._followed = 0  # the position that all read models have that are there
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._reached: tuple[Mapping[str, Standing], int] | None = None
        self._goes_along = False
        self._to_look = threading.Event()

    @property
    def position(self) -> int:
        """The log's position up to which every read model is there."""
        return self._position

    @property
    def names(self) -> list[str]:
        return [projection.name for projection in self._projections]

    def prepare(self) -> None:
        """Makes the read models that are not there, or not of this log.

        Where the log is long, a `Builder` is to build them; nothing is read until it has. One that
        an older version built is read, and followed, until a new one is built beside it; unless it
        lacks what this version reads, and is as if it were not there. One that had stopped before
        an event goes on, or stops again.

        Raises `NewerData` for one that a newer version built.
        """
        is_long = self._log.head() > LONG
        with self._transaction() as connection:
            found = standings(connection, for_update=True)
            lowest(found, self._versions)
            for projection in self._projections:
                name = projection.name
                positions.go_on(connection, name)
                standing = found.get(name)
                if standing is None or not _has_columns(connection, projection):
                    if standing is not None:
                        logger.warning("what read model %s needs is not there", name)
                    self._begin(connection, projection, is_long)
                elif not standing.at.is_in(self._log):
                    logger.warning(
                        "read model %s stands at position %d of another history than the log's "
                        "(was the log restored?): it is built anew",
                        name,
                        standing.at.position,
                    )
                    self._begin(connection, projection, is_long)
                elif not standing.serves(projection.version):
                    positions.begin_build(connection, name, projection.version)
                    logger.info("a new read model is to be built", extra={"part": name})
            found = standings(connection)
            self._reaches(found, self._start(found))

    def catch_up(self, progress: Callable[[int], None] = lambda position: None) -> None:
        """Applies all there is in the log now, telling `progress` each position reached."""
        while self._step():
            progress(self._position)

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
        self.look()
        if self._thread is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def goes_along(self) -> None:
        """What this process appends is applied by `apply_along`: the thread is told to look."""
        self._goes_along = True

    def look(self) -> None:
        """Has the thread look at the log now."""
        self._to_look.set()

    def apply_along(
        self, connection: Connection, events: Sequence[LoggedEvent]
    ) -> Callable[[], None] | None:
        """Applies events in the transaction that appends them; what to call when it is committed.

        None where they are not next, or not soon: then the thread gets there. Raises what a
        projection raises; the transaction is to go on without what was done here then.
        """
        found = standings(connection, for_update=True)
        start, first = self._start(found), events[0].position
        if start == NOWHERE or start >= first:
            return None
        if start + 1 < first:  # somebody else has appended, or some were left to the thread
            between = [e for e in self._log.read(start, BATCH) if e.position < first]
            if len(between) != first - start - 1:  # too many, or one of them can't be read
                return None
            events = [*between, *events]
        self._apply(connection, found, events)
        return lambda: self._advance(found, events[-1].position)

    def _follow(self) -> None:
        failures, tried = 0, time.monotonic()
        while not self._stopping.is_set():
            try:
                if time.monotonic() - tried > AGAIN:
                    self._try_stopped()
                    tried = time.monotonic()
                self._to_look.clear()
                if not self._step():
                    self._wait()
                failures = 0
            except Exception:
                failures += 1
                delay = min(0.25 * 2.0 ** min(failures - 1, 10), MAX_DELAY)
                logger.exception(
                    "read models stay at position %d; trying again in %.1f s", self._position, delay
                )
                self._stopping.wait(delay)

    def _wait(self) -> None:
        if self._goes_along:
            self._to_look.wait(PATIENCE)
        else:
            self._log.wait(self._followed, PATIENCE)

    def _step(self) -> bool:
        """Applies the next batch; whether there was one."""
        try:
            return self._step_all()
        except (_Indigestible, UnreadableEvent):
            return self._step_one_by_one()

    def _step_all(self) -> bool:
        events: Sequence[LoggedEvent] = []
        if 0 < self._position < FOR_EVER:  # known: nothing to ask the database first
            events = self._log.read(self._position, BATCH)
            if not events:
                return False
        with self._transaction() as connection:
            found = standings(connection, for_update=True)
            start = self._start(found)
            if not events or events[0].position <= start or start < self._position:
                events = self._log.read(start, BATCH)
            self._apply(connection, found, events)
            if events:
                self._announce(connection, events[-1].position)
            self._reaches(found, events[-1].position if events else start)
        return bool(events)

    def _apply(
        self, connection: Connection, found: Mapping[str, Standing], events: Sequence[LoggedEvent]
    ) -> None:
        """Lets each projection take what is new to it. Raises `_Indigestible`, or as it does."""
        advanced = []
        for projection in self._projections:
            fresh = _fresh(found.get(projection.name), events)
            if fresh:
                try:
                    projection.apply(connection, fresh)
                except Exception as error:
                    if is_of_the_event(error):
                        raise _Indigestible from error
                    raise
                advanced.append(projection.name)
        if advanced:
            positions.go_to(connection, advanced, Position.of(events[-1]))

    def _step_one_by_one(self) -> bool:
        """Takes a step in which some read models stop before an event, and the others do not."""
        with self._transaction() as connection:
            found = standings(connection, for_update=True)
            start = self._start(found)
            unreadable: Stop | None = None
            events: Sequence[LoggedEvent] = []
            try:
                events = self._log.read(start, BATCH)
            except UnreadableEvent as error:
                unreadable = Stop(Position(error.position, error.event_id), error.reason)
            for projection in self._projections:
                standing = found.get(projection.name)
                if standing is not None and standing.stop is None:
                    stop = self._digest(connection, projection, standing, events)
                    if unreadable is not None and standing.at.position < unreadable.at.position:
                        stop = unreadable
                    if stop is not None:
                        positions.stop(connection, projection.name, stop)
                        _tell(projection.name, stop)
            found = standings(connection)
            self._announce(connection, self._start(found))
            self._reaches(found, self._start(found))
        return True

    def _digest(
        self,
        connection: Connection,
        projection: Projection,
        standing: Standing,
        events: Sequence[LoggedEvent],
    ) -> Stop | None:
        """Applies what is new up to an event that can't be digested, which it returns."""
        fresh = _fresh(standing, events)
        count, stop = apply_one_by_one(connection, projection.apply, fresh)
        if count:
            at = Position.of(fresh[count - 1])
            place(connection, projection.name, standing.version, at)
        return stop

    def _try_stopped(self) -> None:
        """Lets read models that have stopped go on, if they can by now."""
        with self._transaction() as connection:
            found = standings(connection, for_update=True)
            for projection in self._projections:
                standing = found.get(projection.name)
                if standing is None or standing.stop is None:
                    continue
                try:
                    events = self._log.read(standing.at.position, 1)
                except UnreadableEvent:
                    _tell(projection.name, standing.stop)
                    continue
                going = replace(standing, stop=None)
                stop = self._digest(connection, projection, going, events)
                if stop is None:
                    positions.go_on(connection, projection.name)
                else:
                    _tell(projection.name, stop)
            found = standings(connection)
            self._reaches(found, self._start(found))

    def _start(self, found: Mapping[str, Standing]) -> int:
        """The position that all have that are there. Raises `NewerData`."""
        there = {name: known for name, known in self._versions.items() if name in found}
        return lowest(found, there)

    def _advance(self, found: Mapping[str, Standing], followed: int) -> None:
        everything = all(name in found for name in self._versions)
        with self._advanced:
            self._followed = followed
            self._position = followed if everything else NOWHERE
            self._advanced.notify_all()

    def _begin(self, connection: Connection, projection: Projection, is_long: bool) -> None:
        if is_long:
            positions.forget(connection, projection.name)
            if positions.building(connection, projection.name) != projection.version:
                positions.begin_build(connection, projection.name, projection.version)
        else:
            self._empty(connection, projection)

    def _empty(self, connection: Connection, projection: Projection) -> None:
        for table in projection.tables:  # another version may have other columns
            table.drop(connection, checkfirst=True)
            for index in table.indexes:  # of one whose place was taken, and that is still there
                connection.exec_driver_sql(f"DROP INDEX IF EXISTS {index.name}")
            table.create(connection)
        place(connection, projection.name, projection.version, Position())
        positions.end_build(connection, projection.name)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """What it `_reaches` is told when it is committed, and before anybody else writes."""
        with self._writing:
            self._reached = None
            with self._engine.begin() as connection:
                yield connection
            if self._reached is not None:
                self._advance(*self._reached)

    def _reaches(self, found: Mapping[str, Standing], followed: int) -> None:
        self._reached = found, followed


def _fresh(standing: Standing | None, events: Sequence[LoggedEvent]) -> list[LoggedEvent]:
    """Those that a read model does not have yet; none for one that is not there, or has stopped."""
    if standing is None or standing.stop is not None:
        return []
    reached = standing.at.position
    return [logged for logged in events if logged.position > reached]


def _has_columns(connection: Connection, projection: Projection) -> bool:
    """Whether the tables are there, with all columns that this version reads."""
    looking = inspect(connection)
    return all(
        looking.has_table(table.name)
        and {column["name"] for column in looking.get_columns(table.name)}
        >= {column.name for column in table.columns}
        for table in projection.tables
    )


def _tell(name: str, stop: Stop) -> None:
    logger.error("read model %s stays as it is: it can't digest %s", name, stop)
