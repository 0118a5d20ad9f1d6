"""Tables with a row a guid: a batch of events changes rows in memory, then in the database."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    MetaData,
    Select,
    Table,
    delete,
    insert,
    quoted_name,
    select,
    update,
)
from sqlalchemy import bindparam as bind

from domain.ports import LoggedEvent

Rows = dict[str, dict[str, Any]]
Selection = Select[tuple[str]] | Sequence[str]  # guids, by a query or one by one
LOOKUP = 400  # rows asked for in one statement


def beside(table: Table, suffix: str) -> Table:
    """The same table and indexes under other names, to be built beside it; itself without one."""
    if not suffix:
        return table
    copy = table.to_metadata(MetaData(), name=table.name + suffix)
    for index in copy.indexes:
        index.name = quoted_name(f"{index.name}{suffix}", quote=None)
    return copy


class KeyedTable:
    """A table whose primary key is `guid`."""

    def __init__(self, table: Table) -> None:
        names = [column.name for column in table.columns]
        self.table = table
        self._insert = insert(table)
        self._update = (
            update(table)
            .where(table.c.guid == bind("_guid"))
            .values({name: bind(name) for name in names if name != "guid"})
        )
        self._delete = delete(table).where(table.c.guid == bind("_guid"))

    def apply(
        self,
        connection: Connection,
        guids: Iterable[str],
        events: Sequence[LoggedEvent],
        project: Callable[[Rows, LoggedEvent], None],
    ) -> None:
        """Lets `project` change the rows of `guids`, event by event, and writes what changed."""
        before = self.rows(connection, guids)
        rows = {guid: dict(row) for guid, row in before.items()}
        for logged in events:
            project(rows, logged)
        for row in rows.values():
            storable(row)
        added = [row for guid, row in rows.items() if guid not in before]
        changed = [
            {**row, "_guid": guid}
            for guid, row in rows.items()
            if guid in before and row != before[guid]
        ]
        gone = [{"_guid": guid} for guid in before if guid not in rows]
        for statement, parameters in (
            (self._insert, added),
            (self._update, changed),
            (self._delete, gone),
        ):
            if parameters:
                connection.execute(statement, parameters)

    def rows(self, connection: Connection, guids: Iterable[str]) -> Rows:
        """The rows there are of these guids."""
        wanted = [guid for guid in set(guids) if "\0" not in guid]
        found: Rows = {}
        for start in range(0, len(wanted), LOOKUP):
            some = wanted[start : start + LOOKUP]
            for row in connection.execute(select(self.table).where(self.table.c.guid.in_(some))):
                found[row.guid] = dict(row._mapping)
        return found


def storable(row: dict[str, Any]) -> None:
    """Replaces NUL characters: PostgreSQL can't keep them, and no event may halt a read model."""
    for name, value in row.items():
        if isinstance(value, str) and "\0" in value:
            row[name] = value.replace("\0", "\N{REPLACEMENT CHARACTER}")


def texts_found(
    engine: Engine, query: Select[tuple[str]], column: Column[Any], values: Iterable[str]
) -> set[str]:
    """What a query finds where a column has one of these values, of which there may be many."""
    wanted = list(values)
    found: set[str] = set()
    with engine.connect() as connection:
        for start in range(0, len(wanted), LOOKUP):
            some = wanted[start : start + LOOKUP]
            found.update(connection.scalars(query.where(column.in_(some))))
    return found


def row_of(rows: Rows, logged: LoggedEvent) -> dict[str, Any]:
    """The row that an event changes. Raises `LookupError` where there is none."""
    row = rows.get(logged.event.guid)
    if row is None:
        event_id = logged.event.event_id
        raise LookupError(f"event {event_id} at {logged.position} precedes what it is about")
    return row


def microseconds(moment: datetime) -> int:
    """Since the epoch, UTC."""
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def moment_of(stored: int) -> datetime:
    """The time that so many microseconds since the epoch are."""
    return _EPOCH + timedelta(microseconds=stored)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
