"""Where each read model stands in the log: written with its rows, so that it is never wrong.

Beside that: which of them are being built anew, and which have met an event that they can't
digest.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Integer,
    MetaData,
    Table,
    Text,
    bindparam,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.dialects import sqlite

from domain.errors import NewerData
from domain.ports import EventLog, LoggedEvent
from projections.bulk import OnSQLite, driver_of, errors_of

TOKEN_LENGTH = 8
NOWHERE = -1  # before any position, also that of an empty log
FOR_EVER = 2**63 - 1  # a position that no log reaches

metadata = MetaData()
positions = Table(
    "projection_positions",
    metadata,
    Column("name", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("event_id", Text),  # of the event at that position: of which history it is
)
builds = Table(
    "projection_builds",
    metadata,
    Column("name", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("token", Text, nullable=False),  # what its tables are named with
    Column("position", BigInteger, nullable=False),
    Column("event_id", Text),
    Column("problem", Text),  # the event that it can't digest, and why
)
stops = Table(
    "projection_stops",
    metadata,
    Column("name", Text, primary_key=True),
    Column("position", BigInteger, nullable=False),  # of the event that it can't digest
    Column("event_id", Text, nullable=False),
    Column("reason", Text, nullable=False),
)


@dataclass(frozen=True)
class Position:
    """A place in the log: behind which event, and of which history that is.

    A log that was restored from a backup has other events at the positions that were
    appended since; `event_id` tells them apart. It is None at 0.
    """

    position: int = 0
    event_id: str | None = None

    @classmethod
    def of(cls, logged: LoggedEvent) -> Position:
        return cls(logged.position, logged.event.event_id)

    def is_in(self, log: EventLog) -> bool:
        """Whether the log has that event there."""
        if not self.position:
            return True
        found = log.read(self.position - 1, 1)
        return bool(found) and Position.of(found[0]) == self


@dataclass(frozen=True)
class Stop:
    """The event that a read model stopped before, since it can't digest it, and why."""

    at: Position
    reason: str

    def __str__(self) -> str:
        return f"event {self.at.event_id} at position {self.at.position}: {self.reason}"


@dataclass(frozen=True)
class Standing:
    """How far a read model is, and by which version of its projection it was built.

    `building` is the version that is built beside it, if one is, and `problem` what holds
    that up; `stop` is what it has stopped before itself.
    """

    version: int
    at: Position
    building: int | None = None
    problem: str | None = None
    stop: Stop | None = None

    def serves(self, version: int) -> bool:
        """Whether a program that knows `version` reads it: its own, or until its own is built."""
        return version in (self.version, self.building)


_STANDINGS = (
    select(
        positions,
        *(builds.c[name].label(f"build_{name}") for name in ("version", "problem")),
        *(stops.c[name].label(f"stop_{name}") for name in ("position", "event_id", "reason")),
    )
    .select_from(
        positions.outerjoin(builds, builds.c.name == positions.c.name).outerjoin(
            stops, stops.c.name == positions.c.name
        )
    )
    .order_by(positions.c.name)
)
_STANDINGS_ON_SQLITE = str(_STANDINGS.compile(dialect=sqlite.dialect()))
_STANDINGS_FOR_UPDATE = _STANDINGS.with_for_update(of=positions)


def standings(connection: Connection, *, for_update: bool = False) -> dict[str, Standing]:
    """Where every read model stands. `for_update` keeps others from writing until the commit."""
    if connection.dialect.name == "sqlite":  # where whoever writes is alone
        with errors_of(connection, _STANDINGS_ON_SQLITE):
            rows = driver_of(connection).execute(_STANDINGS_ON_SQLITE).fetchall()
    else:
        rows = connection.execute(_STANDINGS_FOR_UPDATE if for_update else _STANDINGS).all()
    return {
        name: Standing(
            version,
            Position(position, event_id),
            building,
            problem,
            None if before is None else Stop(Position(before, before_id), reason),
        )
        for name, version, position, event_id, building, problem, before, before_id, reason in rows
    }


_STOPPED = select(stops.c.name)


def stopped(connection: Connection, names: Iterable[str]) -> list[str]:
    """Which of these read models have stopped before an event."""
    return sorted({*connection.scalars(_STOPPED)} & {*names})


