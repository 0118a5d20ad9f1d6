"""The event log in an SQLite file.

The file has one writer at a time. Inside one process writers wait on a lock of ours, which
wakes at once; SQLite's own waiting sleeps in growing steps.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from eventsourcing.persistence import DatabaseError, OperationalError, StoredEvent
from eventsourcing.sqlite import (
    SQLiteApplicationRecorder,
    SQLiteConnection,
    SQLiteConnectionPool,
    SQLiteCursor,
    SQLiteDatastore,
)

from adapters.breaker import Breaker
from domain.errors import NothingRecorded

# Seconds that a writer waits: for its turn in this process, then for another process's
# transaction. Together less than the two seconds in which a client is told. What comes of
# it is no `OperationalError`: nothing was written, so there is nothing to find out.
TURN_TIMEOUT = 0.8
LOCK_TIMEOUT = 1


class NoTurn(DatabaseError, NothingRecorded):
    """Somebody else writes to the file."""


class _DurablePool(SQLiteConnectionPool):
    """Connections on which a commit has reached the disk when it returns."""

    def _create_connection(self) -> SQLiteConnection:
        connection = super()._create_connection()
        connection.cursor().execute("PRAGMA synchronous=FULL")
        return connection


class SQLiteFile(SQLiteDatastore):
    """The database file, opened; `writing` is held by whoever writes to it."""

    def __init__(self, path: str) -> None:
        super().__init__(path, lock_timeout=LOCK_TIMEOUT, originator_id_type="text")
        self.pool.close()
        self.pool = _DurablePool(db_name=path, lock_timeout=LOCK_TIMEOUT, max_overflow=40)
        self.writing = threading.Lock()
        self.breaker = Breaker(
            (NoTurn, OperationalError), lambda: NoTurn("the file could not be written to just now")
        )

    @contextmanager
    def transaction(self, *, commit: bool) -> Iterator[SQLiteCursor]:
        if not commit:
            with super().transaction(commit=False) as cursor:
                yield cursor
            return
        with self.breaker():
            if not self.writing.acquire(timeout=TURN_TIMEOUT):
                raise NoTurn(f"no turn to write in {TURN_TIMEOUT} s")
            try:
                with super().transaction(commit=True) as cursor:
                    yield cursor
            except OperationalError as error:
                if getattr(error.__cause__, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
                    raise NoTurn("another process is writing to the file") from error
                raise
            finally:
                self.writing.release()


class SQLiteRecorder(SQLiteApplicationRecorder):
    """The library's recorder with a table whose positions are columns of their own.

    The library's table has an implicit rowid, which a dump and restore may renumber; here
    it is declared, so it is dumped and restored as it is. Rows are written by column
    name: there is room for further columns.
    """

    def __init__(self, file: SQLiteFile) -> None:
        super().__init__(file, events_table_name="events")
        self.insert_events_statement = (
            "INSERT INTO events (originator_id, originator_version, topic, state) VALUES (?,?,?,?)"
        )
        self._appended = threading.Condition()
        self._appends = 0

    def construct_create_table_statements(self) -> list[str]:
        return [
            "CREATE TABLE IF NOT EXISTS events ("
            "rowid INTEGER PRIMARY KEY, "
            "originator_id TEXT NOT NULL, "
            "originator_version INTEGER NOT NULL, "
            "topic TEXT NOT NULL, "
            "state BLOB NOT NULL, "
            "UNIQUE (originator_id, originator_version))"
        ]

    def insert_events(
        self, stored_events: Sequence[StoredEvent], **kwargs: Any
    ) -> Sequence[int] | None:
        positions = super().insert_events(stored_events, **kwargs)
        self.wake()
        return positions

    def wake(self) -> None:
        """Wakes whoever waits for an append."""
        with self._appended:
            self._appends += 1
            self._appended.notify_all()

    @property
    def appends(self) -> int:
        """How often this process has appended."""
        return self._appends

    def wait_for_append(self, appends: int, timeout: float) -> None:
        """Returns when this process has appended more than `appends` times, or in `timeout` s."""
        with self._appended:
            self._appended.wait_for(lambda: self._appends > appends, timeout)
