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
from dataclasses import dataclass
from itertools import chain
from typing import Any, cast
from uuid import UUID

from eventsourcing.persistence import (
    DatabaseError,
    DataError,
    IntegrityError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
    PersistenceError,
    ProgrammingError,
    StoredEvent,
)
from eventsourcing.sqlite import SQLiteApplicationRecorder, SQLiteCursor, SQLiteDatastore
from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool

from adapters.breaker import Breaker
from adapters.event_store.along import Along
from adapters.event_store.chain import GENESIS, Record, link
from adapters.event_store.group_commit import Append, GroupCommit
from adapters.event_store.log import LAST_POSITION, Stored
from domain.errors import NothingRecorded

# Seconds that a writer waits: for its turn in this process, then for another process's
# transaction. Together less than the two seconds in which a client is told. What comes of
# it is no `OperationalError`: nothing was written, so there is nothing to find out.
TURN_TIMEOUT = 0.8
LOCK_TIMEOUT = 1

INSERTED_TOGETHER = 64  # events in one statement


_EVENTS = "SELECT rowid, originator_id, originator_version, topic, state FROM events "
_RECORDS = (
    "SELECT rowid, appended_at, originator_id, originator_version, topic, state, hash FROM events "
)
_BEHIND = "WHERE rowid > ? ORDER BY rowid LIMIT ?"
_HEAD = "SELECT max(rowid) FROM events"
_LAST = "SELECT rowid, appended_at, hash FROM events ORDER BY rowid DESC LIMIT 1"
_INSERT = (
    "INSERT INTO events "
    "(rowid, appended_at, originator_id, originator_version, topic, state, hash) VALUES "
)
_ROW = "(?,?,?,?,?,?,?)"
_NOTHING = (0, 0, GENESIS)  # of an empty log
_OF_ONE = (
    "SELECT originator_id, originator_version, topic, state FROM events "
    "WHERE originator_id = ? AND originator_version > ? AND originator_version <= ? "
    "ORDER BY originator_version LIMIT ?"
)
_OF_ONE_BACKWARDS = _OF_ONE.replace("LIMIT", "DESC LIMIT")


@dataclass
class _End:
    """The log's end in a transaction; what is appended in it has one time."""

    position: int
    appended_at: int  # microseconds since the epoch
    hash: bytes


class NoTurn(DatabaseError, NothingRecorded):
    """Somebody else writes to the file."""


