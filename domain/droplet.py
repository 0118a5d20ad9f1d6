"""The life of a droplet: what a builder makes of a package.

    Created ─▶ PENDING ── StagingStarted ─▶ STAGING ── Staged ─▶ STAGED ── Expired ─▶ EXPIRED
                  └──────────────────────────┴── StagingFailed ─▶ FAILED

Staging is somebody else's job: a builder hears of the droplet, fetches what it needs, and
answers. Its answers come at least once, late, or never; a late one changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from eventsourcing.domain import CanInitAggregate

from domain.aggregate import Aggregate, Cause, RecordedEvent
from domain.credentials import holds_credentials
from domain.errors import DropletNotFound, DropletNotStaged, DropletNotWaiting
from domain.package import Digests, StoredBits

MAX_STACK = 4096  # characters
MIN_MEMORY, MIN_DISK = 1024, 4096  # MiB: staging gets no less, whatever is asked for
MAX_ERROR = 4096  # characters
_GIT_URL = re.compile(
    r"(https?|git)://[^\s/\x00-\x1f\x7f][^\s\x00-\x1f\x7f]*"
    r"|(ssh://)?[A-Za-z0-9._-]+@[^\s\x00-\x1f\x7f]+|ssh://[^\s\x00-\x1f\x7f]+"
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")


class DropletState(StrEnum):
    PENDING = "PENDING"
    STAGING = "STAGING"
    STAGED = "STAGED"
    FAILED = "FAILED"
    EXPIRED = "EXPIRED"


@dataclass(frozen=True)
class StageRequest:
    """What a builder is asked for. Limits are in MiB; a buildpack of None is the app's."""

    memory_limit: int
    disk_limit: int
    stack: str
    buildpack: str | None


@dataclass(frozen=True)
class BuiltDroplet:
    """What a builder made: the stored bits, and how the app's processes are started."""

    stored: StoredBits
    digests: Digests
    process_types: Mapping[str, str]
    buildpack: str | None


def faults_of_stage_request(fields: Mapping[str, object]) -> list[str]:
    """What is wrong with the fields of a request to stage, as sentences; [] if nothing is."""
    faults = []
    for name, label in (("memory_limit", "Memory limit"), ("disk_limit", "Disk limit")):
        limit = fields.get(name)
        if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool)):
            faults.append(f"{label} must be an integer")
    stack = fields.get("stack")
    if stack is not None:
        if not isinstance(stack, str):
            faults.append("Stack must be a string")
        elif not 1 <= len(stack) <= MAX_STACK:
            faults.append(f"Stack must be between 1 and {MAX_STACK} characters")
        elif "\0" in stack:
            faults.append("Stack must not hold NUL characters")
    buildpack = fields.get("buildpack")
    if buildpack is not None and not isinstance(buildpack, str):
        faults.append("Buildpack must be a string")
    return faults + faults_of_environment(fields.get("environment_variables"))


def faults_of_environment(variables: object) -> list[str]:
    """What is wrong with environment variables that somebody wants set. None sets none."""
    if variables is None:
        return []
    if not isinstance(variables, Mapping):
        return ["Environment variables must be a hash"]
    names = [str(name).upper() for name in variables]
    faults = []
    if any(name.startswith("CF_") for name in names):
        faults.append("Environment variables cannot start with CF_")
    if any(name.startswith("VCAP_") for name in names):
        faults.append("Environment variables cannot start with VCAP_")
    if "PORT" in names:
        faults.append("Environment variables cannot set PORT")
    return faults


def faults_of_buildpack(buildpack: str | None, known: frozenset[str]) -> list[str]:
    """What is wrong with a buildpack: a name, or the URL of a git repository.

    Of names only `known` ones are accepted, where some are known. Credentials in a URL
    would be in the log for ever.
    """
    if buildpack is None:
        return []
    if holds_credentials(buildpack):
        return ["Buildpack must not hold credentials"]
    is_url, is_name = _GIT_URL.fullmatch(buildpack), _NAME.fullmatch(buildpack)
    if (is_url and len(buildpack) <= MAX_STACK) or (is_name and (not known or buildpack in known)):
        return []
    one_of = f"one of '{', '.join(sorted(known))}'" if known else "a name"
    return [f"Buildpack must be {one_of} or the URL of a git repository"]


def procfile_of(process_types: Mapping[str, str]) -> str:
    """How the processes are started, as a Procfile says it: a line a process type."""
    return "\n".join(f"{name}: {command}" for name, command in process_types.items())


