"""Loads aggregates from the log, and appends what they decided."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from uuid import UUID, uuid4, uuid5

from eventsourcing.application import AggregateNotFoundError, Repository
from eventsourcing.domain import CanMutateAggregate
from eventsourcing.persistence import (
    EventStore,
    IntegrityError,
    InterfaceError,
    OperationalError,
)

from domain.aggregate import Aggregate, Cause, RecordedEvent
from domain.command import Command, Receipt
from domain.errors import AlreadyExecuted, KeyReused, NothingRecorded, Refusal
from domain.known import Known
from domain.ports import EventLog

A = TypeVar("A", bound=Aggregate)

TRIES = 5  # of a new aggregate whose append meets another's
_KEYS = UUID("7e0e8b5a-0b5a-4c58-9a53-3c4f1f0a9d11")  # the name space of idempotency keys


def new_guid() -> str:
    return str(uuid4())


def _guid_of_key(kind: type[Aggregate], by: Cause, key: str) -> str:
    name = f"{by.actor}\0{key}"
    if kind.ID_PREFIX != "package:":  # theirs came first, and must stay what they are
        name = f"{kind.ID_PREFIX}{name}"
    return str(uuid5(_KEYS, name))


def surely_not_recorded(error: Exception) -> bool:
    """Whether a command that ended with this error has changed nothing."""
    return isinstance(error, Refusal | NothingRecorded)


@dataclass(frozen=True)
class Committed(Generic[A]):
    """A command's outcome: the aggregate at the version that it wrote.

    `position` is the log's position of the last event written, or one behind it; None if
    the command changed nothing.
    """

    aggregate: A
    position: int | None


class Journal:
    """The log, as the services that turn commands into events use it."""

    def __init__(
        self,
        events: EventStore[str],
        log: EventLog,
        receipt: Receipt | None = None,
        known: Known | None = None,
    ) -> None:
        """With a `receipt`, what is appended is so for a command, and once for all."""
        self._known = known or Known()
        self._events = events
        self._log = log
        self._aggregates: Repository[str] = Repository(events)
        self._receipt = receipt

    def under(self, receipt: Receipt) -> Journal:
        """A journal in which one command is carried out."""
        return Journal(self._events, self._log, receipt, self._known)

    def head(self) -> int:
        """The position of the newest event; 0 while there is none."""
        return self._log.head()

    def find(self, kind: type[A], guid: str, version: int | None = None) -> A | None:
        """The aggregate as the log has it now, or had it at a version; None if there is none."""
        if "\0" in guid:  # PostgreSQL can't even be asked
            return None
        id = kind.ID_PREFIX + guid
        found = None if version is not None else self._known.find(kind, id)
        if found is not None:
            return self._brought_up_to_date(found)
        try:
            found = self._aggregates.get(id, version=version)
        except AggregateNotFoundError:
            return None
        if version is None:
            self._known.keep(found)
        return found

    def known(self, kind: type[A], guid: str) -> A | None:
        """The aggregate as it was known here last, if it is: others may have changed it since."""
        return self._known.find(kind, kind.ID_PREFIX + guid)

    def _brought_up_to_date(self, aggregate: A) -> A:
        newer = list(self._events.get(aggregate.id, gt=aggregate.version))
        for event in newer:
            assert isinstance(event, RecordedEvent)
            event.mutate(aggregate)
        if newer:
            self._known.keep(aggregate)
        return aggregate

    def begin(
        self,
        kind: type[A],
        begin: Callable[[str], A],
        same: Callable[[A], bool],
        by: Cause,
        key: str | None,
        together: Sequence[Aggregate] = (),
    ) -> Committed[A]:
        """A new aggregate. Its guid follows from the key, so that the log itself remembers it.

        What those `together` with it have decided, when `begin` is through, is appended with it,
        or neither is.

        `same` tells whether an aggregate, as it began, is what is asked for now. Raises
        `KeyReused` if the actor has used the key for something else.
        """
        guid = new_guid() if key is None else _guid_of_key(kind, by, key)
        for _ in range(TRIES):
            if key is not None:
                first = self.find(kind, guid, version=1)
                if first is not None:
                    if not same(first):
                        raise KeyReused(f"the key {key!r} was used for another request")
                    return Committed(first, None)
            try:
                return self.save(begin(guid), together)
            except IntegrityError as error:
                # the same request came twice at once, or what it is about changed meanwhile
                conflict = error
        raise conflict

    def change(
        self,
        load: Callable[[], A],
        decide: Callable[[A], None],
        known: Callable[[], A | None] = lambda: None,
    ) -> Committed[A]:
        """Lets an aggregate decide, and appends that; again, where another writer was first.

        On what is `known` of it at first, which may be old: what it decides to do is not appended
        then, and what it refuses or leaves it is asked again as the log has it now.
        """
        aggregate = known()
        if aggregate is not None:
            with contextlib.suppress(Refusal, IntegrityError):
                decide(aggregate)
                if aggregate.pending_events:
                    return self.save(aggregate)
        while True:
            aggregate = load()
            decide(aggregate)
            try:
                return self.save(aggregate)
            except IntegrityError:
                continue  # decide again on what the other left

    def save(self, aggregate: A, together: Sequence[Aggregate] = ()) -> Committed[A]:
        """Appends what the aggregate has decided.

        For a command that is all or nothing with its record. Raises `AlreadyExecuted`,
        `IntegrityError`, `PersistenceError`.
        """
        events = list(aggregate.collect_events())
        for other in together:
            events += other.collect_events()
        if self._receipt is not None:
            events += Command.execute(self._receipt, aggregate.guid).collect_events()
        if not events:
            return Committed(aggregate, None)
        try:
            position = self._append(events)
        except (OperationalError, InterfaceError):
            # The answer may be lost and not the write: the second try then meets our own event.
            try:
                position = self._append(events)
            except NothingRecorded as error:  # this time, which says little of the first
                raise OperationalError(str(error)) from error
        self._known.keep(aggregate)
        for other in together:
            self._known.keep(other)
        return Committed(aggregate, position)

    def _append(self, events: Sequence[CanMutateAggregate[str]]) -> int:
        try:
            return self._events.put(events)[-1].notification.id
        except IntegrityError:
            if not self._are_ours(events):
                self._check_not_executed()
                raise
            return self._log.head()

    def _check_not_executed(self) -> None:
        if self._receipt is not None:
            done = self.find(Command, self._receipt.guid)
            if done is not None:
                raise AlreadyExecuted(done.result)

    def _are_ours(self, events: Sequence[CanMutateAggregate[str]]) -> bool:
        """Whether the log holds these very events: same version, type and request."""
        return all(map(self._is_ours, events))

    def _is_ours(self, ours: CanMutateAggregate[str]) -> bool:
        version = ours.originator_version
        found = self._events.get(ours.originator_id, gt=version - 1, lte=version)
        return any(
            isinstance(ours, RecordedEvent)
            and isinstance(theirs, type(ours))
            and theirs.request_id == ours.request_id
            and theirs.timestamp == ours.timestamp
            for theirs in found
        )
