"""How fast `packtrail verify` is, what it holds, and whether it misses anything.

The command itself is run, in a process of its own, on a log of a million events; then a
thousand random bits are flipped in it behind its back, over all columns and at once, and one
run has to name every event that has one, and no other.

Run by `make bench`, or `.venv/bin/python -m benchmarks.verify`.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from adapters.postgres import EVENTS_CHANNEL, MAINTENANCE_PATIENCE, PROJECTED_CHANNEL, Listener
from adapters.store import open_postgres, open_sqlite
from benchmarks.logs import write_log
from benchmarks.report import Figure, report
from tests.support.memory import MIB, anonymous_memory
from tests.support.postgres import PostgresServer
from tests.support.proof import Desk, Saboteur
from tests.support.service import ROOT

EVENTS, FEW = 1_000_000, 100_000
FLIPS = 1000
ROUNDS = 3
BOUND = 100_000  # events a second
SEED = 20_26


def verify(desk: Desk) -> tuple[list[dict[str, Any]], dict[str, Any], float]:
    """Runs the command: its findings, its summary, and its anonymous memory at most, in MiB."""
    environment = os.environ | {
        "PACKTRAIL_DATA_DIR": str(desk.data_dir),
        "PACKTRAIL_EVENT_STORE": desk.url,
    }
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "entrypoints", "verify", "--json"],
            cwd=ROOT, env=environment, stdout=out, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        most = 0
        while process.poll() is None:
            with contextlib.suppress(AssertionError, OSError):  # it has just ended
                most = max(most, anonymous_memory(process.pid))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.02)
        out.seek(0)
        *findings, last = [json.loads(line) for line in out]
    return findings, last["summary"], most / MIB


@contextmanager
def sqlite_desk(folder: Path, events: int) -> Iterator[Desk]:
    path = folder / f"{events}.db"
    with closing(open_sqlite(path)) as store:
        write_log(store, events)
        yield Desk(store, f"sqlite:///{path}", folder)


@contextmanager
def postgres_desk(server: PostgresServer, folder: Path, events: int) -> Iterator[Desk]:
    url = server.new_database()
    with ExitStack() as stack:
        listener = Listener(url, (EVENTS_CHANNEL, PROJECTED_CHANNEL))
        stack.callback(listener.close)
        store = open_postgres(url, listener, MAINTENANCE_PATIENCE, 4)
        stack.callback(store.close)
        write_log(store, events)
        yield Desk(store, url, folder)


def rate(desk: Desk) -> tuple[float, float]:
    """Events a second, the median of some rounds, and MiB of memory at most."""
    rates, memory = [], []
    for _ in range(ROUNDS):
        findings, summary, peak = verify(desk)
        assert not findings, findings[:3]
        rates.append(summary["checked"]["events"] / summary["seconds"])
        memory.append(peak)
    return statistics.median(rates), max(memory)


def named_of(desk: Desk) -> tuple[int, float]:
    """How many of the flipped bits one run names, and its seconds. Nothing else may be named."""
    broken = Saboteur(desk, SEED).flip(FLIPS)
    findings, summary, _ = verify(desk)
    named = {f["position"] for f in findings if f["check"] in ("chain", "times", "events")}
    assert named == broken, (sorted(broken - named)[:5], sorted(named - broken)[:5])
    return len(named), summary["seconds"]


def measure(engine: str, few: Desk, many: Desk) -> Iterator[Figure]:
    _, less = rate(few)
    speed, more = rate(many)
    yield Figure(f"{engine}: rate of verify", speed, "our bound", BOUND, "1/s", ROUNDS)
    yield Figure(
        f"{engine}: anonymous memory, {EVENTS} events", more, f"with {FEW} events", less,
        "MiB", ROUNDS,
    )  # fmt: skip
    named, seconds = named_of(many)
    yield Figure(f"{engine}: flipped bits that are named", named, "bits flipped", FLIPS, "", 1)
    yield Figure(
        f"{engine}: verify of the broken log", EVENTS / seconds, "of the whole one", speed,
        "1/s", 1,
    )  # fmt: skip


def main() -> None:
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as name:
        folder = Path(name)
        with sqlite_desk(folder, FEW) as few, sqlite_desk(folder, EVENTS) as many:
            figures += measure("SQLite", few, many)
        server = PostgresServer()
        try:
            server.start()
            with (
                postgres_desk(server, folder, FEW) as few,
                postgres_desk(server, folder, EVENTS) as many,
            ):
                figures += measure("PostgreSQL", few, many)
        finally:
            server.stop()
    report("verify", figures)


if __name__ == "__main__":
    main()