class Droplet(Aggregate, created_event_name="Created"):
    """A droplet: of which package, how far its staging has come, and where its bits are."""

    TOPIC = "droplet"
    ID_PREFIX = "droplet:"
    IS_SMALL = False  # its process types may take 400 kB

    class Event(RecordedEvent):
        TOPIC = "droplet.event"

    def __init__(self) -> None:
        self.package_guid = ""
        self.app_guid = ""
        self.request = StageRequest(MIN_MEMORY, MIN_DISK, "", None)
        self.state = DropletState.PENDING
        self.error: str | None = None
        self.buildpack: str | None = None
        self.process_types: Mapping[str, str] | None = None
        self.stored: StoredBits | None = None
        self.digests: Digests | None = None
        self.deleted = False

    # It is asked for --------------------------------------------------------------------

    @classmethod
    def create(
        cls, guid: str, package_guid: str, app_guid: str, request: StageRequest, by: Cause
    ) -> Droplet:
        """A new droplet, that waits for a builder."""
        return cls._begin(
            cls.Created,
            guid,
            by,
            package_guid=package_guid,
            app_guid=app_guid,
            memory_limit=request.memory_limit,
            disk_limit=request.disk_limit,
            stack=request.stack,
            buildpack=request.buildpack,
        )

    class Created(Event, CanInitAggregate[str]):
        """A droplet was asked for."""

        TOPIC = "droplet.created"
        originator_topic: str
        package_guid: str
        app_guid: str
        memory_limit: int
        disk_limit: int
        stack: str
        buildpack: str | None

        def apply(self, droplet: Droplet) -> None:
            droplet.package_guid = self.package_guid
            droplet.app_guid = self.app_guid
            droplet.request = StageRequest(
                self.memory_limit, self.disk_limit, self.stack, self.buildpack
            )
            droplet.buildpack = self.buildpack

    # A builder answers ------------------------------------------------------------------

    @property
    def waits_for_builder(self) -> bool:
        return not self.deleted and self.state in (DropletState.PENDING, DropletState.STAGING)

    def start_staging(self, by: Cause) -> None:
        """A builder has begun. Changes nothing the second time.

        Raises `DropletNotFound`, `DropletNotWaiting`.
        """
        self.check_waiting()
        if self.state is DropletState.PENDING:
            self._trigger(self.StagingStarted, by)

    class StagingStarted(Event):
        """A builder has begun to make the droplet."""

        TOPIC = "droplet.staging_started"

        def apply(self, droplet: Droplet) -> None:
            droplet.state = DropletState.STAGING

    def check_waiting(self) -> None:
        """Whether an answer is waited for. Raises `DropletNotFound`, `DropletNotWaiting`."""
        self._must_exist()
        if not self.waits_for_builder:
            raise DropletNotWaiting(self.guid, self.state)

    def complete(self, built: BuiltDroplet, by: Cause) -> None:
        """A builder is through, and its droplet's bits are stored.

        Raises `DropletNotFound`, `DropletNotWaiting`.
        """
        self.check_waiting()
        self._trigger(
            self.Staged,
            by,
            blob_key=built.stored.key,
            size=built.stored.size,
            sha1=built.digests.sha1,
            sha256=built.digests.sha256,
            process_types=dict(built.process_types),
            buildpack=built.buildpack or self.buildpack,
        )

    class Staged(Event):
        """The droplet was made, and its bits are in the blob store."""

        TOPIC = "droplet.staged"
        blob_key: str
        size: int
        sha1: str
        sha256: str
        process_types: dict[str, str]
        buildpack: str | None

        def apply(self, droplet: Droplet) -> None:
            droplet.stored = StoredBits(self.blob_key, self.size)
            droplet.digests = Digests(self.sha1, self.sha256)
            droplet.process_types = self.process_types
            droplet.buildpack = self.buildpack
            droplet.state = DropletState.STAGED

    def fail(self, error: str, by: Cause) -> None:
        """Staging ended without a droplet; `error` is a sentence for the client.

        Raises `DropletNotFound`, `DropletNotWaiting`.
        """
        self.check_waiting()
        self._trigger(self.StagingFailed, by, error=error[:MAX_ERROR])

    class StagingFailed(Event):
        """No droplet could be made."""

        TOPIC = "droplet.staging_failed"
        error: str

        def apply(self, droplet: Droplet) -> None:
            droplet.error = self.error
            droplet.state = DropletState.FAILED

    # Its end ----------------------------------------------------------------------------

    def expire(self, by: Cause) -> None:
        """Retention takes the bits; the record stays. Changes nothing the second time.

        Raises `DropletNotFound`, `DropletNotStaged`.
        """
        self._must_exist()
        if self.state is DropletState.EXPIRED:
            return
        if self.state is not DropletState.STAGED:
            raise DropletNotStaged(self.guid, self.state)
        self._trigger(self.Expired, by)

    class Expired(Event):
        """Retention has taken the bits."""

        TOPIC = "droplet.expired"

        def apply(self, droplet: Droplet) -> None:
            droplet.state = DropletState.EXPIRED

    def delete(self, by: Cause) -> None:
        """Removes the droplet, in any state. Raises `DropletNotFound`."""
        self._must_exist()
        self._trigger(self.Deleted, by)

    class Deleted(Event):
        """The droplet was deleted."""

        TOPIC = "droplet.deleted"

        def apply(self, droplet: Droplet) -> None:
            droplet.deleted = True

    @property
    def needs_blob(self) -> bool:
        return not self.deleted and (self.waits_for_builder or self.state is DropletState.STAGED)

    def _must_exist(self) -> None:
        if self.deleted:
            raise DropletNotFound(self.guid)
