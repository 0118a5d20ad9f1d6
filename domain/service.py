"""Turns commands into events: loads the package, lets it decide, appends what it decided."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID, uuid4, uuid5

from eventsourcing.application import AggregateNotFoundError, Repository
from eventsourcing.domain import CanMutateAggregate
from eventsourcing.persistence import (
    EventStore,
    IntegrityError,
    InterfaceError,
    OperationalError,
)

from domain.errors import KeyReused, NothingRecorded, PackageNotFound, Refusal
from domain.package import (
    Cause,
    Digests,
    Fault,
    Package,
    PackageEvent,
    PackageType,
    StagedBits,
    StoredBits,
)
from domain.ports import EventLog

_KEYS = UUID("7e0e8b5a-0b5a-4c58-9a53-3c4f1f0a9d11")  # the name space of idempotency keys


def new_guid() -> str:
    return str(uuid4())


def surely_not_recorded(error: Exception) -> bool:
    """Whether a command that ended with this error has changed nothing."""
    return isinstance(error, Refusal | NothingRecorded)


@dataclass(frozen=True)
class Committed:
    """A command's outcome: the package at the version that it wrote.

    `position` is the log's position of the last event written, or one behind it; None if
    the command changed nothing.
    """

    package: Package
    position: int | None


class PackageService:
    """The commands on packages. Every method may raise the package's refusals."""

    def __init__(
        self, events: EventStore[str], log: EventLog, new_guid: Callable[[], str] = new_guid
    ) -> None:
        self._events = events
        self._log = log
        self._packages: Repository[str] = Repository(events)
        self._new_guid = new_guid

    def create(
        self,
        app_guid: str,
        type: PackageType,
        url: str | None,
        by: Cause,
        key: str | None = None,
    ) -> Committed:
        """With a `key` that its actor sent before, what was created then. Raises `KeyReused`."""

        def begin(guid: str) -> Package:
            return Package.create(guid, app_guid, type, url, by)

        def same(first: Package) -> bool:
            wanted = begin(first.guid)
            return first.source_guid is None and (first.app_guid, first.type, first.url) == (
                wanted.app_guid,
                wanted.type,
                wanted.url,
            )

        return self._begin(begin, same, by, key)

    def copy(self, source_guid: str, app_guid: str, by: Cause, key: str | None = None) -> Committed:
        """With a `key` that its actor sent before, what was created then. Raises `KeyReused`."""

        def begin(guid: str) -> Package:
            return Package.copy(self.get(source_guid), guid, app_guid, by)

        def same(first: Package) -> bool:
            return (first.app_guid, first.source_guid) == (app_guid, source_guid)

        return self._begin(begin, same, by, key)

    def _begin(
        self,
        begin: Callable[[str], Package],
        same: Callable[[Package], bool],
        by: Cause,
        key: str | None,
    ) -> Committed:
        """A new package. Its guid follows from the key, so that the log itself remembers it."""
        if key is None:
            return self._save(begin(self._new_guid()))
        guid = str(uuid5(_KEYS, f"{by.actor}\0{key}"))
        for last_try in (False, False, True):
            try:
                first: Package = self._packages.get(Package.ID_PREFIX + guid, version=1)
            except AggregateNotFoundError:
                pass
            else:
                if not same(first):
                    raise KeyReused(f"the key {key!r} was used for another request")
                return Committed(first, None)
            try:
                return self._save(begin(guid))
            except IntegrityError:  # the same request came twice at once: the other was first
                if last_try:
                    raise
        raise AssertionError("a last try returns or raises")

    def check_upload(self, guid: str) -> None:
        self.get(guid).check_upload()

    def start_upload(
        self, guid: str, staged: StagedBits, file_name: str | None, by: Cause
    ) -> Committed:
        return self._change(guid, lambda package: package.start_upload(staged, file_name, by))

    def record_stored(self, guid: str, stored: StoredBits, by: Cause) -> Committed:
        return self._change(guid, lambda package: package.record_stored(stored, by))

    def record_hashes(self, guid: str, digests: Digests, by: Cause) -> Committed:
        return self._change(guid, lambda package: package.record_hashes(digests, by))

    def record_copied(
        self, guid: str, stored: StoredBits, digests: Digests, by: Cause
    ) -> Committed:
        """A copy takes its source's bits and checksums: both events, or neither."""

        def decide(package: Package) -> None:
            package.record_stored(stored, by)
            package.record_hashes(digests, by)

        return self._change(guid, decide)

    def fail(
        self, guid: str, error: str, fault: Fault, by: Cause, detail: str | None = None
    ) -> Committed:
        return self._change(guid, lambda package: package.fail(error, fault, by, detail))

    def resume(self, guid: str, by: Cause) -> Committed:
        return self._change(guid, lambda package: package.resume(by))

    def expire(self, guid: str, by: Cause) -> Committed:
        return self._change(guid, lambda package: package.expire(by))

    def delete(self, guid: str, by: Cause) -> Committed:
        return self._change(guid, lambda package: package.delete(by))

    def load(self, guid: str) -> Package:
        """The package as the log has it, deleted or not. Raises `PackageNotFound`."""
        try:
            return self._packages.get(Package.ID_PREFIX + guid)
        except AggregateNotFoundError:
            raise PackageNotFound(guid) from None

    def get(self, guid: str) -> Package:
        """The package. Raises `PackageNotFound` also for one that was deleted."""
        package = self.load(guid)
        if package.deleted:
            raise PackageNotFound(guid)
        return package

    def _change(self, guid: str, decide: Callable[[Package], None]) -> Committed:
        while True:
            package = self.get(guid)
            decide(package)
            try:
                return self._save(package)
            except IntegrityError:
                continue  # another writer was first: decide again on what it left

    def _save(self, package: Package) -> Committed:
        events = package.collect_events()
        if not events:
            return Committed(package, None)
        try:
            position = self._append(events)
        except (OperationalError, InterfaceError):
            # The answer may be lost and not the write: the second try then meets our own event.
            try:
                position = self._append(events)
            except NothingRecorded as error:  # this time, which says little of the first
                raise OperationalError(str(error)) from error
        return Committed(package, position)

    def _append(self, events: Sequence[CanMutateAggregate[str]]) -> int:
        try:
            return self._events.put(events)[-1].notification.id
        except IntegrityError:
            if not self._are_ours(events):
                raise
            return self._log.head()

    def _are_ours(self, events: Sequence[CanMutateAggregate[str]]) -> bool:
        """Whether the log holds these very events: same version, type and request."""
        first = events[0]
        found = list(
            self._events.get(
                first.originator_id,
                gt=first.originator_version - 1,
                lte=events[-1].originator_version,
            )
        )
        return len(found) == len(events) and all(
            isinstance(ours, PackageEvent)
            and isinstance(theirs, type(ours))
            and theirs.request_id == ours.request_id
            and theirs.timestamp == ours.timestamp
            for ours, theirs in zip(events, found, strict=True)
        )
