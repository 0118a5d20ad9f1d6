"""Looks up the row that a key names, thousands of times a second."""

from __future__ import annotations

from collections import deque, namedtuple
from typing import Any

from sqlalchemy import Column, Engine, PoolProxiedConnection, Row, Table, select
from sqlalchemy import bindparam as bind

KEPT = 8  # connections


def row_type(table: Table) -> Any:
    """A tuple of a table's columns, in their order, that knows their names."""
    return namedtuple(table.name, table.columns.keys())


class RowLookup:
    """Finds a table's row by a column whose values are unique.

    On SQLite the statement is made once, and asked without a transaction of its own, which is what
    a lookup mostly costs: one statement sees one state. On PostgreSQL the round trip is.
    """

    def __init__(self, engine: Engine, table: Table, key: Column[str]) -> None:
        self._engine = engine
        self._query = select(table).where(key == bind("key"))
        self._statement = str(self._query.compile(dialect=engine.dialect))
        self._direct = engine.dialect.name == "sqlite"
        self._kept: deque[PoolProxiedConnection] = deque()

    def find(self, key: str) -> tuple[Any, ...] | None:
        """The row, with all columns in their order. Raises `SQLAlchemyError`."""
        if "\0" in key:
            return None  # PostgreSQL can't even be asked
        return self._find_directly(key) if self._direct else self._find(key)

    def _find(self, key: str) -> tuple[Any, ...] | None:
        with self._engine.connect() as connection:
            row: Row[Any] | None = connection.execute(self._query, {"key": key}).first()
        return None if row is None else tuple(row)

    def _find_directly(self, key: str) -> tuple[Any, ...] | None:
        try:
            connection = self._kept.pop()
        except IndexError:
            connection = self._engine.raw_connection()
            connection.detach()
        try:
            driver: Any = connection.dbapi_connection
            # all there are: a statement that is not at its end holds a state of the file
            rows: list[tuple[Any, ...]] = driver.execute(self._statement, (key,)).fetchall()
        except self._engine.dialect.loaded_dbapi.Error:
            connection.close()
            return self._find(key)  # or the same error, as all others tell it
        if len(self._kept) < KEPT:
            self._kept.append(connection)
        else:
            connection.close()
        return rows[0] if rows else None
