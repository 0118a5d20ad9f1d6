"""The log in PostgreSQL, only read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.adapt import Loader
from psycopg.pq import Format
from psycopg.sql import SQL, Identifier
from psycopg.types.string import ByteaBinaryLoader
from sqlalchemy import Table, Text, collate, select
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from adapters.postgres import MAINTENANCE_PATIENCE, connection_class, options
from adapters.proof.ahead import ahead
from adapters.proof.rows import (
    BATCH,
    FIRST,
    LAST,
    NothingToCheck,
    Row,
    Snapshot,
    Unreadable,
    UnreadableRows,
    Versioned,
    walk,
)

_EVENTS = (
    "SELECT notification_id, appended_at, originator_id, originator_version, topic, state, hash "
    "FROM events "
)
_NONE = "LIMIT 0"
_BETWEEN = "WHERE notification_id BETWEEN %s AND %s ORDER BY notification_id LIMIT %s"
_BEFORE = "WHERE notification_id < %s ORDER BY notification_id DESC LIMIT 1"
# what a page that is damaged, or a value that can't be put together, comes as
_BROKEN = (psycopg.InternalError, psycopg.DataError)


_DIALECT = PGDialect_psycopg()  # type: ignore[no-untyped-call]  # it has no types


class _RawText(Loader):
    """A text's bytes, whatever they are, told from a bytea's by their type."""

    format = Format.BINARY

    def load(self, data: Any) -> bytearray:
        return bytearray(data)


def _connect(url: str, text: type[Loader]) -> psycopg.Connection[Any]:
    """Plans by index, so that rows come in pieces: the planner thinks of all that follow.

    `text` is how texts are read, whatever bytes they have.
    """
    parameters = options(url, MAINTENANCE_PATIENCE)
    parameters["options"] += (
        " -c default_transaction_read_only=on -c enable_seqscan=off -c enable_sort=off"
        " -c enable_bitmapscan=off"
    )
    connection = connection_class(MAINTENANCE_PATIENCE).connect(**parameters, autocommit=True)
    for name in ("text", "varchar"):
        connection.adapters.register_loader(name, text)
    return connection


class PostgresLog:
    """A `Log` (see `adapters.proof.rows`)."""

    text: type = bytes

    def __init__(self, url: str) -> None:
        """Raises `NothingToCheck`; `psycopg.Error`."""
        self._url = url
        self._connection = _connect(url, ByteaBinaryLoader)
        self._cursor = self._connection.cursor(binary=True)
        try:
            row = self._cursor.execute("SELECT identity FROM packtrail_schema").fetchone()
            self._cursor.execute(_EVENTS + _NONE)
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
            self._connection.close()
            what = str(error).partition("\n")[0]
            raise NothingToCheck(
                f"the database holds no log with a chain ({what}): packtrail migrate makes one, "
                "or brings one up to date"
            ) from None
        self.identity = bytes(row[0]).decode(errors="backslashreplace") if row else ""

    def close(self) -> None:
        self._connection.close()

    def head(self) -> int:
        try:
            return self._number("SELECT max(notification_id) FROM events")
        except _BROKEN:
            return LAST

    def count(self, upto: int) -> int:
        try:
            return self._number("SELECT count(*) FROM events")
        except _BROKEN:
            return 0

    def rows(self, upto: int, after: int = FIRST) -> Iterator[Sequence[Row] | Unreadable]:
        return ahead(walk(self._read, _BROKEN, lambda error: True, upto, after))

    def at(self, position: int) -> Row | Unreadable | None:
        try:
            rows = self._read(position, position, 1)
        except _BROKEN as error:
            return Unreadable(position, position, str(error))
        return rows[0] if rows else None

    def before(self, position: int) -> Row | None:
        row: Row | None = self._cursor.execute(_EVENTS + _BEFORE, (position,)).fetchone()
        return row

    def versions(self, upto: int) -> Iterator[Sequence[Versioned] | Unreadable]:
        return ahead(self._versions(upto))

    def _versions(self, upto: int) -> Iterator[Sequence[Versioned] | Unreadable]:
        with self._connection.transaction():
            with self._connection.cursor("packtrail_versions", binary=True) as cursor:
                try:
                    cursor.execute(
                        "SELECT originator_id, originator_version, notification_id FROM events "
                        "WHERE notification_id <= %s ORDER BY originator_id, originator_version",
                        (upto,),
                    )
                    while rows := cursor.fetchmany(BATCH):
                        yield rows
                except _BROKEN as error:
                    yield Unreadable(0, LAST, str(error))

    def topics_of(self, originator_id: str, after: int) -> set[str]:
        query = "SELECT topic FROM events WHERE originator_id = %s AND notification_id > %s"
        found = self._cursor.execute(query, (originator_id, after)).fetchall()
        return {bytes(topic).decode(errors="replace") for (topic,) in found}

    @contextmanager
    def snapshot(self, tables: Sequence[str]) -> Iterator[Snapshot]:
        """The tables are held before the moment: else another could take the place of one of them
        behind it, whose rows it does not have."""
        there = [
            table
            for table in tables
            if self._cursor.execute("SELECT to_regclass(%s) IS NOT NULL", (table,)).fetchall()[0][0]
        ]
        with _connect(self._url, _RawText) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            with connection.transaction():
                for table in there:
                    connection.execute(
                        SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(Identifier(table))
                    )
                yield PostgresSnapshot(connection)

    def _read(self, first: int, last: int, limit: int) -> list[Row]:
        return self._cursor.execute(_EVENTS + _BETWEEN, (first, last, limit)).fetchall()

    def _number(self, query: str) -> int:
        row = self._cursor.execute(query).fetchone()
        return int(row[0] or 0) if row else 0


class PostgresSnapshot:
    """A `Snapshot` (see `adapters.proof.rows`) in a transaction of its own."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def rows(self, table: Table) -> Iterator[tuple[Any, ...]]:
        keys = [
            collate(key, "C") if isinstance(key.type, Text) else key
            for key in table.primary_key.columns
        ]
        compiled = select(table).order_by(*keys).compile(dialect=_DIALECT)
        # a savepoint, so that what can't be read does not end the snapshot
        try:
            with (
                self._connection.transaction(),
                self._connection.cursor("packtrail_rows", binary=True) as cursor,
            ):
                cursor.execute(str(compiled))
                while rows := cursor.fetchmany(BATCH):
                    yield from rows
        except (*_BROKEN, psycopg.ProgrammingError) as error:
            raise UnreadableRows(str(error)) from error

    def has(self, table: str) -> bool:
        row = self._connection.execute("SELECT to_regclass(%s)", (table,)).fetchone()
        return row is not None and row[0] is not None
