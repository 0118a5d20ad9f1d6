"""The threads that answer requests, and the queue that they take them from."""

from __future__ import annotations

import logging
import threading
import time
from queue import Empty, SimpleQueue
from typing import Protocol

logger = logging.getLogger("packtrail.http")


class Work(Protocol):
    def service(self) -> None: ...

    def cancel(self) -> None: ...


class Workers:
    """waitress's dispatcher of tasks, on a queue that wakes one thread by one system call."""

    def __init__(self, count: int) -> None:
        self._queue: SimpleQueue[Work | None] = SimpleQueue()
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._work, name=f"http-{number}", daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def add_task(self, task: Work) -> None:
        self._queue.put(task)

    def shutdown(self, cancel_pending: bool = True, timeout: float = 5) -> bool:
        """Lets threads end what they do, for `timeout` seconds; whether what waits is cancelled."""
        self._stopping = True
        for _ in self._threads:
            self._queue.put(None)
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        running = sum(thread.is_alive() for thread in self._threads)
        if running:
            logger.warning("%d worker threads still run", running)
        if cancel_pending:
            self._cancel()
        return cancel_pending

    def _work(self) -> None:
        while True:
            task = self._queue.get()
            if task is None or self._stopping:
                self._queue.put(task)  # it is cancelled, or for the next thread
                return
            try:
                task.service()
            except BaseException:
                logger.exception("a task failed: %r", task)

    def _cancel(self) -> None:
        try:
            while True:
                task = self._queue.get_nowait()
                if task is not None:
                    task.cancel()
        except Empty:
            pass
