"""What every aggregate and every event of the log has in common: a guid, and a cause."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Self

from eventsourcing.domain import (
    BaseAggregate,
    CanInitAggregate,
    CanMutateAggregate,
    MetaDomainEvent,
)

MAX_GUID_LENGTH = 200
ENVELOPE = ("originator_id", "originator_version", "originator_topic", "timestamp")  # of an event


@dataclass(frozen=True)
class Cause:
    """Who caused an event and how: every event carries all three.

    `actor` is the user's guid, never an address. `caused_by` is the id
    (`<guid>/<version>`) of the event that led to this one, None for a request's first.
    """

    actor: str
    request_id: str
    caused_by: str | None = None


class RecordedEvent(CanMutateAggregate[str], metaclass=MetaDomainEvent):
    """What every event of the log carries."""

    TOPIC: ClassVar[str]
    originator_id: str
    originator_version: int
    timestamp: datetime
    actor: str
    request_id: str
    caused_by: str | None

    @property
    def guid(self) -> str:
        """The guid of what the event happened to."""
        return self.originator_id.partition(":")[2]

    @property
    def event_id(self) -> str:
        """The event's id: `<guid>/<version>`."""
        return f"{self.guid}/{self.originator_version}"


class Aggregate(BaseAggregate[str]):
    """Something with a guid, whose events tell who caused them.

    One event store is one space of ids: kinds are told apart by `ID_PREFIX`, which ends with
    a colon.
    """

    ID_PREFIX: ClassVar[str]
    IS_SMALL: ClassVar[bool] = True  # so that a thousand of them are held in memory

    @property
    def guid(self) -> str:
        return self.id.removeprefix(self.ID_PREFIX)

    @property
    def event_id(self) -> str:
        """The id of its last event."""
        return f"{self.guid}/{self.version}"

    @classmethod
    def _begin(
        cls, event_class: type[CanInitAggregate[str]], guid: str, by: Cause, **fields: Any
    ) -> Self:
        return cls._create(event_class, id=cls.ID_PREFIX + guid, **fields, **vars(by))

    def _trigger(self, event_class: type[RecordedEvent], by: Cause, **fields: Any) -> None:
        self.trigger_event(event_class, **fields, **vars(by))
