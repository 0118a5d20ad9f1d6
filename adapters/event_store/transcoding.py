"""How an event's fields become the bytes that the log keeps, and back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
from eventsourcing.domain import DomainEventProtocol
from eventsourcing.persistence import Mapper, StoredEvent, Transcoder
from eventsourcing.utils import TopicError, resolve_topic

from domain.errors import NewerData


class OrjsonTranscoder(Transcoder):
    """Plain JSON objects: keys sorted, times as RFC 3339 in UTC with microseconds."""

    def encode(self, obj: Any) -> bytes:
        return orjson.dumps(obj, option=orjson.OPT_SORT_KEYS | orjson.OPT_UTC_Z)

    def decode(self, data: bytes) -> Any:
        return orjson.loads(data)


class EventMapper(Mapper[str]):
    """The library's mapper (which upcasts old versions), giving `timestamp` its type back."""

    def __init__(self) -> None:
        super().__init__(OrjsonTranscoder())

    def to_domain_event(self, stored_event: StoredEvent) -> DomainEventProtocol[str]:
        """Raises `NewerData` for an event, or a version of one, that this program does not know."""
        try:
            kind = resolve_topic(stored_event.topic)
        except TopicError:
            raise self._newer(stored_event, "an event") from None
        if b'"class_version"' in stored_event.state:
            found = orjson.loads(stored_event.state).get("class_version", 1)
            if found > getattr(kind, "class_version", 1):
                raise self._newer(stored_event, f"version {found}")
        event = super().to_domain_event(stored_event)
        fields = vars(event)
        timestamp = fields["timestamp"]
        if isinstance(timestamp, str):
            fields["timestamp"] = datetime.fromisoformat(timestamp).astimezone(UTC)
        return event

    @staticmethod
    def _newer(stored: StoredEvent, what: str) -> NewerData:
        return NewerData(
            f"event {stored.originator_version} of {stored.originator_id} is {what} of "
            f"{stored.topic!r} that this program does not know: upgrade it"
        )
