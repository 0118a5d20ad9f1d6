"""Transactions that see one state of read models, while others take their places."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, Select, Table
from sqlalchemy.sql.visitors import iterate

from projections.rows import Selection


class Snapshots:
    """On PostgreSQL the tables are held before the moment that is seen.

    A query that has to wait for one that is being replaced gets the new one, and of that only what
    was there at a moment before: not what the switch itself has added.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._on_postgres = engine.dialect.name == "postgresql"
        if self._on_postgres:
            self._engine = engine.execution_options(isolation_level="REPEATABLE READ")

    @contextmanager
    def of(self, *read: Table | Selection) -> Iterator[Connection]:
        """A connection that sees one state of tables, and of those that selections read."""
        with self._engine.connect() as connection:
            if self._on_postgres:
                names = ", ".join(dict.fromkeys(name for one in read for name in _tables(one)))
                connection.exec_driver_sql(f"LOCK TABLE {names} IN ACCESS SHARE MODE")
            yield connection


def _tables(read: Table | Selection) -> Iterator[str]:
    if isinstance(read, Table | Select):
        yield from (part.name for part in iterate(read) if isinstance(part, Table))