def troubles(found: Mapping[str, Standing]) -> list[str]:
    """What holds up read models, a sentence each, without what the events say."""
    told = []
    for name, standing in found.items():
        if standing.stop is not None:
            at = standing.stop.at
            told.append(f"{name} stays before event {at.event_id} at position {at.position}")
        if standing.problem is not None:
            told.append(f"{name} is not built anew: {standing.problem.partition(':')[0]}")
    return told


def lowest(found: Mapping[str, Standing], versions: Mapping[str, int]) -> int:
    """The position that every read model has that goes on. Raises `NewerData`.

    While one was not built yet, or by an older version that can't be read, it is `NOWHERE`. One
    that has stopped is read as it is: nobody waits for it.
    """
    lowest_position = FOR_EVER
    for name, version in versions.items():
        standing = found.get(name)
        if standing is None:
            return NOWHERE
        require_known(name, standing, version)
        if not standing.serves(version):
            return NOWHERE
        if standing.stop is None:
            lowest_position = min(lowest_position, standing.at.position)
    return lowest_position


def require_known(name: str, standing: Standing | None, version: int) -> None:
    """Raises `NewerData` for a read model that a newer version of the projection built."""
    if standing is not None and standing.version > version:
        raise NewerData(
            f"read model {name!r} was built by version {standing.version} of its projection, "
            f"and this program knows {version}: upgrade it"
        )


_PLACE = (
    update(positions)
    .where(positions.c.name == bindparam("_name"))
    .values({column: bindparam(column) for column in ("version", "position", "event_id")})
)
_PLACE_ON_SQLITE = OnSQLite(_PLACE)


def place(connection: Connection, name: str, version: int, at: Position) -> None:
    """Keeps where a read model stands, and by which version it was built."""
    values = {"version": version, "position": at.position, "event_id": at.event_id, "_name": name}
    if connection.dialect.name == "sqlite":
        done = _PLACE_ON_SQLITE.execute(connection, [values])
    else:
        done = connection.execute(_PLACE, values).rowcount
    if not done:
        del values["_name"]
        connection.execute(insert(positions).values(name=name, **values))


_GO_TO = (
    update(positions)
    .where(positions.c.name.in_(bindparam("names", expanding=True)))
    .values(position=bindparam("position"), event_id=bindparam("event_id"))
)
_GO_TO_ON_SQLITE = "UPDATE projection_positions SET position = ?, event_id = ? WHERE name IN"


def go_to(connection: Connection, names: Sequence[str], at: Position) -> None:
    """Keeps that these read models have gone on to a position."""
    if connection.dialect.name == "sqlite":
        text = f"{_GO_TO_ON_SQLITE} ({', '.join('?' * len(names))})"
        with errors_of(connection, text):
            driver_of(connection).execute(text, (at.position, at.event_id, *names))
    else:
        values = {"names": names, "position": at.position, "event_id": at.event_id}
        connection.execute(_GO_TO, values)


def forget(connection: Connection, name: str) -> None:
    """There is no such read model, whatever its tables say."""
    connection.execute(delete(positions).where(positions.c.name == name))


def building(connection: Connection, name: str) -> int | None:
    """The version of a read model that is being built, if one is."""
    return connection.scalar(select(builds.c.version).where(builds.c.name == name))


def begin_build(connection: Connection, name: str, version: int) -> str:
    """Keeps that a read model is to be built; returns what its tables are named with."""
    token = secrets.token_hex(TOKEN_LENGTH // 2)
    connection.execute(delete(builds).where(builds.c.name == name))
    connection.execute(insert(builds).values(name=name, version=version, token=token, position=0))
    return token


def end_build(connection: Connection, name: str) -> None:
    connection.execute(delete(builds).where(builds.c.name == name))


def stop(connection: Connection, name: str, before: Stop) -> None:
    """Keeps that a read model has stopped before an event."""
    go_on(connection, name)
    at = before.at
    connection.execute(
        insert(stops).values(
            name=name, position=at.position, event_id=at.event_id, reason=before.reason
        )
    )


def go_on(connection: Connection, name: str) -> None:
    """Keeps that it has not, or not any more."""
    connection.execute(delete(stops).where(stops.c.name == name))


def versions_of(projections: Iterable[object]) -> dict[str, int]:
    return {getattr(p, "name"): getattr(p, "version") for p in projections}  # noqa: B009
