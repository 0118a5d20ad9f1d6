"""The life of a package, from its first event to its last.

    Created ─────▶ AWAITING_UPLOAD ── UploadStarted ──▶ PROCESSING_UPLOAD ─┐
    CopyStarted ─▶ COPYING ────────────────────────────────────────────────┤
                                                                           ▼
              FAILED ◀── ProcessingFailed ──── BitsStored, HashComputed ─▶ READY
                 └── ProcessingResumed (where the fault was ours) goes back to work

    A docker package has no bits: it is READY from its first event. A READY package
    whose bits were taken by retention is EXPIRED; a deleted one is gone for good.

A public method checks the rule and triggers an event, or refuses with an error of
`domain.errors`. Only an event's `apply` changes the state, so that the log alone can
bring every state back.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from eventsourcing.domain import CanInitAggregate

from domain.aggregate import MAX_GUID_LENGTH, Aggregate, Cause, RecordedEvent
from domain.credentials import image_holds_credentials
from domain.errors import (
    BitsAlreadyUploaded,
    InvalidPackage,
    PackageNotFailedByUs,
    PackageNotFound,
    PackageNotReady,
    PackageNotStageable,
    PackageTypeNotBits,
    SourceAppIsDestination,
    SourceNotReady,
)

MAX_URL = 4096  # characters


class PackageType(StrEnum):
    BITS = "bits"
    DOCKER = "docker"


class PackageState(StrEnum):
    AWAITING_UPLOAD = "AWAITING_UPLOAD"
    PROCESSING_UPLOAD = "PROCESSING_UPLOAD"
    COPYING = "COPYING"
    READY = "READY"
    FAILED = "FAILED"
    EXPIRED = "EXPIRED"


class WorkStep(StrEnum):
    """The step of the work on a package's bits: they are stored, then hashed."""

    STORAGE = "storage"
    HASHING = "hashing"


class Fault(StrEnum):
    """Whose fault a failure is: the bits' own, or the service's (then it can be resumed)."""

    BITS = "bits"
    SERVICE = "service"


@dataclass(frozen=True)
class StagedBits:
    """Received bits: `length` bytes from `offset` of what `uri` names in staging."""

    uri: str
    offset: int
    length: int


@dataclass(frozen=True)
class StoredBits:
    """Bits in the blob store: the blob's key, and its size in bytes."""

    key: str
    size: int


@dataclass(frozen=True)
class Digests:
    """Checksums of the stored bits, in lower-case hexadecimal."""

    sha1: str
    sha256: str


def faults_of_new_package(app_guid: str, type: object, url: object) -> list[str]:
    """What is wrong with a package somebody wants to create, as sentences; [] if nothing is."""
    faults = []
    if type not in tuple(PackageType):
        faults.append("Type must be one of 'bits, docker'")
    if not (url is None or isinstance(url, str)):
        faults.append("Url must be a string")
    elif type == PackageType.BITS and (url or "").strip():
        faults.append("Url must be blank when type is bits")
    elif type == PackageType.DOCKER and not (url or "").strip():
        faults.append("Url can not be blank when type is docker")
    elif type == PackageType.DOCKER and len(url or "") > MAX_URL:
        faults.append(f"Url must be between 1 and {MAX_URL} characters")
    elif type == PackageType.DOCKER and image_holds_credentials(url or ""):
        faults.append("Url must not hold credentials")
    if isinstance(url, str) and "\0" in url:
        faults.append("Url must not hold NUL characters")
    if not 1 <= len(app_guid) <= MAX_GUID_LENGTH:
        faults.append(f"App guid must be between 1 and {MAX_GUID_LENGTH} characters")
    if "\0" in app_guid:
        faults.append("App guid must not hold NUL characters")
    return faults


