"""How often a command asks the database: on PostgreSQL each time is a way there and back."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from adapters.event_store.sqlite import SQLiteFile
from adapters.postgres import EVENTS_CHANNEL, PROJECTED_CHANNEL, REQUEST_PATIENCE, Listener
from adapters.store import open_postgres
from domain.package import PackageType
from domain.package_service import PackageService
from tests.support.packages import BY, DIGESTS, STAGED, STORED, LocalStore
from tests.support.postgres import PostgresServer


def commands(service: PackageService) -> dict[str, Callable[[], object]]:
    """Each of a package's life, in order."""
    guid = service.create("app-1", PackageType.BITS, None, BY).aggregate.guid
    return {
        "create": lambda: service.create("app-1", PackageType.BITS, None, BY),
        "upload": lambda: service.start_upload(guid, STAGED, None, BY),
        "store and hash": lambda: service.record_stored_and_hashed(guid, STORED, DIGESTS, BY),
        "delete": lambda: service.delete(guid, BY),
    }


def test_on_sqlite_a_command_is_one_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all read models in it, in at most 25 statements; of a new package its app is read."""
    asked: list[str] = []
    opened = SQLiteFile._open

    def tracing(file: SQLiteFile, *pragmas: str) -> sqlite3.Connection:
        connection = opened(file, *pragmas)
        connection.set_trace_callback(asked.append)
        return connection

    monkeypatch.setattr(SQLiteFile, "_open", tracing)
    store = LocalStore.open(tmp_path / "log.db")
    store.store.project_along(store.projector)
    for name, command in commands(store.service).items():
        asked.clear()
        command()
        reads = 1 if name == "create" else 0  # what is known of the package may do
        assert all(statement.startswith("SELECT") for statement in asked[:reads]), name
        assert asked[reads] == "BEGIN IMMEDIATE", name
        assert asked.index("COMMIT") == len(asked) - 1, name
        assert len(asked) <= 25, (name, asked)
        assert store.projector.position == store.log.head()
    store.close()


def test_on_postgresql_a_command_is_two_ways_to_append(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock, what wakes followers, and the events go there together; of a new one, its app."""
    asked: list[str] = []
    execute = psycopg.Cursor.execute

    def tracing(cursor: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        text = query if isinstance(query, str | bytes) else query.as_string(cursor)
        asked.append(str(text).split()[0])
        return execute(cursor, query, *args, **kwargs)

    url = postgres.new_database()
    listener = Listener(url, (EVENTS_CHANNEL, PROJECTED_CHANNEL))
    store = open_postgres(url, listener, REQUEST_PATIENCE, 8)
    store.migrate()
    todo = commands(store.packages)
    monkeypatch.setattr(psycopg.Cursor, "execute", tracing)
    for name, command in todo.items():
        asked.clear()
        command()
        reads = ["SELECT"] if name == "create" else []
        assert asked == [*reads, "LOCK", "NOTIFY", "WITH"], name
    store.close()
    listener.close()
