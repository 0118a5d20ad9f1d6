"""Puts the parts together: what each is made of is told here (stores open in `adapters.store`)."""

from __future__ import annotations

import logging
import secrets
import socket
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from importlib.metadata import version

from sqlalchemy.pool import QueuePool

from adapters import schema
from adapters.authorization import AuthorizationAway, ByCloudController, ByRoles, ByScopes, Guard
from adapters.blob_store.local import LocalBlobs
from adapters.blob_store.s3 import S3Blobs
from adapters.bus.bus import Bus
from adapters.bus.commands import CommandConsumer, CommandHandler
from adapters.bus.memory import MemoryBus
from adapters.bus.rabbit import RabbitBus
from adapters.bus.redispatch import Redispatcher
from adapters.bus.relay import Relay
from adapters.bus.work import WORK, Worker
from adapters.claims import Claims
from adapters.cores import on_all_cores
from adapters.data_dir import DataDirInUse, DataDirLock
from adapters.follower import KeptPosition
from adapters.http.admission import UploadAdmission, UploadRules
from adapters.http.app import create_app
from adapters.http.authentication import Authenticator
from adapters.http.exchange import ReadModels
from adapters.http.freshness import Freshness
from adapters.http.health import Part as ReadyPart
from adapters.http.server.listening import listen
from adapters.http.server.server import Server
from adapters.http.throttle import RequestRate, UploadSlots
from adapters.jwks import Jwks
from adapters.leadership import Led, Part
from adapters.limits import archive_limits
from adapters.metrics import Metrics, Standings
from adapters.object_store import Bucket
from adapters.policies import Policies, PolicyRules
from adapters.postgres import (
    EVENTS_CHANNEL,
    MAINTENANCE_PATIENCE,
    PROJECTED_CHANNEL,
    REQUEST_PATIENCE,
    WORK_PATIENCE,
    AdvisoryLock,
    Listener,
    ProjectorNotices,
)
from adapters.staging.local import LocalStaging
from adapters.staging.s3 import S3Staging
from adapters.store import Rules, Store, open_postgres, open_sqlite, projections
from adapters.sweep import Sweep
from adapters.token_keys import Keys
from adapters.tokens import Tokens
from adapters.tracing import NoTracing, OpenTelemetry, Tracing
from domain.droplet_processing import DropletProcessing
from domain.droplet_service import StagingRules
from domain.processing import Processing
from entrypoints.builder import builder_beside
from entrypoints.keys import make_keys
from entrypoints.process import Both, Consumers, Process
from entrypoints.readiness import bits_parts, follower_parts, store_parts
from entrypoints.replays import Replays
from entrypoints.setting_values import MEMORY, AuthorizationBy, SettingError
from entrypoints.settings import Settings
from projections.audit_list import AuditReadModel
from projections.builder import BuildTaken, Indigestible
from projections.directory import DirectoryProjection, DirectoryReadModel
from projections.droplets import DropletReadModel, DropletsProjection
from projections.engine import Projector
from projections.packages import PackageReadModel, PackagesProjection
from projections.positions import stopped, versions_of
from projections.progress import Progress, StoredProgress, WholeProgress
from projections.roles import RoleReadModel, RolesProjection
from projections.unfinished import Step, WorkReadModel

logger = logging.getLogger("packtrail.serve")

SMALL = 1 << 20  # bytes, which are hashed in some 3 ms
HTTP_THREADS = 8
LEVEL_PATIENCE = 5.0  # seconds that a command waits for the read models, before it tries again
POLICIES = "policies"  # the name under which their position is kept
READ_BY_POLICIES = (PackagesProjection.name, DropletsProjection.name, DirectoryProjection.name)
REQUEST_CONNECTIONS = HTTP_THREADS
WORK_CONNECTIONS = 12

# PostgreSQL's advisory locks, a number each
RELAY_LOCK, PROJECTOR_LOCK, SWEEP_LOCK, SERVE_LOCK, POLICIES_LOCK = (
    0x7061_0001 + n for n in range(5)
)
LOCKS = {
    "relay": RELAY_LOCK,
    "projector": PROJECTOR_LOCK,
    "sweep": SWEEP_LOCK,
    "packtrail serve": SERVE_LOCK,
    "worker with policies": POLICIES_LOCK,
}


def rules_of(settings: Settings) -> Rules:
    return Rules(
        settings.registered_apps,
        settings.limits.max_packages_per_app,
        StagingRules(
            settings.stack,
            settings.max_staging_memory,
            settings.max_staging_disk,
            settings.buildpacks,
        ),
    )


def _upload_rules(settings: Settings) -> UploadRules:
    return UploadRules(settings.max_package_size, settings.app_bits_upload, settings.limits)


