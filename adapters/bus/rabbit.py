"""The bus on RabbitMQ: what is published is confirmed, and what breaks is connected again.

Queues are quorum queues: they live on several nodes of a cluster. A message that is to come
later waits in a queue for its delay: in a single one, short delays would wait behind long ones.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import amqp
import kombu
from kombu.transport import pyamqp

from adapters.bus.bus import BINDINGS, COMMANDS, EVENTS, Broker, BrokerAway, publish
from adapters.bus.messages import Message

logger = logging.getLogger("packtrail.bus")

CONNECT_TIMEOUT = 2.0  # seconds
CONFIRM_TIMEOUT = 10.0  # seconds without any confirm until the connection is given up
HEARTBEAT = 10  # seconds
DELAYS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)  # seconds, a queue for each
COMMAND_DELIVERY_LIMIT = 20  # times; who has no answer sends the command again
DELIVERY_LIMIT = 100  # times a message is handed out by the broker before it is parked

PARKED = kombu.Exchange("packtrail.parked", type="fanout", durable=True)
PARKED_QUEUE = kombu.Queue(
    "packtrail.parked", PARKED, durable=True, queue_arguments={"x-queue-type": "quorum"}
)


def work_queue(name: str) -> kombu.Queue:
    """A queue of work; what can't be handled is parked by the broker.

    Not so commands: their headers hold tokens, which must go first. They are handled in
    order, by one consumer at a time.
    """
    if name == COMMANDS:
        return kombu.Queue(
            name,
            # so that a sender may be let at this exchange alone, and not at every queue
            kombu.Exchange(COMMANDS, type="fanout", durable=True),
            durable=True,
            queue_arguments={
                "x-queue-type": "quorum",
                "x-single-active-consumer": True,
                # what the client library can't even take apart is dropped, at last
                "x-delivery-limit": COMMAND_DELIVERY_LIMIT,
            },
        )
    return kombu.Queue(
        name,
        bindings=[kombu.binding(EVENTS, routing_key=key) for key in BINDINGS[name]],
        durable=True,
        queue_arguments={
            "x-queue-type": "quorum",
            "x-dead-letter-exchange": PARKED.name,
            "x-delivery-limit": DELIVERY_LIMIT,
        },
    )


def delay_exchange(delay: float) -> kombu.Exchange:
    return kombu.Exchange(f"packtrail.delay.{int(delay * 1000)}", type="fanout", durable=True)


def delay_queue(delay: float) -> kombu.Queue:
    """Keeps messages for `delay` seconds, and sends them on to the queue that their key names."""
    exchange = delay_exchange(delay)
    return kombu.Queue(
        exchange.name,
        exchange,
        durable=True,
        queue_arguments={
            "x-queue-type": "quorum",
            "x-message-ttl": int(delay * 1000),
            "x-dead-letter-exchange": "",
        },
    )


class _Message(pyamqp.Message):
    """A message whose body is as it was sent: who sends it does not tell us to unpack it."""

    def __init__(self, msg: Any, channel: Any = None, **kwargs: Any) -> None:
        (msg.properties.get("application_headers") or {}).pop("compression", None)
        super().__init__(msg, channel, **kwargs)


class _Channel(pyamqp.Channel):
    Message = _Message


class _Connection(pyamqp.Connection):
    Channel = _Channel


class _Transport(pyamqp.Transport):
    Connection = _Connection


class RabbitBus:
    """A `Bus` (see `adapters.bus.bus`) for processes on several machines. Connects when needed."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._events = _ConfirmedPublisher(self)
        self._work = _ConfirmedPublisher(self)
        self._replies = _ConfirmedPublisher(self, confirmed=False)
        self._wakers: dict[int, _Waker] = {}

    def connect(self) -> kombu.Connection:
        url = urlsplit(self._url)
        # the transport would not see to it: it is ours; the certificate must have this name
        encrypted = {"server_hostname": url.hostname} if url.scheme == "amqps" else False
        connection = kombu.Connection(
            self._url,
            ssl=encrypted,
            heartbeat=HEARTBEAT,
            connect_timeout=CONNECT_TIMEOUT,
            transport_options={
                "read_timeout": CONFIRM_TIMEOUT,
                "write_timeout": CONFIRM_TIMEOUT,
                "client_properties": {"connection_name": "packtrail"},
            },
        )
        connection.transport_cls = _Transport
        with errors_as_away():
            connection.connect()
        return connection

    def queue(self, name: str) -> kombu.Queue:
        return work_queue(name)

    def declare(self) -> None:
        with errors_as_away(), self.connect() as connection:
            declare(connection.channel())

    def is_heard(self, kind: str, settled: bool = False) -> bool:
        """The broker knows, and does not say."""
        return True

    def publish(self, messages: Sequence[Message]) -> None:
        self._events.publish([(EVENTS.name, message.type, message) for message in messages])

    def send(self, queue: str, message: Message) -> None:
        self._work.publish([("", queue, message)])

    def send_later(self, queue: str, message: Message, delay: float) -> None:
        step = next((step for step in DELAYS if step >= delay), DELAYS[-1])
        self._work.publish([(delay_exchange(step).name, queue, message)])

    def reply(self, queue: str, message: Message) -> None:
        self._replies.publish([("", queue, message)])

    def park(self, message: Message) -> None:
        self._work.publish([(PARKED.name, "", message)])

    def waiting(self, queue: str) -> int:
        with errors_as_away(), self.connect() as connection:
            try:
                return int(work_queue(queue)(connection.channel()).queue_declare(passive=True)[1])
            except amqp.NotFound:  # nobody of this version has sent anything yet, or received
                return 0

    @contextlib.contextmanager
    def receiving(self, connection: kombu.Connection) -> Iterator[Broker]:
        waker = _Waker(connection)
        self._wakers[id(waker)] = waker
        try:
            yield waker
        finally:
            del self._wakers[id(waker)]
            waker.close()

    def wake(self) -> None:
        for waker in list(self._wakers.values()):
            waker.wake()

    def close(self) -> None:
        self._events.close()
        self._work.close()
        self._replies.close()


