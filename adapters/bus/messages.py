"""Events as other systems hear them: CloudEvents 1.0 in JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC
from typing import Any

import orjson

from domain.aggregate import Cause
from domain.ports import LoggedEvent

CONTENT_TYPE = "application/cloudevents+json"
_ENVELOPE = ("originator_id", "originator_version", "originator_topic", "timestamp")


@dataclass(frozen=True)
class Message:
    """A CloudEvent, encoded. `type` is also the routing key; `headers` are the bus's own."""

    id: str
    type: str
    body: bytes
    headers: dict[str, Any] = field(default_factory=dict)


def messages_of(logged: LoggedEvent) -> list[Message]:
    """All that is published of an event."""
    return [message_of(logged)]


def message_of(logged: LoggedEvent) -> Message:
    """The message that says what an event of the log says.

    `sequence` is the position in the log, zero-padded so that it sorts as text (the
    CloudEvents extension "sequence"); `data` holds the event's fields.
    """
    event = logged.event
    kind = event.TOPIC
    data = {name: value for name, value in vars(event).items() if name not in _ENVELOPE}
    body = {
        "specversion": "1.0",
        "id": event.event_id,
        "source": source_of(kind),
        "type": kind,
        "subject": event.guid,
        "time": event.timestamp.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "sequence": f"{logged.position:020d}",
        "datacontenttype": "application/json",
        "data": data,
    }
    return Message(event.event_id, kind, orjson.dumps(body))


def source_of(kind: str) -> str:
    """The CloudEvents source of a type of event: the collection that it is about."""
    return f"/v3/{kind.partition('.')[0]}s"


@dataclass(frozen=True)
class Heard:
    """What a consumer needs of a message: which package, what happened, and who caused it."""

    guid: str
    type: str
    event_id: str
    cause: Cause

    @classmethod
    def of(cls, body: bytes | str) -> Heard:
        """Raises `ValueError` if the body is no message of ours."""
        try:
            event = orjson.loads(body)
            data = event["data"]
            return cls(
                guid=str(event["subject"]),
                type=str(event["type"]),
                event_id=str(event["id"]),
                cause=Cause(str(data["actor"]), str(data["request_id"]), str(event["id"])),
            )
        except (KeyError, TypeError, orjson.JSONDecodeError) as error:
            raise ValueError(f"not a package event: {error!r}") from error
