"""The directory: apps, spaces and organizations, as others have told us of them.

An app that nobody announced is in it from its first package on, without a name. What was
deleted keeps a row, so that what comes late does not bring it back; nobody is shown it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Engine,
    Index,
    Table,
    Text,
    select,
)

from domain.directory import App, Organization, Space
from domain.package import Package
from domain.ports import LoggedEvent
from projections.positions import metadata
from projections.rows import KeyedTable, Rows, beside, microseconds, moment_of, row_of

apps = Table(
    "apps",
    metadata,
    Column("guid", Text, primary_key=True),
    Column("name", Text),
    Column("space_guid", Text),
    Column("buildpack", Text),
    Column("current_droplet", Text),
    Column("announced", Boolean, nullable=False),
    Column("deleted", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),  # microseconds since the epoch, UTC
    Column("updated_at", BigInteger),
    Index("apps_of_space", "space_guid"),
)

spaces = Table(
    "spaces",
    metadata,
    Column("guid", Text, primary_key=True),
    Column("name", Text),
    Column("organization_guid", Text),
    Column("deleted", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger),
    Index("spaces_of_organization", "organization_guid"),
)

organizations = Table(
    "organizations",
    metadata,
    Column("guid", Text, primary_key=True),
    Column("name", Text),
    Column("suspended", Boolean, nullable=False),
    Column("deleted", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger),
)

Started = Package.Created | Package.CopyStarted


class DirectoryProjection:
    """Keeps a row an app, space and organization."""

    name = "directory"
    version = 2

    def __init__(self, suffix: str = "") -> None:
        self._apps = KeyedTable(beside(apps, suffix))
        self._spaces = KeyedTable(beside(spaces, suffix))
        self._organizations = KeyedTable(beside(organizations, suffix))
        self.tables: Sequence[Table] = tuple(
            keyed.table for keyed in (self._apps, self._spaces, self._organizations)
        )

    def apply(self, connection: Connection, events: Sequence[LoggedEvent]) -> None:
        for table, project, kinds in (
            (self._apps, _project_app, (App.Event, Package.Created, Package.CopyStarted)),
            (self._spaces, _project_space, Space.Event),
            (self._organizations, _project_organization, Organization.Event),
        ):
            ours = [logged for logged in events if isinstance(logged.event, kinds)]
            if ours:
                guids = {_guid_of(logged) for logged in ours}
                table.apply(connection, guids, ours, project)


def _guid_of(logged: LoggedEvent) -> str:
    event = logged.event
    return event.app_guid if isinstance(event, Started) else event.guid


def _project_app(rows: Rows, logged: LoggedEvent) -> None:
    event = logged.event
    match event:
        case Package.Created() | Package.CopyStarted():
            if "\0" in event.app_guid:  # no longer accepted; nobody can ask for it
                return
            rows.setdefault(event.app_guid, _new(apps, event.app_guid, event.timestamp))
            return
        case App.Created():
            is_new = event.guid not in rows
            row = rows.setdefault(event.guid, _new(apps, event.guid, event.timestamp))
            row["announced"] = event.name is not None
            row["name"] = event.name
            row["space_guid"] = event.space_guid
            row["buildpack"] = event.buildpack
            row["updated_at"] = None if is_new else microseconds(event.timestamp)
            return
    row = row_of(rows, logged)
    row["updated_at"] = microseconds(event.timestamp)
    match event:
        case App.Renamed():
            row["announced"] = True
            row["name"] = event.name
        case App.CurrentDropletAssigned():
            row["current_droplet"] = event.droplet_guid
        case App.Updated():
            row["space_guid"] = event.space_guid
            row["buildpack"] = event.buildpack
        case App.Deleted():
            row["deleted"] = True


def _project_space(rows: Rows, logged: LoggedEvent) -> None:
    event = logged.event
    if isinstance(event, Space.Created):
        rows[event.guid] = _new(spaces, event.guid, event.timestamp) | {
            "name": event.name,
            "organization_guid": event.organization_guid,
        }
        return
    row = row_of(rows, logged)
    row["updated_at"] = microseconds(event.timestamp)
    match event:
        case Space.Renamed():
            row["name"] = event.name
        case Space.Updated():
            row["organization_guid"] = event.organization_guid
        case Space.Deleted():
            row["deleted"] = True


def _project_organization(rows: Rows, logged: LoggedEvent) -> None:
    event = logged.event
    if isinstance(event, Organization.Created):
        rows[event.guid] = _new(organizations, event.guid, event.timestamp) | {
            "name": event.name,
            "suspended": False,
        }
        return
    row = row_of(rows, logged)
    row["updated_at"] = microseconds(event.timestamp)
    match event:
        case Organization.Renamed():
            row["name"] = event.name
        case Organization.Suspended() | Organization.Activated():
            row["suspended"] = isinstance(event, Organization.Suspended)
        case Organization.Deleted():
            row["deleted"] = True


def _new(table: Table, guid: str, moment: datetime) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(column.name for column in table.columns)
    row |= {"guid": guid, "deleted": False, "created_at": microseconds(moment)}
    if "announced" in row:
        row["announced"] = False
    return row


@dataclass(frozen=True)
class DirectoryEntry:
    """An app, space or organization; `parent` is the guid of the space or organization it is in."""

    guid: str
    name: str | None
    parent: str | None
    created_at: datetime
    updated_at: datetime | None


@dataclass(frozen=True)
class AppEntry(DirectoryEntry):
    buildpack: str | None
    current_droplet: str | None
    announced: bool


class DirectoryReadModel:
    """Nothing that was deleted is found."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def app(self, guid: str) -> AppEntry | None:
        row = self._row(apps, guid)
        if row is None:
            return None
        return AppEntry(
            **_common(row, row["space_guid"]),
            buildpack=row["buildpack"],
            current_droplet=row["current_droplet"],
            announced=bool(row["announced"]),
        )

    def space(self, guid: str) -> DirectoryEntry | None:
        row = self._row(spaces, guid)
        return DirectoryEntry(**_common(row, row["organization_guid"])) if row else None

    def organization(self, guid: str) -> DirectoryEntry | None:
        row = self._row(organizations, guid)
        return DirectoryEntry(**_common(row, None)) if row else None

    def is_deleted(self, app_guid: str) -> bool:
        """Whether an app was there, and is no more."""
        if "\0" in app_guid:
            return False
        query = select(apps.c.deleted).where(apps.c.guid == app_guid)
        with self._engine.connect() as connection:
            return bool(connection.scalar(query))

    def apps_of_space(self, guid: str) -> list[str]:
        """The guids of the apps that are in a space."""
        query = select(apps.c.guid).where(apps.c.space_guid == guid, apps.c.deleted.is_(False))
        with self._engine.connect() as connection:
            return list(connection.scalars(query))

    def spaces_of_organization(self, guid: str) -> list[str]:
        """The guids of the spaces that are in an organization."""
        query = select(spaces.c.guid).where(
            spaces.c.organization_guid == guid, spaces.c.deleted.is_(False)
        )
        with self._engine.connect() as connection:
            return list(connection.scalars(query))

    def _row(self, table: Table, guid: str) -> dict[str, Any] | None:
        if "\0" in guid:  # PostgreSQL can't even be asked
            return None
        query = select(table).where(table.c.guid == guid, table.c.deleted.is_(False))
        with self._engine.connect() as connection:
            row = connection.execute(query).first()
        return dict(row._mapping) if row else None


def _common(row: dict[str, Any], parent: str | None) -> dict[str, Any]:
    updated_at = row["updated_at"]
    return {
        "guid": row["guid"],
        "name": row["name"],
        "parent": parent,
        "created_at": moment_of(row["created_at"]),
        "updated_at": None if updated_at is None else moment_of(updated_at),
    }
