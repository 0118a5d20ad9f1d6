"""The message bus, through kombu: what does not depend on the broker."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Protocol

import kombu

from adapters.bus.messages import CONTENT_TYPE, STAGING_REQUESTED, Message
from adapters.cores import use_all

logger = logging.getLogger("packtrail.bus")

EVENTS = kombu.Exchange("packtrail.events", type="topic", durable=True)
STORAGE = "packtrail.storage"
HASHING = "packtrail.hashing"
STORAGE_LARGE = "packtrail.storage.large"
HASHING_LARGE = "packtrail.hashing.large"
STAGING = "packtrail.staging"  # of droplets, for builders
COMMANDS = "packtrail.commands"

# What each work queue is told. Storage also removes bits that nobody needs any more.
BINDINGS: dict[str, tuple[str, ...]] = {
    STORAGE: (
        "package.upload_started",
        "package.copy_started",
        "package.processing_resumed",
        "package.processing_failed",
        "package.expired",
        "package.deleted",
        "droplet.expired",
        "droplet.deleted",
    ),
    HASHING: ("package.bits_stored", "package.processing_resumed"),
    STORAGE_LARGE: (),  # what finds out that bits are large sends their work there
    HASHING_LARGE: (),
    STAGING: (STAGING_REQUESTED,),
    COMMANDS: (),
}


MAX_RECONNECT_DELAY = 5.0  # seconds


class Handler(Protocol):
    """Handles one message. Whatever it raises is logged, and the message is done with.

    After `Unreadable` the broker parks it.
    """

    def __call__(self, message: Message) -> None: ...


class BrokerAway(ConnectionError):
    """The broker can't be reached, or does not do what it is asked for."""


class Unreadable(Exception):
    """A message that nobody will ever be able to handle: the broker may park it."""


class Abandoned(Exception):
    """A message that could not be handled now: the broker is to hand it out again."""


class Broker(Protocol):
    """The broker, as a consumer on one connection has it."""

    def wait(self, timeout: float) -> None:
        """Delivers what has come; returns then, or when woken, or after `timeout` seconds.

        Raises `BrokerAway`.
        """

    def wake(self) -> None:
        """Ends a `wait`, or the next one."""


class Bus(Protocol):
    """What the relay and the consumers need; every broker's adapter passes the same tests.

    All but `wake` and `close` raise `BrokerAway`.
    """

    def connect(self) -> kombu.Connection:
        """A connection of one's own, for whoever follows along."""

    def declare(self) -> None:
        """Makes the exchanges and queues that are not there yet."""

    def queue(self, name: str) -> kombu.Queue:
        """A work queue as it is declared."""

    def is_heard(self, kind: str, settled: bool = False) -> bool:
        """Whether a message of a type, published now, may get to anybody."""

    def publish(self, messages: Sequence[Message]) -> None:
        """Publishes events; returns when the broker has them."""

    def send(self, queue: str, message: Message) -> None:
        """Hands a message to one work queue."""

    def send_later(self, queue: str, message: Message, delay: float) -> None:
        """The same, `delay` seconds from now."""

    def reply(self, queue: str, message: Message) -> None:
        """Sends an answer to somebody's queue; whether it gets there nobody waits to know."""

    def park(self, message: Message) -> None:
        """Puts aside a message that nobody can handle."""

    def waiting(self, queue: str) -> int:
        """How many messages wait in a work queue."""

    def receiving(self, connection: kombu.Connection) -> AbstractContextManager[Broker]:
        """While entered, the connection delivers messages whenever `Broker.wait` is called."""

    def wake(self) -> None:
        """Makes consumers of this process that wait for messages look around."""

    def close(self) -> None: ...


def publish(producer: kombu.Producer, exchange: str, routing_key: str, message: Message) -> None:
    """Sends a persistent message as it is: it is encoded already."""
    producer.publish(
        message.body,
        exchange=exchange,
        routing_key=routing_key,
        content_type=CONTENT_TYPE,
        content_encoding="utf-8",
        delivery_mode=2,
        message_id=message.id,
        type=message.type,
        headers=message.headers,
        correlation_id=message.correlation_id,
        reply_to=message.reply_to,
    )


class Done(Enum):
    """What becomes of a message that a handler is through with."""

    ACKNOWLEDGE = "acknowledge"
    REJECT = "reject"
    LEAVE = "leave"  # it comes again when the channel is closed


def received(delivery: Any) -> Message:
    """What the broker has delivered."""
    properties, headers, body = delivery.properties, dict(delivery.headers or {}), delivery.body
    deliveries = headers.get("x-delivery-count")
    redelivered = (delivery.delivery_info or {}).get("redelivered", False)
    return Message(
        id=str(properties.get("message_id") or ""),
        type=str(properties.get("type") or ""),
        # decoded by the client library where the sender has named an encoding
        body=body.encode("utf-8", "surrogatepass") if isinstance(body, str) else bytes(body),
        headers=headers,
        reply_to=properties.get("reply_to"),
        correlation_id=properties.get("correlation_id"),
        # a sender may have set the header, too
        deliveries=deliveries if redelivered and isinstance(deliveries, int) else 0,
    )


