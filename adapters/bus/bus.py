"""The message bus, through kombu: what does not depend on the broker."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import kombu

from adapters.bus.messages import CONTENT_TYPE, Message

logger = logging.getLogger("packtrail.bus")

EVENTS = kombu.Exchange("packtrail.events", type="topic", durable=True)
STORAGE = "packtrail.storage"
HASHING = "packtrail.hashing"

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
    ),
    HASHING: ("package.bits_stored", "package.processing_resumed"),
}


def work_queue(name: str) -> kombu.Queue:
    bindings = [kombu.binding(EVENTS, routing_key=key) for key in BINDINGS[name]]
    return kombu.Queue(name, bindings=bindings, durable=True)


class Handler(Protocol):
    """Handles one message; whatever it raises is logged, and the message is done with."""

    def __call__(self, message: Message) -> None: ...


class Bus(Protocol):
    """What the relay and the consumers need; every broker's adapter passes the same tests."""

    def connect(self) -> kombu.Connection:
        """A connection of one's own, for whoever follows along."""

    def declare(self) -> None:
        """Makes the exchange and the work queues, where they are not there yet."""

    def publish(self, messages: Sequence[Message]) -> None:
        """Publishes events; returns when the broker has them."""

    def send(self, queue: str, message: Message) -> None:
        """Hands a message to one work queue."""

    def send_later(self, queue: str, message: Message, delay: float) -> None:
        """The same, `delay` seconds from now."""

    def wake(self) -> None:
        """Makes consumers of this process that wait for messages look around."""

    def close(self) -> None: ...


class Publisher:
    """A connection to publish on; safe to use from several threads."""

    def __init__(self, connect: Callable[[], kombu.Connection]) -> None:
        self._lock = threading.Lock()
        self._connection = connect()
        self._producer = kombu.Producer(self._connection.channel())

    def publish(self, exchange: str, routing_key: str, message: Message) -> None:
        with self._lock:
            self._producer.publish(
                message.body,
                exchange=exchange,
                routing_key=routing_key,
                content_type=CONTENT_TYPE,
                content_encoding="utf-8",
                delivery_mode=2,
                message_id=message.id,
                type=message.type,
                headers=message.headers,
            )

    def declare(self) -> None:
        with self._lock:
            channel = self._producer.channel
            EVENTS(channel).declare()
            for name in BINDINGS:
                work_queue(name)(channel).declare()

    def close(self) -> None:
        self._connection.release()


class Consumer:
    """Takes messages of a work queue: one thread receives, `concurrency` threads handle.

    The receiving thread is never busy with work, so it can answer the broker. A message
    is acknowledged when its handler is through.
    """

    def __init__(self, bus: Bus, queue_name: str, handle: Handler, concurrency: int) -> None:
        self._bus = bus
        self._queue_name = queue_name
        self._handle = handle
        self._concurrency = concurrency
        self._received: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._handled: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._stopping = threading.Event()
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
        deadline = time.monotonic() + timeout
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
        with self._bus.connect() as connection, connection.channel() as channel:
            consumer = kombu.Consumer(
                channel,
                queues=[work_queue(self._queue_name)],
                on_message=self._received.put,
                prefetch_count=self._concurrency,
            )
            with consumer:
                while not self._stopping.is_set():
                    with contextlib.suppress(TimeoutError):
                        connection.drain_events(timeout=1)
                    self._acknowledge()

    def _acknowledge(self) -> None:
        while True:
            try:
                self._handled.get_nowait().ack()
            except queue.Empty:
                return

    def _work(self) -> None:
        while (delivery := self._received.get()) is not None:
            message = Message(
                id=str(delivery.properties.get("message_id")),
                type=str(delivery.properties.get("type")),
                body=delivery.body,
                headers=dict(delivery.headers),
            )
            try:
                self._handle(message)
            except Exception:
                logger.exception("message %s of %s was not handled", message.id, self._queue_name)
            self._handled.put(delivery)
            self._bus.wake()
