"""Opens the database that the read models are kept in, beside the log."""

from __future__ import annotations

import sqlite3
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from adapters.event_store.sqlite import LOCK_TIMEOUT
from adapters.postgres import pool_of


def sqlite_engines(path: str) -> tuple[Engine, Engine]:
    """An engine for the projector and one for readers, on one SQLite file.

    The projector's transactions take the file's write lock when they begin, and are not
    synced one by one: in a crash SQLite loses the newest first, so a read model is never
    ahead of the log. Readers never wait for a writer.
    """
    return _sqlite_engine(path, "BEGIN IMMEDIATE"), _sqlite_engine(path, "BEGIN")


def _sqlite_engine(path: str, begin: str) -> Engine:
    engine = create_engine(
        "sqlite://",
        hide_parameters=True,  # what is bound may be secret, and errors are logged
        creator=lambda: sqlite3.connect(
            path, timeout=LOCK_TIMEOUT, isolation_level=None, check_same_thread=False
        ),
        poolclass=QueuePool,
        pool_size=8,
        max_overflow=32,
        pool_timeout=2,
        pool_reset_on_return="rollback",
    )

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, entry: ConnectionPoolEntry) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def postgres_engine(url: str, patience: float, size: int) -> Engine:
    """An engine on bounded connections: each statement is answered in `patience` seconds."""
    return create_engine(
        "postgresql+psycopg://", pool=pool_of(url, patience, size), hide_parameters=True
    )
