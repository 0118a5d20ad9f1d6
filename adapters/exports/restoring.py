"""Restores an export into a database whose log is empty, in one transaction."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from typing import cast

import psycopg
from sqlalchemy import Connection, delete, func, insert, select, table, update

from adapters.event_store.chain import Record
from adapters.exports.reading import Export, UnusableExport
from adapters.follower import kept_positions
from adapters.postgres import EVENTS_CHANNEL
from adapters.schema import schema
from adapters.store import Store

STEP = 1000  # events between two tellings of progress
_TYPES = ("int8", "int8", "text", "int8", "text", "bytea", "bytea")
_COPY = (
    "COPY events "
    "(notification_id, appended_at, originator_id, originator_version, topic, state, hash) "
    "FROM STDIN (FORMAT BINARY)"
)
_INSERT = (
    "INSERT INTO events "
    "(rowid, appended_at, originator_id, originator_version, topic, state, hash) "
    "VALUES (?,?,?,?,?,?,?)"
)


class LogNotEmpty(Exception):
    """The database has a log already."""


def restore(
    store: Store, export: Export, progress: Callable[[int], None] = lambda events: None
) -> int:
    """Takes in all events, the log's identity, and how far its followers were; how many events.

    Whatever else the database holds stays. All is there in the end, or nothing: raises
    `LogNotEmpty`, `UnusableExport`.
    """
    on_postgres = store.writer.dialect.name == "postgresql"
    with store.writing, store.writer.begin() as connection:
        if on_postgres:
            connection.exec_driver_sql("LOCK TABLE events IN EXCLUSIVE MODE")
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        there = connection.scalar(select(func.count()).select_from(table("events")))
        if there:
            raise LogNotEmpty(
                f"the log has {there} events already: an import needs a database without any"
            )
        take = _into_postgres if on_postgres else _into_sqlite
        take(connection, _told(export, progress), export)
        # the folders that were claimed for a log without events are claimed anew, for this one
        connection.execute(update(schema).values(identity=export.header.identity, folders=None))
        connection.execute(delete(kept_positions))
        followers = [vars(follower) for follower in export.header.followers]
        if followers:
            connection.execute(insert(kept_positions), followers)
    if not on_postgres:
        _sync(store)
    return export.events


def _told(export: Export, progress: Callable[[int], None]) -> Iterator[Record]:
    for record in export.records():
        yield record
        if export.events % STEP == 0:
            progress(export.events)
    progress(export.events)


def _into_sqlite(connection: Connection, records: Iterator[Record], export: Export) -> None:
    database = cast(sqlite3.Connection, connection.connection.driver_connection)
    try:
        database.executemany(_INSERT, records)
    except sqlite3.IntegrityError:
        raise export.unusable("this version of what it happened to is there already") from None


def _into_postgres(connection: Connection, records: Iterator[Record], export: Export) -> None:
    database = cast("psycopg.Connection[object]", connection.connection.driver_connection)
    try:
        with database.cursor() as cursor, cursor.copy(_COPY) as copy:
            copy.set_types(_TYPES)
            for record in records:
                copy.write_row(record)
    except psycopg.errors.UniqueViolation as error:
        raise _twice(error) from None
    if export.position:
        connection.exec_driver_sql(
            "SELECT setval(pg_get_serial_sequence('events', 'notification_id'), %s)",
            (export.position,),
        )
    connection.exec_driver_sql(f"NOTIFY {EVENTS_CHANNEL}")


def _twice(error: psycopg.errors.UniqueViolation) -> UnusableExport:
    """PostgreSQL counts the rows that it is given; the file has a line before them."""
    row = re.search(r"line (\d+)", error.diag.context or "")
    where = f"line {int(row[1]) + 1}: " if row else ""
    detail = error.diag.message_detail or ""
    return UnusableExport(f"{where}this version of what it happened to is there already. {detail}")


def _sync(store: Store) -> None:
    """What the file's write-ahead log has is written to the disk: its commits are not synced."""
    connection = store.writer.raw_connection()
    try:
        with store.writing:
            connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        connection.close()
