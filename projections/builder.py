"""Builds read models anew beside those that are read, and puts them in their place.

The new one's tables have names of their own until it has all that the log has. Then it takes
the old one's names in one transaction: readers have the old or the new, whole. How far a build
has come is written with its rows, so that whoever comes after a crash goes on with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from sqlalchemy import Connection, Engine, Index, Table, inspect, select, update

from domain.errors import NewerData, UnreadableEvent
from domain.ports import EventLog, LoggedEvent
from projections.digestion import apply_one_by_one, is_of_the_event
from projections.engine import Projection
from projections.positions import (
    Position,
    Stop,
    begin_build,
    builds,
    end_build,
    go_on,
    place,
    require_known,
    standings,
)
from projections.replacing import clear_away, create, take_the_place
from projections.turns import Turns

LONG = 5_000  # events of one batch
ROUNDS = 10  # batches applied in one transaction, while nobody else writes
HOLD = 0.5  # seconds, after which no further one is begun
GAP = 0.01  # seconds between two such transactions, beside the reading of events
QUIET = 0.3  # seconds without a write, after which nobody is thought to write
SHORT = 1_000  # events of one transaction while somebody does, who waits for the database file
INDEXED = 2_000_000  # the position from which on indexes are there; they are made at once before
CACHE = 8_192  # KiB of pages that SQLite keeps: more of them bring nothing
NEAR = 200  # events from the log's head at which the switch is made
LOCK_TIMEOUT = 200  # milliseconds for PostgreSQL's lock on a table that is replaced


class _LogAway(OSError):
    """The log can't be read just now."""


class BuildTaken(Exception):
    """Another process builds the same read model."""


class Indigestible(Exception):
    """A projection can't digest an event: the old read model goes on being read."""

    def __init__(self, name: str, stop: Stop) -> None:
        super().__init__(f"read model {name} can't be built: {stop}")
        self.name = name
        self.stop = stop


class _Somewhere(Exception):
    """There is an event in a transaction's batches that can't be digested."""


class _Choked(Exception):
    """A build can't digest one of a batch of events."""

    def __init__(self, build: _Build) -> None:
        super().__init__(build.name)
        self.build = build


@dataclass(frozen=True)
class _Build:
    """A read model that is being built, and how far it is."""

    projection: Projection
    token: str
    at: Position

    @property
    def name(self) -> str:
        return self.projection.name


