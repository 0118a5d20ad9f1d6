"""A process: the parts that it runs, started and stopped in order."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from adapters.bus.bus import Consumer
from adapters.http.server.server import Server
from adapters.leadership import Part


@dataclass(frozen=True)
class Process:
    """What one process runs: its parts, started in order, and perhaps a server."""

    parts: list[Part]
    closers: list[Callable[[], None]]
    server: Server | None = None
    first: Callable[[], None] = lambda: None

    def start(self) -> None:
        self.first()
        for part in self.parts:
            part.start()
        gc.freeze()  # to look through all that was loaded until now held up every thread for 30 ms

    def stop(self, timeout: float) -> bool:
        """Stops the parts, the last first; whether work was finished within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        finished = [
            part.stop(max(0.1, deadline - time.monotonic())) for part in reversed(self.parts)
        ]
        for close in self.closers:
            close()
        return all(finished)


class Consumers:
    """All consumers of a process as one part: they stop at the same time."""

    def __init__(self, consumers: list[Consumer]) -> None:
        self._consumers = consumers

    def start(self) -> None:
        for consumer in self._consumers:
            consumer.start()

    def stop(self, timeout: float | None = None) -> bool:
        finished: list[bool] = []

        def stop(consumer: Consumer) -> None:
            finished.append(consumer.stop(30.0 if timeout is None else timeout))

        stopping = [threading.Thread(target=stop, args=(c,)) for c in self._consumers]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()
        return all(finished)


class Both:
    """Two parts that run or stand by together."""

    def __init__(self, *parts: Part) -> None:
        self._parts = parts

    def start(self) -> None:
        for part in self._parts:
            part.start()

    def stop(self, timeout: float | None = None) -> bool:
        return all([part.stop(timeout) for part in reversed(self._parts)])
