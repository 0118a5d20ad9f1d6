"""The database's schema: made at the first start, and brought up to date by `packtrail migrate`.

Every version is reached from the one before by a step that is never changed afterwards. The
tables of read models are no part of it: they are dropped and made anew by the projector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any
from uuid import uuid4

import orjson
from sqlalchemy import (
    Column,
    ColumnClause,
    Connection,
    Engine,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    bindparam,
    column,
    insert,
    select,
    table,
    update,
)

from adapters import environments, follower, people
from adapters.event_store.chain import GENESIS, link
from adapters.folders import NotOurFolder
from domain.errors import NewerData
from projections import positions
from projections.rows import microseconds

_LOCK = 0x7061636B  # of PostgreSQL: only one process migrates at a time
_PATIENCE = "30s"

metadata = MetaData()
schema = Table(
    "packtrail_schema",
    metadata,
    Column("version", Integer, nullable=False),
    Column("identity", Text, nullable=False),  # of the log: folders of bits are marked with it
    Column("folders", Text),  # which folders its bits are in, where they are in folders
)


def _first(connection: Connection, create_events: Sequence[str]) -> None:
    for statement in create_events:
        connection.exec_driver_sql(statement)
    positions.positions.create(connection)
    follower.metadata.create_all(connection)


def _environments(connection: Connection, create_events: Sequence[str]) -> None:
    environments.metadata.create_all(connection)


def _people(connection: Connection, create_events: Sequence[str]) -> None:
    people.metadata.create_all(connection)


def _chain(connection: Connection, create_events: Sequence[str]) -> None:
    """Each event has its time of appending and its hash; for old ones that is their own time."""
    on_postgres = connection.dialect.name == "postgresql"
    position, bytes_type = ("notification_id", "bytea") if on_postgres else ("rowid", "blob")
    connection.exec_driver_sql("ALTER TABLE events ADD COLUMN appended_at bigint")
    connection.exec_driver_sql(f"ALTER TABLE events ADD COLUMN hash {bytes_type}")
    event: list[ColumnClause[Any]] = [
        column(n) for n in ("originator_id", "originator_version", "topic", "state")
    ]
    events = table(
        "events", column(position), *event, column("appended_at"), column("hash", LargeBinary)
    )
    at = events.c[position]
    fill = update(events).where(at == bindparam("at"))
    after, appended_at, previous = 0, 0, GENESIS
    while rows := connection.execute(
        select(at, *event).where(at > after).order_by(at).limit(5000)
    ).all():
        filled = []
        for after, originator_id, version, topic, state in rows:
            happened = datetime.fromisoformat(orjson.loads(state)["timestamp"])
            appended_at = max(appended_at, microseconds(happened))
            previous = link(
                previous, after, appended_at, originator_id, version, topic, bytes(state)
            )
            filled.append({"at": after, "appended_at": appended_at, "hash": previous})
        connection.execute(fill, filled)
    if on_postgres:
        for name in ("appended_at", "hash"):
            connection.exec_driver_sql(f"ALTER TABLE events ALTER COLUMN {name} SET NOT NULL")
    else:  # which has no such statement
        connection.exec_driver_sql(
            "CREATE TRIGGER events_are_chained BEFORE INSERT ON events "
            "WHEN NEW.appended_at IS NULL OR NEW.hash IS NULL BEGIN "
            "SELECT RAISE(ABORT, 'the log has a chain: a program that knows it must write'); END"
        )


def _builds(connection: Connection, create_events: Sequence[str]) -> None:
    positions.builds.create(connection)
    positions.stops.create(connection)


STEPS: Sequence[Callable[[Connection, Sequence[str]], None]] = (
    _first,
    _environments,
    _people,
    _chain,
    _builds,
)


def migrate(
    engine: Engine, create_events: Sequence[str], writing: AbstractContextManager[object]
) -> int:
    """Brings the schema to this program's version; how many steps that took.

    `create_events` are the statements that make the log's table on this engine. Several
    processes may do this at once. Raises `NewerData`.
    """
    with writing, engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_PATIENCE}'")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        metadata.create_all(connection)
        version = connection.scalar(select(schema.c.version))
        if version is None:
            connection.execute(insert(schema).values(version=0, identity=str(uuid4())))
            version = 0
        if version > len(STEPS):
            raise NewerData(
                f"the database has schema version {version}, and this program knows "
                f"{len(STEPS)}: upgrade it"
            )
        for step in STEPS[version:]:
            step(connection, create_events)
        connection.execute(update(schema).values(version=len(STEPS)))
    return len(STEPS) - version


def identity(engine: Engine) -> str:
    """What tells this log from every other; it is dumped and restored with it."""
    with engine.connect() as connection:
        return str(connection.scalar(select(schema.c.identity)))


def claim_folders(engine: Engine, writing: AbstractContextManager[object], found: str) -> None:
    """The log's bits are in these folders, and all processes must have them.

    Raises `NotOurFolder` for others than those that the first process had.
    """
    with writing, engine.begin() as connection:
        unset = schema.c.folders.is_(None)
        connection.execute(update(schema).where(unset).values(folders=found))
        if connection.scalar(select(schema.c.folders)) != found:
            raise NotOurFolder(
                "the log's bits are in other folders than these: processes on one database need "
                "the same data folder and blob store, or a bucket"
            )