def open_work_store(settings: Settings, patience: float = MAINTENANCE_PATIENCE) -> Store:
    """The store for a command beside a service; each statement has `patience` seconds."""
    rules = rules_of(settings)
    if settings.sqlite_file is not None:
        return open_sqlite(settings.sqlite_file, rules)
    url = settings.event_store
    listener = Listener(url, (EVENTS_CHANNEL, PROJECTED_CHANNEL))
    store = open_postgres(url, listener, patience, WORK_CONNECTIONS, rules)
    store.closers.append(listener.close)
    return store


def _bits_stores(
    settings: Settings,
) -> tuple[LocalStaging | S3Staging, LocalBlobs | S3Blobs]:
    if settings.blob_dir is None:
        bucket = Bucket(settings.blob_store)
        folder = settings.data_dir / "receiving"
        return S3Staging(bucket, folder, settings.upload_dir), S3Blobs(bucket)
    staging = LocalStaging(settings.staging_dir, settings.upload_dir)
    return staging, LocalBlobs(settings.blob_dir, staging)


def open_blobs(settings: Settings) -> LocalBlobs | S3Blobs:
    """The blob store, only to be read."""
    return _bits_stores(settings)[1]


class Wiring:
    """Makes the parts of a process out of settings. Raises `DataDirInUse`; `OSError`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._closers: list[Callable[[], None]] = []
        self._staging, self._blobs = _bits_stores(settings)
        self._relay_failed: Callable[[], bool] = lambda: False
        self._policies_failed: Callable[[], bool] = lambda: False
        self._relays_here = False
        self._listener: Listener | None = None
        self._builder_token = secrets.token_urlsafe(32)
        rules = rules_of(settings)
        if settings.sqlite_file is not None:
            self._closers.append(DataDirLock(settings.data_dir).release)
            self._requests = self._work = open_sqlite(settings.sqlite_file, rules)
        else:
            url = settings.event_store
            self._listener = Listener(url, (EVENTS_CHANNEL, PROJECTED_CHANNEL))
            self._requests = open_postgres(
                url, self._listener, REQUEST_PATIENCE, REQUEST_CONNECTIONS, rules
            )
            self._work = open_postgres(url, self._listener, WORK_PATIENCE, WORK_CONNECTIONS, rules)
            self._closers += [self._requests.close, self._listener.close]
        self._closers.append(self._work.close)
        self._work.migrate()
        self._identity = self._work.identity
        self._projector: Projector | None = None
        if settings.sqlite_file is not None:
            self._projector = self._work.projector()
            self._work.project_along(self._projector)
        self._tracing: Tracing = OpenTelemetry() if settings.tracing else NoTracing()
        self._closers.append(self._tracing.close)
        self.metrics = Metrics()
        self.metrics.show(
            Standings(
                self._requests.log,
                self._requests.reader,
                [KeptPosition(self._requests.writer, name=n) for n in ("events", POLICIES)],
                self._pools(),
            )
        )
        self._bus = self._make_bus()
        self._closers.append(self._bus.close)

    @cached_property
    def _keys(self) -> Keys:
        return make_keys(self._settings)

    @cached_property
    def _authenticator(self) -> Authenticator:
        tokens = Tokens(self._keys, self._settings.jwt_audience)
        return Authenticator(tokens, self._builder_token)

    def serve(self) -> Process:
        """Everything in one process."""
        self._relays_here = True
        server = self._server()
        parts = [
            *self._projectors(),
            *self._workers(WORK),
            *self._commands(),
            *self._relays(),
            *self._sweeps(),
            *self._policies(),
        ]
        if self._settings.builder:
            parts.append(
                builder_beside(self._settings, self._bus, server.port, self._builder_token)
            )
        return self._process(parts, server)

    def api(self, listening: socket.socket | None = None) -> Process:
        """`listening`: a socket that several processes share."""
        return self._process([], self._server(listening))

    def worker(self, steps: tuple[Step, ...], commands: bool) -> Process:
        parts = [*self._workers(steps), *self._sweeps()]
        if commands:
            parts += [*self._commands(), *self._policies()]
        return self._process(parts)

    def relay(self) -> Process:
        return self._process(self._relays())

    def projector(self) -> Process:
        return self._process(self._projectors())

    def _process(self, parts: list[Part], server: Server | None = None) -> Process:
        return Process(parts, list(reversed(self._closers)), server, self._first)

    def _first(self) -> None:
        """Where this process is the only one: nothing runs before the read models are level."""
        if self._projector is not None:
            builder = self._work.builder()
            if missing := builder.missing():
                logger.info("building read models first", extra={"part": ", ".join(missing)})
                try:
                    builder.build(missing)
                except (BuildTaken, Indigestible) as error:  # nothing is read until it is there
                    logger.error("%s", error)
            self._projector.catch_up()
            self._sweep().sweep_staging(grace=0)

    def _pools(self) -> dict[str, QueuePool]:
        found = {f"work, {name}": pool for name, pool in self._work.pools.items()}
        if self._requests is not self._work:
            found |= {f"requests, {name}": pool for name, pool in self._requests.pools.items()}
        return found

    def _prepare_bits(self) -> None:
        """Makes or finds the stores of bits, and that they are the log's."""
        with on_all_cores():  # an object store's client starts its own threads, which encrypt
            self._staging.prepare(self._identity)
            self._blobs.prepare(self._identity)
        if isinstance(self._staging, LocalStaging) and isinstance(self._blobs, LocalBlobs):
            tokens = f"{self._staging.place.token} {self._blobs.place.token}"
            schema.claim_folders(self._work.writer, self._work.writing, tokens)

    def _make_bus(self) -> Bus:
        if self._settings.broker == MEMORY:
            self._require_alone()
            bus = MemoryBus()
            bus.declare()
            return bus
        return RabbitBus(self._settings.broker)

    def _require_alone(self) -> None:
        """A bus in memory reaches only its own process. Raises `DataDirInUse`."""
        if self._settings.sqlite_file is not None:
            return  # the data folder is locked
        lock = AdvisoryLock(self._settings.event_store, SERVE_LOCK, idle_timeout=0)
        if not lock.acquire():
            raise DataDirInUse(
                "the database is in use by another packtrail serve with a bus in memory: "
                "several processes need a RabbitMQ server (PACKTRAIL_BROKER)"
            )
        self._closers.append(lock.release)

    def _progress(self, store: Store) -> Progress:
        if self._projector is not None:
            return self._projector
        assert self._listener is not None
        return StoredProgress(
            store.reader, versions_of(projections()), ProjectorNotices(self._listener)
        )

    def _led(self, name: str, key: int, make: Callable[[], Part]) -> Part:
        return Led(name, AdvisoryLock(self._settings.event_store, key), make)

    def _projectors(self) -> list[Part]:
        def make() -> Part:
            return Both(self._work.projector(), self._replays())

        if self._projector is not None:
            return [self._projector, self._replays()]
        return [self._led("projector", PROJECTOR_LOCK, make)]

    def _replays(self) -> Part:
        return Replays(self._work.builder(), ["--data-dir", str(self._settings.data_dir)])

    def _relays(self) -> list[Part]:
        store = self._work

        def make() -> Part:
            relay = Relay(
                store.log, self._bus, KeptPosition(store.writer, store.writing), self._tracing
            )
            self._relay_failed = lambda: relay.failed
            redispatcher = Redispatcher(
                WorkReadModel(store.reader), DropletReadModel(store.reader), store.log, self._bus,
                self._settings.broker == MEMORY,
                level=lambda: self._progress(store).wait_for(store.log.head(), 1.0),
            )  # fmt: skip
            return Both(relay, redispatcher)

        if self._projector is not None:
            return [make()]
        return [self._led("relay", RELAY_LOCK, make)]

    def _workers(self, steps: tuple[Step, ...]) -> list[Part]:
        if not steps:
            return []
        self._prepare_bits()
        limits = archive_limits(self._settings.limits)
        small = SMALL if {Step.STORAGE, Step.HASHING} <= set(steps) else 0
        processing = Processing(self._work.packages, self._staging, self._blobs, limits, small)
        worker = Worker(
            self._bus, processing, self._droplets(self._work), self.metrics, self._tracing, steps
        )
        if self._projector is not None:  # work on as many as come in, or they would pile up
            worker = replace(worker, small_at_once=HTTP_THREADS)
        return [Consumers(worker.consumers())]

    def _droplets(self, store: Store) -> DropletProcessing:
        services = store.services
        return DropletProcessing(
            services.droplets, self._staging, self._blobs, services.environments
        )

    def _claims(self, store: Store) -> Claims:
        settings = self._settings
        return Claims(
            self._staging, self._droplets(store), settings.max_package_size,
            settings.max_droplet_size, self.metrics,
        )  # fmt: skip

    def _commands(self) -> list[Part]:
        """What carries out commands that come by message."""
        settings, store = self._settings, self._work
        self._prepare_bits()
        handler = CommandHandler(
            store, self._bus, self._authenticator, self._claims(store),
            _upload_rules(settings), self.metrics,
            self._guard(store, lambda: self._require_level(store)),
        )  # fmt: skip
        return [CommandConsumer(self._bus, handler)]

    def _require_level(self, store: Store) -> None:
        """Raises `AuthorizationAway`, upon which a command waits."""
        if not self._progress(store).wait_for(store.log.head(), LEVEL_PATIENCE):
            raise AuthorizationAway("the read models are behind the log")

    def _guard(self, store: Store, require_level: Callable[[], None]) -> Guard:
        """What refuses callers who may not do what they ask for."""
        settings = self._settings
        match settings.authorization:
            case AuthorizationBy.SCOPES:
                return Guard(ByScopes())
            case AuthorizationBy.ROLES:
                return Guard(
                    ByRoles(
                        RoleReadModel(store.reader),
                        lambda: self._require_roles(store, require_level),
                    )
                )
            case AuthorizationBy.CLOUD_CONTROLLER:
                return Guard(
                    ByCloudController(
                        settings.cloud_controller_url,
                        PackageReadModel(store.reader),
                        DropletReadModel(store.reader),
                        DirectoryReadModel(store.reader),
                    )
                )

    def _require_roles(self, store: Store, require_level: Callable[[], None]) -> None:
        """A role that was taken back must not count, because what tells so has stopped before it.

        Raises `AuthorizationAway`, or as `require_level` does.
        """
        require_level()
        with store.reader.connect() as connection:
            found = stopped(connection, (RolesProjection.name, DirectoryProjection.name))
        if found:
            raise AuthorizationAway(f"read models have stopped: {', '.join(found)}")

    def _policies(self) -> list[Part]:
        settings, store = self._settings, self._work

        def make() -> Part:
            policies = Policies(
                store.log, KeptPosition(store.writer, store.writing, POLICIES),
                WholeProgress(self._progress(store), store.reader, READ_BY_POLICIES),
                PackageReadModel(store.reader), DropletReadModel(store.reader),
                DirectoryReadModel(store.reader), store.services,
                PolicyRules(
                    settings.kept_packages, settings.kept_droplets, settings.staging_timeout
                ),
            )  # fmt: skip
            self._policies_failed = lambda: policies.failed
            return policies

        if self._projector is not None:
            return [make()]
        return [self._led("policies", POLICIES_LOCK, make)]

    def _sweep(self) -> Sweep:
        store = self._work
        return Sweep(
            self._staging, self._blobs, PackageReadModel(store.reader),
            DropletReadModel(store.reader), WorkReadModel(store.reader), self._progress(store),
            store.log, store.services, self._settings.sweep_grace,
            alone=self._projector is not None,
        )  # fmt: skip

    def _sweeps(self) -> list[Part]:
        if self._projector is not None:
            return [self._sweep()]
        return [self._led("sweep", SWEEP_LOCK, self._sweep)]

    def _server(self, listening: socket.socket | None = None) -> Server:
        settings, store = self._settings, self._requests
        self._prepare_bits()
        rules = _upload_rules(settings)
        freshness = Freshness(self._progress(store), store.log)
        guard = self._guard(store, freshness.require)
        rate = RequestRate(settings.limits.max_requests_per_minute)
        app = create_app(
            authenticator=self._authenticator,
            guard=guard,
            rate=rate,
            services=store.services,
            read_models=ReadModels(
                PackageReadModel(store.reader),
                DropletReadModel(store.reader),
                DirectoryReadModel(store.reader),
                AuditReadModel(store.reader),
                store.services.environments,
            ),
            history=store.log,
            freshness=freshness,
            registered_apps=settings.registered_apps,
            intake=self._staging,
            blobs=self._blobs,
            claims=self._claims(store),
            rules=rules,
            parts=self._ready_parts(store, freshness),
            version=version("packtrail"),
            metrics=self.metrics,
            tracing=self._tracing,
        )
        slots = UploadSlots(settings.limits.max_uploads_per_user)
        admission = UploadAdmission(
            self._authenticator, store.packages, self._staging, rules, guard, rate, slots
        )
        address = str(settings.listen)
        try:
            return listen(address, app, admission, HTTP_THREADS, settings.limits, listening)
        except (OSError, ValueError) as error:
            raise SettingError(
                "LISTEN", address, f"an address that can be listened on: {error}"
            ) from error

    def _ready_parts(self, store: Store, freshness: Freshness) -> dict[str, ReadyPart]:
        parts = store_parts(store, freshness) | bits_parts(self._staging, self._blobs)
        if isinstance(self._keys, Jwks):
            parts["token_keys"] = ReadyPart(self._keys.check, essential=True)
        if self._relays_here:
            # asked later: they are made anew, each time that they are led here
            parts |= follower_parts(lambda: self._relay_failed(), lambda: self._policies_failed())
        return parts
