"""A message that not even the client library can take apart does not stop a queue for good."""

from __future__ import annotations

from typing import Any

import pika
import pytest

from adapters.bus import bus as bus_module
from adapters.bus.bus import COMMANDS, Consumer, Lane
from adapters.bus.messages import Message
from adapters.bus.rabbit import RabbitBus
from tests.support.rabbit import RabbitServer
from tests.support.waiting import eventually


def test_commands_behind_an_undecodable_message_are_handled(
    rabbit: RabbitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker drops it, at last; no token of its sender is parked."""
    monkeypatch.setattr(bus_module, "MAX_RECONNECT_DELAY", 0.05)
    rabbit.forget_queues()
    bus = RabbitBus(rabbit.url)
    bus.declare()
    heard: list[bytes] = []

    def handle(message: Message) -> None:
        heard.append(message.body)

    connection = pika.BlockingConnection(pika.URLParameters(rabbit.url.rstrip("/") + "/%2F"))
    channel = connection.channel()
    no_text: Any = b"\xff\xfe"
    poison = pika.BasicProperties(
        correlation_id=no_text, headers={"authorization": "bearer secret"}
    )
    channel.basic_publish("", COMMANDS, b"poison", poison)
    channel.basic_publish("", COMMANDS, b"behind it", pika.BasicProperties())
    consumer = Consumer(bus, Lane(COMMANDS, handle, 1))
    consumer.start()
    try:
        eventually(lambda: b"behind it" in heard, within=60)
        assert channel.queue_declare("packtrail.parked", passive=True).method.message_count == 0
    finally:
        consumer.stop(10)
        connection.close()
        bus.close()
