"""The commands on droplets: somebody asks for one, a builder answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any
from uuid import uuid4

from domain.aggregate import Aggregate, Cause
from domain.directory import App
from domain.directory_service import DirectoryService
from domain.droplet import (
    MIN_DISK,
    MIN_MEMORY,
    BuiltDroplet,
    Droplet,
    StageRequest,
    faults_of_buildpack,
)
from domain.errors import (
    AppNotFound,
    DropletNotFound,
    InvalidRequest,
    KeyReused,
    PackageNotStageable,
    StagingLimitExceeded,
)
from domain.journal import Committed, Journal, surely_not_recorded
from domain.package import Package, PackageState, PackageType
from domain.package_service import PackageService
from domain.ports import Environments

OPEN_FILES = 16_384  # what VCAP_APPLICATION says of file descriptors


@dataclass(frozen=True)
class StagingRules:
    """What staging is given where a request says nothing, and what it is given at most.

    Limits are in MiB. `buildpacks` are the names that are accepted; any, if there are none.
    """

    stack: str = "cflinuxfs2"
    max_memory: int = 8192
    max_disk: int = 16_384
    buildpacks: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Requested:
    """The outcome of a request to stage: the droplet, and the environment that goes with it."""

    committed: Committed[Droplet]
    environment: Mapping[str, Any]

    @property
    def aggregate(self) -> Droplet:
        return self.committed.aggregate

    @property
    def position(self) -> int | None:
        return self.committed.position


@dataclass(frozen=True)
class Wanted:
    """What a request to stage says; None where it says nothing."""

    memory_limit: int | None = None
    disk_limit: int | None = None
    stack: str | None = None
    buildpack: str | None = None
    environment: Mapping[str, Any] = field(default_factory=dict)


class DropletService:
    """Every method may raise the droplet's refusals."""

    def __init__(
        self,
        journal: Journal,
        packages: PackageService,
        directory: DirectoryService,
        environments: Environments,
        rules: StagingRules,
    ) -> None:
        self._journal = journal
        self._packages = packages
        self._directory = directory
        self._environments = environments
        self._rules = rules

    def stage(
        self, package_guid: str, wanted: Wanted, by: Cause, key: str | None = None
    ) -> Requested:
        """A new droplet, that waits for a builder.

        Its environment is kept beside the log, before the log names the droplet: it may
        hold secrets, and those are in no event. With a `key` that its actor sent before: what
        was created then. Raises `PackageNotFound`, `InvalidRequest`, `PackageNotStageable`,
        `StagingLimitExceeded`, `KeyReused`.
        """
        kept: dict[str, Mapping[str, Any]] = {}
        together: list[Aggregate] = []
        asked = {"package_guid": package_guid, **asdict(wanted)}

        def begin(guid: str) -> Droplet:
            package = self._packages.get(package_guid)
            app = self._app_of(package)
            request = self._decide(package, app, wanted)
            environment = self._environment(package, app, request, wanted)
            first = self._environments.keep_once(Droplet.ID_PREFIX + guid, environment, asked)
            if not _same(first, asked):
                raise KeyReused(f"the key {key!r} was used for another request")
            kept[guid] = environment
            package.request_staging(guid, by)
            together[:] = [package]
            return Droplet.create(guid, package_guid, package.app_guid, request, by)

        def same(first: Droplet) -> bool:
            before = self._environments.request(Droplet.ID_PREFIX + first.guid)
            if before is not None:
                return _same(before, asked)
            # it was deleted, and the environment forgotten: what the log has of it must do
            return (
                first.package_guid == package_guid
                and wanted.buildpack in (None, first.request.buildpack)
                and wanted.stack in (None, first.request.stack)
                and max(wanted.memory_limit or 0, MIN_MEMORY) == first.request.memory_limit
                and max(wanted.disk_limit or 0, MIN_DISK) == first.request.disk_limit
            )

        try:
            committed = self._journal.begin(Droplet, begin, same, by, key, together)
        except Exception as error:
            if surely_not_recorded(error) and key is None:
                for guid in kept:
                    self._environments.forget(Droplet.ID_PREFIX + guid)
            raise
        guid = committed.aggregate.guid
        environment = kept.get(guid) if committed.position is not None else None
        if environment is None:
            environment = self._environments.find(Droplet.ID_PREFIX + guid) or {}
        return Requested(committed, environment)

    def _app_of(self, package: Package) -> App | None:
        try:
            return self._directory.app(package.app_guid)
        except AppNotFound:
            return None  # its packages are about to be deleted, or it was never announced

    def _decide(self, package: Package, app: App | None, wanted: Wanted) -> StageRequest:
        """In the contract's order."""
        buildpack = wanted.buildpack
        if buildpack is None and app is not None:
            buildpack = app.buildpack
        faults = faults_of_buildpack(buildpack, self._rules.buildpacks)
        if faults:
            raise InvalidRequest(faults)
        if package.state is not PackageState.READY:
            raise PackageNotStageable(package.guid, package.state)
        if package.type is not PackageType.BITS:
            raise PackageNotStageable(package.guid, package.type)
        memory = max(wanted.memory_limit or 0, MIN_MEMORY)
        disk = max(wanted.disk_limit or 0, MIN_DISK)
        if memory > self._rules.max_memory:
            raise StagingLimitExceeded("memory", memory, self._rules.max_memory)
        if disk > self._rules.max_disk:
            raise StagingLimitExceeded("disk", disk, self._rules.max_disk)
        return StageRequest(memory, disk, wanted.stack or self._rules.stack, buildpack)

    def _environment(
        self, package: Package, app: App | None, request: StageRequest, wanted: Wanted
    ) -> dict[str, Any]:
        """What the builder runs with; what comes later wins."""
        space = None
        if app is not None and app.space_guid is not None:
            space = self._directory.space(app.space_guid)
        name = app.name if app else None
        version = str(uuid4())
        return {
            **(self._environments.find(App.ID_PREFIX + package.app_guid) or {}),
            **wanted.environment,
            "VCAP_APPLICATION": {
                "limits": {
                    "mem": request.memory_limit,
                    "disk": request.disk_limit,
                    "fds": OPEN_FILES,
                },
                "application_id": package.app_guid,
                "application_version": version,
                "application_name": name,
                "application_uris": [],
                "version": version,
                "name": name,
                "space_name": space.name if space else None,
                "space_id": app.space_guid if app else None,
                "uris": [],
                "users": None,
            },
            "CF_STACK": request.stack,
            "MEMORY_LIMIT": request.memory_limit,
            "VCAP_SERVICES": {},
        }

    def check_waiting(self, guid: str) -> None:
        self.get(guid).check_waiting()

    def start_staging(self, guid: str, by: Cause) -> Committed[Droplet]:
        return self._change(guid, lambda droplet: droplet.start_staging(by))

    def complete(self, guid: str, built: BuiltDroplet, by: Cause) -> Committed[Droplet]:
        return self._change(guid, lambda droplet: droplet.complete(built, by))

    def fail(self, guid: str, error: str, by: Cause) -> Committed[Droplet]:
        return self._change(guid, lambda droplet: droplet.fail(error, by))

    def expire(self, guid: str, by: Cause) -> Committed[Droplet]:
        return self._change(guid, lambda droplet: droplet.expire(by))

    def delete(self, guid: str, by: Cause) -> Committed[Droplet]:
        return self._change(guid, lambda droplet: droplet.delete(by))

    def load(self, guid: str) -> Droplet:
        """The droplet as the log has it, deleted or not. Raises `DropletNotFound`."""
        droplet = self._journal.find(Droplet, guid)
        if droplet is None:
            raise DropletNotFound(guid)
        return droplet

    def get(self, guid: str) -> Droplet:
        """The droplet. Raises `DropletNotFound` also for one that was deleted."""
        droplet = self.load(guid)
        if droplet.deleted:
            raise DropletNotFound(guid)
        return droplet

    def _change(self, guid: str, decide: Callable[[Droplet], None]) -> Committed[Droplet]:
        return self._journal.change(lambda: self.get(guid), decide)


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two requests say the same in JSON, in which 1 is not true."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
