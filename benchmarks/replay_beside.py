"""What a rebuild costs those who read and write meanwhile.

A service on SQLite with a log of 1,000,000 events; packages are created all the time, and one of
them is read again and again. Rounds without a rebuild, and rounds in which `packtrail replay
packages` runs from the first read to the last, take turns. Whoever reads, writes and builds are
processes of their own. At the end every package that was created is in the new read model.

Run by `make bench`, or `.venv/bin/python -m benchmarks.replay_beside [EVENTS]`.
"""

from __future__ import annotations

import http.client
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import chain
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from adapters.store import open_sqlite
from benchmarks.logs import write_log
from benchmarks.report import Figure, report
from tests.support.service import ROOT, Service, bearer

EVENTS = 1_000_000
ROUNDS = 6
READS = 1000  # of a round without a rebuild; with one, as many as there is time for
PAUSE = 0.008  # seconds at most between two reads
WRITES = 20  # a second

Times = dict[bool, list[list[float]]]  # of each round, by whether there was a rebuild in it

_processes = get_context("spawn")


def read(port: int, guid: str, told: Connection) -> None:
    """Reads until it is told to end, and has read often enough; sends each time in milliseconds."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    times: list[float] = []
    told.send("reading")
    while len(times) < READS or not told.poll():
        time.sleep(random.random() * PAUSE)
        start = time.perf_counter()
        connection.request("GET", f"/v3/packages/{guid}", headers=bearer())
        answer = connection.getresponse()
        answer.read()
        times.append((time.perf_counter() - start) * 1000)
        assert answer.status == 200, answer.status
    told.send(times)


def write(port: int, told: Connection) -> None:
    """Creates packages until it is told to end; sends the times, and how many were refused."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    times: list[float] = []
    refused, due = 0, time.monotonic()
    while not told.poll():
        due += 1 / WRITES
        time.sleep(max(0.0, due - time.monotonic()))
        start = time.perf_counter()
        headers = {**bearer(), "Content-Type": "application/json"}
        connection.request("POST", "/v3/apps/app-of-bench/packages", b'{"type":"bits"}', headers)
        answer = connection.getresponse()
        answer.read()
        if answer.status == 201:
            times.append((time.perf_counter() - start) * 1000)
        else:
            refused += 1
    told.send((times, refused))


def round_of(service: Service, guid: str, replaying: bool) -> tuple[list[float], list[float], int]:
    """The times of reads and of writes, and how many writes were refused."""
    reads, theirs = _processes.Pipe()
    reader = _processes.Process(target=read, args=(service.port, guid, theirs))
    writes, theirs = _processes.Pipe()
    writer = _processes.Process(target=write, args=(service.port, theirs))
    writer.start()
    reader.start()
    assert reads.recv() == "reading"
    if replaying:
        subprocess.run(
            [sys.executable, "-m", "entrypoints", "replay", "packages"],
            cwd=ROOT, env=service.environment(), stdout=subprocess.DEVNULL, check=True,
        )  # fmt: skip
    reads.send("end")
    times: list[float] = reads.recv()
    writes.send("end")
    written, refused = writes.recv()
    reader.join()
    writer.join()
    return times, written, refused


def p99(times: Sequence[float]) -> float:
    return statistics.quantiles(times, n=100)[98]


def of_all(what: str, told: Callable[[Sequence[float]], float], times: Times) -> Figure:
    """Of the times of all rounds together; those of each round are kept beside it."""
    ours, theirs = times[True], times[False]
    return Figure(
        what, told([*chain(*ours)]), "without", told([*chain(*theirs)]), "ms", ROUNDS,
        None, tuple(map(told, ours)), tuple(map(told, theirs)),
    )  # fmt: skip


def main() -> None:
    events = int(sys.argv[1]) if len(sys.argv) > 1 else EVENTS
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder:
        service = Service(Path(folder))
        store = open_sqlite(service.data_dir / "packtrail.db")
        write_log(store, events)
        store.close()
        with service:
            client = service.client()
            guid = client.create()
            round_of(service, guid, replaying=False)
            reads: Times = {False: [], True: []}
            writes: Times = {False: [], True: []}
            created, refused = [], []  # of each round
            for number in range(ROUNDS):
                for replaying in (False, True):
                    times, written, lost = round_of(service, guid, replaying)
                    reads[replaying].append(times)
                    writes[replaying].append(written)
                    created.append(len(written))
                    refused.append(lost)
                    print(
                        f"round {number + 1}{', rebuilding' * replaying}: GET p99 "
                        f"{p99(times):.2f} ms of {len(times)}, POST p99 {p99(written):.2f} ms "
                        f"of {len(written)}, {lost} refused"
                    )
            listed = client.http.get("/v3/apps/app-of-bench/packages?per_page=1").json()
            there = listed["pagination"]["total_results"]
            missing = sum(created) - there
            assert missing <= 0, f"{missing} packages are not in the read model"
    report(
        "replay_beside",
        [
            of_all("GET while it rebuilds, p99", p99, reads),
            of_all("GET while it rebuilds, median", statistics.median, reads),
            of_all("POST while it rebuilds, p99", p99, writes),
            Figure("POST refused, of all", sum(refused) / sum(created), "one of", 1, "",
                   len(refused), None,
                   tuple(lost / some for lost, some in zip(refused, created, strict=True))),
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
