"""The log in an SQLite file, only read."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Table, select
from sqlalchemy.dialects import sqlite

from adapters.proof.rows import (
    BATCH,
    FIRST,
    LAST,
    NothingToCheck,
    Row,
    Snapshot,
    Unreadable,
    UnreadableRows,
    Versioned,
    walk,
)

PATIENCE = 30.0  # seconds that a read waits, which nobody's writing makes it do in WAL mode
_EVENTS = (
    "SELECT rowid, appended_at, originator_id, originator_version, topic, state, hash FROM events "
)
_NONE = "LIMIT 0"
_BETWEEN = "WHERE rowid BETWEEN ? AND ? ORDER BY rowid LIMIT ?"
_BEFORE = "WHERE rowid < ? ORDER BY rowid DESC LIMIT 1"
_INDEXED = " FROM events INDEXED BY sqlite_autoindex_events_1 WHERE +rowid > ? AND +rowid <= ?"
_HIDDEN = "keys in the table are out of order, and hide what is behind them"
_BROKEN = (sqlite3.DatabaseError,)
_BROKEN_CODES = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOTADB)


def is_broken(error: Exception) -> bool:
    """Whether what was asked for can't be read, and other things may be."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(code, int) and code & 0xFF in _BROKEN_CODES


def open_read_only(path: Path) -> sqlite3.Connection:
    """Texts are read as bytearrays, so that nothing in them is an error."""
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode=ro", uri=True, timeout=PATIENCE, isolation_level=None
    )
    connection.text_factory = bytearray
    return connection