@contextlib.contextmanager
def errors_as_away() -> Iterator[None]:
    """Whatever a connection breaks with is told as `BrokerAway`."""
    try:
        yield
    except BrokerAway:
        raise
    except amqp.PreconditionFailed as error:
        if "inequivalent" not in str(error):
            raise BrokerAway(str(error)) from error
        raise BrokerAway(
            f"an exchange or queue is there with other arguments than this program's; "
            f"the newest program's count: upgrade this one ({error})"
        ) from error
    except (amqp.AMQPError, kombu.exceptions.KombuError, OSError) as error:
        raise BrokerAway(f"{type(error).__name__}: {error}") from error


def declare(channel: Any) -> None:
    """Makes exchanges and queues that are not there yet."""
    EVENTS(channel).declare()
    PARKED_QUEUE(channel).declare()
    for name in BINDINGS:
        work_queue(name)(channel).declare()
    for delay in DELAYS:
        delay_queue(delay)(channel).declare()


class _Waker:
    """Waits for the broker and for wake-ups at once, and answers the broker's heartbeats."""

    def __init__(self, connection: kombu.Connection) -> None:
        self._connection = connection
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._lock = threading.Lock()
        self._closed = False

    def wait(self, timeout: float) -> None:
        with errors_as_away():
            while self._deliver():
                pass
            waiting = select.poll()  # select can't look at descriptors above 1023
            for end in (self._connection.connection.sock.fileno(), self._read):
                waiting.register(end, select.POLLIN)
            waiting.poll(min(timeout, HEARTBEAT / 4) * 1000)
            with contextlib.suppress(BlockingIOError):
                os.read(self._read, 4096)
            self._connection.heartbeat_check()

    def _deliver(self) -> bool:
        try:
            self._connection.drain_events(timeout=0.001)
        except TimeoutError:
            return False
        return True

    def wake(self) -> None:
        with self._lock, contextlib.suppress(BlockingIOError):
            if not self._closed:
                os.write(self._write, b"!")

    def close(self) -> None:
        with self._lock:
            self._closed = True
            os.close(self._read)
            os.close(self._write)


class _ConfirmedPublisher:
    """Publishes on a connection of its own; safe to use from several threads.

    Messages are sent one after the other without waiting; then all confirms are waited for,
    unless it is not `confirmed`.
    """

    def __init__(self, bus: RabbitBus, confirmed: bool = True) -> None:
        self._bus = bus
        self._confirmed = confirmed
        self._lock = threading.Lock()
        self._connection: kombu.Connection | None = None
        self._producer: kombu.Producer | None = None
        self._sent = 0
        self._unconfirmed: set[int] = set()
        self._refused = False

    def publish(self, messages: Sequence[tuple[str, str, Message]]) -> None:
        """Exchange, routing key and message of each. Raises `BrokerAway`.

        A connection that had nothing to do may have been closed by the broker since: what
        fails on it is tried once more on a new one.
        """
        with self._lock:
            was_connected = self._producer is not None
            try:
                self._publish(messages)
            except BrokerAway:
                if not was_connected:
                    raise
                self._publish(messages)

    def _publish(self, messages: Sequence[tuple[str, str, Message]]) -> None:
        try:
            with errors_as_away():
                self._send(messages)
                self._wait_for_confirms()
        except BaseException:
            self._drop()
            raise

    def _send(self, messages: Sequence[tuple[str, str, Message]]) -> None:
        if self._producer is None:
            self._connect()
        assert self._producer is not None
        for exchange, routing_key, message in messages:
            if self._confirmed:
                self._sent += 1
                self._unconfirmed.add(self._sent)
            publish(self._producer, exchange, routing_key, message)

    def _wait_for_confirms(self) -> None:
        assert self._connection is not None
        deadline = time.monotonic() + CONFIRM_TIMEOUT
        while self._unconfirmed:
            before = len(self._unconfirmed)
            left = deadline - time.monotonic()
            if left <= 0:
                raise BrokerAway(f"{before} messages were not confirmed in {CONFIRM_TIMEOUT} s")
            with contextlib.suppress(TimeoutError):
                self._connection.drain_events(timeout=left)
            if self._refused:
                raise BrokerAway("the broker has refused a message")
            if len(self._unconfirmed) < before:
                deadline = time.monotonic() + CONFIRM_TIMEOUT

    def _connect(self) -> None:
        self._connection = self._bus.connect()
        channel = self._connection.channel()
        declare(channel)
        if self._confirmed:
            channel.confirm_select()
        channel.events["basic_ack"].add(self._on_ack)
        channel.events["basic_nack"].add(self._on_nack)
        self._sent, self._refused = 0, False
        self._unconfirmed.clear()
        self._producer = kombu.Producer(channel)

    def _on_ack(self, tag: int, multiple: bool) -> None:
        if multiple:
            self._unconfirmed = {sent for sent in self._unconfirmed if sent > tag}
        else:
            self._unconfirmed.discard(tag)

    def _on_nack(self, tag: int, multiple: bool) -> None:
        self._refused = True

    def _drop(self) -> None:
        connection, self._connection, self._producer = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.collect()

    def close(self) -> None:
        with self._lock:
            self._drop()
