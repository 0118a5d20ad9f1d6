"""Asks a question that is asked thousands of times a second."""

from __future__ import annotations

from collections import deque, namedtuple
from typing import Any

from sqlalchemy import Column, Engine, PoolProxiedConnection, Select, Table, select
from sqlalchemy import bindparam as bind

KEPT = 8  # connections


def row_type(table: Table) -> Any:
    """A tuple of a table's columns, in their order, that knows their names."""
    return namedtuple(table.name, table.columns.keys())


class Lookup:
    """One question, with values of its parameters each time.

    On SQLite the statement is made once, and asked without a transaction of its own, which is what
    a lookup mostly costs: one statement sees one state. On PostgreSQL the round trip is.
    """

    def __init__(self, engine: Engine, query: Select[Any]) -> None:
        self._engine = engine
        self._query = query
        compiled = query.compile(dialect=engine.dialect)
        self._statement = str(compiled)
        self._direct = engine.dialect.name == "sqlite"
        self._fixed = compiled.params  # what the question itself says, by names
        self._order: list[str] = list(getattr(compiled, "positiontup", None) or ())
        self._kept: deque[PoolProxiedConnection] = deque()

    def rows(self, **values: str | int) -> list[tuple[Any, ...]]:
        """All that answer it. Raises `SQLAlchemyError`."""
        return self._directly(values) if self._direct else self._by_engine(values)

    def _by_engine(self, values: dict[str, str | int]) -> list[tuple[Any, ...]]:
        with self._engine.connect() as connection:
            return [tuple(row) for row in connection.execute(self._query, values)]

    def _directly(self, values: dict[str, str | int]) -> list[tuple[Any, ...]]:
        try:
            connection = self._kept.pop()
        except IndexError:
            connection = self._engine.raw_connection()
            connection.detach()
        try:
            driver: Any = connection.dbapi_connection
            in_order = [values[n] if n in values else self._fixed[n] for n in self._order]
            # all there are: a statement that is not at its end holds a state of the file
            rows: list[tuple[Any, ...]] = driver.execute(self._statement, in_order).fetchall()
        except self._engine.dialect.loaded_dbapi.Error:
            connection.close()
            return self._by_engine(values)  # or the same error, as all others tell it
        if len(self._kept) < KEPT:
            self._kept.append(connection)
        else:
            connection.close()
        return rows


class RowLookup:
    """Finds a table's row by a column whose values are unique."""

    def __init__(self, engine: Engine, table: Table, key: Column[str]) -> None:
        self._lookup = Lookup(engine, select(table).where(key == bind("key")))

    def find(self, key: str) -> tuple[Any, ...] | None:
        """The row, with all columns in their order. Raises `SQLAlchemyError`."""
        if "\0" in key:
            return None  # PostgreSQL can't even be asked
        rows = self._lookup.rows(key=key)
        return rows[0] if rows else None
