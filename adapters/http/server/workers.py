"""The threads that answer requests."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import Protocol

logger = logging.getLogger("packtrail.http")


class Work(Protocol):
    def service(self) -> None: ...

    def cancel(self) -> None: ...


class Workers:
    """waitress's dispatcher of tasks, which wakes one thread for a task, and no other.

    It is the one that became idle last: what it needs is still in a processor's caches.
    """

    def __init__(self, count: int) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[Work] = deque()
        self._idle: list[_Worker] = []
        self._stopping = False
        self._workers = [_Worker(self, number) for number in range(count)]
        for worker in self._workers:
            worker.start()

    def add_task(self, task: Work) -> None:
        with self._lock:
            if not self._idle:
                self._waiting.append(task)
                return
            worker = self._idle.pop()
        worker.wake(task)

    def next_for(self, worker: _Worker) -> Work | None:
        """The task that waits for longest; without one the worker is idle, and is handed one."""
        with self._lock:
            if self._waiting and not self._stopping:
                return self._waiting.popleft()
            if self._stopping:
                worker.wake(None)
            else:
                self._idle.append(worker)
            return None

    def shutdown(self, cancel_pending: bool = True, timeout: float = 5) -> bool:
        """Lets threads end what they do, for `timeout` seconds; whether what waits is cancelled."""
        deadline = time.monotonic() + timeout
        with self._lock:
            self._stopping = True
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.wake(None)
        for worker in self._workers:
            worker.join(max(0.0, deadline - time.monotonic()))
        running = sum(worker.is_alive() for worker in self._workers)
        if running:
            logger.warning("%d worker threads still run", running)
        if cancel_pending:
            with self._lock:
                pending = list(self._waiting)
                self._waiting.clear()
            for task in pending:
                task.cancel()
        return cancel_pending


class _Worker(threading.Thread):
    def __init__(self, workers: Workers, number: int) -> None:
        super().__init__(name=f"http-{number}", daemon=True)
        self._workers = workers
        self._handed: Work | None = None  # what it is woken for, or to end
        self._asleep = threading.Lock()  # held but for the moment in which it is woken
        self._asleep.acquire()

    def wake(self, task: Work | None) -> None:
        """Lets an idle worker do a task, or end."""
        self._handed = task
        self._asleep.release()

    def run(self) -> None:
        while True:
            task = self._workers.next_for(self)
            if task is None:
                self._asleep.acquire()
                task, self._handed = self._handed, None
                if task is None:
                    return
            try:
                task.service()
            except BaseException:
                logger.exception("a task failed: %r", task)
