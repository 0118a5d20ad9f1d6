"""Which of the machine's cores the threads of this process run on.

One interpreter runs one thread at a time. Threads on several cores take it from each other at
every system call, and each time another core is woken: that can cost as much as the work itself.
So a process of many threads that each compute a little does better on one core. What computes
long without the interpreter, as hashing does, uses all of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Set
from contextlib import contextmanager, suppress
from pathlib import Path

_PROCESSOR = 36  # of the fields behind the name (proc(5): `processor`)

ALL = frozenset(os.sched_getaffinity(0))  # that this process was given


def stay_on_one() -> None:
    """Keeps this thread, and those that it starts, on the core that it runs on."""
    with suppress(OSError):
        behind_name = Path("/proc/thread-self/stat").read_text().rpartition(")")[2]
        _run_on({int(behind_name.split()[_PROCESSOR])})


def use_all() -> None:
    """Lets this thread, and what it starts, run on any core again."""
    _run_on(ALL)


@contextmanager
def on_all_cores() -> Iterator[None]:
    """While entered, this thread, and what it starts meanwhile, may run on any core."""
    before = os.sched_getaffinity(0)
    use_all()
    try:
        yield
    finally:
        _run_on(before)


def _run_on(cores: Set[int]) -> None:
    # a sandbox may forbid it, and cores can be taken away since: that is slower, and no failure
    with suppress(OSError):
        os.sched_setaffinity(0, cores)
