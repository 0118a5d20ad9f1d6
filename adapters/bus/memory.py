"""The bus inside one process: kombu's memory transport, which wakes its consumers at once.

kombu's own transport polls, and its queues belong to the whole process; here a consumer
waits on a condition, and each bus has queues of its own. They are gone with the process:
that is why the log, and not a queue, says what is unfinished.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from queue import Empty
from typing import Any

import kombu
from kombu.transport import memory
from kombu.transport.virtual import BrokerState

from adapters.bus.bus import BINDINGS, EVENTS, Broker
from adapters.bus.messages import CONTENT_TYPE, Message

logger = logging.getLogger("packtrail.bus")

MOST_ROUTES = 1_000  # that are remembered


class _Bell:
    """Counts reasons to look around that one connection has, and waits for the next one."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self.count = 0

    def ring(self) -> None:
        with self._condition:
            self.count += 1
            self._condition.notify_all()

    def wait(self, seen: int, timeout: float | None) -> bool:
        """Whether it rang after the `seen` first times, within `timeout` seconds."""
        with self._condition:
            return self._condition.wait_for(lambda: self.count > seen, timeout)


class _Bells:
    """Which connections there are, and who of them consumes a queue: only they are woken."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: frozenset[_Bell] = frozenset()
        self._of_queues: dict[str, frozenset[_Bell]] = {}

    def add(self, bell: _Bell) -> None:
        with self._lock:
            self._all |= {bell}

    def consumes(self, bell: _Bell, queue: str) -> None:
        with self._lock:
            self._of_queues[queue] = self._of_queues.get(queue, frozenset()) | {bell}

    def remove(self, bell: _Bell) -> None:
        with self._lock:
            self._all -= {bell}
            for queue, bells in self._of_queues.items():
                self._of_queues[queue] = bells - {bell}

    def ring(self, queue: str) -> None:
        for bell in self._of_queues.get(queue, ()):
            bell.ring()

    def ring_all(self) -> None:
        for bell in self._all:
            bell.ring()


class _Routes:
    """Which queues a message goes to, found out once: bindings change rarely."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], tuple[str, ...]] = {}

    def find(
        self, exchange: str, routing_key: str, look_up: Callable[[], Iterable[str]]
    ) -> tuple[str, ...]:
        found = self._found
        queues = found.get((exchange, routing_key))
        if queues is None:
            queues = tuple(look_up())
            if len(found) < MOST_ROUTES:
                found[exchange, routing_key] = queues
        return queues

    def forget(self) -> None:
        self._found = {}  # who is looking something up keeps it where nobody finds it


def _transport_class(bells: _Bells) -> type[memory.Transport]:
    class Channel(memory.Channel):
        queues: dict[str, Any] = {}
        events: defaultdict[str, set[Any]] = defaultdict(set)
        routes = _Routes()
        tags = itertools.count()

        def basic_consume(self, queue: str, *args: Any, **kwargs: Any) -> Any:
            consuming = super().basic_consume(queue, *args, **kwargs)
            bells.consumes(self.connection.bell, queue)
            return consuming

        def queue_bind(self, *args: Any, **kwargs: Any) -> None:
            super().queue_bind(*args, **kwargs)
            self.routes.forget()

        def queue_unbind(self, *args: Any, **kwargs: Any) -> None:
            super().queue_unbind(*args, **kwargs)
            self.routes.forget()

        def exchange_delete(self, *args: Any, **kwargs: Any) -> None:
            super().exchange_delete(*args, **kwargs)
            self.routes.forget()

        def routed(self, exchange: str, routing_key: str) -> tuple[str, ...]:
            """The queues that are bound to what a message is published with."""
            look_up = partial(self._lookup, exchange, routing_key)
            return self.routes.find(exchange, routing_key, look_up)

        def hand_in(self, queue: str, message: Any) -> None:
            """Puts a message into a queue, and wakes nobody."""
            super()._put(queue, message)

        def deliver_all(self) -> bool:
            """Delivers what waits, as much as may be in hand; whether there was anything."""
            delivered = False
            for queue in tuple(self._active_queues):
                for _ in range(self._size(queue)):
                    if not self.qos.can_consume():
                        break
                    try:
                        message = self._get(queue)
                    except Empty:
                        break
                    delivered = True
                    self.connection._deliver(message, queue)
            return delivered

        def _next_delivery_tag(self) -> int:
            return next(self.tags)

        def _put(self, queue: str, message: Any, **kwargs: Any) -> None:
            self.hand_in(queue, message)
            bells.ring(queue)

        def _restore(self, message: Any) -> None:
            super()._restore(message)
            bells.ring_all()

    class Transport(memory.Transport):
        global_state = BrokerState()

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.bell = _Bell()
            self._seen = 0  # how often it rang when whoever drains looked around
            bells.add(self.bell)

        def close_connection(self, connection: Any) -> None:
            bells.remove(self.bell)
            super().close_connection(connection)

        def drain_events(self, connection: Any, timeout: float | None = None) -> None:
            """Delivers what waits; returns without anything if woken since the last time."""
            seen = self.bell.count
            missed = seen > self._seen
            self._seen = seen
            if self._deliver_all() or missed:
                return
            if not self.bell.wait(seen, timeout):
                raise TimeoutError
            self._seen = self.bell.count
            self._deliver_all()

        def _deliver_all(self) -> bool:
            return any([channel.deliver_all() for channel in tuple(self.channels)])

    Transport.Channel = Channel
    return Transport


