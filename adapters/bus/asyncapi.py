"""The message contract as a document: AsyncAPI 3, made of the types that the code itself uses.

    https://www.asyncapi.com/docs/reference/specification/v3.0.0

Whoever reads it needs nothing else to follow along or to take part. Fields are added, never
changed: a version that adds some has a higher minor number, and the documents of the
earlier ones stay (in docs/asyncapi), for a test to compare with.
"""

from __future__ import annotations

import inspect
from typing import Any, get_type_hints

from pydantic import BaseModel, create_model

from adapters.bus import contract
from adapters.bus.bus import BINDINGS, COMMANDS, EVENTS, STAGING
from adapters.bus.examples import example_commands, example_events, example_replies
from adapters.bus.messages import (
    CONTENT_TYPE,
    STAGING_REQUESTED,
    source_of,
)
from domain.aggregate import ENVELOPE, RecordedEvent
from domain.command import Command
from domain.directory import App, Organization, Space
from domain.download import Download
from domain.droplet import Droplet
from domain.package import Package
from domain.role import Role

VERSION = "1.2.0"  # of the messages


class StagingRequestData(BaseModel):
    """A droplet, the message's subject, waits for a builder.

    A builder fetches what it needs over HTTP with a token: the droplet (buildpack, and its
    environment with stack and limits) at /v3/droplets/:guid, the bits at
    /v3/packages/:guid/download. It answers with the commands droplet.staging_started, then
    droplet.staged or droplet.staging_failed.
    """

    actor: str
    request_id: str
    caused_by: str
    package_guid: str
    app_guid: str


def event_classes() -> list[type[RecordedEvent]]:
    """Every kind of event there is, by what it happens to."""
    return [
        kind
        for aggregate in (Package, Droplet, Download, App, Space, Organization, Role, Command)
        for name, kind in vars(aggregate).items()
        if inspect.isclass(kind) and issubclass(kind, RecordedEvent) and name != "Event"
    ]


def document() -> dict[str, Any]:
    """The document."""
    events = {kind.TOPIC: _event(kind) for kind in event_classes()}
    staging = {STAGING_REQUESTED: _message(STAGING_REQUESTED, StagingRequestData, True)}
    commands = {name: _command(kind) for name, kind in contract.COMMANDS.items()}
    replies = {
        kind.TYPE: _message(kind.TYPE, kind, False, contract.REPLY_SOURCE)
        for kind in (contract.CommandAccepted, contract.CommandRefused)
    }
    for name, payload in example_events().items():
        message = events.get(name) or staging[name]
        message["examples"] = [{"name": name, "payload": payload}]
    for name, payload in example_commands().items():
        commands[name]["examples"] = [{"name": name, "payload": payload}]
    for name, payload in example_replies().items():
        replies[name]["examples"] = [{"name": name, "payload": payload}]
    # a command and the event that it leads to may have the same type
    names = {
        **{f"event.{name}": message for name, message in (events | staging).items()},
        **{f"command.{name}": message for name, message in commands.items()},
        **{f"reply.{name}": message for name, message in replies.items()},
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Packtrail",
            "version": VERSION,
            "description": inspect.cleandoc(_DESCRIPTION),
            "license": {
                "name": "Apache 2.0",
                "url": "https://www.apache.org/licenses/LICENSE-2.0",
            },
        },
        "defaultContentType": CONTENT_TYPE,
        "servers": {
            "rabbitmq": {
                "host": "localhost:5672",
                "protocol": "amqp",
                "description": "The RabbitMQ server that PACKTRAIL_BROKER names.",
            }
        },
        "channels": {
            "events": _channel(
                EVENTS.name,
                "Every event of the log, at least once, those of one thing in order. "
                "The routing key is the type.",
                "event",
                [*events, *staging],
                {
                    "is": "routingKey",
                    "exchange": {
                        "name": EVENTS.name,
                        "type": "topic",
                        "durable": True,
                        "autoDelete": False,
                        "vhost": "/",
                    },
                },
            ),
            "staging": _channel(
                STAGING,
                f"The work queue of builders, bound to {' and '.join(BINDINGS[STAGING])}: each "
                "message goes to one of them.",
                "event",
                list(staging),
                _queue(STAGING),
            ),
            "commands": _channel(
                COMMANDS,
                "Commands to the service, and announcements. They are published to the default "
                "exchange with the queue's name as routing key, or to the fanout exchange of "
                "the queue's name.",
                "command",
                list(commands),
                _queue(COMMANDS),
            ),
            "replies": _channel(
                None,
                "The queue that a command names in its property reply_to.",
                "reply",
                list(replies),
                None,
            ),
        },
        "operations": {
            "publishEvents": _operation("send", "events", "event", [*events, *staging]),
            "requestStaging": _operation("send", "staging", "event", list(staging)),
            "carryOutCommands": {
                **_operation("receive", "commands", "command", list(commands)),
                "reply": {
                    "address": {
                        "location": "$message.header#/reply_to",
                        "description": "The AMQP property reply_to; without it nobody is told.",
                    },
                    "channel": {"$ref": "#/channels/replies"},
                    "messages": _refs("replies", "reply", list(replies)),
                },
            },
        },
        "components": {"messages": names},
    }


