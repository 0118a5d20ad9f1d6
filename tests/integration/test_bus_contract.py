"""The bus's port: every adapter passes these tests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import kombu
import orjson
import pytest

from adapters.bus import rabbit as rabbit_module
from adapters.bus.bus import (
    EVENTS,
    HASHING,
    STORAGE,
    BrokerAway,
    Bus,
    Consumer,
    Handler,
    Lane,
    Unreadable,
)  # fmt: skip
from adapters.bus.memory import MemoryBus
from adapters.bus.messages import CONTENT_TYPE, Message
from adapters.bus.rabbit import PARKED_QUEUE, RabbitBus
from tests.support.rabbit import RabbitServer
from tests.support.waiting import eventually

LONG = 3600.0  # seconds that no test waits for


@pytest.fixture(params=["memory", "rabbit"])
def bus(request: pytest.FixtureRequest) -> Iterator[Bus]:
    bus: Bus
    if request.param == "memory":
        bus = MemoryBus()
    else:
        server: RabbitServer = request.getfixturevalue("rabbit")
        server.forget_queues()
        bus = RabbitBus(server.url)
    bus.declare()
    yield bus
    bus.close()


def message(number: int, kind: str = "package.upload_started") -> Message:
    body = orjson.dumps({"id": f"guid-1/{number}", "type": kind, "text": "ü😀"})
    return Message(f"guid-1/{number}", kind, body)


@dataclass
class Handled:
    """A handler that remembers; it can be held up, and told to fail."""

    messages: list[Message] = field(default_factory=list)
    failing: set[str] = field(default_factory=set)
    gate: threading.Event = field(default_factory=threading.Event)
    running: int = 0
    most_running: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.gate.set()

    def __call__(self, message: Message) -> None:
        with self.lock:
            self.running += 1
            self.most_running = max(self.running, self.most_running)
        self.gate.wait(20)
        with self.lock:
            self.running -= 1
            self.messages.append(message)
        if message.id in self.failing:
            raise RuntimeError("told to fail")

    @property
    def ids(self) -> list[str]:
        return [message.id for message in self.messages]


Consume = Callable[..., Consumer]


@pytest.fixture
def consume(bus: Bus) -> Iterator[Consume]:
    """Starts consumers, and stops them at the end."""
    with ExitStack() as stack:

        def start(handler: Handler, queue: str = STORAGE, concurrency: int = 1) -> Consumer:
            consumer = Consumer(bus, Lane(queue, handler, concurrency))
            consumer.start()
            stack.callback(consumer.stop, 10)
            return consumer

        yield start


@dataclass(frozen=True)
class Subscriber:
    """Another system: a queue of its own, bound to what it wants to hear."""

    connection: Any
    heard: list[Any]

    def until(self, count: int) -> list[Any]:
        def drained() -> bool:
            while len(self.heard) < count:
                try:
                    self.connection.drain_events(timeout=1)
                except TimeoutError:
                    return False
            return True

        eventually(drained)
        return self.heard


@pytest.fixture
def subscribe(bus: Bus) -> Iterator[Callable[[str, str], Subscriber]]:
    with ExitStack() as stack:

        def start(name: str, routing_key: str) -> Subscriber:
            connection = stack.enter_context(bus.connect())
            channel = stack.enter_context(connection.channel())
            heard: list[Any] = []

            def hear(delivery: Any) -> None:
                heard.append(delivery)
                delivery.ack()

            queue = kombu.Queue(name, EVENTS, routing_key=routing_key, exclusive=True)
            stack.enter_context(kombu.Consumer(channel, [queue], on_message=hear))
            return Subscriber(connection, heard)

        yield start


class TestBus:
    def test_published_events_reach_the_work_queues_by_their_type(
        self, bus: Bus, consume: Consume
    ) -> None:
        """Storage is told of uploads, hashing of stored bits, both of what was resumed."""
        storing, hashing = Handled(), Handled()
        consume(storing, STORAGE)
        consume(hashing, HASHING)
        kinds = [
            "package.created", "package.upload_started", "package.copy_started",
            "package.bits_stored", "package.hash_computed", "package.processing_failed",
            "package.processing_resumed", "package.expired", "package.deleted",
        ]  # fmt: skip
        bus.publish([message(number, kind) for number, kind in enumerate(kinds)])
        eventually(lambda: len(storing.messages) == 6 and len(hashing.messages) == 2)
        assert [m.type for m in hashing.messages] == [
            "package.bits_stored",
            "package.processing_resumed",
        ]
        assert [m.type for m in storing.messages] == [
            "package.upload_started", "package.copy_started", "package.processing_failed",
            "package.processing_resumed", "package.expired", "package.deleted",
        ]  # fmt: skip

    def test_a_subscriber_hears_every_event_in_order(
        self, bus: Bus, subscribe: Callable[[str, str], Subscriber]
    ) -> None:
        """On a queue of its own, whatever the work queues do, as CloudEvents."""
        subscriber = subscribe("theirs", "package.#")
        sent = [message(number, f"package.kind_{number % 3}") for number in range(100)]
        bus.publish(sent[:60])
        bus.publish(sent[60:])
        heard = subscriber.until(100)
        assert [as_bytes(delivery.body) for delivery in heard] == [m.body for m in sent]
        assert heard[0].content_type == CONTENT_TYPE
        assert heard[0].properties["message_id"] == sent[0].id
        assert heard[0].properties["type"] == sent[0].type

    def test_subscribers_hear_what_they_asked_for(
        self, bus: Bus, subscribe: Callable[[str, str], Subscriber]
    ) -> None:
        """One kind or all; each has its own copy."""
        everything = subscribe("everything", "package.#")
        deletions = subscribe("deletions", "package.deleted")
        bus.publish([message(1, "package.created"), message(2, "package.deleted")])
        assert len(everything.until(2)) == 2
        assert [m.properties["message_id"] for m in deletions.until(1)] == ["guid-1/2"]

    def test_who_comes_later_hears_what_is_published_from_then_on(
        self, bus: Bus, subscribe: Callable[[str, str], Subscriber]
    ) -> None:
        """Whatever was published of that type before."""
        bus.publish([message(1, "package.created")])
        late = subscribe("late", "package.created")
        assert bus.is_heard("package.created")
        bus.publish([message(2, "package.created")])
        assert [m.properties["message_id"] for m in late.until(1)] == ["guid-1/2"]

    def test_what_is_settled_is_heard_by_other_systems(
        self, bus: Bus, subscribe: Callable[[str, str], Subscriber]
    ) -> None:
        """It is news to them, though there is nothing to do about it here."""
        everything = subscribe("everything", "package.#")
        assert bus.is_heard("package.bits_stored", settled=True)
        bus.publish([replace(message(1, "package.bits_stored"), settled=True)])
        assert [m.properties["message_id"] for m in everything.until(1)] == ["guid-1/1"]

    def test_a_message_is_handled_as_it_was_sent(self, bus: Bus, consume: Consume) -> None:
        """Body, type, id and headers."""
        handled = Handled()
        consume(handled)
        sent = replace(message(1), headers={"x-attempt": 3, "x-flag": True})
        bus.send(STORAGE, sent)
        eventually(lambda: handled.messages)
        got = handled.messages[0]
        assert (got.id, got.type, as_bytes(got.body)) == (sent.id, sent.type, sent.body)
        assert (got.headers["x-attempt"], got.headers["x-flag"]) == (3, True)

    def test_what_is_sent_goes_to_one_work_queue_only(
        self,
        bus: Bus,
        consume: Consume,
        subscribe: Callable[[str, str], Subscriber],
    ) -> None:
        """Work handed out again is nobody else's business."""
        subscriber = subscribe("theirs", "package.#")
        storing, hashing = Handled(), Handled()
        consume(storing, STORAGE)
        consume(hashing, HASHING)
        bus.send(HASHING, message(1))
        eventually(lambda: hashing.messages)
        bus.publish([message(2)])
        eventually(lambda: storing.messages)
        assert (storing.ids, hashing.ids) == (["guid-1/2"], ["guid-1/1"])
        assert [m.properties["message_id"] for m in subscriber.until(1)] == ["guid-1/2"]

    def test_messages_wait_for_a_consumer(self, bus: Bus, consume: Consume) -> None:
        """What was sent before it came is not lost, and in order."""
        for number in range(20):
            bus.send(STORAGE, message(number))
        handled = Handled()
        consume(handled)
        eventually(lambda: len(handled.messages) == 20)
        assert handled.ids == [f"guid-1/{number}" for number in range(20)]

    def test_declaring_again_changes_nothing(self, bus: Bus, consume: Consume) -> None:
        """Every process declares what it needs when it starts."""
        bus.send(STORAGE, message(1))
        bus.declare()
        handled = Handled()
        consume(handled)
        eventually(lambda: handled.messages)
        assert handled.ids == ["guid-1/1"]

    def test_a_short_delay_does_not_wait_behind_a_long_one(
        self, bus: Bus, consume: Consume
    ) -> None:
        """Messages come back in the order in which they are due."""
        handled = Handled()
        consume(handled)
        bus.send_later(STORAGE, message(9), LONG)
        for number, delay in ((3, 1.0), (1, 0.25), (2, 0.5)):
            bus.send_later(STORAGE, message(number), delay)
        eventually(lambda: len(handled.messages) >= 3)
        assert handled.ids == ["guid-1/1", "guid-1/2", "guid-1/3"]

    def test_a_delayed_message_keeps_its_headers(self, bus: Bus, consume: Consume) -> None:
        """They say which try it is."""
        handled = Handled()
        consume(handled)
        bus.send_later(STORAGE, replace(message(1), headers={"x-attempt": 4}), 0.001)
        eventually(lambda: handled.messages)
        assert handled.messages[0].headers["x-attempt"] == 4


