"""Environment variables of apps and droplets, in a table beside the log.

They may be secrets: no event, message or log line holds them, and they can be removed. So
they are no read model: what is lost here is not in the log.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import orjson
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    LargeBinary,
    MetaData,
    Table,
    Text,
    delete,
    insert,
    select,
)
from sqlalchemy.exc import IntegrityError as SQLIntegrityError

metadata = MetaData()
environments = Table(
    "environments",
    metadata,
    Column("owner", Text, primary_key=True),  # an originator id: a kind's prefix, and a guid
    Column("variables", LargeBinary, nullable=False),  # a JSON object
    Column("request", LargeBinary),  # what a droplet was asked for with, as JSON
    Column("kept_at", BigInteger, nullable=False),  # seconds since the epoch
)
LOOKUP = 400  # rows asked for in one statement


class StoredEnvironments:
    """An `Environments` (see `domain.ports`) in the database that the log is in."""

    def __init__(
        self, reader: Engine, writer: Engine, writing: AbstractContextManager[object]
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._writing = writing

    def keep(self, owner: str, variables: Mapping[str, Any]) -> None:
        with self._writing, self._writer.begin() as connection:
            overwrite_what_is_deleted(connection)
            connection.execute(delete(environments).where(environments.c.owner == owner))
            connection.execute(insert(environments).values(_row(owner, variables, None)))

    def keep_once(
        self, owner: str, variables: Mapping[str, Any], request: Mapping[str, Any]
    ) -> dict[str, Any]:
        try:
            with self._writing, self._writer.begin() as connection:
                row = _row(owner, variables, request)
                connection.execute(insert(environments).values(row))
        except SQLIntegrityError:  # somebody was first
            kept = self.request(owner)
            return {} if kept is None else kept
        return dict(request)

    def request(self, owner: str) -> dict[str, Any] | None:
        query = select(environments.c.request).where(environments.c.owner == owner)
        with self._reader.connect() as connection:
            kept = connection.scalar(query)
        return None if kept is None else orjson.loads(kept)

    def find(self, owner: str) -> dict[str, Any] | None:
        return self.find_all([owner]).get(owner)

    def find_all(self, owners: Iterable[str]) -> dict[str, dict[str, Any]]:
        """What was kept for each of the owners that have something."""
        wanted = list(owners)
        found: dict[str, dict[str, Any]] = {}
        with self._reader.connect() as connection:
            for start in range(0, len(wanted), LOOKUP):
                some = wanted[start : start + LOOKUP]
                query = select(environments).where(environments.c.owner.in_(some))
                for row in connection.execute(query):
                    found[row.owner] = orjson.loads(row.variables)
        return found

    def forget(self, owner: str) -> None:
        with self._writing, self._writer.begin() as connection:
            overwrite_what_is_deleted(connection)
            connection.execute(delete(environments).where(environments.c.owner == owner))

    def owners(self, prefix: str, older_than: float) -> list[str]:
        """Whose were kept before a time (seconds since the epoch), of one kind."""
        query = select(environments.c.owner).where(
            environments.c.owner.startswith(prefix, autoescape=True),
            environments.c.kept_at < int(older_than),
        )
        with self._reader.connect() as connection:
            found = list(connection.scalars(query))
        return [owner for owner in found if owner.startswith(prefix)]  # LIKE may ignore case


def _row(
    owner: str, variables: Mapping[str, Any], request: Mapping[str, Any] | None
) -> dict[str, Any]:
    return {
        "owner": owner,
        "variables": orjson.dumps(dict(variables)),
        "request": None if request is None else orjson.dumps(dict(request)),
        "kept_at": int(time.time()),
    }


def overwrite_what_is_deleted(connection: Connection) -> None:
    """SQLite leaves in the file what a row was before it was changed or deleted."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA secure_delete=ON")
