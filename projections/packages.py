"""The read model that answers every GET of a package or a list of packages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Index,
    Integer,
    Select,
    Table,
    Text,
    select,
)
from sqlalchemy import bindparam as bind

from domain.package import Package, PackageState, PackageType
from domain.ports import LoggedEvent
from projections.positions import metadata
from projections.representation import PackageView
from projections.row_lookup import Lookup, RowLookup, row_type
from projections.rows import (
    KeyedTable,
    Rows,
    Selection,
    beside,
    index_of_set,
    microseconds,
    moment_of,
    out_of_order,
    texts_found,
)
from projections.snapshots import Snapshots
from projections.totals import (
    ALL,
    Totals,
    package_totals,
    place_of,
    total_of,
    total_of_apps,
)

REMEMBERED = 4096  # rows that were read last

packages = Table(
    "packages",
    metadata,
    Column(  # position of the first event: creation order
        "number",
        BigInteger().with_variant(Integer, "sqlite"),  # INTEGER: rows are kept in that order
        primary_key=True,
        autoincrement=False,
    ),
    Column("guid", Text, nullable=False),
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
    Index("packages_by_guid", "guid", unique=True),
    Index("packages_of_app", "app_guid", "number"),
    index_of_set("packages_by_blob", "blob_key"),
    index_of_set("packages_by_source", "source_guid"),
)

# as they are stored: looked up once, since a rebuild needs them a million times
_AWAITING_UPLOAD = PackageState.AWAITING_UPLOAD.value
_PROCESSING_UPLOAD = PackageState.PROCESSING_UPLOAD.value
_COPYING = PackageState.COPYING.value
_READY = PackageState.READY.value
_FAILED = PackageState.FAILED.value
_EXPIRED = PackageState.EXPIRED.value
_DOCKER = PackageType.DOCKER.value
_EMPTY: dict[str, Any] = dict.fromkeys(column.name for column in packages.columns)


class PackagesProjection:
    """Keeps a row a package, and totals of them; a deleted package has no row."""

    name = "packages"
    version = 3

    def __init__(self, suffix: str = "") -> None:
        self._rows = KeyedTable(beside(packages, suffix))
        self._totals = Totals(beside(package_totals, suffix))
        self.tables: Sequence[Table] = (self._rows.table, self._totals.table)

    def apply(self, connection: Connection, events: Sequence[LoggedEvent]) -> None:
        ours = [logged for logged in events if type(logged.event) in _OURS]
        if not ours:
            return
        # by originator ids, of which guids are parts: of so many events that would take a while
        seen: set[str] = set()
        older = []  # what did not begin in these events
        for _, event in ours:
            id = event.originator_id
            if id not in seen:
                seen.add(id)
                if type(event) not in _FIRST:
                    older.append(id)
        found = self._rows.rows(connection, [id.removeprefix(Package.ID_PREFIX) for id in older])
        before = {Package.ID_PREFIX + guid: row for guid, row in found.items()}
        after = {id: dict(row) for id, row in before.items()}
        for logged in ours:
            _project(after, logged)
        self._rows.write(connection, before, after)
        self._totals.change(
            connection,
            added=[row for id, row in after.items() if id not in before],
            gone=[row for id, row in before.items() if id not in after],
        )


def _project(rows: Rows, logged: LoggedEvent) -> None:
    """`rows` are by originator ids."""
    position, event = logged
    change = _CHANGES.get(type(event))
    if change is not None:
        row = rows.get(event.originator_id)
        if row is None:
            raise out_of_order(logged)
        row["updated_at"] = microseconds(event.timestamp)
        change(row, event)
    elif isinstance(event, Package.Deleted):
        rows.pop(event.originator_id, None)
    elif isinstance(event, Package.Created | Package.CopyStarted):
        rows[event.originator_id] = _first_row(event, position)


def _first_row(event: Package.Created | Package.CopyStarted, position: int) -> dict[str, Any]:
    row = _EMPTY | {
        "guid": event.guid,
        "number": position,
        "app_guid": event.app_guid,
        "type": str(event.type),
        "url": event.url,
        "state": _AWAITING_UPLOAD,
        "created_at": microseconds(event.timestamp),
    }
    if isinstance(event, Package.CopyStarted):
        row["state"] = _COPYING
        row["file_name"] = event.file_name
        row["source_guid"] = event.source_guid
    if event.type == _DOCKER:
        row["state"] = _READY
    return row


def _upload_started(row: dict[str, Any], event: Package.UploadStarted) -> None:
    row["state"] = _PROCESSING_UPLOAD
    row["file_name"] = event.file_name


def _bits_stored(row: dict[str, Any], event: Package.BitsStored) -> None:
    row["blob_key"] = event.blob_key
    row["size"] = event.size


def _hash_computed(row: dict[str, Any], event: Package.HashComputed) -> None:
    row["state"] = _READY
    row["sha1"] = event.sha1
    row["sha256"] = event.sha256


def _processing_failed(row: dict[str, Any], event: Package.ProcessingFailed) -> None:
    row["state"] = _FAILED
    row["error"] = event.error


def _processing_resumed(row: dict[str, Any], event: Package.ProcessingResumed) -> None:
    row["state"] = _COPYING if row["source_guid"] else _PROCESSING_UPLOAD
    row["error"] = None


def _expired(row: dict[str, Any], event: Package.Expired) -> None:
    row["state"] = _EXPIRED
    row["blob_key"] = None


_FIRST = {Package.Created, Package.CopyStarted}
_CHANGES: dict[type[Any], Callable[[dict[str, Any], Any], None]] = {
    Package.UploadStarted: _upload_started,
    Package.BitsStored: _bits_stored,
    Package.HashComputed: _hash_computed,
    Package.ProcessingFailed: _processing_failed,
    Package.ProcessingResumed: _processing_resumed,
    Package.Expired: _expired,
}
# a request to stage is the droplet's matter
_OURS: set[type[Any]] = {*_FIRST, *_CHANGES, Package.Deleted}


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
        self._snapshots = Snapshots(engine)
        self._by_guid = RowLookup(engine, packages, packages.c.guid)
        self._surplus = Lookup(engine, _SURPLUS)

    def find(self, guid: str) -> PackageRow | None:
        row = self._by_guid.find(guid)
        return _package_row(row) if row else None

    def page(self, app_guid: str | None, page: int, per_page: int) -> PackagePage:
        """The packages of an app, or all, in creation order; pages count from 1."""
        if app_guid is not None and ("\0" in app_guid or app_guid == ALL):
            return PackagePage(0, [])
        asked = ALL if app_guid is None else app_guid
        with self._snapshots.of(packages, package_totals) as connection:
            total = total_of(connection, asked)
            start = (page - 1) * per_page
            end = min(start + per_page, total)
            if start >= total:
                return PackagePage(total, [])
            place = place_of(connection, asked, start, end)
            query = _BACKWARDS if place.backwards else _FORWARDS
            rows = connection.execute(
                query[app_guid is None],
                {
                    "app_guid": asked,
                    "number": place.number,
                    "skipped": place.skipped,
                    "most": end - start,
                },
            ).all()
        found = [_package_row(tuple(row)) for row in rows]
        return PackagePage(total, found[::-1] if place.backwards else found)

    def page_of_apps(self, apps: Selection, page: int, per_page: int) -> PackagePage:
        """The packages of these apps, in creation order; costs what there is of them."""
        # by number, and not to be found in that order: among all packages theirs may be few
        theirs = select(packages).where(packages.c.app_guid.in_(apps))
        query = theirs.order_by(packages.c.number + 0)
        with self._snapshots.of(packages, package_totals, apps) as connection:
            total = total_of_apps(connection, apps)
            start = (page - 1) * per_page
            if start >= total:
                return PackagePage(total, [])
            rows = connection.execute(query.limit(per_page).offset(start)).all()
        return PackagePage(total, [_package_row(tuple(row)) for row in rows])

    def apps(self, most: int) -> list[str]:
        """The guids of apps that have packages, `most` of them."""
        query = select(packages.c.app_guid).distinct().limit(most)
        with self._engine.connect() as connection:
            return list(connection.scalars(query))

    def count_of_app(self, app_guid: str) -> int:
        """How many packages an app has."""
        if "\0" in app_guid or app_guid == ALL:
            return 0
        with self._engine.connect() as connection:
            return total_of(connection, app_guid)

    def of_app(self, app_guid: str) -> list[str]:
        """The guids of all packages of an app, in creation order."""
        query = select(packages.c.guid).where(packages.c.app_guid == app_guid)
        with self._engine.connect() as connection:
            return list(connection.scalars(query.order_by(packages.c.number)))

    def surplus(self, app_guid: str, kept: int) -> list[str]:
        """The READY packages of an app, of type bits, that are not among its `kept` newest."""
        return [guid for (guid,) in self._surplus.rows(app_guid=app_guid, kept=kept)]

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


_SURPLUS = (
    select(packages.c.guid)
    .where(
        packages.c.app_guid == bind("app_guid"),
        packages.c.state == PackageState.READY.value,
        packages.c.type == PackageType.BITS.value,
    )
    .order_by(packages.c.number.desc())
    .offset(bind("kept"))
)


def _pages(forwards: bool, of_all: bool) -> Select[Any]:
    number = packages.c.number
    query = select(packages).limit(bind("most")).offset(bind("skipped"))
    if not of_all:
        query = query.where(packages.c.app_guid == bind("app_guid"))
    if forwards:
        return query.where(number >= bind("number")).order_by(number)
    return query.where(number < bind("number")).order_by(number.desc())


_FORWARDS = {of_all: _pages(forwards=True, of_all=of_all) for of_all in (True, False)}
_BACKWARDS = {of_all: _pages(forwards=False, of_all=of_all) for of_all in (True, False)}


_Stored = row_type(packages)


@lru_cache(REMEMBERED)
def _package_row(stored: tuple[Any, ...]) -> PackageRow:
    """The same object for the same row, as long as it is remembered: what it is is in the row."""
    row = _Stored(*stored)
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
