"""Where each read model stands in the log: written with its rows, so that it is never wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Integer,
    MetaData,
    Table,
    Text,
    insert,
    select,
    update,
)

from domain.errors import NewerData
from domain.ports import EventLog, LoggedEvent

metadata = MetaData()
positions = Table(
    "projection_positions",
    metadata,
    Column("name", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("event_id", Text),  # of the event at that position: of which history it is
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
class Standing:
    """How far a read model is, and by which version of its projection it was built."""

    version: int
    at: Position


def standings(connection: Connection, *, for_update: bool = False) -> dict[str, Standing]:
    """Where every read model stands. `for_update` keeps others from writing until the commit."""
    query = select(positions).order_by(positions.c.name)
    if for_update:
        query = query.with_for_update()
    return {
        row.name: Standing(row.version, Position(row.position, row.event_id))
        for row in connection.execute(query)
    }


def lowest(found: Mapping[str, Standing], versions: Mapping[str, int]) -> int:
    """The position that every read model has. Raises `NewerData`.

    A read model that was not built yet, or by an older version, has nothing.
    """
    lowest_position = None
    for name, version in versions.items():
        standing = found.get(name)
        if standing is not None and standing.version > version:
            raise NewerData(
                f"read model {name!r} was built by version {standing.version} of its projection, "
                f"and this program knows {version}: upgrade it"
            )
        current = standing is not None and standing.version == version
        position = standing.at.position if standing is not None and current else 0
        lowest_position = position if lowest_position is None else min(lowest_position, position)
    return lowest_position or 0


def place(connection: Connection, name: str, standing: Standing) -> None:
    values = {
        "version": standing.version,
        "position": standing.at.position,
        "event_id": standing.at.event_id,
    }
    done = connection.execute(update(positions).where(positions.c.name == name).values(values))
    if not done.rowcount:
        connection.execute(insert(positions).values(name=name, **values))


def versions_of(projections: Iterable[object]) -> dict[str, int]:
    return {getattr(p, "name"): getattr(p, "version") for p in projections}  # noqa: B009