class _Receiver:
    def __init__(self, connection: kombu.Connection) -> None:
        self._connection = connection

    def wait(self, timeout: float) -> None:
        with contextlib.suppress(TimeoutError):
            self._connection.drain_events(timeout=timeout)

    def wake(self) -> None:
        self._connection.transport.bell.ring()


class MemoryBus:
    """A `Bus` (see `adapters.bus.bus`) for the threads of one process."""

    def __init__(self) -> None:
        self._bells = _Bells()
        self._transport = _transport_class(self._bells)
        self._connection = self.connect()
        self._lock = threading.Lock()  # kombu's channels are for one thread at a time
        self._channel = self._connection.channel()
        self._timers = _Timers(self.send)

    def connect(self) -> kombu.Connection:
        return kombu.Connection(
            transport=self._transport, transport_options={"body_encoding": None}
        )

    def declare(self) -> None:
        with self._lock:
            EVENTS(self._channel).declare()
            for name in BINDINGS:
                self.queue(name)(self._channel).declare()

    def queue(self, name: str) -> kombu.Queue:
        bindings = [kombu.binding(EVENTS, routing_key=key) for key in BINDINGS[name]]
        return kombu.Queue(name, bindings=bindings, durable=True)

    def is_heard(self, kind: str, settled: bool = False) -> bool:
        with self._lock:
            return bool(self._hearing(kind, settled))

    def publish(self, messages: Sequence[Message]) -> None:
        told: set[str] = set()
        with self._lock:
            for message in messages:
                queues = self._hearing(message.type, message.settled)
                self._hand_in(queues, EVENTS.name, message.type, message)
                told.update(queues)
        for queue in told:
            self._bells.ring(queue)

    def send(self, queue: str, message: Message) -> None:
        with self._lock:
            self._hand_in((queue,), "", queue, message)
        self._bells.ring(queue)

    def send_later(self, queue: str, message: Message, delay: float) -> None:
        self._timers.add(time.monotonic() + delay, queue, message)

    def reply(self, queue: str, message: Message) -> None:
        self.send(queue, message)

    def park(self, message: Message) -> None:
        """Here nobody could look at it: the log tells what is unfinished."""
        logger.error("message %s (%s) is dropped: nobody can handle it", message.id, message.type)

    def waiting(self, queue: str) -> int:
        return int(self._channel._size(queue))

    @contextlib.contextmanager
    def receiving(self, connection: kombu.Connection) -> Iterator[Broker]:
        yield _Receiver(connection)

    def wake(self) -> None:
        self._bells.ring_all()

    def close(self) -> None:
        self._timers.stop()
        self._connection.release()

    def _hearing(self, kind: str, settled: bool) -> Sequence[str]:
        """The queues that get events of a type."""
        queues: Sequence[str] = self._channel.routed(EVENTS.name, kind)
        return [queue for queue in queues if queue not in BINDINGS] if settled else queues

    def _hand_in(
        self, queues: Sequence[str], exchange: str, routing_key: str, message: Message
    ) -> None:
        """Puts a message, as kombu has one, into queues."""
        if not queues:
            return
        delivered = {
            "body": message.body,
            "content-type": CONTENT_TYPE,
            "content-encoding": "utf-8",
            "headers": message.headers,
            "properties": {
                "body_encoding": None,
                "correlation_id": message.correlation_id,
                "delivery_info": {"exchange": exchange, "routing_key": routing_key},
                "delivery_mode": 2,
                "delivery_tag": self._channel._next_delivery_tag(),
                "message_id": message.id,
                "priority": 0,
                "reply_to": message.reply_to,
                "type": message.type,
            },
        }
        for queue in queues:
            self._channel.hand_in(queue, delivered)


class _Timers:
    """Sends messages when they are due, from one thread."""

    def __init__(self, send: Any) -> None:
        self._send = send
        self._due: list[tuple[float, int, str, Message]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="bus-timers", daemon=True)
        self._thread.start()

    def add(self, due: float, queue: str, message: Message) -> None:
        with self._changed:
            heapq.heappush(self._due, (due, next(self._numbers), queue, message))
            self._changed.notify()

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._stopping and (not self._due or self._due[0][0] > time.monotonic()):
                    left = self._due[0][0] - time.monotonic() if self._due else None
                    self._changed.wait(left)
                if self._stopping:
                    return
                _, _, queue, message = heapq.heappop(self._due)
            try:
                self._send(queue, message)
            except Exception:
                logger.exception("a delayed message is lost; the log knows what is unfinished")
