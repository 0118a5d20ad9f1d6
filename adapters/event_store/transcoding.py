"""How an event's fields become the bytes that the log keeps, and back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
from eventsourcing.persistence import Mapper, StoredEvent, Transcoder
from eventsourcing.utils import TopicError, resolve_topic

from domain.aggregate import RecordedEvent
from domain.errors import NewerData


class OrjsonTranscoder(Transcoder):
    """Plain JSON objects: keys sorted, times as RFC 3339 in UTC with microseconds."""

    def encode(self, obj: Any) -> bytes:
        return orjson.dumps(obj, option=orjson.OPT_SORT_KEYS | orjson.OPT_UTC_Z)

    def decode(self, data: bytes) -> Any:
        return orjson.loads(data)


class EventMapper(Mapper[str]):
    """The library's mapper (which upcasts old versions), giving `timestamp` its type back.

    Events are made of their bytes here, not there, since whoever rebuilds reads millions.
    """

    def __init__(self) -> None:
        super().__init__(OrjsonTranscoder())
        self._kinds: dict[str, tuple[type[Any], int]] = {}

    def to_domain_event(self, stored_event: StoredEvent) -> RecordedEvent:
        """Raises `NewerData` for an event, or a version of one, that this program does not know."""
        return self.event_of(
            str(stored_event.originator_id),
            stored_event.originator_version,
            stored_event.topic,
            stored_event.state,
        )

    def event_of(
        self, originator_id: str, originator_version: int, topic: str, state: bytes
    ) -> RecordedEvent:
        """The event that is stored so. Raises `NewerData`."""
        try:
            kind, known = self._kinds[topic]
        except KeyError:
            kind, known = self._kind_of(originator_id, originator_version, topic)
        fields: dict[str, Any] = orjson.loads(state)
        version = fields.pop("class_version", 1)
        if version != known:
            if version > known:
                raise _newer(originator_id, originator_version, topic, f"version {version}")
            for older in range(version, known):
                getattr(kind, f"upcast_v{older}_v{older + 1}")(fields)
        timestamp = fields["timestamp"]
        moment = datetime.fromisoformat(timestamp)
        fields["timestamp"] = moment if timestamp[-1] == "Z" else moment.astimezone(UTC)
        fields["originator_id"] = originator_id
        fields["originator_version"] = originator_version
        event: RecordedEvent = object.__new__(kind)
        object.__setattr__(event, "__dict__", fields)
        return event

    def _kind_of(self, originator_id: str, version: int, topic: str) -> tuple[type[Any], int]:
        """Only what is an event by its name is looked up: the library would import any module."""
        try:
            kind = resolve_topic(topic) if topic in _named(RecordedEvent) else None
        except TopicError:
            kind = None
        if kind is None:
            raise _newer(originator_id, version, topic, "an event")
        self._kinds[topic] = kind, getattr(kind, "class_version", 1)
        return self._kinds[topic]


def _named(kind: type[RecordedEvent]) -> set[str]:
    """The topics of all kinds of events."""
    below = (_named(narrower) for narrower in kind.__subclasses__())
    return {kind.__dict__.get("TOPIC", "")}.union(*below) - {""}


def _newer(originator_id: str, originator_version: int, topic: str, what: str) -> NewerData:
    return NewerData(
        f"event {originator_version} of {originator_id} is {what} of "
        f"{topic!r} that this program does not know: upgrade it"
    )
