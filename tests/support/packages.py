"""Packages and stores for tests: a real log in a file, and packages brought to a state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from eventsourcing.persistence import EventStore
from sqlalchemy import Engine

from adapters.event_store.log import RecordedLog
from adapters.event_store.sqlite import SQLiteFile, SQLiteRecorder
from adapters.event_store.transcoding import EventMapper
from adapters.read_models import sqlite_engines
from domain.package import Cause, Digests, Fault, Package, PackageType, StagedBits, StoredBits
from domain.service import PackageService
from projections.engine import Projection, Projector
from projections.packages import PackageReadModel, PackagesProjection
from projections.unfinished import WorkProjection, WorkReadModel

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


@dataclass(frozen=True)
class LocalStore:
    """A real log with its read models in an SQLite file."""

    path: Path
    file: SQLiteFile
    recorder: SQLiteRecorder
    log: RecordedLog
    service: PackageService
    writer: Engine
    reader: Engine
    projector: Projector
    packages: PackageReadModel
    work: WorkReadModel

    @classmethod
    def open(cls, path: Path, projections: list[Projection] | None = None) -> LocalStore:
        file = SQLiteFile(str(path))
        recorder = SQLiteRecorder(file)
        recorder.create_table()
        mapper = EventMapper()
        log = RecordedLog(recorder, mapper)
        writer, reader = sqlite_engines(str(path))
        projector = Projector(
            log, writer, projections or [PackagesProjection(), WorkProjection()], file.writing
        )
        projector.prepare()
        service = PackageService(EventStore(mapper, recorder), log)
        return cls(
            path, file, recorder, log, service, writer, reader, projector,
            PackageReadModel(reader), WorkReadModel(reader),
        )  # fmt: skip

    def close(self) -> None:
        self.writer.dispose()
        self.reader.dispose()
        self.file.close()
