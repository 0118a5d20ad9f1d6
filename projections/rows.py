"""Tables with a row a guid: a batch of events changes rows in memory, then in the database."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Index,
    MetaData,
    Select,
    Table,
    delete,
    quoted_name,
    select,
    text,
    update,
)
from sqlalchemy import bindparam as bind
from sqlalchemy.dialects import sqlite

from domain.ports import LoggedEvent
from projections.bulk import TOGETHER, BulkInsert, driver_of, errors_of

Rows = dict[str, dict[str, Any]]
Selection = Select[tuple[str]] | Sequence[str]  # guids, by a query or one by one
LOOKUP = 400  # rows asked for in one statement
# since 3.33 it has UPDATE FROM
_UPDATED_TOGETHER = TOGETHER if sqlite3.sqlite_version_info >= (3, 33) else 1


def beside(table: Table, suffix: str) -> Table:
    """The same table and indexes under other names, to be built beside it; itself without one."""
    if not suffix:
        return table
    copy = table.to_metadata(MetaData(), name=table.name + suffix)
    for index in copy.indexes:
        index.name = quoted_name(f"{index.name}{suffix}", quote=None)
    return copy


def index_of_set(name: str, column: str) -> Index:
    """An index of those rows alone in which a column is set."""
    is_set = text(f"{column} IS NOT NULL")
    return Index(name, column, sqlite_where=is_set, postgresql_where=is_set)


class KeyedTable:
    """A table that has one row a guid, and the guid as a column."""

    def __init__(self, table: Table) -> None:
        names = [column.name for column in table.columns]
        self.table = table
        self._insert = BulkInsert(table)
        self._lookup = select(table).where(table.c.guid.in_(bind("guids", expanding=True)))
        self._update = (
            update(table)
            .where(table.c.guid == bind("_guid"))
            .values({name: bind(name) for name in names if name != "guid"})
        )
        self._delete = delete(table).where(table.c.guid == bind("_guid"))
        self._names = names
        # without the guids, of which there are more or fewer
        self._select_on_sqlite = str(select(table).compile(dialect=sqlite.dialect()))

    def apply(
        self,
        connection: Connection,
        guids: Iterable[str],
        events: Sequence[LoggedEvent],
        project: Callable[[Rows, LoggedEvent], None],
    ) -> None:
        """Lets `project` change the rows of `guids`, event by event, and writes what changed."""
        before = self.rows(connection, guids)
        after = {guid: dict(row) for guid, row in before.items()}
        for logged in events:
            project(after, logged)
        self.write(connection, before, after)

    def rows(self, connection: Connection, guids: Iterable[str]) -> Rows:
        """The rows there are of these guids."""
        wanted = [guid for guid in set(guids) if "\0" not in guid]
        find = self._find_on_sqlite if connection.dialect.name == "sqlite" else self._find
        found: Rows = {}
        for start in range(0, len(wanted), LOOKUP):
            for row in find(connection, wanted[start : start + LOOKUP]):
                found[row["guid"]] = row
        return found

    def _find(self, connection: Connection, guids: list[str]) -> Iterable[dict[str, Any]]:
        return (dict(row._mapping) for row in connection.execute(self._lookup, {"guids": guids}))

    def _find_on_sqlite(self, connection: Connection, guids: list[str]) -> Iterable[dict[str, Any]]:
        text = f"{self._select_on_sqlite} WHERE guid IN ({', '.join('?' * len(guids))})"
        with errors_of(connection, text):
            rows = driver_of(connection).execute(text, guids).fetchall()
        return (dict(zip(self._names, row, strict=True)) for row in rows)

    def write(self, connection: Connection, before: Rows, after: Rows) -> None:
        """Makes those rows that are as in `before` what they are in `after`, by the same keys."""
        added, changed = [], []
        for guid, row in after.items():
            old = before.get(guid)
            if old is None:
                storable(row)
                added.append(row)
            elif row != old:
                storable(row)
                if row != old:
                    changed.append((old, {**row, "_guid": row["guid"]}))
        gone = [{"_guid": row["guid"]} for guid, row in before.items() if guid not in after]
        if added:
            self._insert.execute(connection, added)
        if connection.dialect.name == "sqlite":
            self._update_on_sqlite(connection, changed)
            if gone:
                self._delete_on_sqlite(connection, gone)
        else:
            if changed:
                connection.execute(self._update, [row for _, row in changed])
            if gone:
                connection.execute(self._delete, gone)

    def _update_on_sqlite(
        self, connection: Connection, changed: Iterable[tuple[dict[str, Any], dict[str, Any]]]
    ) -> None:
        """Of those columns alone that change: the others' indexes are left as they are then.

        Rows of which the same ones change are changed in one statement, as `OnSQLite` does.
        """
        alike: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for old, row in changed:
            names = tuple(name for name, value in old.items() if row[name] != value)
            alike.setdefault(names, []).append(row)
        for names, rows in alike.items():
            for start in range(0, len(rows), _UPDATED_TOGETHER):
                some = rows[start : start + _UPDATED_TOGETHER]
                text = self._update_text(names, len(some))
                values = [row[name] for row in some for name in (*names, "guid")]
                with errors_of(connection, text):
                    driver_of(connection).execute(text, values)

    def _update_text(self, names: tuple[str, ...], rows: int) -> str:
        table = _quoted(self.table.name)
        if rows == 1:
            columns = ", ".join(f"{_quoted(name)} = ?" for name in names)
            return f"UPDATE {table} SET {columns} WHERE guid = ?"  # noqa: S608 - names of ours
        columns = ", ".join(f"{_quoted(n)} = new.column{at}" for at, n in enumerate(names, 1))
        row = f"({', '.join('?' * (len(names) + 1))})"
        return (
            f"UPDATE {table} SET {columns} FROM (VALUES {', '.join([row] * rows)}) AS new "  # noqa: S608
            f"WHERE {table}.guid = new.column{len(names) + 1}"
        )

    def _delete_on_sqlite(self, connection: Connection, gone: Sequence[dict[str, Any]]) -> None:
        guids = [row["_guid"] for row in gone]
        for start in range(0, len(guids), LOOKUP):
            some = guids[start : start + LOOKUP]
            marks = ", ".join("?" * len(some))
            text = f"DELETE FROM {_quoted(self.table.name)} WHERE guid IN ({marks})"  # noqa: S608
            with errors_of(connection, text):
                driver_of(connection).execute(text, some)


def _quoted(name: str) -> str:
    return f'"{name}"'


def storable(row: dict[str, Any]) -> None:
    """Replaces NUL characters: PostgreSQL can't keep them, and no event may halt a read model."""
    for name, value in row.items():
        if value.__class__ is str and "\0" in value:
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
        raise out_of_order(logged)
    return row


def out_of_order(logged: LoggedEvent) -> LookupError:
    event_id = logged.event.event_id
    return LookupError(f"event {event_id} at {logged.position} precedes what it is about")


def microseconds(moment: datetime) -> int:
    """Since the epoch, UTC."""
    return (moment - _EPOCH) // _MICROSECOND


def moment_of(stored: int) -> datetime:
    """The time that so many microseconds since the epoch are."""
    return _EPOCH + timedelta(microseconds=stored)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
