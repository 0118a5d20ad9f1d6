"""The message bus, through kombu: what does not depend on the broker."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from enum import Enum
from typing import Any, Protocol

import kombu

from adapters.bus.messages import CONTENT_TYPE, STAGING_REQUESTED, Message

logger = logging.getLogger("packtrail.bus")

EVENTS = kombu.Exchange("packtrail.events", type="topic", durable=True)
STORAGE = "packtrail.storage"
HASHING = "packtrail.hashing"
STAGING = "packtrail.staging"  # of droplets, for builders
COMMANDS = "packtrail.commands"

# What each work queue is told. Storage also removes bits that nobody needs any more.
BINDINGS: dict[str, tuple[str, ...]] = {
    STORAGE: (
        "package.upload_started",
        "package.copy_started",
        "package.processing_resumed",
        "package.hash_computed",
        "package.processing_failed",
        "package.expired",
        "package.deleted",
        "droplet.expired",
        "droplet.deleted",
    ),
    HASHING: ("package.bits_stored", "package.processing_resumed"),
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


class Consumer:
    """Takes messages of a work queue: one thread receives, `concurrency` threads handle.

    The receiving thread is never busy with work, so it can answer the broker. A message
    is acknowledged when its handler is through. A connection that breaks is made again; what
    was received on it will be delivered once more.
    """

    def __init__(
        self,
        bus: Bus,
        queue_name: str,
        handle: Handler,
        concurrency: int,
        prefetch: int | None = None,
    ) -> None:
        """`prefetch`: how many messages are in hand at most; as many as are handled at once."""
        self._prefetch = prefetch or concurrency
        self._bus = bus
        self._queue_name = queue_name
        self._handle = handle
        self._concurrency = concurrency
        self._received: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._handled: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._in_hand = 0  # received, and not yet looked at again by the receiving thread
        self._stopping = threading.Event()
        self._deadline = 0.0
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        targets = [self._receive, *[self._work] * self._concurrency]
        for number, target in enumerate(targets):
            thread = threading.Thread(
                target=target, name=f"{self._queue_name}-{number}", daemon=True
            )
            thread.start()
            self._threads.append(thread)

    def stop(self, timeout: float) -> bool:
        """Takes no more messages and waits, up to `timeout` seconds, for those in hand.

        Returns whether they were all finished.

        What is not finished was not acknowledged either: the log knows it is to be done.
        """
        self._deadline = deadline = time.monotonic() + timeout
        self._stopping.set()
        self._bus.wake()
        receiver, *workers = self._threads
        receiver.join(timeout)
        for _ in workers:
            self._received.put(None)
        for worker in workers:
            worker.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _receive(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                with self._bus.connect() as connection, connection.channel() as channel:
                    self._consume(connection, channel)
            except Exception as error:  # noqa: BLE001 - whatever it is, others can't help
                failures += 1
                delay = min(0.1 * 2.0 ** min(failures - 1, 10), MAX_RECONNECT_DELAY)
                logger.warning(
                    "%s is not received from: %s; trying again in %.1f s",
                    self._queue_name,
                    error,
                    delay,
                )
                self._stopping.wait(delay)
            else:
                failures = 0

    def _consume(self, connection: kombu.Connection, channel: Any) -> None:
        self._in_hand = 0
        consumer = kombu.Consumer(
            channel,
            queues=[self._bus.queue(self._queue_name)],
            on_message=self._take,
            on_decode_error=lambda delivery, error: self._take(delivery),
            prefetch_count=self._prefetch,
        )
        with self._bus.receiving(connection) as broker:
            # It is not cancelled, but ends with the channel: what was not acknowledged is then
            # back in the queue before another consumer gets what was behind it.
            consumer.consume()
            while not self._stopping.is_set():
                broker.wait(1.0)
                self._acknowledge(channel)
            while self._in_hand and (left := self._deadline - time.monotonic()) > 0:
                self._acknowledge(channel, left)  # nothing more is taken meanwhile

    def _take(self, delivery: Any) -> None:
        self._in_hand += 1
        self._received.put(delivery)

    def _acknowledge(self, channel: Any, patience: float = 0.0) -> None:
        """Tells the broker of what was handled; waits up to `patience` seconds for the first."""
        while True:
            try:
                delivery, done = self._handled.get(patience > 0, patience or None)
            except queue.Empty:
                return
            patience = 0.0
            if delivery.channel is not channel:
                continue  # of a connection that broke: it will be delivered again
            self._in_hand -= 1
            if done is Done.ACKNOWLEDGE:
                delivery.ack()
            elif done is Done.REJECT:
                delivery.reject()

    def _work(self) -> None:
        while (delivery := self._received.get()) is not None:
            self._handled.put((delivery, self._handled_as(delivery)))
            self._bus.wake()

    def _handled_as(self, delivery: Any) -> Done:
        """Has a message handled; what is to become of it."""
        try:
            self._handle(received(delivery))
        except Abandoned:
            return Done.LEAVE
        except Unreadable as reason:
            logger.error("a message of %s is parked: %s", self._queue_name, reason)
            return Done.REJECT
        except Exception:
            logger.exception("a message of %s was not handled", self._queue_name)
        return Done.ACKNOWLEDGE
