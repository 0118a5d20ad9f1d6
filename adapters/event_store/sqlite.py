"""The event log in an SQLite file.

The file has one writer at a time. Inside one process writers wait on a lock of ours, which
wakes at once; SQLite's own waiting sleeps in growing steps.
"""

from __future__ import annotations

import sqlite3
import threading
import time
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
    SQLiteTransaction,
)

from adapters.breaker import Breaker
from adapters.event_store.chain import GENESIS, Record, link
from adapters.event_store.log import Stored
from domain.errors import NothingRecorded

# Seconds that a writer waits: for its turn in this process, then for another process's
# transaction. Together less than the two seconds in which a client is told. What comes of
# it is no `OperationalError`: nothing was written, so there is nothing to find out.
TURN_TIMEOUT = 0.8
LOCK_TIMEOUT = 1


_EVENTS = "SELECT rowid, originator_id, originator_version, topic, state FROM events "
_RECORDS = (
    "SELECT rowid, appended_at, originator_id, originator_version, topic, state, hash FROM events "
)
_BEHIND = "WHERE rowid > ? ORDER BY rowid LIMIT ?"
_LAST = "SELECT rowid, appended_at, hash FROM events ORDER BY rowid DESC LIMIT 1"
_INSERT = (
    "INSERT INTO events "
    "(rowid, appended_at, originator_id, originator_version, topic, state, hash) "
    "VALUES (?,?,?,?,?,?,?)"
)


class NoTurn(DatabaseError, NothingRecorded):
    """Somebody else writes to the file."""


class _WriteTransaction(SQLiteTransaction):
    """Has the file's write lock from its beginning: what it reads is what it writes behind."""

    def __enter__(self) -> SQLiteCursor:
        cursor = self.connection.cursor()
        try:
            cursor.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            raise OperationalError(error) from error
        return cursor


class _Connection(SQLiteConnection):
    @contextmanager
    def transaction(self, *, commit: bool) -> Iterator[SQLiteCursor]:
        kind = _WriteTransaction if commit else SQLiteTransaction
        with kind(self, commit=commit) as cursor, cursor:
            yield cursor


class _DurablePool(SQLiteConnectionPool):
    """Connections on which a commit has reached the disk when it returns."""

    def _create_connection(self) -> SQLiteConnection:
        connection = super()._create_connection()._sqlite_conn
        connection.execute("PRAGMA synchronous=FULL")
        return _Connection(connection, self.max_age)


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
    it is declared, so it is dumped and restored as it is.
    """

    def __init__(self, file: SQLiteFile) -> None:
        super().__init__(file, events_table_name="events")
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
        """Appends in one transaction. Returns the positions."""
        if not stored_events:
            return []
        with self.datastore.transaction(commit=True) as cursor:
            cursor.execute(_LAST)
            last = cursor.fetchone()
            position, appended_at, previous = last or (0, 0, GENESIS)
            appended_at = max(time.time_ns() // 1000, appended_at)
            records = []
            for event in stored_events:
                fields = (str(event.originator_id), event.originator_version, event.topic)
                position += 1
                previous = link(previous, position, appended_at, *fields, event.state)
                records.append(Record(position, appended_at, *fields, event.state, previous))
            cursor.executemany(_INSERT, records)
        self.wake()
        return [record.position for record in records]

    def records(self, after: int, limit: int) -> list[Record]:
        """Up to `limit` events behind position `after`, in order, with what chains them."""
        return [Record(*row) for row in self._rows(_RECORDS + _BEHIND, after, limit)]

    def events(self, after: int, limit: int) -> list[Stored]:
        """Up to `limit` events behind position `after`, in order."""
        return self._rows(_EVENTS + _BEHIND, after, limit)

    def history(self, originator_id: str, upto: int) -> list[Stored]:
        """The events of one aggregate up to a position, in order."""
        of_one = "WHERE originator_id = ? AND rowid <= ? ORDER BY originator_version"
        return self._rows(_EVENTS + of_one, originator_id, upto)

    def _rows(self, query: str, *parameters: object) -> list[Any]:
        with self.datastore.transaction(commit=False) as cursor:
            cursor.sqlite_cursor.row_factory = None  # tuples, which cost half
            cursor.execute(query, parameters)
            return list(cursor.fetchall())

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
