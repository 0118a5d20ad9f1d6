"""Opens the event log, and the read models beside it, on either engine."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Self, cast

from eventsourcing.persistence import EventStore
from sqlalchemy import Connection, Engine
from sqlalchemy.pool import QueuePool

from adapters import schema
from adapters.breaker import Breaker
from adapters.environments import StoredEnvironments
from adapters.event_store import postgres, sqlite
from adapters.event_store.along import Along
from adapters.event_store.log import RecordedLog, Recorder
from adapters.event_store.transcoding import EventMapper
from adapters.people import People
from adapters.postgres import PROJECTED_CHANNEL, Listener, PostgresDatabase
from adapters.quota import StoredQuota
from adapters.read_models import postgres_engine, sqlite_engines
from domain.command import Receipt
from domain.directory_service import DirectoryService
from domain.download_service import DownloadService
from domain.droplet_service import DropletService, StagingRules
from domain.journal import Journal
from domain.package_service import PackageService
from projections.audit import AuditProjection
from projections.builder import Builder
from projections.directory import DirectoryProjection
from projections.droplets import DropletsProjection
from projections.engine import Projection, Projector
from projections.packages import PackageReadModel, PackagesProjection
from projections.roles import RolesProjection
from projections.unfinished import WorkProjection


def projections(suffix: str = "") -> list[Projection]:
    """All there are. With a `suffix` in tables that are named so, to be built beside them."""
    return [
        PackagesProjection(suffix),
        WorkProjection(suffix),
        DropletsProjection(suffix),
        DirectoryProjection(suffix),
        RolesProjection(suffix),
        AuditProjection(suffix),
    ]


@dataclass(frozen=True)
class Rules:
    """What the services hold commands to."""

    registered_apps: bool = False  # only apps that were announced have packages
    max_packages_per_app: int | None = None
    staging: StagingRules = field(default_factory=StagingRules)


@dataclass(frozen=True)
class Services:
    """All commands there are, and what they keep beside the log."""

    packages: PackageService
    droplets: DropletService
    downloads: DownloadService
    directory: DirectoryService
    environments: StoredEnvironments
    people: People

    @classmethod
    def on(
        cls,
        journal: Journal,
        reader: Engine,
        writer: Engine,
        writing: AbstractContextManager[object],
        rules: Rules,
    ) -> Self:
        environments = StoredEnvironments(reader, writer, writing)
        directory = DirectoryService(journal, rules.registered_apps)
        quota = None
        if rules.max_packages_per_app is not None:
            quota = StoredQuota(PackageReadModel(reader), rules.max_packages_per_app)
        packages = PackageService(journal, directory, quota)
        droplets = DropletService(journal, packages, directory, environments, rules.staging)
        people = People(reader, writer, writing)
        downloads = DownloadService(journal)
        return cls(packages, droplets, downloads, directory, environments, people)


@dataclass(frozen=True)
class Store:
    """The event log, and the read models beside it, as one kind of user has them open.

    `writing` is entered around each transaction that writes read models.
    """

    recorder: Recorder
    events: EventStore[str]
    log: RecordedLog
    journal: Journal
    rules: Rules
    writer: Engine
    reader: Engine
    writing: AbstractContextManager[object]
    breaker: Breaker
    create_events: tuple[str, ...]
    connections: QueuePool | None = None  # of the log, where that has its own
    along: Along | None = None  # what is done along with appends, where that is possible
    announce: Callable[[Connection, int], None] = lambda connection, position: None
    closers: list[Callable[[], None]] = field(default_factory=list)

    @cached_property
    def services(self) -> Services:
        return self._services(self.journal)

    def services_under(self, receipt: Receipt) -> Services:
        """The services in which one command is carried out, once for all."""
        return self._services(self.journal.under(receipt))

    def _services(self, journal: Journal) -> Services:
        return Services.on(journal, self.reader, self.writer, self.writing, self.rules)

    @property
    def packages(self) -> PackageService:
        return self.services.packages

    @property
    def pools(self) -> dict[str, QueuePool]:
        """The pools of connections, by what they are for."""
        engines = {"read": self.reader, "write": self.writer}
        found = {name: cast(QueuePool, engine.pool) for name, engine in engines.items()}
        if self.connections is not None:
            found["log"] = self.connections
        return found

    def migrate(self) -> int:
        """Brings the schema up to date; in how many steps. Raises `NewerData`."""
        return schema.migrate(self.writer, self.create_events, self.writing)

    @property
    def identity(self) -> str:
        """What tells this log from every other."""
        return schema.identity(self.reader)

    def projector(self, kept: list[Projection] | None = None) -> Projector:
        projector = Projector(
            self.log, self.writer, kept or projections(), self.writing, self.announce
        )
        projector.prepare()
        return projector

    def project_along(self, projector: Projector) -> None:
        """From here on what is appended here is applied in the same transaction, if it can be."""
        if self.along is not None:
            projector.goes_along()
            self.along.projector = projector

    def builder(self, make: Callable[[str], list[Projection]] = projections) -> Builder:
        return Builder(self.log, self.writer, make, self.writing, self.announce)

    def close(self) -> None:
        self.writer.dispose()
        self.reader.dispose()
        for close in self.closers:
            close()


def open_sqlite(path: Path, rules: Rules = Rules()) -> Store:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    file = sqlite.SQLiteFile(str(path))
    mapper = EventMapper()
    along = Along(mapper)
    recorder = sqlite.SQLiteRecorder(file, along)
    events = EventStore(mapper, recorder)
    log = RecordedLog(recorder, mapper, along.tail)
    writer, reader = sqlite_engines(str(path))
    return Store(
        recorder=recorder,
        events=events,
        log=log,
        journal=Journal(events, log),
        rules=rules,
        writer=writer,
        reader=reader,
        writing=file.writing,
        breaker=file.breaker,
        create_events=tuple(recorder.construct_create_table_statements()),
        along=along,
        closers=[file.close],
    )


def open_postgres(
    url: str, listener: Listener, patience: float, size: int, rules: Rules = Rules()
) -> Store:
    """A store each of whose statements is answered within `patience` seconds, or fails."""
    database = PostgresDatabase(url, patience, size)
    recorder = postgres.PostgresRecorder(database, listener)
    mapper = EventMapper()
    events = EventStore(mapper, recorder)
    log = RecordedLog(recorder, mapper)
    engine = postgres_engine(url, patience, size)
    return Store(
        recorder=recorder,
        events=events,
        log=log,
        journal=Journal(events, log),
        rules=rules,
        writer=engine,
        reader=engine,
        writing=nullcontext(),
        breaker=database.breaker,
        create_events=postgres.CREATE_TABLE,
        connections=database.connections,
        announce=_announce_to_postgres,
        closers=[database.close],
    )


def _announce_to_postgres(connection: Connection, position: int) -> None:
    connection.exec_driver_sql(f"NOTIFY {PROJECTED_CHANNEL}")