class SQLiteLog:
    """A `Log` (see `adapters.proof.rows`)."""

    text: type = bytearray  # so that it is told from a blob, which may be in a text's place

    def __init__(self, path: Path) -> None:
        """Raises `NothingToCheck`; `sqlite3.Error`."""
        if not path.is_file():
            raise NothingToCheck(f"there is no log at {path}")
        self._path = path
        self._connection = open_read_only(path)
        try:
            row = self._connection.execute("SELECT identity FROM packtrail_schema").fetchone()
            self._connection.execute(_EVENTS + _NONE)
        except sqlite3.OperationalError as error:
            self._connection.close()
            if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
                raise NothingToCheck(
                    f"{path} can't be opened ({error}): SQLite makes files beside it, so that its "
                    "folder, or a copy's, must be one that you may write to"
                ) from None
            raise NothingToCheck(
                f"{path} holds no log with a chain ({error}): packtrail migrate makes one, or "
                "brings one up to date"
            ) from None
        self.identity = bytes(row[0]).decode(errors="backslashreplace") if row else ""

    def close(self) -> None:
        self._connection.close()

    def head(self) -> int:
        try:
            (found,) = self._connection.execute("SELECT max(rowid) FROM events").fetchone()
        except sqlite3.DatabaseError as error:
            if not is_broken(error):
                raise
            return LAST
        return found or 0

    def count(self, upto: int) -> int:
        try:
            (found,) = self._connection.execute("SELECT count(*) FROM events").fetchone()
        except sqlite3.DatabaseError as error:
            if not is_broken(error):
                raise
            return 0
        return int(found)

    def rows(self, upto: int, after: int = FIRST) -> Iterator[Sequence[Row] | Unreadable]:
        """In the end what the walk has missed, which a key that is out of order hides."""
        seen: list[list[int]] = []  # first and last positions of what comes without a gap
        events, unreadable = 0, False
        for piece in walk(self._read, _BROKEN, is_broken, upto, after):
            yield piece
            if isinstance(piece, Unreadable):
                unreadable = True
                seen.append([piece.first, piece.last])
                continue
            events += len(piece)
            first, last = piece[0][0], piece[-1][0]
            if last - first != len(piece) - 1:
                seen += [[row[0], row[0]] for row in piece]
            elif seen and seen[-1][1] == first - 1:
                seen[-1][1] = last
            else:
                seen.append([first, last])
        if unreadable or events < self._indexed(upto, after):
            yield from self._hidden(upto, after, seen)

    def _indexed(self, upto: int, after: int) -> int:
        """How many events the index of versions tells of."""
        try:
            counted = self._connection.execute("SELECT count(*)" + _INDEXED, (after, upto))
            return int(counted.fetchone()[0])
        except sqlite3.DatabaseError as error:
            if not is_broken(error):
                raise
            return 0  # which the check of versions tells

    def _hidden(self, upto: int, after: int, seen: list[list[int]]) -> Iterator[Unreadable]:
        positions = self._connection.execute(
            "SELECT DISTINCT rowid" + _INDEXED + " ORDER BY rowid", (after, upto)
        )
        seen.sort()
        at, reached, hidden = 0, after, Unreadable(0, -1, _HIDDEN)
        try:
            for (position,) in positions:
                while at < len(seen) and seen[at][0] <= position:
                    reached = max(reached, seen[at][1])
                    at += 1
                if position <= reached:
                    continue
                if position != hidden.last + 1 or hidden.last < hidden.first:
                    if hidden.last >= hidden.first:
                        yield hidden
                    hidden = Unreadable(position, position, _HIDDEN)
                else:
                    hidden = Unreadable(hidden.first, position, _HIDDEN)
        except sqlite3.DatabaseError as error:
            if not is_broken(error):
                raise
        if hidden.last >= hidden.first:
            yield hidden

    def at(self, position: int) -> Row | Unreadable | None:
        try:
            rows = self._read(position, position, 1)
        except sqlite3.DatabaseError as error:
            if not is_broken(error):
                raise
            return Unreadable(position, position, str(error))
        return rows[0] if rows else None

    def before(self, position: int) -> Row | None:
        row: Row | None = self._connection.execute(_EVENTS + _BEFORE, (position,)).fetchone()
        return row

    def versions(self, upto: int) -> Iterator[Sequence[Versioned] | Unreadable]:
        cursor = self._connection.execute(
            "SELECT originator_id, originator_version, rowid FROM events WHERE rowid <= ? "
            "ORDER BY originator_id, originator_version",
            (upto,),
        )
        with closing(cursor):
            try:
                while rows := cursor.fetchmany(BATCH):
                    yield rows
            except sqlite3.DatabaseError as error:
                if not is_broken(error):
                    raise
                yield Unreadable(0, LAST, str(error))

    def topics_of(self, originator_id: str, after: int) -> set[str]:
        query = "SELECT topic FROM events WHERE originator_id = ? AND rowid > ?"
        found = self._connection.execute(query, (originator_id, after))
        return {bytes(topic).decode(errors="replace") for (topic,) in found}

    @contextmanager
    def snapshot(self, tables: Sequence[str]) -> Iterator[Snapshot]:
        with closing(open_read_only(self._path)) as connection:
            connection.execute("BEGIN")
            connection.execute("SELECT 1 FROM events LIMIT 1").fetchone()
            yield SQLiteSnapshot(connection)

    def _read(self, first: int, last: int, limit: int) -> list[Row]:
        return self._connection.execute(_EVENTS + _BETWEEN, (first, last, limit)).fetchall()


class SQLiteSnapshot:
    """A `Snapshot` (see `adapters.proof.rows`) on a connection of its own."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def rows(self, table: Table) -> Iterator[tuple[Any, ...]]:
        query = select(table).order_by(*table.primary_key.columns)
        try:
            cursor = self._connection.execute(str(query.compile(dialect=sqlite.dialect())))
            with closing(cursor):
                while rows := cursor.fetchmany(BATCH):
                    yield from rows
        except sqlite3.DatabaseError as error:  # a column that is not there, or a bad page
            raise UnreadableRows(str(error)) from error

    def has(self, table: str) -> bool:
        query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
        return self._connection.execute(query, (table,)).fetchone() is not None
