"""Events as other systems hear them: CloudEvents 1.0 in JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any

import orjson

from domain.aggregate import ENVELOPE, Cause
from domain.droplet import Droplet
from domain.ports import LoggedEvent

CONTENT_TYPE = "application/cloudevents+json"


@dataclass(frozen=True)
class Message:
    """A CloudEvent, encoded. `type` is also the routing key; `headers` are the bus's own.

    Who wants an answer says in `reply_to` to which queue, and by which `correlation_id` it
    is known there. `deliveries`: how often the broker has handed it out before. `settled`: what
    is to be done about it the log has already, so that no work queue need have it.
    """

    id: str
    type: str
    body: bytes
    headers: dict[str, Any] = field(default_factory=dict)
    reply_to: str | None = None
    correlation_id: str | None = None
    deliveries: int = 0
    settled: bool = False


def messages_of(
    logged: LoggedEvent, is_heard: Callable[[str], bool] = lambda kind: True
) -> list[Message]:
    """All that is published of an event, in order; of kinds that nobody hears nothing is made."""
    messages = []
    if is_heard(logged.event.TOPIC):
        messages.append(message_of(logged))
    if isinstance(logged.event, Droplet.Created) and is_heard(STAGING_REQUESTED):
        messages.append(staging_request_of(logged))
    return messages


STAGING_REQUESTED = "droplet.staging_requested"


def staging_request_of(logged: LoggedEvent) -> Message:
    """The message that asks builders to make a droplet that was created.

    It names the droplet. All else, which may be secret, a builder fetches with a token.
    """
    event = logged.event
    assert isinstance(event, Droplet.Created)
    data = {
        "actor": event.actor,
        "request_id": event.request_id,
        "caused_by": event.event_id,
        "package_guid": event.package_guid,
        "app_guid": event.app_guid,
    }
    return _cloud_event(logged, f"{event.event_id}/staging_requested", STAGING_REQUESTED, data)


def message_of(logged: LoggedEvent) -> Message:
    """The message that says what an event of the log says.

    `sequence` is the position in the log, zero-padded so that it sorts as text (the
    CloudEvents extension "sequence"); `data` holds the event's fields.
    """
    event = logged.event
    data = {name: value for name, value in vars(event).items() if name not in ENVELOPE}
    return _cloud_event(logged, event.event_id, event.TOPIC, data)


def _cloud_event(logged: LoggedEvent, identifier: str, kind: str, data: Any) -> Message:
    event = logged.event
    body = {
        "specversion": "1.0",
        "id": identifier,
        "source": source_of(kind),
        "type": kind,
        "subject": event.guid,
        "time": event.timestamp.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "sequence": f"{logged.position:020d}",
        "datacontenttype": "application/json",
        "data": data,
    }
    return Message(identifier, kind, orjson.dumps(body))


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
