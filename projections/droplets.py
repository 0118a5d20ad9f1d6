"""The read model that answers every GET of a droplet or a list of droplets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Engine,
    Index,
    Table,
    Text,
    bindparam,
    func,
    select,
)

from domain.droplet import Droplet, DropletState, procfile_of
from domain.ports import LoggedEvent
from projections.positions import metadata
from projections.representation import DropletView
from projections.row_lookup import Lookup, RowLookup, row_type
from projections.rows import (
    KeyedTable,
    Rows,
    Selection,
    beside,
    microseconds,
    moment_of,
    row_of,
    texts_found,
)
from projections.unfinished import Step, UnfinishedWork

droplets = Table(
    "droplets",
    metadata,
    Column("guid", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),  # position of the first event: creation order
    Column("package_guid", Text, nullable=False),
    Column("app_guid", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("error", Text),
    Column("buildpack", Text),
    Column("procfile", Text),
    Column("sha1", Text),
    Column("sha256", Text),
    Column("blob_key", Text),
    Column("size", BigInteger),
    Column("created_at", BigInteger, nullable=False),  # microseconds since the epoch, UTC
    Column("updated_at", BigInteger),
    Index("droplets_in_order", "number"),
    Index("droplets_of_app", "app_guid", "number"),
    Index("droplets_of_package", "package_guid"),
    Index("droplets_by_state", "state", "number"),
    Index("droplets_by_blob", "blob_key"),
)

_EMPTY: dict[str, Any] = dict.fromkeys(column.name for column in droplets.columns)
_WAITING = (DropletState.PENDING.value, DropletState.STAGING.value)


class DropletsProjection:
    """Keeps a row a droplet; a deleted droplet has none."""

    name = "droplets"
    version = 1

    def __init__(self, suffix: str = "") -> None:
        self._rows = KeyedTable(beside(droplets, suffix))
        self.tables: Sequence[Table] = (self._rows.table,)

    def apply(self, connection: Connection, events: Sequence[LoggedEvent]) -> None:
        ours = [logged for logged in events if isinstance(logged.event, Droplet.Event)]
        if ours:
            self._rows.apply(connection, {logged.event.guid for logged in ours}, ours, _project)


def _project(rows: Rows, logged: LoggedEvent) -> None:
    event = logged.event
    match event:
        case Droplet.Created():
            rows[event.guid] = _EMPTY | {
                "guid": event.guid,
                "number": logged.position,
                "package_guid": event.package_guid,
                "app_guid": event.app_guid,
                "state": DropletState.PENDING.value,
                "buildpack": event.buildpack,
                "created_at": microseconds(event.timestamp),
            }
            return
        case Droplet.Deleted():
            rows.pop(event.guid, None)
            return
    row = row_of(rows, logged)
    row["updated_at"] = microseconds(event.timestamp)
    match event:
        case Droplet.StagingStarted():
            row["state"] = DropletState.STAGING.value
        case Droplet.Staged():
            row["state"] = DropletState.STAGED.value
            row["buildpack"] = event.buildpack
            row["procfile"] = procfile_of(event.process_types)
            row["sha1"] = event.sha1
            row["sha256"] = event.sha256
            row["blob_key"] = event.blob_key
            row["size"] = event.size
        case Droplet.StagingFailed():
            row["state"] = DropletState.FAILED.value
            row["error"] = event.error
        case Droplet.Expired():
            row["state"] = DropletState.EXPIRED.value
            row["blob_key"] = None


class DropletOrder(StrEnum):
    CREATED_AT = "created_at"
    UPDATED_AT = "updated_at"


@dataclass(frozen=True)
class DropletQuery:
    """Which droplets are asked for, and in which order; None filters nothing.

    `visible` are the apps whose droplets may be seen.
    """

    app_guids: Sequence[str] | None = None
    states: Sequence[str] | None = None
    order: DropletOrder = DropletOrder.CREATED_AT
    descending: bool = False
    visible: Selection | None = None


@dataclass(frozen=True)
class DropletRow:
    """A droplet as the read model has it: what is shown, and what a download needs."""

    view: DropletView
    sha256: str | None
    blob_key: str | None
    size: int | None


@dataclass(frozen=True)
class DropletPage:
    total: int
    droplets: list[DropletRow]


@dataclass(frozen=True)
class WaitingDroplet:
    """A droplet that waits for a builder, of which package, and since it was asked for or begun."""

    guid: str
    package_guid: str
    since: datetime


class DropletReadModel:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._by_guid = RowLookup(engine, droplets, droplets.c.guid)
        self._surplus = Lookup(engine, _SURPLUS)

    def find(self, guid: str) -> DropletRow | None:
        row = self._by_guid.find(guid)
        return _droplet_row(_Stored(*row)) if row else None

    def page(self, query: DropletQuery, page: int, per_page: int) -> DropletPage:
        """The droplets that a query asks for; pages count from 1."""
        wanted: list[ColumnElement[bool]] = []
        if query.app_guids is not None:
            wanted.append(droplets.c.app_guid.in_(_askable(query.app_guids)))
        if query.states is not None:
            wanted.append(droplets.c.state.in_(_askable(query.states)))
        order: list[ColumnElement[Any]] = [droplets.c.number]
        if query.visible is not None:
            wanted.append(droplets.c.app_guid.in_(query.visible))
            order = [droplets.c.number + 0]  # not to be found in that order: theirs may be few
        if query.order is DropletOrder.UPDATED_AT:
            # what never changed was up to date when it was created
            order.insert(0, func.coalesce(droplets.c.updated_at, droplets.c.created_at))
        if query.descending:
            order = [column.desc() for column in order]
        with self._engine.connect() as connection:
            total = connection.scalar(select(func.count()).select_from(droplets).where(*wanted))
            total = total or 0
            offset = (page - 1) * per_page
            if offset >= total:
                return DropletPage(total, [])
            found = select(droplets).where(*wanted).order_by(*order)
            rows = connection.execute(found.limit(per_page).offset(offset)).all()
        return DropletPage(total, [_droplet_row(row) for row in rows])

    def apps(self, most: int) -> list[str]:
        """The guids of apps that have droplets, `most` of them."""
        query = select(droplets.c.app_guid).distinct().limit(most)
        with self._engine.connect() as connection:
            return list(connection.scalars(query))

    def waiting(self) -> list[WaitingDroplet]:
        """All that wait for a builder, the oldest first."""
        query = select(droplets).where(droplets.c.state.in_(_WAITING)).order_by(droplets.c.number)
        with self._engine.connect() as connection:
            return [
                WaitingDroplet(
                    row.guid, row.package_guid, moment_of(row.updated_at or row.created_at)
                )
                for row in connection.execute(query)
            ]

    def to_hand_out(self, begun_too: bool) -> list[UnfinishedWork]:
        """What no builder has begun; with `begun_too` also what one has, the oldest first."""
        states = _WAITING if begun_too else _WAITING[:1]
        query = (
            select(droplets.c.guid, droplets.c.number)
            .where(droplets.c.state.in_(states))
            .order_by(droplets.c.number)
        )
        with self._engine.connect() as connection:
            return [
                UnfinishedWork(row.guid, Step.STAGING, row.number)
                for row in connection.execute(query)
            ]

    def of_app(self, app_guid: str) -> list[str]:
        """The guids of all droplets of an app, in creation order."""
        query = select(droplets.c.guid).where(droplets.c.app_guid == app_guid)
        with self._engine.connect() as connection:
            return list(connection.scalars(query.order_by(droplets.c.number)))

    def surplus(self, app_guid: str, kept: int) -> list[str]:
        """The STAGED droplets of an app that are not among its `kept` newest."""
        return [guid for (guid,) in self._surplus.rows(app_guid=app_guid, kept=kept)]

    def packages_being_staged(self, guids: Sequence[str]) -> set[str]:
        """Which of these packages a droplet is being made of."""
        waiting = select(droplets.c.package_guid).where(droplets.c.state.in_(_WAITING))
        return texts_found(self._engine, waiting, droplets.c.package_guid, guids)

    def blobs_named(self, keys: Iterable[str]) -> set[str]:
        """Which of the keys a droplet names."""
        blobs = select(droplets.c.blob_key)
        return texts_found(self._engine, blobs, droplets.c.blob_key, keys)

    def guids(self, guids: Iterable[str]) -> set[str]:
        """Which of these droplets there are."""
        return texts_found(self._engine, select(droplets.c.guid), droplets.c.guid, guids)


_SURPLUS = (
    select(droplets.c.guid)
    .where(
        droplets.c.app_guid == bindparam("app_guid"),
        droplets.c.state == DropletState.STAGED.value,
    )
    .order_by(droplets.c.number.desc())
    .offset(bindparam("kept"))
)


def _askable(values: Sequence[str]) -> list[str]:
    """Without those that PostgreSQL can't even be asked for, and that nothing has."""
    return [value for value in values if "\0" not in value]


_Stored = row_type(droplets)


def _droplet_row(row: Any) -> DropletRow:
    return DropletRow(
        DropletView(
            guid=row.guid,
            package_guid=row.package_guid,
            app_guid=row.app_guid,
            state=row.state,
            error=row.error,
            buildpack=row.buildpack,
            procfile=row.procfile,
            sha1=row.sha1,
            created_at=moment_of(row.created_at),
            updated_at=None if row.updated_at is None else moment_of(row.updated_at),
        ),
        sha256=row.sha256,
        blob_key=row.blob_key,
        size=row.size,
    )
