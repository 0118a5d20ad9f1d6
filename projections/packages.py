"""The read model that answers every GET of a package or a list of packages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Index,
    Row,
    Table,
    Text,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy import bindparam as bind

from domain.package import Package, PackageState, PackageType
from domain.ports import LoggedEvent
from projections.positions import metadata
from projections.representation import PackageView

packages = Table(
    "packages",
    metadata,
    Column("guid", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),  # position of the first event: creation order
    Column("app_guid", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("url", Text),
    Column("state", Text, nullable=False),
    Column("error", Text),
    Column("sha1", Text),
    Column("sha256", Text),
    Column("file_name", Text),
    Column("source_guid", Text),
    Column("blob_key", Text),
    Column("size", BigInteger),
    Column("created_at", BigInteger, nullable=False),  # microseconds since the epoch, UTC
    Column("updated_at", BigInteger),
    Index("packages_in_order", "number"),
    Index("packages_of_app", "app_guid", "number"),
    Index("packages_by_blob", "blob_key"),
)

_COLUMNS = [column.name for column in packages.columns]
_INSERT = insert(packages)
_UPDATE = (
    update(packages)
    .where(packages.c.guid == bind("_guid"))
    .values({name: bind(name) for name in _COLUMNS if name != "guid"})
)
_DELETE = delete(packages).where(packages.c.guid == bind("_guid"))
LOOKUP = 400  # rows asked for in one statement


class PackagesProjection:
    """Keeps a row a package; a deleted package has none."""

    name = "packages"
    version = 1
    tables: Sequence[Table] = (packages,)

    def apply(self, connection: Connection, events: Sequence[LoggedEvent]) -> None:
        events = [logged for logged in events if isinstance(logged.event, Package.Event)]
        before = self._rows(connection, {logged.event.guid for logged in events})
        rows = {guid: dict(row) for guid, row in before.items()}
        for logged in events:
            _project(rows, logged)
        added = [row for guid, row in rows.items() if guid not in before]
        changed = [
            {**row, "_guid": guid}
            for guid, row in rows.items()
            if guid in before and row != before[guid]
        ]
        gone = [{"_guid": guid} for guid in before if guid not in rows]
        for statement, parameters in ((_INSERT, added), (_UPDATE, changed), (_DELETE, gone)):
            if parameters:
                connection.execute(statement, parameters)

    @staticmethod
    def _rows(connection: Connection, guids: set[str]) -> dict[str, dict[str, Any]]:
        wanted = list(guids)
        found: dict[str, dict[str, Any]] = {}
        for start in range(0, len(wanted), LOOKUP):
            some = wanted[start : start + LOOKUP]
            for row in connection.execute(select(packages).where(packages.c.guid.in_(some))):
                found[row.guid] = dict(row._mapping)
        return found


def _project(rows: dict[str, dict[str, Any]], logged: LoggedEvent) -> None:
    event = logged.event
    match event:
        case Package.Created() | Package.CopyStarted():
            rows[event.guid] = _first_row(event, logged.position)
            return
        case Package.Deleted():
            rows.pop(event.guid, None)
            return
    row = rows.get(event.guid)
    if row is None:
        raise LookupError(f"event {event.event_id} at {logged.position} precedes its package")
    row["updated_at"] = _microseconds(event.timestamp)
    match event:
        case Package.UploadStarted():
            row["state"] = PackageState.PROCESSING_UPLOAD.value
            row["file_name"] = event.file_name
        case Package.BitsStored():
            row["blob_key"] = event.blob_key
            row["size"] = event.size
        case Package.HashComputed():
            row["state"] = PackageState.READY.value
            row["sha1"] = event.sha1
            row["sha256"] = event.sha256
        case Package.ProcessingFailed():
            row["state"] = PackageState.FAILED.value
            row["error"] = event.error
        case Package.ProcessingResumed():
            resumed = PackageState.COPYING if row["source_guid"] else PackageState.PROCESSING_UPLOAD
            row["state"] = resumed.value
            row["error"] = None
        case Package.Expired():
            row["state"] = PackageState.EXPIRED.value
            row["blob_key"] = None


def _first_row(event: Package.Created | Package.CopyStarted, position: int) -> dict[str, Any]:
    copy = event if isinstance(event, Package.CopyStarted) else None
    state = PackageState.COPYING if copy else PackageState.AWAITING_UPLOAD
    if event.type == PackageType.DOCKER:
        state = PackageState.READY
    return dict.fromkeys(_COLUMNS) | {
        "guid": event.guid,
        "number": position,
        "app_guid": event.app_guid,
        "type": str(event.type),
        "url": event.url,
        "state": state.value,
        "file_name": copy.file_name if copy else None,
        "source_guid": copy.source_guid if copy else None,
        "created_at": _microseconds(event.timestamp),
    }


@dataclass(frozen=True)
class PackageRow:
    """A package as the read model has it: what is shown, and what a download needs."""

    view: PackageView
    sha256: str | None
    file_name: str | None
    blob_key: str | None
    size: int | None


@dataclass(frozen=True)
class PackagePage:
    total: int
    packages: list[PackageRow]


class PackageReadModel:
    """Answers questions about packages; never older than the projector's position."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def find(self, guid: str) -> PackageRow | None:
        with self._engine.connect() as connection:
            row = connection.execute(_BY_GUID, {"guid": guid}).first()
        return _package_row(row) if row else None

    def page(self, app_guid: str | None, page: int, per_page: int) -> PackagePage:
        """The packages of an app, or all, in creation order; pages count from 1."""
        of_app = [] if app_guid is None else [packages.c.app_guid == app_guid]
        with self._engine.connect() as connection:
            total = connection.scalar(select(func.count()).select_from(packages).where(*of_app))
            total = total or 0
            offset = (page - 1) * per_page
            if offset >= total:
                return PackagePage(total, [])
            query = select(packages).where(*of_app).order_by(packages.c.number)
            rows = connection.execute(query.limit(per_page).offset(offset)).all()
        return PackagePage(total, [_package_row(row) for row in rows])

    def blobs_named(self, keys: Iterable[str]) -> set[str]:
        """Which of the keys a package names."""
        wanted = list(keys)
        named: set[str] = set()
        with self._engine.connect() as connection:
            for start in range(0, len(wanted), LOOKUP):
                some = wanted[start : start + LOOKUP]
                query = select(packages.c.blob_key).where(packages.c.blob_key.in_(some))
                named.update(connection.scalars(query))
        return named


_BY_GUID = select(packages).where(packages.c.guid == bind("guid"))


def _package_row(row: Row[Any]) -> PackageRow:
    return PackageRow(
        PackageView(
            guid=row.guid,
            app_guid=row.app_guid,
            type=row.type,
            url=row.url,
            state=row.state,
            error=row.error,
            sha1=row.sha1,
            created_at=_moment(row.created_at),
            updated_at=None if row.updated_at is None else _moment(row.updated_at),
        ),
        sha256=row.sha256,
        file_name=row.file_name,
        blob_key=row.blob_key,
        size=row.size,
    )


def _microseconds(moment: datetime) -> int:
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _moment(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
