"""Writes many rows in one go, as fast as the engine takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Insert, Table, insert
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError

COPIED = 50  # rows, from which on PostgreSQL takes them faster by COPY than by INSERT


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
        drivers = connection.dialect.loaded_dbapi.Error
        try:
            with cursor, cursor.copy(copying) as copy:
                for row in rows:
                    copy.write_row(values_of(row))
        except drivers as error:  # as SQLAlchemy raises it, which can't copy
            raise DBAPIError.instance(
                copying, None, error, drivers, hide_parameters=True, dialect=connection.dialect
            ) from error


class OnSQLite:
    """An INSERT of many rows on SQLite, without SQLAlchemy's look at each value."""

    def __init__(self, statement: Insert) -> None:
        compiled = statement.compile(dialect=sqlite.dialect())
        self._text = str(compiled)
        self._values_of = itemgetter(*(compiled.positiontup or ()))

    def execute(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        connection.exec_driver_sql(self._text, [self._values_of(row) for row in rows])