@dataclass(frozen=True)
class Lane:
    """A work queue, and how many of its messages are handled at once.

    `prefetch`: how many are in hand at most; None for as many as are handled at once. `computes`:
    whether the work is long, and needs the interpreter little: then it runs on any core.
    """

    queue: str
    handle: Handler
    concurrency: int
    prefetch: int | None = None
    computes: bool = False
    received: SimpleQueue[Any] = field(default_factory=SimpleQueue, init=False)


class Consumer:
    """Takes messages of one or more work queues: one thread receives, those of the lanes handle.

    The receiving thread is never busy with work, so it can answer the broker; and a lane that is
    busy does not hold up the others. A message is acknowledged when its handler is through. A
    connection that breaks is made again; what was received on it will be delivered once more.
    """

    def __init__(self, bus: Bus, *lanes: Lane) -> None:
        self._bus = bus
        self._lanes = lanes
        self._handled: SimpleQueue[Any] = SimpleQueue()
        self._in_hand = 0  # received, and not yet looked at again by the receiving thread
        self._stopping = threading.Event()
        self._deadline = 0.0
        self._broker: Broker | None = None
        self._receiver = threading.Thread(
            target=self._receive, name=f"{lanes[0].queue}-0", daemon=True
        )
        self._workers = [
            threading.Thread(
                target=self._work, args=(lane,), name=f"{lane.queue}-{number + 1}", daemon=True
            )
            for lane in lanes
            for number in range(lane.concurrency)
        ]

    def start(self) -> None:
        for thread in (self._receiver, *self._workers):
            thread.start()

    def stop(self, timeout: float) -> bool:
        """Takes no more messages and waits, up to `timeout` seconds, for those in hand.

        Returns whether they were all finished.

        What is not finished was not acknowledged either: the log knows it is to be done.
        """
        self._deadline = deadline = time.monotonic() + timeout
        self._stopping.set()
        self._bus.wake()
        self._receiver.join(timeout)
        for lane in self._lanes:
            for _ in range(lane.concurrency):
                lane.received.put(None)
        for worker in self._workers:
            worker.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in (self._receiver, *self._workers))

    def _receive(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                with self._bus.connect() as connection, ExitStack() as stack:
                    channels = [stack.enter_context(connection.channel()) for _ in self._lanes]
                    self._consume(connection, channels)
            except Exception as error:  # noqa: BLE001 - whatever it is, others can't help
                failures += 1
                delay = min(0.1 * 2.0 ** min(failures - 1, 10), MAX_RECONNECT_DELAY)
                logger.warning(
                    "%s is not received from: %s; trying again in %.1f s",
                    " and ".join(lane.queue for lane in self._lanes),
                    error,
                    delay,
                )
                self._stopping.wait(delay)
            else:
                failures = 0

    def _consume(self, connection: kombu.Connection, channels: Sequence[Any]) -> None:
        """Each lane has a channel of its own, and so a number of messages in hand."""
        self._in_hand = 0
        consumers = [
            kombu.Consumer(
                channel,
                queues=[self._bus.queue(lane.queue)],
                on_message=partial(self._take, lane),
                on_decode_error=lambda delivery, error, lane=lane: self._take(lane, delivery),
                prefetch_count=lane.prefetch or lane.concurrency,
            )
            for lane, channel in zip(self._lanes, channels, strict=True)
        ]
        with self._bus.receiving(connection) as broker:
            self._broker = broker
            # They are not cancelled, but end with their channels: what was not acknowledged is
            # then back in the queue before another consumer gets what was behind it.
            for consumer in consumers:
                consumer.consume()
            while not self._stopping.is_set():
                broker.wait(1.0)
                self._acknowledge(channels)
            while self._in_hand and (left := self._deadline - time.monotonic()) > 0:
                self._acknowledge(channels, left)  # nothing more is taken meanwhile

    def _take(self, lane: Lane, delivery: Any) -> None:
        self._in_hand += 1
        lane.received.put(delivery)

    def _acknowledge(self, channels: Sequence[Any], patience: float = 0.0) -> None:
        """Tells the broker of what was handled; waits up to `patience` seconds for the first."""
        while True:
            try:
                delivery, done = self._handled.get(patience > 0, patience or None)
            except Empty:
                return
            patience = 0.0
            if delivery.channel not in channels:
                continue  # of a connection that broke: it will be delivered again
            self._in_hand -= 1
            if done is Done.ACKNOWLEDGE:
                delivery.ack()
            elif done is Done.REJECT:
                delivery.reject()

    def _work(self, lane: Lane) -> None:
        if lane.computes:
            use_all()
        while (delivery := lane.received.get()) is not None:
            self._handled.put((delivery, self._handled_as(lane, delivery)))
            broker = self._broker
            # while there is more here, whoever takes the last of it wakes the receiving thread
            if broker is not None and lane.received.empty():
                broker.wake()

    def _handled_as(self, lane: Lane, delivery: Any) -> Done:
        """Has a message handled; what is to become of it."""
        try:
            lane.handle(received(delivery))
        except Abandoned:
            return Done.LEAVE
        except Unreadable as reason:
            logger.error("a message of %s is parked: %s", lane.queue, reason)
            return Done.REJECT
        except Exception:
            logger.exception("a message of %s was not handled", lane.queue)
        return Done.ACKNOWLEDGE
