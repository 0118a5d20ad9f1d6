"""The read model that answers every GET of a package or a list of packages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Engine,
    Index,
    Row,
    Table,
    Text,
    func,
    select,
)
from sqlalchemy import bindparam as bind

from domain.package import Package, PackageState, PackageType
from domain.ports import LoggedEvent
from projections.positions import metadata
from projections.representation import PackageView
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
    Index("packages_by_source", "source_guid"),
)

_EMPTY: dict[str, Any] = dict.fromkeys(column.name for column in packages.columns)


class PackagesProjection:
    """Keeps a row a package; a deleted package has none."""

    name = "packages"
    version = 2

    def __init__(self, suffix: str = "") -> None:
        self._rows = KeyedTable(beside(packages, suffix))
        self.tables: Sequence[Table] = (self._rows.table,)

    def apply(self, connection: Connection, events: Sequence[LoggedEvent]) -> None:
        ours = [logged for logged in events if isinstance(logged.event, Package.Event)]
        self._rows.apply(connection, {logged.event.guid for logged in ours}, ours, _project)


def _project(rows: Rows, logged: LoggedEvent) -> None:
    event = logged.event
    match event:
        case Package.Created() | Package.CopyStarted():
            rows[event.guid] = _first_row(event, logged.position)
            return
        case Package.Deleted():
            rows.pop(event.guid, None)
            return
        case Package.StagingRequested():
            return  # the droplet's matter
    row = row_of(rows, logged)
    row["updated_at"] = microseconds(event.timestamp)
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
    return _EMPTY | {
        "guid": event.guid,
        "number": position,
        "app_guid": event.app_guid,
        "type": str(event.type),
        "url": event.url,
        "state": state.value,
        "file_name": copy.file_name if copy else None,
        "source_guid": copy.source_guid if copy else None,
        "created_at": microseconds(event.timestamp),
    }


@dataclass(frozen=True)
class PackageRow:
    """A package as the read model has it: what is shown, and what a download needs."""

    view: PackageView
    sha256: str | None
    file_name: str | None
    blob_key: str | None
    size: int | None
    source_guid: str | None


@dataclass(frozen=True)
class PackagePage:
    total: int
    packages: list[PackageRow]


class PackageReadModel:
    """Answers questions about packages; never older than the projector's position."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def find(self, guid: str) -> PackageRow | None:
        if "\0" in guid:
            return None
        with self._engine.connect() as connection:
            row = connection.execute(_BY_GUID, {"guid": guid}).first()
        return _package_row(row) if row else None

    def page(self, app_guid: str | None, page: int, per_page: int) -> PackagePage:
        """The packages of an app, or all, in creation order; pages count from 1."""
        if app_guid is not None and "\0" in app_guid:
            return PackagePage(0, [])
        of_app = [] if app_guid is None else [packages.c.app_guid == app_guid]
        return self._page(of_app, packages.c.number, page, per_page)

    def page_of_apps(self, apps: Selection, page: int, per_page: int) -> PackagePage:
        """The packages of these apps, in creation order; costs what there is of them."""
        # by number, and not to be found in that order: among all packages theirs may be few
        return self._page([packages.c.app_guid.in_(apps)], packages.c.number + 0, page, per_page)

    def apps(self, most: int) -> list[str]:
        """The guids of apps that have packages, `most` of them."""
        query = select(packages.c.app_guid).distinct().limit(most)
        with self._engine.connect() as connection:
            return list(connection.scalars(query))

    def count_of_app(self, app_guid: str, most: int) -> int:
        """How many packages an app has; counted up to `most`."""
        if "\0" in app_guid:
            return 0
        some = select(packages.c.guid).where(packages.c.app_guid == app_guid).limit(most)
        with self._engine.connect() as connection:
            return connection.scalar(select(func.count()).select_from(some.subquery())) or 0

    def _page(
        self,
        of_app: Sequence[ColumnElement[bool]],
        order: ColumnElement[int],
        page: int,
        per_page: int,
    ) -> PackagePage:
        with self._engine.connect() as connection:
            total = connection.scalar(select(func.count()).select_from(packages).where(*of_app))
            total = total or 0
            offset = (page - 1) * per_page
            if offset >= total:
                return PackagePage(total, [])
            query = select(packages).where(*of_app).order_by(order)
            rows = connection.execute(query.limit(per_page).offset(offset)).all()
        return PackagePage(total, [_package_row(row) for row in rows])

    def of_app(self, app_guid: str) -> list[str]:
        """The guids of all packages of an app, in creation order."""
        query = select(packages.c.guid).where(packages.c.app_guid == app_guid)
        with self._engine.connect() as connection:
            return list(connection.scalars(query.order_by(packages.c.number)))

    def surplus(self, app_guid: str, kept: int) -> list[str]:
        """The READY packages of an app, of type bits, that are not among its `kept` newest."""
        query = (
            select(packages.c.guid)
            .where(
                packages.c.app_guid == app_guid,
                packages.c.state == PackageState.READY.value,
                packages.c.type == PackageType.BITS.value,
            )
            .order_by(packages.c.number.desc())
        )
        with self._engine.connect() as connection:
            return list(connection.scalars(query))[kept:]

    def being_copied(self, guids: Sequence[str]) -> set[str]:
        """Which of these packages are the source of a copy that is not ready yet."""
        copying = select(packages.c.source_guid).where(
            packages.c.state == PackageState.COPYING.value
        )
        return texts_found(self._engine, copying, packages.c.source_guid, guids)

    def blobs_named(self, keys: Iterable[str]) -> set[str]:
        """Which of the keys a package names."""
        blobs = select(packages.c.blob_key)
        return texts_found(self._engine, blobs, packages.c.blob_key, keys)


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
            created_at=moment_of(row.created_at),
            updated_at=None if row.updated_at is None else moment_of(row.updated_at),
        ),
        sha256=row.sha256,
        file_name=row.file_name,
        blob_key=row.blob_key,
        size=row.size,
        source_guid=row.source_guid,
    )
