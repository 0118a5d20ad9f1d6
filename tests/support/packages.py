"""Packages and stores for tests: a real log in a file, and packages brought to a state."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine

from adapters.event_store.log import RecordedLog
from adapters.staging.intake import Intake
from adapters.staging.local import LocalStaging
from adapters.store import Store, open_sqlite
from domain.aggregate import Cause
from domain.droplet_processing import DropletProcessing
from domain.package import Digests, Fault, Package, PackageType, StagedBits, StoredBits
from domain.package_service import PackageService
from domain.ports import BlobStore, Staging
from projections.droplets import DropletReadModel
from projections.engine import Projection, Projector
from projections.packages import PackageReadModel
from projections.unfinished import WorkReadModel

BY = Cause("user-1", "request-1")
STAGED = StagedBits("staging:abc", 100, 2000)
STORED = StoredBits("ab/cd/guid-1", 2000)
DIGESTS = Digests("a" * 40, "b" * 64)


def created(type: PackageType = PackageType.BITS, url: str | None = None) -> Package:
    return Package.create("guid-1", "app-1", type, url, BY)


def given(*commands: Callable[[Package], None], package: Package | None = None) -> Package:
    """A package that has had these commands; its events are in the past."""
    package = package or created()
    for command in commands:
        command(package)
    package.collect_events()
    return package


def upload(package: Package) -> None:
    package.start_upload(STAGED, "app.zip", BY)


def store(package: Package) -> None:
    package.record_stored(STORED, BY)


def hash_(package: Package) -> None:
    package.record_hashes(DIGESTS, BY)


def fail_by_bits(package: Package) -> None:
    package.fail("no zip", Fault.BITS, BY)


def fail_by_us(package: Package) -> None:
    package.fail("our fault", Fault.SERVICE, BY, "RuntimeError: x")


def resume(package: Package) -> None:
    package.resume(BY)


def expire(package: Package) -> None:
    package.expire(BY)


def delete(package: Package) -> None:
    package.delete(BY)


def stage(
    staging: Intake, content: bytes, before: bytes = b"", after: bytes = b"", guid: str = "guid-1"
) -> StagedBits:
    """Stages bits that came as a slice of a body."""
    body = staging.create(guid)
    body.write(before + content + after)
    staged = staging.stage(body, len(before), len(content), guid, "app.zip")
    body.close()
    return staged


def take_file(
    staging: LocalStaging, path: str, limit: int = 1 << 20, guid: str = "guid-1"
) -> StagedBits:
    """Stages a file of the upload folder, as an upload that names it does."""
    with staging.find_file(path, limit, guid) as found:
        return found.take(guid)


def droplet_processing(store: LocalStore, staging: Staging, blobs: BlobStore) -> DropletProcessing:
    services = store.store.services
    return DropletProcessing(services.droplets, staging, blobs, services.environments)


@dataclass(frozen=True)
class LocalStore:
    """A real log with its read models: in an SQLite file, or in what `of` is given."""

    path: Path
    store: Store
    projector: Projector
    packages: PackageReadModel
    droplets: DropletReadModel
    work: WorkReadModel

    @classmethod
    def open(cls, path: Path, projections: list[Projection] | None = None) -> LocalStore:
        return cls.of(open_sqlite(path), path, projections)

    @classmethod
    def of(
        cls, store: Store, path: Path = Path(), projections: list[Projection] | None = None
    ) -> LocalStore:
        store.migrate()
        return cls(
            path, store, store.projector(projections),
            PackageReadModel(store.reader), DropletReadModel(store.reader),
            WorkReadModel(store.reader),
        )  # fmt: skip

    def rebuild(self, *names: str) -> int:
        """Builds read models anew, all if none is named, as `packtrail replay` does."""
        builder = self.store.builder()
        return builder.build(names or builder.names)

    @property
    def log(self) -> RecordedLog:
        return self.store.log

    @property
    def service(self) -> PackageService:
        return self.store.packages

    @property
    def writer(self) -> Engine:
        return self.store.writer

    @property
    def reader(self) -> Engine:
        return self.store.reader

    @property
    def writing(self) -> AbstractContextManager[object]:
        return self.store.writing

    def close(self) -> None:
        self.store.close()