class TestConsumer:
    def test_a_handler_that_raises_does_not_stop_it(self, bus: Bus, consume: Consume) -> None:
        """The message is done with; the next ones are handled."""
        handled = Handled(failing={"guid-1/0", "guid-1/2"})
        consume(handled)
        for number in range(5):
            bus.send(STORAGE, message(number))
        eventually(lambda: len(handled.messages) >= 5)
        assert handled.ids == [f"guid-1/{number}" for number in range(5)]

    def test_as_many_are_handled_at_a_time_as_were_asked_for(
        self, bus: Bus, consume: Consume
    ) -> None:
        """No more, and no fewer while there is enough to do."""
        handled = Handled()
        handled.gate.clear()
        consume(handled, STORAGE, 3)
        for number in range(10):
            bus.send(STORAGE, message(number))
        eventually(lambda: handled.running == 3)
        handled.gate.set()
        eventually(lambda: len(handled.messages) == 10)
        assert handled.most_running == 3
        assert sorted(handled.ids) == sorted(f"guid-1/{number}" for number in range(10))

    def test_what_it_does_not_work_on_is_left_for_others(self, bus: Bus, consume: Consume) -> None:
        """A consumer that is busy holds back no message that another could handle."""
        busy, idle = Handled(), Handled()
        busy.gate.clear()
        consume(busy, STORAGE, 1)
        bus.send(STORAGE, message(0))
        eventually(lambda: busy.running)
        for number in range(1, 6):
            bus.send(STORAGE, message(number))
        consume(idle, STORAGE, 1)
        eventually(lambda: len(idle.messages) == 5)
        busy.gate.set()
        eventually(lambda: busy.messages)
        assert busy.ids == ["guid-1/0"]

    def test_a_lane_that_is_busy_holds_up_no_other(self, bus: Bus) -> None:
        """Each has as many messages in hand as it handles at once, and its own handler."""
        busy, free = Handled(), Handled()
        busy.gate.clear()
        consumer = Consumer(bus, Lane(STORAGE, busy, 2), Lane(HASHING, free, 1))
        consumer.start()
        for number in range(6):
            bus.send(STORAGE, message(number))
        eventually(lambda: busy.running == 2)
        for number in range(6, 12):
            bus.send(HASHING, message(number))
        eventually(lambda: len(free.messages) == 6)
        assert free.ids == [f"guid-1/{number}" for number in range(6, 12)]
        assert (busy.messages, busy.most_running, free.most_running) == ([], 2, 1)
        assert eventually(lambda: bus.waiting(STORAGE) == 4)
        busy.gate.set()
        eventually(lambda: len(busy.messages) == 6)
        assert consumer.stop(10)

    def test_stopping_finishes_what_is_in_hand_in_all_lanes(self, bus: Bus) -> None:
        """Each is handled, or still in its queue; one that was on its way may be taken besides."""
        handled = Handled()
        handled.gate.clear()
        consumer = Consumer(bus, Lane(STORAGE, handled, 1), Lane(HASHING, handled, 1))
        consumer.start()
        for number in range(3):
            bus.send(STORAGE, message(number))
            bus.send(HASHING, message(number + 3))
        eventually(lambda: handled.running == 2)
        finished: list[bool] = []
        stopping = threading.Thread(target=lambda: finished.append(consumer.stop(20)))
        stopping.start()
        eventually(lambda: consumer._stopping.is_set())
        handled.gate.set()
        stopping.join(20)
        assert finished == [True]
        assert {"guid-1/0", "guid-1/3"} <= set(handled.ids)
        assert 2 <= len(handled.ids) == len(set(handled.ids)) <= 4
        left = 6 - len(handled.ids)
        assert eventually(lambda: bus.waiting(STORAGE) + bus.waiting(HASHING) == left)

    def test_stopping_finishes_what_is_in_hand(self, bus: Bus, consume: Consume) -> None:
        """And takes nothing more."""
        handled = Handled()
        handled.gate.clear()
        consumer = consume(handled, STORAGE, 2)
        for number in range(6):
            bus.send(STORAGE, message(number))
        eventually(lambda: handled.running == 2)
        finished: list[bool] = []
        stopping = threading.Thread(target=lambda: finished.append(consumer.stop(20)))
        stopping.start()
        eventually(lambda: consumer._stopping.is_set())
        handled.gate.set()
        stopping.join(20)
        assert finished == [True]
        assert len(handled.messages) == 2

    def test_what_a_stopped_consumer_did_not_take_is_handled_by_the_next(
        self, bus: Bus, consume: Consume
    ) -> None:
        """Every message is handled at least once."""
        first = Handled()
        first.gate.clear()
        consumer = consume(first, STORAGE, 2)
        for number in range(6):
            bus.send(STORAGE, message(number))
        eventually(lambda: first.running == 2)
        stopping = threading.Thread(target=consumer.stop, args=(20,))
        stopping.start()
        eventually(lambda: consumer._stopping.is_set())
        first.gate.set()
        stopping.join(20)
        second = Handled()
        consume(second)
        everything = {f"guid-1/{number}" for number in range(6)}
        eventually(lambda: {*first.ids, *second.ids} == everything)

    def test_stopping_does_not_wait_for_ever(self, bus: Bus, consume: Consume) -> None:
        """It says that work was not finished; the log knows that it is to be done."""
        handled = Handled()
        handled.gate.clear()
        consumer = consume(handled)
        bus.send(STORAGE, message(1))
        eventually(lambda: handled.running == 1)
        assert consumer.stop(0.01) is False
        handled.gate.set()
        eventually(lambda: handled.messages)

    def test_the_deadline_is_for_all_work_together(self, bus: Bus, consume: Consume) -> None:
        """Five handlers that hang do not make stopping take five times as long."""
        handled = Handled()
        handled.gate.clear()
        consumer = consume(handled, STORAGE, 5)
        for number in range(5):
            bus.send(STORAGE, message(number))
        eventually(lambda: handled.running == 5)
        start = time.monotonic()
        finished = consumer.stop(0.4)
        took = time.monotonic() - start
        handled.gate.set()
        eventually(lambda: len(handled.messages) == 5)
        assert not finished
        assert took < 1.2

    def test_the_next_message_comes_as_soon_as_one_is_done(self, bus: Bus) -> None:
        """Also where a message is done in the moment in which the receiver begins to wait."""
        held = HeldBus(bus)
        handled: list[str] = []

        def handle(message: Message) -> None:
            if not handled:
                held.handling.set()
                held.receiver_is_about_to_wait.wait(10)
            handled.append(message.id)

        for number in range(2):
            bus.send(STORAGE, message(number))
        consumer = Consumer(held, Lane(STORAGE, handle, 1))
        consumer.start()
        try:
            eventually(lambda: len(handled) == 2)
            assert held.waited_in_vain == 0
        finally:
            consumer.stop(10)


