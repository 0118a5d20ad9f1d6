"""The examples of the message contract, published and consumed for real."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from adapters.authorization import ByScopes, Guard
from adapters.blob_store.local import LocalBlobs
from adapters.bus.asyncapi import document
from adapters.bus.bus import COMMANDS
from adapters.bus.commands import CommandConsumer, CommandHandler
from adapters.bus.examples import example_commands, example_messages
from adapters.bus.rabbit import RabbitBus
from adapters.claims import Claims
from adapters.http.admission import UploadRules
from adapters.http.authentication import Authenticator
from adapters.metrics import Metrics
from adapters.staging.local import LocalStaging
from adapters.tokens import Scope
from tests.support.packages import LocalStore, droplet_processing
from tests.support.rabbit import RabbitServer
from tests.support.service import TOKENS, token
from tests.support.waiting import eventually

MESSAGES = document()["components"]["messages"]
ANSWERABLE = (404, 422)  # what the example is about is not there, or not in that state


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def bus(rabbit: RabbitServer, stack: ExitStack) -> RabbitBus:
    rabbit.forget_queues()
    bus = RabbitBus(rabbit.url)
    bus.declare()
    stack.callback(bus.close)
    return bus


@pytest.fixture
def channel(rabbit: RabbitServer, bus: RabbitBus, stack: ExitStack) -> BlockingChannel:
    """A stranger's: pika's own."""
    parameters = pika.URLParameters(rabbit.url.rstrip("/") + "/%2F")
    connection = pika.BlockingConnection(parameters)
    stack.callback(connection.close)
    return connection.channel()


def receive(channel: BlockingChannel, queue: str) -> tuple[Any, dict[str, Any]]:
    """The next message's properties and body."""
    got: list[Any] = []

    def look() -> bool:
        method, properties, body = channel.basic_get(queue, auto_ack=True)
        if method is not None:
            got.extend((method, properties, body))
        return method is not None

    eventually(look)
    method, properties, body = got
    properties.routing_key = method.routing_key
    return properties, orjson.loads(body)


def test_every_event_arrives_as_the_contract_says(bus: RabbitBus, channel: BlockingChannel) -> None:
    """Under its type as the routing key, as structured JSON that keeps to its schema."""
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, "packtrail.events", routing_key="#")
    sent = example_messages()
    bus.publish(sent)
    for message in sent:
        properties, body = receive(channel, queue)
        assert properties.routing_key == body["type"] == message.type
        assert properties.content_type == "application/cloudevents+json"
        assert properties.delivery_mode == 2
        assert properties.message_id == body["id"]
        jsonschema.validate(body, MESSAGES[f"event.{message.type}"]["payload"])


def test_every_command_is_answered_as_the_contract_says(
    bus: RabbitBus, channel: BlockingChannel, tmp_path: Path, stack: ExitStack
) -> None:
    """None of the examples is unreadable to us, and each answer keeps to its schema."""
    store = LocalStore.open(tmp_path / "log.db")
    stack.callback(store.close)
    staging = LocalStaging(tmp_path / "staging", tmp_path / "uploads")
    staging.prepare("identity-1")
    blobs = LocalBlobs(tmp_path / "blobs", staging)
    blobs.prepare("identity-1")
    claims = Claims(staging, droplet_processing(store, staging, blobs), 1 << 20, 1 << 20, Metrics())
    handler = CommandHandler(
        store.store,
        bus,
        Authenticator(TOKENS),
        claims,
        UploadRules(1 << 20),
        Metrics(),
        Guard(ByScopes()),
    )
    consumer = CommandConsumer(bus, handler)
    consumer.start()
    stack.callback(consumer.stop, 10)
    answers = channel.queue_declare("", exclusive=True).method.queue
    accepted = set()
    for name, command in example_commands().items():
        correlation = str(uuid.uuid4())
        jsonschema.validate(command, MESSAGES[f"command.{name}"]["payload"])
        channel.basic_publish(
            "",
            COMMANDS,
            orjson.dumps(command),
            pika.BasicProperties(
                headers={"authorization": f"bearer {token(scopes=(Scope.ADMIN,))}"},
                reply_to=answers,
                correlation_id=correlation,
            ),
        )
        properties, answer = receive(channel, answers)
        assert properties.correlation_id == correlation
        jsonschema.validate(answer, MESSAGES[f"reply.{answer['type']}"]["payload"])
        if answer["type"] == "command.accepted":
            accepted.add(name)
            assert answer["subject"] == answer["data"]["guid"]
        else:
            assert answer["data"]["status"] in ANSWERABLE, answer
    assert accepted == {
        "package.create", "app.created", "app.renamed", "app.deleted", "space.created",
        "space.renamed", "space.deleted", "organization.created", "organization.renamed",
        "organization.deleted",
    }  # fmt: skip
