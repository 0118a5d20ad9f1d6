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
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.postgres import EVENTS_CHANNEL, MAINTENANCE_PATIENCE, PROJECTED_CHANNEL, Listener
from adapters.store import open_postgres, open_sqlite
from benchmarks.logs import write_log
from benchmarks.report import Figure, at_least, report
from tests.support.memory import MIB, anonymous_memory
from tests.support.postgres import PostgresServer
from tests.support.proof import Desk, Saboteur
from tests.support.service import ROOT

EVENTS, FEW = 1_000_000, 100_000
FLIPS = 1000
ROUNDS = 3
BOUND = 100_000  # events a second
SEED = 20_26


@dataclass(frozen=True)
class Run:
    """What a run of the command has told and taken."""

    findings: list[dict[str, Any]]
    summary: dict[str, Any]
    memory: float  # anonymous, at most, in MiB
    processor: float  # seconds, of the command alone

    @property
    def rate(self) -> float:
        return self.events / float(self.summary["seconds"])

    @property
    def events(self) -> int:
        return int(self.summary["checked"]["events"])


def verify(desk: Desk) -> Run:
    environment = os.environ | {
        "PACKTRAIL_DATA_DIR": str(desk.data_dir),
        "PACKTRAIL_EVENT_STORE": desk.url,
    }
    before = _processor_seconds()
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
    return Run(findings, last["summary"], most / MIB, _processor_seconds() - before)


def _processor_seconds() -> float:
    """That children have had which have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


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


def runs(desk: Desk) -> list[Run]:
    found = [verify(desk) for _ in range(ROUNDS)]
    assert not any(run.findings for run in found), found[0].findings[:3]
    return found


def broken(desk: Desk) -> tuple[int, Run]:
    """How many of the flipped bits one run names. Nothing else may be named."""
    flipped = Saboteur(desk, SEED).flip(FLIPS)
    run = verify(desk)
    named = {f["position"] for f in run.findings if f["check"] in ("chain", "times", "events")}
    assert named == flipped, (sorted(flipped - named)[:5], sorted(named - flipped)[:5])
    return len(named), run


def measure(engine: str, few: Desk, many: Desk) -> Iterator[Figure]:
    """By the clock, and by the processor's, which counts what the command alone has taken."""
    less, whole = [run.memory for run in runs(few)], runs(many)
    speeds = {
        f"{engine}: events a second": [run.rate for run in whole],
        f"{engine}: events a processor second": [run.events / run.processor for run in whole],
    }
    for what, rates in speeds.items():
        yield Figure.of_rounds(what, rates, "our bound", [BOUND], "1/s", at_least(1))
    more = [run.memory for run in whole]
    yield Figure(
        f"{engine}: anonymous memory, {EVENTS} events", max(more), f"with {FEW} events", max(less),
        "MiB", ROUNDS, None, tuple(more), tuple(less),
    )  # fmt: skip
    named, run = broken(many)
    yield Figure.of_rounds(
        f"{engine}: flipped bits that are named", [named], "bits flipped", [FLIPS], "", at_least(1)
    )
    yield Figure.of_rounds(
        f"{engine}: processor seconds, of the broken log", [run.processor], "of the whole one",
        [run.processor for run in whole], "s",
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
