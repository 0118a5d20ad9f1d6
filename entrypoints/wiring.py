"""Puts the parts together. Every constructor is called here, and nowhere else."""

from __future__ import annotations

import fcntl
import os
import resource
import threading
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from eventsourcing.persistence import EventStore
from sqlalchemy import Engine
from waitress.adjustments import Adjustments

from adapters.blob_store.local import LocalBlobs
from adapters.bus.bus import Bus, Consumer
from adapters.bus.memory import MemoryBus
from adapters.bus.redispatch import Redispatcher
from adapters.bus.relay import Relay, RelayPosition
from adapters.bus.work import Worker
from adapters.event_store.log import RecordedLog
from adapters.event_store.sqlite import SQLiteFile, SQLiteRecorder
from adapters.event_store.transcoding import EventMapper
from adapters.http.admission import UploadAdmission, UploadRules
from adapters.http.app import create_app
from adapters.http.authentication import Authenticator
from adapters.http.freshness import Freshness
from adapters.http.health import Part
from adapters.http.server.server import Server
from adapters.read_models import sqlite_engines
from adapters.staging.local import LocalStaging
from adapters.sweep import Sweep
from adapters.tokens import Tokens, load_or_make_secret
from domain.archive import ArchiveLimits
from domain.processing import Processing
from domain.service import PackageService
from entrypoints.settings import SettingError, Settings
from projections.engine import Projector
from projections.packages import PackageReadModel, PackagesProjection
from projections.unfinished import WorkProjection, WorkReadModel

HTTP_THREADS = 8
CONNECTIONS_SPARE = 256  # descriptors kept for files and the database


class DataDirInUse(Exception):
    """Another process serves from the same data folder."""


class DataDirLock:
    """Held while a process serves: the embedded engines are for one process."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / "serve.lock").open("w")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise DataDirInUse(f"{folder} is in use by another packtrail serve") from None

    def release(self) -> None:
        self._file.close()


@dataclass(frozen=True)
class Store:
    """The event log, and the read models beside it."""

    file: SQLiteFile
    log: RecordedLog
    packages: PackageService
    writer: Engine
    reader: Engine
    projector: Projector

    def close(self) -> None:
        self.writer.dispose()
        self.reader.dispose()
        self.file.close()


def open_store(settings: Settings) -> Store:
    path = str(settings.database)
    settings.database.parent.mkdir(parents=True, exist_ok=True)
    file = SQLiteFile(path)
    recorder = SQLiteRecorder(file)
    recorder.create_table()
    mapper = EventMapper()
    log = RecordedLog(recorder, mapper)
    writer, reader = sqlite_engines(path)
    projector = Projector(log, writer, [PackagesProjection(), WorkProjection()], file.writing)
    projector.prepare()
    packages = PackageService(EventStore(mapper, recorder), log)
    return Store(file, log, packages, writer, reader, projector)


def make_tokens(settings: Settings) -> Tokens:
    secret = settings.jwt_secret or load_or_make_secret(settings.secret_file)
    return Tokens(secret, settings.jwt_audience)


@dataclass(frozen=True)
class Service:
    """All parts in one process: what `packtrail serve` starts and stops."""

    store: Store
    bus: Bus
    server: Server
    consumers: list[Consumer]
    relay: Relay
    redispatcher: Redispatcher
    sweep: Sweep
    lock: DataDirLock

    def start(self) -> None:
        """Starts all but the server. Nothing is handed out before the read models are level."""
        self.store.projector.catch_up()
        self.store.projector.start()
        self.sweep.sweep_staging(grace=0)
        for consumer in self.consumers:
            consumer.start()
        self.relay.start()
        self.redispatcher.start()
        self.sweep.start()

    def stop(self, timeout: float) -> bool:
        """Stops what `start` started; whether running work was finished within `timeout` s."""
        self.sweep.stop()
        self.redispatcher.stop()
        stoppers: list[threading.Thread] = []
        finished: list[bool] = []
        for consumer in self.consumers:
            thread = threading.Thread(
                target=lambda c=consumer: finished.append(c.stop(timeout)), daemon=True
            )
            thread.start()
            stoppers.append(thread)
        for thread in stoppers:
            thread.join()
        self.relay.stop()
        self.store.projector.stop()
        self.bus.close()
        self.store.close()
        self.lock.release()
        return all(finished)


def make_service(settings: Settings) -> Service:
    """Raises `DataDirInUse`; `OSError`."""
    lock = DataDirLock(settings.data_dir)
    staging = LocalStaging(settings.staging_dir, settings.upload_dir)
    staging.prepare()
    blobs = LocalBlobs(settings.blob_dir, staging)
    blobs.prepare()
    store = open_store(settings)
    work = WorkReadModel(store.reader)
    read_model = PackageReadModel(store.reader)
    processing = Processing(
        store.packages, staging, blobs, ArchiveLimits(settings.max_package_size)
    )
    bus = MemoryBus()
    bus.declare()
    relay = Relay(store.log, bus, RelayPosition(store.writer, store.file.writing))
    authenticator = Authenticator(make_tokens(settings))
    rules = UploadRules(settings.max_package_size, settings.app_bits_upload)
    freshness = Freshness(store.projector, store.log)
    app = create_app(
        authenticator=authenticator,
        packages=store.packages,
        read_model=read_model,
        freshness=freshness,
        staging=staging,
        blobs=blobs,
        rules=rules,
        parts=_parts(store, staging, blobs, relay, freshness),
        version=version("packtrail"),
    )
    admission = UploadAdmission(authenticator, store.packages, staging, rules)
    return Service(
        store=store,
        bus=bus,
        server=_listen(settings, app, admission),
        consumers=Worker(bus, processing).consumers(),
        relay=relay,
        redispatcher=Redispatcher(work, store.log, bus),
        sweep=Sweep(staging, blobs, read_model, work, store.projector, store.log),
        lock=lock,
    )


def _parts(
    store: Store, staging: LocalStaging, blobs: LocalBlobs, relay: Relay, freshness: Freshness
) -> dict[str, Part]:
    def event_store() -> None:
        store.log.head()

    def read_models() -> None:
        freshness.require()

    def folder(path: Path) -> None:
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(f"{path} can't be written to")

    def broker() -> None:
        if relay.failed:
            raise ConnectionError("the last events could not be published")

    return {
        "event_store": Part(event_store, essential=True),
        "read_models": Part(read_models, essential=True),
        "staging": Part(lambda: folder(staging.folder), essential=True),
        "blob_store": Part(lambda: folder(blobs.folder), essential=False),
        "broker": Part(broker, essential=False),
    }


def _listen(settings: Settings, app: Any, admission: UploadAdmission) -> Server:
    """Raises `SettingError` if the address can't be listened on."""
    address = str(settings.listen)
    try:
        return Server(
            app,
            admission,
            Adjustments(
                listen=address,
                threads=HTTP_THREADS,
                ident=None,
                recv_bytes=64 * 1024,
                max_request_body_size=1 << 62,  # bodies have limits of their own, by their kind
                connection_limit=max(64, _descriptors() - CONNECTIONS_SPARE),
                backlog=1024,
                clear_untrusted_proxy_headers=True,
            ),
        )
    except (OSError, ValueError) as error:
        raise SettingError(
            "LISTEN", address, f"an address that can be listened on: {error}"
        ) from error


def _descriptors() -> int:
    """How many files this process may have open, raised to what the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = min(hard, 65_536) if hard != resource.RLIM_INFINITY else 65_536
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most