class TestRabbitBus:
    """What only a broker of its own promises, and how it may fail."""

    @pytest.mark.slow
    def test_a_broker_that_dies_loses_nothing(self, own_rabbit: RabbitServer) -> None:
        """What was confirmed is there when it is back; consumers connect again by themselves."""
        rabbit = own_rabbit
        bus = RabbitBus(rabbit.url)
        bus.publish([message(number) for number in range(200)])
        handled = Handled()
        handled.gate.clear()
        consumer = Consumer(bus, Lane(STORAGE, handled, 2))
        consumer.start()
        eventually(lambda: handled.running == 2)
        rabbit.kill()
        with pytest.raises(BrokerAway):
            bus.publish([message(200)])
        handled.gate.set()
        rabbit.start()
        eventually(lambda: published(bus, message(200)))
        everything = {f"guid-1/{number}" for number in range(201)}
        eventually(lambda: everything <= set(handled.ids), within=30)
        assert consumer.stop(10)
        bus.close()

    @pytest.mark.slow
    def test_a_long_handler_does_not_stop_the_heartbeats(
        self, rabbit: RabbitServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Work that takes longer than the broker's patience is handed out once."""
        rabbit.forget_queues()
        monkeypatch.setattr(rabbit_module, "HEARTBEAT", 1)
        bus = RabbitBus(rabbit.url)
        bus.declare()
        handled = Handled()
        handled.gate.clear()
        consumer = Consumer(bus, Lane(STORAGE, handled, 1))
        consumer.start()
        bus.send(STORAGE, message(1))
        eventually(lambda: handled.running == 1)
        since = time.monotonic()  # a broker that hears nothing hangs up after two heartbeats
        eventually(lambda: time.monotonic() - since > 4)
        handled.gate.set()
        bus.send(STORAGE, message(2))
        eventually(lambda: len(handled.messages) == 2)
        assert handled.ids == ["guid-1/1", "guid-1/2"]
        assert consumer.stop(10)
        bus.close()

    def test_what_can_not_be_read_is_parked(self, rabbit: RabbitServer) -> None:
        """Whatever somebody else has put into the queue is kept for an operator to look at."""
        rabbit.forget_queues()
        bus = RabbitBus(rabbit.url)
        bus.declare()

        def handle(message: Message) -> None:
            raise Unreadable("no message of ours")

        consumer = Consumer(bus, Lane(STORAGE, handle, 1))
        consumer.start()
        bus.send(STORAGE, message(7))
        with bus.connect() as connection:
            parked = eventually(PARKED_QUEUE(connection.channel()).get)
        assert parked.properties["message_id"] == "guid-1/7"
        assert consumer.stop(10)
        bus.close()

    def test_in_a_queue_that_is_not_there_yet_nothing_waits(self, rabbit: RabbitServer) -> None:
        """A broker that an older version has used does not have all of this one's."""
        rabbit.forget_queues()
        bus = RabbitBus(rabbit.url)
        assert bus.waiting(STORAGE) == 0
        bus.close()

    def test_a_queue_of_other_arguments_is_told_clearly(self, rabbit: RabbitServer) -> None:
        """A queue that a newer program declared is not changed, and not used."""
        rabbit.forget_queues()
        with kombu.Connection(rabbit.url) as connection:
            queue = kombu.Queue(STORAGE, queue_arguments={"x-max-length": 5})
            queue(connection.channel()).queue_declare()
        bus = RabbitBus(rabbit.url)
        with pytest.raises(BrokerAway, match="other arguments"):
            bus.publish([message(1)])
        bus.close()
        rabbit.forget_queues()


def published(bus: Bus, message: Message) -> bool:
    """Whether the broker took it: just started, it may refuse while a queue elects its leader."""
    try:
        bus.publish([message])
    except BrokerAway:
        return False
    return True


class TestMemoryBus:
    """What only the bus inside one process promises."""

    def test_what_nobody_hears_need_not_be_made(self) -> None:
        """Work queues hear what asks for work, unless that is done."""
        bus = MemoryBus()
        bus.declare()
        try:
            assert not bus.is_heard("package.created")
            assert bus.is_heard("package.bits_stored")
            assert not bus.is_heard("package.bits_stored", settled=True)
            stored = message(1, "package.bits_stored")
            bus.publish([stored, replace(stored, settled=True)])
            assert bus.waiting(HASHING) == 1
        finally:
            bus.close()

    def test_a_message_wakes_only_who_consumes_its_queue(self) -> None:
        """A thread that has nothing to do would wait for its turn on the processor for nothing."""
        bus = MemoryBus()
        bus.declare()
        with ExitStack() as stack:
            stack.callback(bus.close)
            connections = {}
            for queue in (STORAGE, HASHING):
                connection = stack.enter_context(bus.connect())
                channel = stack.enter_context(connection.channel())
                consumer = kombu.Consumer(
                    channel, [bus.queue(queue)], on_message=lambda delivery: delivery.ack()
                )
                consumer.consume()
                connections[queue] = stack.enter_context(bus.receiving(connection))
            before = {queue: bell_of(broker).count for queue, broker in connections.items()}
            for number in range(3):
                bus.send(STORAGE, message(number))
            after = {queue: bell_of(broker).count for queue, broker in connections.items()}
            assert after[STORAGE] - before[STORAGE] == 3
            assert after[HASHING] == before[HASHING]

    def test_a_bus_with_delayed_messages_can_be_closed(self) -> None:
        """They are lost with it; the log knows what is unfinished."""
        bus = MemoryBus()
        bus.declare()
        bus.send_later(STORAGE, message(1), LONG)
        closing = threading.Thread(target=bus.close, daemon=True)
        closing.start()
        closing.join(10)
        assert not closing.is_alive()


def bell_of(broker: Any) -> Any:
    return broker._connection.transport.bell


class HeldBus:
    """A bus whose consumer is held up right before it waits, until a message is done."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.handling = threading.Event()
        self.receiver_is_about_to_wait = threading.Event()
        self.message_is_done = threading.Event()
        self.waited_in_vain = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    @contextmanager
    def receiving(self, connection: Any) -> Iterator[Any]:
        with self._bus.receiving(connection) as broker:
            yield _HeldBroker(self, broker)


class _HeldBroker:
    def __init__(self, bus: HeldBus, broker: Any) -> None:
        self._bus = bus
        self._broker = broker

    def wait(self, timeout: float) -> None:
        if not self._bus.handling.is_set():
            self._broker.wait(0.01)
            return
        if not self._bus.message_is_done.is_set():
            self._bus.receiver_is_about_to_wait.set()
            self._bus.message_is_done.wait(10)
        start = time.monotonic()
        self._broker.wait(timeout)
        if time.monotonic() - start >= timeout:
            self._bus.waited_in_vain += 1

    def wake(self) -> None:
        self._broker.wake()
        self._bus.message_is_done.set()


def as_bytes(body: bytes | str) -> bytes:
    return body.encode() if isinstance(body, str) else body
