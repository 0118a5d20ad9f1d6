"""The cores that threads of a process run on."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Set

import pytest

from adapters.cores import ALL, on_all_cores, stay_on_one, use_all


def cores_after(*steps: Callable[[], None]) -> tuple[set[int], set[int]]:
    """Those of a thread that takes the steps, and of a thread that it starts then."""
    found: list[set[int]] = []

    def look() -> None:
        found.append(os.sched_getaffinity(0))

    def run() -> None:
        for step in steps:
            step()
        look()
        child = threading.Thread(target=look)
        child.start()
        child.join()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found[0], found[1]


def test_a_thread_stays_on_one_core_and_what_it_starts_does_too() -> None:
    """One of those that the process was given."""
    own, its_childs = cores_after(stay_on_one)
    assert len(own) == 1 and own <= ALL
    assert its_childs == own


def test_a_thread_that_computes_has_all_cores_again() -> None:
    """Whoever has started it; what it starts has them, too."""
    assert cores_after(stay_on_one, use_all) == (set(ALL), set(ALL))
    assert os.sched_getaffinity(0) == set(ALL)


def test_a_thread_computes_for_a_while() -> None:
    """On all cores, and on its own again behind that."""
    found: list[set[int]] = []

    def run() -> None:
        stay_on_one()
        found.append(os.sched_getaffinity(0))
        with on_all_cores():
            found.append(os.sched_getaffinity(0))
        found.append(os.sched_getaffinity(0))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    one, all_, again = found
    assert (all_, again, len(one)) == (set(ALL), one, 1)


def test_threads_run_where_they_may_if_no_core_can_be_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in a sandbox: it must end neither the start of the service nor a thread of its."""

    def refuse(thread: int, cores: Set[int]) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    assert cores_after(stay_on_one, use_all) == (set(ALL), set(ALL))
