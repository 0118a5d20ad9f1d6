"""The database's schema: made at the first start, and brought up to date by `packtrail migrate`.

Every version is reached from the one before by a step that is never changed afterwards. The
tables of read models are no part of it: they are dropped and made anew by the projector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from uuid import uuid4

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    Table,
    Text,
    insert,
    select,
    update,
)

from adapters import environments, follower, people
from adapters.folders import NotOurFolder
from domain.errors import NewerData
from projections import positions

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


STEPS: Sequence[Callable[[Connection, Sequence[str]], None]] = (_first, _environments, _people)


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