class Builder:
    """Builds in this thread; the read models that are read may be followed meanwhile.

    `make` gives all projections, on tables whose names end with a suffix. `writing` and
    `announce` are as the `Projector` has them.
    """

    def __init__(
        self,
        log: EventLog,
        engine: Engine,
        make: Callable[[str], Sequence[Projection]],
        writing: AbstractContextManager[object] | None = None,
        announce: Callable[[Connection, int], None] = lambda connection, position: None,
    ) -> None:
        self._log = log
        self._turns = Turns(engine, writing)
        self._projections = {projection.name: projection for projection in make("")}
        self._make = make
        self._announce = announce

    @property
    def names(self) -> list[str]:
        return list(self._projections)

    def _tables(self) -> list[Table]:
        return [table for known in self._projections.values() for table in known.tables]

    def begun(self) -> list[str]:
        """What somebody has begun to build, for this version, and not put in its place."""
        with self._turns.transaction() as connection:
            rows = connection.execute(select(builds.c.name, builds.c.version))
            found = {row.name: row.version for row in rows}
        return [
            name for name, known in self._projections.items() if found.get(name) == known.version
        ]

    def missing(self) -> list[str]:
        """What is to be built and is not there in another form either, so that nothing is read."""
        with self._turns.transaction() as connection:
            there = standings(connection)
        return [name for name in self.begun() if name not in there]

    def build(
        self, names: Sequence[str], progress: Callable[[int], None] = lambda position: None
    ) -> int:
        """Builds read models, or goes on with that, and puts them in their place.

        Tells `progress` each position reached; returns the last. Raises `BuildTaken`,
        `Indigestible`, `NewerData`.
        """
        building = self._turns.persistently(self._begin_all, names)
        head, near, most, indexed = self._turns.persistently(self._head), NEAR, ROUNDS, False
        batch, rounds = SHORT, 1
        wrote = time.monotonic()  # the last time that somebody else was seen to
        while True:
            at = _lowest(building)
            progress(at)
            events = self._first(at, batch, building)
            if not indexed and (at > INDEXED or len(events) < near):
                self._make_indexes(building)
                indexed = True
                continue  # that took a while, in which more may have been written
            began = time.monotonic()
            try:
                if len(events) < near:
                    position = self._turns.persistently(self._switch, building)
                    break
                building = self._turns.persistently(self._advance, building, events, rounds)
            except _Somewhere:  # so it is looked for, batch by batch
                near, most = 1, 1
            # also where nobody was seen to write: perhaps for want of a turn
            self._turns.let_in(GAP if batch == LONG else time.monotonic() - began)
            seen, head = head, self._turns.persistently(self._head)
            if head > seen:
                wrote = time.monotonic()
            alone = time.monotonic() - wrote > QUIET
            batch, rounds = (LONG, most) if alone else (SHORT, 1)
        progress(position)
        clear_away(self._turns, self._tables())
        return position

    def _begin_all(self, names: Sequence[str]) -> list[_Build]:
        with self._turns.transaction() as connection:
            return [self._begin(connection, name) for name in names]

    def _begin(self, connection: Connection, name: str) -> _Build:
        """Goes on where somebody has stopped, if what there is can be used."""
        known = self._projections[name]
        require_known(name, standings(connection, for_update=True).get(name), known.version)
        found = connection.execute(select(builds).where(builds.c.name == name)).first()
        if found is not None:
            if found.version > known.version:
                raise NewerData(
                    f"read model {name!r} is being built by version {found.version} of its "
                    f"projection, and this program knows {known.version}: upgrade it"
                )
            projection = self._beside(name, found.token)
            at = Position(found.position, found.event_id)
            has_table = inspect(connection).has_table
            if (
                found.version == known.version
                and all(has_table(table.name) for table in projection.tables)
                and at.is_in(self._log)
            ):
                return _Build(projection, found.token, at)
            for table in projection.tables:
                table.drop(connection, checkfirst=True)
        token = begin_build(connection, name, known.version)
        projection = self._beside(name, token)
        for table in projection.tables:
            create(connection, table)
        return _Build(projection, token, Position())

    def _beside(self, name: str, token: str) -> Projection:
        return next(found for found in self._make(f"_{token}") if found.name == name)

    def _first(self, after: int, limit: int, building: Sequence[_Build]) -> Sequence[LoggedEvent]:
        """The next events. Raises `Indigestible` where they can't be read."""
        try:
            return self._turns.persistently(self._read, after, limit)
        except UnreadableEvent as error:
            stop = Stop(Position(error.position, error.event_id), error.reason)
            raise self._refusal(building, stop) from error

    def _read(self, after: int, limit: int) -> Sequence[LoggedEvent]:
        try:
            return self._log.read(after, limit)
        except (NewerData, UnreadableEvent):
            raise
        except Exception as error:
            raise _LogAway from error

    def _head(self) -> int:
        try:
            return self._log.head()
        except Exception as error:
            raise _LogAway from error

    def _advance(
        self, building: Sequence[_Build], events: Sequence[LoggedEvent], rounds: int
    ) -> list[_Build]:
        """Applies events, and more of them for up to so many rounds, in one transaction."""
        advanced = list(building)
        try:
            with self._turns.transaction() as connection:
                if self._turns.on_sqlite:
                    connection.exec_driver_sql(f"PRAGMA cache_size = -{CACHE}")
                until = time.monotonic() + HOLD
                for number in range(rounds):
                    if number:
                        if time.monotonic() > until:
                            break
                        try:
                            events = self._read(_lowest(advanced), LONG)
                        except (NewerData, UnreadableEvent):
                            break  # is told when it comes first
                    if not events:
                        break
                    advanced = self._apply(connection, advanced, events)
        except _Choked as error:
            if rounds > 1:
                raise _Somewhere from error
            stop = self._find(error.build, events)
            if stop is None:
                raise
            raise self._refusal([error.build], stop) from error.__cause__
        return advanced

    def _apply(
        self, connection: Connection, building: Sequence[_Build], events: Sequence[LoggedEvent]
    ) -> list[_Build]:
        """Raises `BuildTaken`, `_Choked`."""
        advanced = []
        for build in building:
            fresh = _fresh(build, events)
            if not fresh:
                advanced.append(build)
                continue
            at = Position.of(fresh[-1])
            self._keep(connection, build, at)
            try:
                build.projection.apply(connection, fresh)
            except Exception as error:
                if is_of_the_event(error):
                    raise _Choked(build) from error
                raise
            advanced.append(replace(build, at=at))
        return advanced

    def _keep(self, connection: Connection, build: _Build, at: Position) -> None:
        """Keeps how far a build is. Raises `BuildTaken` where it is not as we left it."""
        as_we_left_it = update(builds).where(
            builds.c.name == build.name,
            builds.c.token == build.token,
            builds.c.position == build.at.position,
        )
        values = {"position": at.position, "event_id": at.event_id, "problem": None}
        if not connection.execute(as_we_left_it.values(values)).rowcount:
            raise BuildTaken(
                f"another process builds read model {build.name}, or has put it in its place"
            )

    def _find(self, build: _Build, events: Sequence[LoggedEvent]) -> Stop | None:
        """The event that can't be digested, found by applying one by one; nothing is changed."""
        with self._turns.transaction() as connection, connection.begin_nested() as attempt:
            _, stop = apply_one_by_one(connection, build.projection.apply, _fresh(build, events))
            attempt.rollback()
        return stop

    def _refusal(self, building: Sequence[_Build], stop: Stop) -> Indigestible:
        """Keeps what holds the builds up, for whoever looks at their standings."""
        with self._turns.transaction() as connection:
            for build in building:
                connection.execute(
                    update(builds).where(builds.c.name == build.name).values(problem=str(stop))
                )
        return Indigestible(", ".join(build.name for build in building), stop)

    def _make_indexes(self, building: Sequence[_Build]) -> None:
        """One by one: each takes a moment in which (on SQLite) nobody else writes."""
        for build in building:
            for table in build.projection.tables:
                for index in table.indexes:
                    began = time.monotonic()
                    self._turns.persistently(self._make_index, build, index)
                    self._turns.let_in(time.monotonic() - began)
                if not self._turns.on_sqlite:
                    self._turns.persistently(self._analyze, build, table)

    def _analyze(self, build: _Build, table: Table) -> None:
        with self._turns.transaction() as connection:
            self._keep(connection, build, build.at)
            connection.exec_driver_sql(f"ANALYZE {table.name}")

    def _make_index(self, build: _Build, index: Index) -> None:
        with self._turns.transaction() as connection:
            self._keep(connection, build, build.at)
            index.create(connection, checkfirst=True)

    def _switch(self, building: Sequence[_Build]) -> int:
        """Applies the last events and renames the tables, while nobody else moves read models."""
        with self._turns.transaction() as connection:
            if not self._turns.on_sqlite:  # readers wait behind us for the tables
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT}")
            found = standings(connection, for_update=True)
            for build in building:
                self._keep(connection, build, build.at)
            finished = list(building)
            head = self._head()  # where the old ones are at most, which go no further meanwhile
            while _lowest(finished) < head:
                try:
                    events = self._read(_lowest(finished), LONG)
                    finished = self._apply(connection, finished, events)
                except (_Choked, UnreadableEvent) as error:
                    raise _Somewhere from error
            for build in finished:
                known = self._projections[build.name]
                require_known(build.name, found.get(build.name), known.version)
                for table, new in zip(known.tables, build.projection.tables, strict=True):
                    take_the_place(connection, table, new, build.token)
                end_build(connection, build.name)
                go_on(connection, build.name)
                place(connection, build.name, known.version, build.at)
            position = _lowest(finished)
            self._announce(connection, position)
        return position


def _lowest(building: Sequence[_Build]) -> int:
    return min(build.at.position for build in building)


def _fresh(build: _Build, events: Sequence[LoggedEvent]) -> list[LoggedEvent]:
    reached = build.at.position
    if events and events[0].position > reached:
        return list(events)
    return [logged for logged in events if logged.position > reached]
