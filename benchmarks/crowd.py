"""Client processes that begin the same thing at the same moment."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection as Pipe
from typing import Any, Self

PATIENCE = 600.0  # seconds that a job may take

_processes = get_context("spawn")

# Prepares, yields once, and does then what the clock is for; what it returns is handed back.
# It has to be picklable: a function of a module, or a partial of one.
Job = Callable[[], Generator[None, None, Any]]


@dataclass(frozen=True)
class Done:
    """When a client began and ended, by the clock that all processes share, and what came of it."""

    began: float
    ended: float
    processor: float  # seconds that the client itself has used
    result: Any

    @property
    def seconds(self) -> float:
        return self.ended - self.began


class Failed(Exception):
    """A client could not do its job; the text is its traceback."""


class Crowd:
    """So many clients, each a process of its own, that stay for many rounds."""

    def __init__(self, count: int) -> None:
        self._pipes: list[Pipe[Any, Any]] = []
        self._clients = []
        for _ in range(count):
            ours, theirs = _processes.Pipe()
            client = _processes.Process(target=_work, args=(theirs,), daemon=True)
            client.start()
            theirs.close()
            self._pipes.append(ours)
            self._clients.append(client)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for pipe in self._pipes:
            pipe.close()  # which ends its client
        for client in self._clients:
            client.join(PATIENCE)

    def run(self, jobs: Sequence[Job]) -> list[Done]:
        """One job for each of the first clients; all have prepared before any begins."""
        pipes = self._pipes[: len(jobs)]
        assert len(pipes) == len(jobs), f"{len(jobs)} jobs for {len(pipes)} clients"
        for pipe, job in zip(pipes, jobs, strict=True):
            pipe.send(job)
        for pipe in pipes:
            _received(pipe)
        for pipe in pipes:
            pipe.send(None)
        return [_received(pipe) for pipe in pipes]


def seconds_of_all(done: Sequence[Done]) -> float:
    """From the first one's beginning to the last one's end."""
    return max(one.ended for one in done) - min(one.began for one in done)


def _received(pipe: Pipe[Any, Any]) -> Any:
    if not pipe.poll(PATIENCE):
        raise Failed(f"a client says nothing for {PATIENCE} s")
    said = pipe.recv()
    if isinstance(said, str):
        raise Failed(said)
    return said


def _work(pipe: Pipe[Any, Any]) -> None:
    while True:
        try:
            job: Job = pipe.recv()
        except EOFError:
            return
        try:
            _do(job(), pipe)
        except Exception:  # noqa: BLE001 - whoever runs the crowd raises it
            pipe.send(traceback.format_exc())


def _do(steps: Generator[None, None, Any], pipe: Pipe[Any, Any]) -> None:
    next(steps)
    pipe.send(None)
    pipe.recv()
    processor, began = time.process_time(), time.monotonic()
    try:
        next(steps)
    except StopIteration as stop:
        ended = time.monotonic()
        pipe.send(Done(began, ended, time.process_time() - processor, stop.value))
    else:
        raise AssertionError("a job yields once")
