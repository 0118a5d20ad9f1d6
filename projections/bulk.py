"""Writes many rows in one go, as fast as the engine takes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Delete, Insert, Table, Update, insert
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError

COPIED = 50  # rows, from which on PostgreSQL takes them faster by COPY than by INSERT
TOGETHER = 32  # rows up to which SQLite takes them in one statement


class BulkInsert:
    """Inserts rows into a table; each has all of its columns."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._names = [column.name for column in table.columns]
        self._statement = insert(table)
        self._on_sqlite = OnSQLite(self._statement)

    def execute(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        if connection.dialect.name == "sqlite":
            self._on_sqlite.execute(connection, rows)
        elif len(rows) < COPIED:
            connection.execute(self._statement, rows)
        else:
            self._copy(connection, rows)

    def _copy(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        names = connection.dialect.identifier_preparer
        columns = ", ".join(map(names.quote, self._names))
        copying = f"COPY {names.format_table(self._table)} ({columns}) FROM STDIN"
        values_of = itemgetter(*self._names)
        cursor: Any = connection.connection.cursor()
        with errors_of(connection, copying), cursor, cursor.copy(copying) as copy:
            for row in rows:
                copy.write_row(values_of(row))


class OnSQLite:
    """A statement on SQLite as the driver takes it: SQLAlchemy's way there costs a batch more.

    A few rows are inserted in one statement. The driver lets other threads run during each, and
    a busy process waits longer to go on than a statement takes.
    """

    def __init__(self, statement: Insert | Update | Delete) -> None:
        compiled = statement.compile(dialect=sqlite.dialect())
        names = compiled.positiontup or ()
        self._text = str(compiled)
        self._row = f"({', '.join('?' * len(names))})"
        before, _, behind = self._text.partition(f"VALUES {self._row}")
        self._can_be_joined = isinstance(statement, Insert) and "?" not in before + behind
        self._values_of: Callable[[Mapping[str, Any]], tuple[Any, ...]] = (
            itemgetter(*names) if len(names) > 1 else lambda row: tuple(row[name] for name in names)
        )

    def execute(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> int:
        """For each of the rows; how many it has changed."""
        values = [self._values_of(row) for row in rows]
        driver = driver_of(connection)
        with errors_of(connection, self._text):
            if self._can_be_joined and 1 < len(values) <= TOGETHER:
                joined = ", ".join([self._row] * len(values))
                text = self._text.replace(self._row, joined, 1)
                changed: int = driver.execute(text, [*chain.from_iterable(values)]).rowcount
            else:
                changed = driver.executemany(self._text, values).rowcount
        return changed


def driver_of(connection: Connection) -> Any:
    """The driver's connection that a connection is on."""
    return connection.connection.driver_connection


class errors_of:
    """What the driver raises in it is raised as SQLAlchemy does, without what was bound."""

    def __init__(self, connection: Connection, text: str) -> None:
        self._connection = connection
        self._text = text

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: object
    ) -> None:
        dialect = self._connection.dialect
        drivers = dialect.loaded_dbapi.Error
        if isinstance(error, drivers):
            raise DBAPIError.instance(
                self._text, None, error, drivers, hide_parameters=True, dialect=dialect
            ) from error