class Package(Aggregate, created_event_name="Created"):
    """An application package: what it is, how far it has come, and where its bits are."""

    TOPIC = "package"
    ID_PREFIX = "package:"

    class Event(RecordedEvent):
        TOPIC = "package.event"

    def __init__(self) -> None:
        self.type = PackageType.BITS
        self.app_guid = ""
        self.url: str | None = None
        self.state = PackageState.AWAITING_UPLOAD
        self.error: str | None = None
        self.fault: Fault | None = None
        self.file_name: str | None = None
        self.work_began_at: datetime | None = None
        self.source_guid: str | None = None
        self.staged: StagedBits | None = None
        self.stored: StoredBits | None = None
        self.digests: Digests | None = None
        self.deleted = False

    # A package begins: created, or as a copy of another ---------------------------------

    @classmethod
    def create(
        cls, guid: str, app_guid: str, type: PackageType, url: str | None, by: Cause
    ) -> Package:
        """A new package of an app. Raises `InvalidPackage`."""
        faults = faults_of_new_package(app_guid, type, url)
        if faults:
            raise InvalidPackage(faults)
        image = url if type is PackageType.DOCKER else None
        return cls._begin(cls.Created, guid, by, app_guid=app_guid, type=type, url=image)

    class Created(Event, CanInitAggregate[str]):
        """A package was created."""

        TOPIC = "package.created"
        originator_topic: str
        type: str
        app_guid: str
        url: str | None

        def apply(self, package: Package) -> None:
            package.type = PackageType(self.type)
            package.app_guid = self.app_guid
            package.url = self.url
            package.state = (
                PackageState.READY
                if package.type is PackageType.DOCKER
                else PackageState.AWAITING_UPLOAD
            )

    @classmethod
    def copy(cls, source: Package, guid: str, app_guid: str, by: Cause) -> Package:
        """A copy of a READY package for another app.

        Raises `InvalidPackage`, `PackageNotFound`, `SourceAppIsDestination`, `SourceNotReady`.
        """
        faults = faults_of_new_package(app_guid, source.type, source.url)
        if faults:
            raise InvalidPackage(faults)
        source._must_exist()
        if source.app_guid == app_guid:
            raise SourceAppIsDestination(app_guid)
        if source.state is not PackageState.READY:
            raise SourceNotReady(source.guid, source.state)
        return cls._begin(
            cls.CopyStarted,
            guid,
            by,
            app_guid=app_guid,
            source_guid=source.guid,
            type=source.type,
            url=source.url,
            file_name=source.file_name,
        )

    class CopyStarted(Event, CanInitAggregate[str]):
        """A package was created as a copy of another; a docker package's copy is READY."""

        TOPIC = "package.copy_started"
        originator_topic: str
        app_guid: str
        source_guid: str
        type: str
        url: str | None
        file_name: str | None

        def apply(self, package: Package) -> None:
            package.type = PackageType(self.type)
            package.app_guid = self.app_guid
            package.url = self.url
            package.source_guid = self.source_guid
            package.work_began_at = self.timestamp
            package.file_name = self.file_name
            package.state = (
                PackageState.READY if package.type is PackageType.DOCKER else PackageState.COPYING
            )

    # Its bits arrive ---------------------------------------------------------------------

    def check_upload(self) -> None:
        """Whether bits may be uploaded now.

        Raises `PackageNotFound`, `PackageTypeNotBits`, `BitsAlreadyUploaded`.
        """
        self._must_exist()
        if self.type is not PackageType.BITS:
            raise PackageTypeNotBits(self.guid, self.type)
        if self.state is not PackageState.AWAITING_UPLOAD:
            raise BitsAlreadyUploaded(self.guid, self.state)

    def start_upload(self, staged: StagedBits, file_name: str | None, by: Cause) -> None:
        """Takes in bits that are safe in staging. Raises what `check_upload` does."""
        self.check_upload()
        self._trigger(
            self.UploadStarted,
            by,
            staged_uri=staged.uri,
            staged_offset=staged.offset,
            staged_length=staged.length,
            file_name=file_name,
        )

    class UploadStarted(Event):
        """Bits were received, and are safe in staging."""

        TOPIC = "package.upload_started"
        staged_uri: str
        staged_offset: int
        staged_length: int
        file_name: str | None

        def apply(self, package: Package) -> None:
            package.staged = StagedBits(self.staged_uri, self.staged_offset, self.staged_length)
            package.file_name = self.file_name
            package.work_began_at = self.timestamp
            package.state = PackageState.PROCESSING_UPLOAD

    # They are stored, then hashed: two steps of work, each recorded once -----------------

    @property
    def in_progress(self) -> bool:
        return not self.deleted and self.state in (
            PackageState.PROCESSING_UPLOAD,
            PackageState.COPYING,
        )

    @property
    def needs_storing(self) -> bool:
        return self.in_progress and self.stored is None

    @property
    def needs_hashing(self) -> bool:
        return self.in_progress and self.stored is not None

    def record_stored(self, stored: StoredBits, by: Cause) -> None:
        """The bits are in the blob store. Changes nothing the second time.

        Raises `PackageNotFound` if the package was deleted meanwhile.
        """
        self._must_exist()
        if self.needs_storing:
            self._trigger(self.BitsStored, by, blob_key=stored.key, size=stored.size)

    class BitsStored(Event):
        """The bits are in the blob store."""

        TOPIC = "package.bits_stored"
        blob_key: str
        size: int

        def apply(self, package: Package) -> None:
            package.stored = StoredBits(self.blob_key, self.size)

    def record_hashes(self, digests: Digests, by: Cause) -> None:
        """The stored bits have these checksums. Changes nothing the second time.

        Raises `PackageNotFound` if the package was deleted meanwhile.
        """
        self._must_exist()
        if self.needs_hashing:
            self._trigger(self.HashComputed, by, sha1=digests.sha1, sha256=digests.sha256)

    class HashComputed(Event):
        """The stored bits have these checksums; the package is READY."""

        TOPIC = "package.hash_computed"
        sha1: str
        sha256: str

        def apply(self, package: Package) -> None:
            package.digests = Digests(self.sha1, self.sha256)
            package.state = PackageState.READY

    # Or the work fails, and can be taken up again if that was our fault -------------------

    def fail(self, error: str, fault: Fault, by: Cause, detail: str | None = None) -> None:
        """The work on the bits ended without success. Changes nothing if no work is going on.

        `error` is for the client, a sentence; `detail` for an operator.
        Raises `PackageNotFound` if the package was deleted meanwhile.
        """
        self._must_exist()
        if self.in_progress:
            step = WorkStep.STORAGE if self.needs_storing else WorkStep.HASHING
            self._trigger(
                self.ProcessingFailed, by, error=error, fault=fault, detail=detail, step=step
            )

    class ProcessingFailed(Event):
        """The work on the bits ended without success; the package is FAILED.

        `step` is the step that ended so, storage or hashing; null where that was not recorded.
        """

        TOPIC = "package.processing_failed"
        class_version = 2
        error: str
        fault: str
        detail: str | None
        step: str | None

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            """The first version did not say which step it was."""
            state["step"] = None

        def apply(self, package: Package) -> None:
            package.error = self.error
            package.fault = Fault(self.fault)
            package.state = PackageState.FAILED

    @property
    def failed_by_us(self) -> bool:
        return self.state is PackageState.FAILED and self.fault is Fault.SERVICE

    def resume(self, by: Cause) -> None:
        """Tries a package again that failed by the service's fault.

        Raises `PackageNotFound`, `PackageNotFailedByUs`.
        """
        self._must_exist()
        if not self.failed_by_us:
            raise PackageNotFailedByUs(self.guid, self.state)
        self._trigger(self.ProcessingResumed, by)

    class ProcessingResumed(Event):
        """An operator has the work on a FAILED package tried again."""

        TOPIC = "package.processing_resumed"

        def apply(self, package: Package) -> None:
            package.error = None
            package.fault = None
            package.state = (
                PackageState.COPYING if package.source_guid else PackageState.PROCESSING_UPLOAD
            )

    # A droplet is made of it ------------------------------------------------------------

    def request_staging(self, droplet_guid: str, by: Cause) -> None:
        """A droplet is asked for. Whoever is about to expire the package decides again then.

        Raises `PackageNotFound`, `PackageNotStageable`.
        """
        self._must_exist()
        if self.state is not PackageState.READY:
            raise PackageNotStageable(self.guid, self.state)
        if self.type is not PackageType.BITS:
            raise PackageNotStageable(self.guid, self.type)
        self._trigger(self.StagingRequested, by, droplet_guid=droplet_guid)

    class StagingRequested(Event):
        """A droplet of the package was asked for. The package itself is as before."""

        TOPIC = "package.staging_requested"
        droplet_guid: str

        def mutate(self, aggregate: Package | None) -> Package | None:  # type: ignore[override]
            """Nothing of what is shown of a package changes, nor when it changed last."""
            changed_at = aggregate.modified_on if aggregate else None
            package = super().mutate(aggregate)
            if package is not None and changed_at is not None:
                package.modified_on = changed_at
            return package

    # Its end -----------------------------------------------------------------------------

    def expire(self, by: Cause) -> None:
        """Retention takes the bits; the record stays. Changes nothing the second time.

        Raises `PackageNotFound`, `PackageTypeNotBits`, `PackageNotReady`.
        """
        self._must_exist()
        if self.type is not PackageType.BITS:
            raise PackageTypeNotBits(self.guid, self.type)
        if self.state is PackageState.EXPIRED:
            return
        if self.state is not PackageState.READY:
            raise PackageNotReady(self.guid, self.state)
        self._trigger(self.Expired, by)

    class Expired(Event):
        """Retention has taken the bits."""

        TOPIC = "package.expired"

        def apply(self, package: Package) -> None:
            package.state = PackageState.EXPIRED

    def delete(self, by: Cause) -> None:
        """Removes the package, in any state. Raises `PackageNotFound`."""
        self._must_exist()
        self._trigger(self.Deleted, by)

    class Deleted(Event):
        """The package was deleted."""

        TOPIC = "package.deleted"

        def apply(self, package: Package) -> None:
            package.deleted = True

    # What still needs which bits ---------------------------------------------------------

    @property
    def needs_staged_bits(self) -> bool:
        """Until the package is READY or its bits proved bad; kept where the fault was ours."""
        return self.staged is not None and (
            self.in_progress or (self.failed_by_us and not self.deleted)
        )

    @property
    def needs_blob(self) -> bool:
        return not self.deleted and (
            self.in_progress or self.failed_by_us or self.state is PackageState.READY
        )

    def _must_exist(self) -> None:
        if self.deleted:
            raise PackageNotFound(self.guid)
