"""The threads that answer requests: each task runs once, and none is lost without a word."""

from __future__ import annotations

import threading

from adapters.http.server.workers import Workers
from tests.support.waiting import eventually


class Gated:
    """A task that ends when it may."""

    def __init__(self, fails: bool = False) -> None:
        self.begun = threading.Event()
        self.gate = threading.Event()
        self.done = 0
        self.cancelled = 0
        self.fails = fails

    def service(self) -> None:
        self.begun.set()
        assert self.gate.wait(20)
        self.done += 1
        if self.fails:
            raise RuntimeError("a task that fails")

    def cancel(self) -> None:
        self.cancelled += 1


def test_as_many_tasks_run_as_there_are_threads() -> None:
    """The next one waits for its turn; one that fails costs no thread."""
    workers = Workers(2)
    tasks = [Gated(fails=True), Gated(fails=True), Gated()]
    for task in tasks:
        workers.add_task(task)
    assert all(task.begun.wait(20) for task in tasks[:2])
    assert not tasks[2].begun.is_set()
    for task in tasks:
        task.gate.set()
    eventually(lambda: [task.done for task in tasks] == [1, 1, 1])
    assert workers.shutdown()


def test_what_waits_at_the_end_is_cancelled() -> None:
    """What runs is waited for, up to the deadline; what has not begun does not begin."""
    workers = Workers(1)
    running, waiting = Gated(), Gated()
    workers.add_task(running)
    workers.add_task(waiting)
    assert running.begun.wait(20)
    workers.shutdown(timeout=0)
    assert (waiting.cancelled, running.cancelled) == (1, 0)
    running.gate.set()
    eventually(lambda: running.done)
    assert not waiting.begun.is_set()