class SQLiteFile(SQLiteDatastore):
    """The database file, opened; `writing` is held by whoever writes to it."""

    def __init__(self, path: str) -> None:
        super().__init__(path, lock_timeout=LOCK_TIMEOUT, originator_id_type="text")
        self.writing = threading.Lock()
        self.breaker = Breaker(
            (NoTurn, OperationalError), lambda: NoTurn("the file could not be written to just now")
        )
        self._path = path
        self._readers: list[sqlite3.Connection] = []  # that nobody uses just now
        self._writer: Connection | None = None
        self._writing_engine = create_engine(
            "sqlite://",
            creator=lambda: self._open("PRAGMA synchronous=FULL"),
            poolclass=NullPool,
            hide_parameters=True,
        )
        self._closed = False

    @contextmanager
    def transaction(self, *, commit: bool) -> Iterator[SQLiteCursor]:
        if commit:
            with self.breaker(), self.turn(TURN_TIMEOUT), self.write() as connection:
                yield SQLiteCursor(driven(connection).cursor())
        else:
            with self.read() as reader:
                cursor = reader.cursor()
                cursor.row_factory = sqlite3.Row
                yield SQLiteCursor(cursor)

    @contextmanager
    def turn(self, timeout: float) -> Iterator[None]:
        """This process's turn to write. Raises `NoTurn` after `timeout` seconds."""
        if not self.writing.acquire(timeout=timeout):
            raise NoTurn(f"no turn to write in {TURN_TIMEOUT} s")
        try:
            yield
        finally:
            self.writing.release()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction, in one's turn, that is on the disk when this ends.

        It has the file's write lock from its beginning: what it reads is what it writes behind.
        Raises `NoTurn`, and the library's errors.
        """
        with _as_the_librarys():
            connection = self._writer or self._writing_engine.connect()
            self._writer = connection
            driver = driven(connection)
            try:
                driver.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                    raise NoTurn("another process is writing to the file") from error
                raise
            try:
                yield connection
                driver.execute("COMMIT")
            except BaseException:
                self._writer = None  # whatever state it is in
                connection.close()  # which rolls back
                raise

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A connection on which each statement sees what is committed. Raises as `write`."""
        with _as_the_librarys():
            try:
                connection = self._readers.pop()
            except IndexError:
                connection = self._open("PRAGMA query_only=ON")
            try:
                yield connection
            except BaseException:
                connection.close()
                raise
            self._readers.append(connection)
            if self._closed:
                self._close_readers()

    def close(self) -> None:
        super().close()
        self._closed = True
        self._close_readers()
        with self.writing:
            if self._writer is not None:
                self._writer.close()
                self._writer = None

    def _close_readers(self) -> None:
        while self._readers:
            self._readers.pop().close()

    def _open(self, *pragmas: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=LOCK_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        for pragma in ("PRAGMA journal_mode=WAL", *pragmas):
            connection.execute(pragma)
        return connection


def driven(connection: Connection) -> sqlite3.Connection:
    """The driver's connection, which knows of no transaction but ours."""
    return cast(sqlite3.Connection, connection.connection.driver_connection)


@contextmanager
def _as_the_librarys() -> Iterator[None]:
    """What the driver raises is raised as the library does."""
    try:
        yield
    except sqlite3.Error as error:
        for kind in type(error).__mro__:
            if kind in _LIBRARYS:
                raise _LIBRARYS[kind](error) from error
        raise


_LIBRARYS: dict[type, type[PersistenceError]] = {
    sqlite3.InterfaceError: InterfaceError,
    sqlite3.DataError: DataError,
    sqlite3.OperationalError: OperationalError,
    sqlite3.IntegrityError: IntegrityError,
    sqlite3.InternalError: InternalError,
    sqlite3.ProgrammingError: ProgrammingError,
    sqlite3.NotSupportedError: NotSupportedError,
    sqlite3.DatabaseError: DatabaseError,
    sqlite3.Error: PersistenceError,
}


class SQLiteRecorder(SQLiteApplicationRecorder):
    """The library's recorder with a table whose positions are columns of their own.

    The library's table has an implicit rowid, which a dump and restore may renumber; here
    it is declared, so it is dumped and restored as it is.
    """

    def __init__(self, file: SQLiteFile, along: Along | None = None) -> None:
        super().__init__(file, events_table_name="events")
        self._along = along
        self._file = file
        self._group = GroupCommit(
            self._commit,
            file.turn,
            lambda: NoTurn(f"no turn to write in {TURN_TIMEOUT} s"),
            TURN_TIMEOUT,
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
        """Appends, in a transaction that others may share. Returns the positions."""
        if not stored_events:
            return []
        with self._file.breaker():
            return self._group.append(stored_events)

    def _commit(self, appends: Sequence[Append]) -> None:
        """Appends for all of them in one transaction; a conflict is only whose it is."""
        with self._file.write() as connection:
            driver = driven(connection)
            position, appended_at, previous = driver.execute(_LAST).fetchone() or _NOTHING
            end = _End(position, max(time.time_ns() // 1000, appended_at), previous)
            try:
                stored = _write(driver, end, appends)
            except sqlite3.IntegrityError:
                stored = _write_one_by_one(driver, end, appends)
            if stored and self._along is not None:
                self._along.appending(connection, stored)
        if stored:
            if self._along is not None:
                self._along.appended()
            self.wake()

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

    def max_notification_id(self) -> int:
        return self._rows(_HEAD)[0][0] or 0

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> list[StoredEvent]:
        rows = self._rows(
            _OF_ONE_BACKWARDS if desc else _OF_ONE,
            str(originator_id),
            -1 if gt is None else gt,
            LAST_POSITION if lte is None else lte,
            -1 if limit is None else limit,  # for all
        )
        return [StoredEvent(*row) for row in rows]

    def _rows(self, query: str, *parameters: object) -> list[Any]:
        with self._file.read() as connection:
            return connection.execute(query, parameters).fetchall()

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


def _write(
    connection: sqlite3.Connection, end: _End, appends: Sequence[Append]
) -> list[tuple[int, str, int, str, bytes]]:
    """Writes the events of all of them behind the log's end, which it moves; or raises, for all."""
    position, previous = end.position, end.hash
    records: list[tuple[int, int, str, int, str, bytes, bytes]] = []
    for append in appends:
        append.positions = []
        for event in append.events:
            fields = (str(event.originator_id), event.originator_version, event.topic)
            position += 1
            previous = link(previous, position, end.appended_at, *fields, event.state)
            records.append((position, end.appended_at, *fields, event.state, previous))
            append.positions.append(position)
    _insert(connection, records)
    end.position, end.hash = position, previous
    return [(record[0], *record[2:6]) for record in records]


def _write_one_by_one(
    connection: sqlite3.Connection, end: _End, appends: Sequence[Append]
) -> list[tuple[int, str, int, str, bytes]]:
    """As `_write`, but what one raises is that one's."""
    stored = []
    for append in appends:
        try:
            stored += _write(connection, end, [append])
        except sqlite3.IntegrityError as error:
            append.positions = []
            append.error = IntegrityError(error)
            append.error.__cause__ = error
    return stored


def _insert(connection: sqlite3.Connection, records: Sequence[tuple[object, ...]]) -> None:
    """All or none of them, in the middle of a transaction. Raises `sqlite3.Error`.

    A few in one statement: during each the driver lets other threads run, and a busy process
    waits longer to go on than a statement takes.
    """
    if len(records) <= INSERTED_TOGETHER:
        rows = ", ".join([_ROW] * len(records))
        connection.execute(_INSERT + rows, [*chain.from_iterable(records)])
        return
    connection.execute("SAVEPOINT append")
    try:
        connection.executemany(_INSERT + _ROW, records)
    except sqlite3.IntegrityError:
        connection.execute("ROLLBACK TO append")
        raise
    finally:
        connection.execute("RELEASE append")
