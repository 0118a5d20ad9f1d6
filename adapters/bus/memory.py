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
from collections.abc import Iterator, Sequence
from queue import Empty
from typing import Any

import kombu
from kombu.transport import memory
from kombu.transport.virtual import BrokerState

from adapters.bus.bus import BINDINGS, EVENTS, Broker, publish
from adapters.bus.messages import Message

logger = logging.getLogger("packtrail.bus")


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


def _transport_class(bells: _Bells) -> type[memory.Transport]:
    class Channel(memory.Channel):
        queues: dict[str, Any] = {}
        events: defaultdict[str, set[Any]] = defaultdict(set)

        def basic_consume(self, queue: str, *args: Any, **kwargs: Any) -> Any:
            consuming = super().basic_consume(queue, *args, **kwargs)
            bells.consumes(self.connection.bell, queue)
            return consuming

        def _put(self, queue: str, message: Any, **kwargs: Any) -> None:
            super()._put(queue, message, **kwargs)
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
            """Delivers one message; returns without one if woken since the last time."""
            missed = self.bell.count > self._seen
            self._seen = self.bell.count
            try:
                self.cycle.get(self._deliver, timeout=timeout)
            except Empty:
                if missed:
                    return
                if not self.bell.wait(self._seen, timeout):
                    raise TimeoutError from None
                self._seen = self.bell.count
                with contextlib.suppress(Empty):
                    self.cycle.get(self._deliver, timeout=timeout)

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
        self._producer = kombu.Producer(self._connection.channel())
        self._timers = _Timers(self.send)

    def connect(self) -> kombu.Connection:
        return kombu.Connection(
            transport=self._transport, transport_options={"body_encoding": None}
        )

    def declare(self) -> None:
        with self._lock:
            EVENTS(self._producer.channel).declare()
            for name in BINDINGS:
                self.queue(name)(self._producer.channel).declare()

    def queue(self, name: str) -> kombu.Queue:
        bindings = [kombu.binding(EVENTS, routing_key=key) for key in BINDINGS[name]]
        return kombu.Queue(name, bindings=bindings, durable=True)

    def publish(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self._publish(EVENTS.name, message.type, message)

    def send(self, queue: str, message: Message) -> None:
        self._publish("", queue, message)

    def send_later(self, queue: str, message: Message, delay: float) -> None:
        self._timers.add(time.monotonic() + delay, queue, message)

    def reply(self, queue: str, message: Message) -> None:
        self.send(queue, message)

    def park(self, message: Message) -> None:
        """Here nobody could look at it: the log tells what is unfinished."""
        logger.error("message %s (%s) is dropped: nobody can handle it", message.id, message.type)

    def waiting(self, queue: str) -> int:
        return int(self._producer.channel._size(queue))

    @contextlib.contextmanager
    def receiving(self, connection: kombu.Connection) -> Iterator[Broker]:
        yield _Receiver(connection)

    def wake(self) -> None:
        self._bells.ring_all()

    def close(self) -> None:
        self._timers.stop()
        self._connection.release()

    def _publish(self, exchange: str, routing_key: str, message: Message) -> None:
        with self._lock:
            publish(self._producer, exchange, routing_key, message)


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
