"""Commands on a real broker: in order, by one consumer at a time, and none is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kombu
import orjson
import pika
import pytest

from adapters.blob_store.local import LocalBlobs
from adapters.bus import work
from adapters.bus.bus import COMMANDS, Abandoned, Broker, Consumer, Lane
from adapters.bus.commands import CommandConsumer, CommandHandler
from adapters.bus.messages import Message
from adapters.bus.rabbit import PARKED_QUEUE, RabbitBus
from adapters.postgres import EVENTS_CHANNEL, PROJECTED_CHANNEL, WORK_PATIENCE, Listener
from adapters.staging.local import LocalStaging
from adapters.store import Store, open_postgres
from tests.support.commands import WRITER, body_of, new_handler
from tests.support.packages import LocalStore
from tests.support.postgres import PostgresServer
from tests.support.rabbit import RabbitServer
from tests.support.waiting import eventually

CREATE = {"app_guid": "app-1", "type": "bits"}
HEADERS = {"authorization": f"bearer {WRITER}"}


@dataclass(frozen=True)
class Sender:
    """Another system, which knows AMQP and nothing of us."""

    channel: Any
    replies: str  # its queue

    def send(self, body: bytes | str, headers: dict[str, Any] | None = None, **more: Any) -> None:
        options = {"reply_to": self.replies, "headers": HEADERS, **more}
        if headers is not None:
            options["headers"] = headers
        self.channel.basic_publish("", COMMANDS, body, pika.BasicProperties(**options))

    def create(self, number: int) -> None:
        body = body_of("package.create", CREATE, f"command-{number}")
        self.send(body, correlation_id=f"c-{number}")

    def take(self, queue: str) -> tuple[Any, bytes] | None:
        """The next message of a queue: its properties, and its body."""
        method, properties, body = self.channel.basic_get(queue, auto_ack=True)
        return (properties, body) if method else None

    def heard(self, count: int, within: float = 15) -> list[tuple[str, dict[str, Any]]]:
        """So many answers, each with its correlation id."""
        taken: list[tuple[str, dict[str, Any]]] = []

        def all_there() -> bool:
            while len(taken) < count and (found := self.take(self.replies)):
                taken.append((found[0].correlation_id, orjson.loads(found[1])))
            return len(taken) == count

        eventually(all_there, within)
        return taken

    def parked(self) -> tuple[Any, bytes]:
        found = eventually(lambda: self.take(PARKED_QUEUE.name))
        assert found is not None
        return found


class WatchedBus(RabbitBus):
    """Counts those who wait for messages, and have been registered by the broker."""

    receivers = 0

    @contextmanager
    def receiving(self, connection: kombu.Connection) -> Iterator[Broker]:
        with super().receiving(connection) as broker:
            watched = _Watched(self, broker)
            try:
                yield watched
            finally:
                self.receivers -= watched.waits


class _Watched:
    def __init__(self, bus: WatchedBus, broker: Broker) -> None:
        self._bus = bus
        self._broker = broker
        self.waits = False

    def wait(self, timeout: float) -> None:
        if not self.waits:
            self.waits = True
            self._bus.receivers += 1
        self._broker.wait(timeout)

    def wake(self) -> None:
        self._broker.wake()


@dataclass(frozen=True)
class Crew:
    """What carries out commands, in several processes on one log."""

    bus: WatchedBus
    store: LocalStore
    handler: Callable[[], CommandHandler]
    start: Callable[[CommandHandler], CommandConsumer]

    def results(self) -> list[str]:
        """The ids of the commands that were carried out, in order."""
        events = [logged.event for logged in self.store.log.read(0, 1000)]
        return [vars(event)["command_id"] for event in events if event.TOPIC == "command.executed"]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def store(postgres: PostgresServer, stack: ExitStack) -> Store:
    url = postgres.new_database()
    listener = Listener(url, (EVENTS_CHANNEL, PROJECTED_CHANNEL))
    stack.callback(listener.close)
    store = open_postgres(url, listener, WORK_PATIENCE, 8)
    stack.callback(store.close)
    return store


@pytest.fixture
def crew(
    rabbit: RabbitServer,
    store: Store,
    stack: ExitStack,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Crew:
    monkeypatch.setattr(work, "FIRST_DELAY", 0.001)
    rabbit.forget_queues()
    local = LocalStore.of(store)
    staging = LocalStaging(tmp_path / "staging", tmp_path / "uploads")
    staging.prepare(store.identity)
    blobs = LocalBlobs(tmp_path / "blobs", staging)
    bus = WatchedBus(rabbit.url)
    bus.declare()
    stack.callback(bus.close)

    def start(handler: CommandHandler) -> CommandConsumer:
        consumer = CommandConsumer(bus, handler)
        consumer.start()
        stack.callback(consumer.stop, 10)
        return consumer

    return Crew(bus, local, lambda: new_handler(local, staging, blobs, bus), start)


@pytest.fixture
def sender(crew: Crew, rabbit: RabbitServer, stack: ExitStack) -> Sender:
    url = rabbit.url.rstrip("/") + "/%2F"
    connection = stack.enter_context(pika.BlockingConnection(pika.URLParameters(url)))
    channel = connection.channel()
    replies = channel.queue_declare("", exclusive=True).method.queue
    return Sender(channel, replies)


def test_commands_are_carried_out_in_order_by_one_of_two(crew: Crew, sender: Sender) -> None:
    """The other has nothing to do; every command is answered, in that order."""
    handled: list[list[str]] = [[], []]

    def remembering(number: int) -> CommandHandler:
        handler = crew.handler()

        def handle(message: Message) -> None:
            handled[number].append(message.id)
            handler(message)

        return handle  # type: ignore[return-value]

    running = [Consumer(crew.bus, Lane(COMMANDS, remembering(number), 1)) for number in range(2)]
    for consumer in running:
        consumer.start()
    try:
        eventually(lambda: crew.bus.receivers == 2)
        for number in range(20):
            sender.create(number)
        heard = sender.heard(20, within=40)
    finally:
        for consumer in running:
            consumer.stop(10)
    assert [correlation for correlation, _ in heard] == [f"c-{number}" for number in range(20)]
    assert {event["type"] for _, event in heard} == {"command.accepted"}
    assert crew.results() == [f"command-{number}" for number in range(20)]
    assert sorted(map(len, handled)) == [0, 20]


def test_when_the_active_one_stops_the_other_goes_on(crew: Crew, sender: Sender) -> None:
    """In order, and no command is lost or done twice."""
    first = crew.start(crew.handler())
    eventually(lambda: crew.bus.receivers == 1)
    crew.start(crew.handler())
    eventually(lambda: crew.bus.receivers == 2)
    for number in range(10):
        sender.create(number)
    sender.heard(1)
    assert first.stop(10)
    for number in range(10, 20):
        sender.create(number)
    eventually(lambda: len(crew.results()) == 20, within=40)
    assert crew.results() == [f"command-{number}" for number in range(20)]
    assert len(crew.store.log.read(0, 1000)) == 40


def test_what_was_abandoned_comes_again(crew: Crew, sender: Sender) -> None:
    """To whoever is next, before the commands behind it, and with how often it came."""
    tried: list[int] = []

    def give_up(message: Message) -> None:
        tried.append(message.deliveries)
        raise Abandoned

    stopping = Consumer(crew.bus, Lane(COMMANDS, give_up, 1))
    stopping.start()
    for number in range(3):
        sender.create(number)
    eventually(lambda: tried)
    assert stopping.stop(10)
    deliveries: list[int] = []
    handler = crew.handler()

    def handle(message: Message) -> None:
        deliveries.append(message.deliveries)
        handler(message)

    going_on = Consumer(crew.bus, Lane(COMMANDS, handle, 1))
    going_on.start()
    try:
        heard = sender.heard(3)
    finally:
        going_on.stop(10)
    assert [correlation for correlation, _ in heard] == ["c-0", "c-1", "c-2"]
    assert (tried, deliveries) == ([0], [1, 0, 0])


def test_what_is_parked_is_without_its_token(crew: Crew, sender: Sender) -> None:
    """Its body is as it was sent; the sender is told."""
    crew.start(crew.handler())
    sender.send(b"nonsense \xff", {"Authorization": f"bearer {WRITER}", "x-copy": WRITER})
    ((_, event),) = sender.heard(1)
    assert (event["type"], event["data"]["status"]) == ("command.refused", 400)
    properties, body = sender.parked()
    assert body == b"nonsense \xff"
    assert set(properties.headers or {}) <= {"x-delivery-count"}  # the broker's own
    assert WRITER not in repr(properties)
    sender.create(1)
    assert sender.heard(1)[0][1]["type"] == "command.accepted"


def test_the_limit_is_in_bytes(crew: Crew, sender: Sender) -> None:
    """Whatever encoding the sender names: 40,000 letters of two bytes are too much."""
    crew.start(crew.handler())
    body = orjson.dumps({**orjson.loads(body_of("package.create", CREATE)), "x": "ü" * 40_000})
    assert len(body) > 64 * 1024
    for encoding in (None, "utf-8"):
        sender.send(body, content_type="application/json", content_encoding=encoding)
        ((_, event),) = sender.heard(1)
        assert (event["type"], event["data"].get("status")) == ("command.refused", 400), encoding


@pytest.mark.parametrize(
    "headers",
    [
        {"compression": "nobody knows it"},
        {"compression": "application/x-bz2"},
        {"x-delivery-count": "often"},
        {"x-delivery-count": None},
        {"x-delivery-count": {}},
        {"x-death": "never"},
    ],
    ids=str,
)
def test_no_header_stops_the_queue(crew: Crew, sender: Sender, headers: dict[str, Any]) -> None:
    """Whatever somebody sends, the commands behind it are carried out."""
    crew.start(crew.handler())
    body = body_of("package.create", CREATE, "odd")
    sender.send(body, {**HEADERS, **headers}, reply_to=None)
    sender.create(1)
    ((correlation, event),) = sender.heard(1, within=5)
    assert (correlation, event["type"]) == ("c-1", "command.accepted")
    eventually(lambda: crew.bus.waiting(COMMANDS) == 0)


def test_a_direct_reply_is_an_answer_too(crew: Crew, sender: Sender) -> None:
    """RabbitMQ's own way of asking, without a queue."""
    crew.start(crew.handler())
    heard: list[bytes] = []
    sender.channel.basic_consume(
        "amq.rabbitmq.reply-to", lambda *delivery: heard.append(delivery[3]), auto_ack=True
    )
    body = body_of("package.create", CREATE, "command-1")
    sender.send(body, reply_to="amq.rabbitmq.reply-to")

    def answered() -> bool:
        sender.channel.connection.process_data_events(time_limit=0.01)
        return bool(heard)

    eventually(answered)
    assert orjson.loads(heard[0])["data"]["command_id"] == "command-1"


def test_who_asks_for_answers_where_nobody_listens(crew: Crew, sender: Sender) -> None:
    """The command is carried out, and the queue goes on."""
    crew.start(crew.handler())
    sender.send(body_of("package.create", CREATE, "command-1"), reply_to="no.such.queue")
    sender.create(2)
    sender.heard(1)
    assert crew.results() == ["command-1", "command-2"]