_DESCRIPTION = """
    Packtrail takes in application packages, stores and hashes their bits, and serves their state.
    Each message is a CloudEvent (1.0) in structured JSON. Of an event, `id` is unique, `subject`
    is the guid of what it happened to, and `sequence` its position in the log, which grows: whoever
    has seen an id may pass over it.

    A command is a CloudEvent, too. Its `id` is unique among those of its `source`: sent again, it
    changes nothing, and is answered as it was then. The sender's token travels in the header
    `authorization`, and goes no further. Who sets the property `reply_to` is answered there, under
    the property `correlation_id` (or the command's id). No secret is ever in a message's body.

    Fields are added, never changed or removed: pass over those you don't know.
"""


def _event(kind: type[RecordedEvent]) -> dict[str, Any]:
    hints = get_type_hints(kind)
    fields: dict[str, Any] = {
        name: (hint, ...) for name, hint in hints.items() if name not in (*ENVELOPE, "TOPIC")
    }
    name = f"{kind.__qualname__.replace('.', '')}Data"
    data = create_model(name, __doc__=inspect.getdoc(kind), **fields)
    return _message(kind.TOPIC, data, True)


def _command(kind: type[contract.CommandData]) -> dict[str, Any]:
    message = _message(kind.TYPE, kind, False, None)
    message["description"] = f"Needs the scope {kind.SCOPE}. {message.get('description', '')}"
    message["headers"] = {
        "type": "object",
        "required": [contract.AUTHORIZATION],
        "properties": {
            contract.AUTHORIZATION: {
                "type": "string",
                "description": "bearer, a space, and the token",
            }
        },
    }
    message["correlationId"] = {"location": "$message.header#/correlation_id"}
    return message


def _message(
    kind: str, data: type[BaseModel], logged: bool, source: str | None = ""
) -> dict[str, Any]:
    """A message whose payload is a CloudEvent. `logged`: of an event that has a position."""
    text: dict[str, Any] = {"type": "string", "minLength": 1}
    if source is None:
        text["maxLength"] = contract.MAX_ID
    properties: dict[str, Any] = {
        "specversion": {"const": "1.0"},
        "id": text,
        "source": {"const": source or source_of(kind)} if source is not None else text,
        "type": {"const": kind},
        "time": {"type": "string", "format": "date-time"},
        "datacontenttype": {"const": "application/json"},
        "data": _schema(data),
    }
    required = ["specversion", "id", "source", "type", "data"]
    if logged:
        properties["subject"] = text | {"description": "The guid of what it happened to."}
        properties["sequence"] = {"type": "string", "pattern": "^[0-9]{20}$"}
        required += ["subject", "time", "sequence", "datacontenttype"]
    elif source is not None:
        properties["subject"] = text
        required += ["time", "datacontenttype"]
    summary, _, description = (inspect.getdoc(data) or "").partition("\n\n")
    message = {
        "name": kind,
        "title": kind,
        "summary": " ".join(summary.split()),
        "contentType": CONTENT_TYPE,
        "payload": {"type": "object", "required": required, "properties": properties},
    }
    if description:
        message["description"] = " ".join(description.split())
    return message


def _schema(data: type[BaseModel]) -> dict[str, Any]:
    schema = data.model_json_schema()
    schema.pop("title")
    schema.pop("description", None)
    for field in schema["properties"].values():
        field.pop("title", None)
    return schema


def _channel(
    address: str | None, description: str, kind: str, names: list[str], binding: Any
) -> dict[str, Any]:
    channel: dict[str, Any] = {
        "address": address,
        "description": description,
        "messages": {
            f"{kind}.{name}": {"$ref": f"#/components/messages/{kind}.{name}"} for name in names
        },
    }
    if binding is not None:
        channel["bindings"] = {"amqp": {**binding, "bindingVersion": "0.3.0"}}
    return channel


def _queue(name: str) -> dict[str, Any]:
    return {
        "is": "queue",
        "queue": {
            "name": name,
            "durable": True,
            "exclusive": False,
            "autoDelete": False,
            "vhost": "/",
        },
    }


def _operation(action: str, channel: str, kind: str, names: list[str]) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": _refs(channel, kind, names),
    }


def _refs(channel: str, kind: str, names: list[str]) -> list[dict[str, str]]:
    return [{"$ref": f"#/channels/{channel}/messages/{kind}.{name}"} for name in names]
