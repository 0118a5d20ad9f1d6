"""How fast the read model of packages is built anew, and what memory that takes.

Logs of 100,000 and of 1,000,000 events; each build is by a process of its own, as `packtrail
replay` is one, and is timed until the new read model is in its place. On PostgreSQL, the library's
own `ProjectionRunner` keeps the same rows of a part of the same events, in the same run, by a
process of its own, too.

Run by `make bench`, or `.venv/bin/python -m benchmarks.rebuild [EVENTS]`.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from adapters.postgres import EVENTS_CHANNEL, MAINTENANCE_PATIENCE, PROJECTED_CHANNEL, Listener
from adapters.store import Store, open_postgres, open_sqlite
from benchmarks.librarys_runner import copy_log, seconds_of_runner
from benchmarks.logs import write_log
from benchmarks.report import Figure, at_least, at_most, report
from entrypoints.replay import spend_less
from tests.support.memory import MIB, anonymous_memory
from tests.support.postgres import PostgresServer

EVENTS = 1_000_000
OF_RUNNER = 10_000  # events, as many as it takes to see its rate
ROUNDS = 3
LEAST = {"SQLite": 100_000.0, "PostgreSQL": 50_000.0}  # events a second
MOST_MEMORY = 200.0  # MiB
TIMES_THE_RUNNER = 20  # as many events a second, at least


@contextmanager
def opened(where: str) -> Iterator[Store]:
    """The store in a file, or behind a URL."""
    with ExitStack() as stack:
        if where.startswith("postgresql:"):
            listener = Listener(where, (EVENTS_CHANNEL, PROJECTED_CHANNEL))
            stack.callback(listener.close)
            store = open_postgres(where, listener, MAINTENANCE_PATIENCE, 4)
        else:
            store = open_sqlite(Path(where))
        stack.callback(store.close)
        yield store


def build(where: str) -> float:
    """Seconds until the read model of packages, built anew, is in its place."""
    with opened(where) as store:
        spend_less()
        start = last = time.perf_counter()

        def progress(position: int) -> None:
            nonlocal last
            last = time.perf_counter()

        store.builder().build(["packages"], progress)
        return last - start


def in_a_process(*arguments: str) -> tuple[float, float]:
    """What a process of this module says, and the most anonymous memory that it had, in MiB."""
    command = [sys.executable, "-m", "benchmarks.rebuild", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        most = 0
        while child.poll() is None:
            with suppress(AssertionError):  # has none any more: it ends just now
                most = max(most, anonymous_memory(child.pid))
            time.sleep(0.01)
        assert child.stdout is not None
        said = child.stdout.read()
        assert child.returncode == 0, f"{command} ended with {child.returncode}"
    return float(said), most / MIB


def built(engine: str, where: str, events: int) -> tuple[list[float], list[float]]:
    """The rate of each round, in events a second, and the most memory of each, in MiB."""
    rounds = [in_a_process("build", where) for _ in range(ROUNDS)]
    rates = [events / seconds for seconds, _ in rounds]
    print(f"{engine}, {events} events: {statistics.median(rates):.0f}/s", file=sys.stderr)
    return rates, [memory for _, memory in rounds]


def compare(engine: str, wheres: dict[int, str]) -> list[Figure]:
    figures = []
    found = {events: built(engine, where, events) for events, where in wheres.items()}
    for events, (rates, memory) in found.items():
        what = f"{engine}: {events} events"
        figures += [
            Figure.of_rounds(what, rates, "wanted", [LEAST[engine]], "/s", at_least(1)),
            Figure(f"{what}, memory", max(memory), "allowed", MOST_MEMORY, "MiB", ROUNDS,
                   at_most(1), tuple(memory)),
        ]  # fmt: skip
    (few, (_, less)), (many, (_, more)) = found.items()
    figures.append(
        Figure(f"{engine}: memory of {many} events", max(more), f"of {few} events", max(less),
               "MiB", ROUNDS, None, tuple(more), tuple(less))
    )  # fmt: skip
    return figures


def beside_the_runner(url: str, events: int) -> Figure:
    """Both on PostgreSQL, in turns: the machine is noisy."""
    part = copy_log(url, min(events, OF_RUNNER))
    ours, theirs = [], []
    for _ in range(ROUNDS):
        seconds, _ = in_a_process("build", url)
        ours.append(events / seconds)
        seconds, _ = in_a_process("runner", url, str(part))
        theirs.append(part / seconds)
    return Figure.of_rounds(
        f"PostgreSQL: {events} events",
        ours,
        f"ProjectionRunner, {part} events",
        theirs,
        "/s",
        at_least(TIMES_THE_RUNNER),
    )


def filled(where: str, events: int) -> str:
    with opened(where) as store:
        write_log(store, events)
    return where


def main() -> None:
    match sys.argv[1:]:
        case ["build", where]:
            print(build(where))
        case ["runner", url, events]:
            spend_less()  # as ours does
            print(seconds_of_runner(url, int(events)))
        case []:
            measure(EVENTS)
        case [events]:
            measure(int(events))


def measure(events: int) -> None:
    sizes = (events // 10, events)
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as name:
        wheres = {size: filled(f"{name}/{size}/packtrail.db", size) for size in sizes}
        figures = compare("SQLite", wheres)
    server = PostgresServer()
    try:
        server.start()
        wheres = {size: filled(server.new_database(), size) for size in sizes}
        figures += compare("PostgreSQL", wheres)
        figures.append(beside_the_runner(wheres[events], events))
    finally:
        server.stop()
    report("rebuild", figures)


if __name__ == "__main__":
    main()
