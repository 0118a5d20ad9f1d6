"""What a thousand uploads that drip at 1 KiB/s cost those who read, and in memory.

Rounds without them and with them take turns. Whoever reads and whoever drips are processes of
their own, so that neither waits for the other.

Run by `make bench`, or `.venv/bin/python -m benchmarks.slow_clients`.
"""

from __future__ import annotations

import http.client
import random
import socket
import statistics
import tempfile
import time
from contextlib import ExitStack
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.report import Figure, report
from tests.support.memory import MIB, anonymous_memory
from tests.support.service import Client, Service, bearer
from tests.support.waiting import eventually

UPLOADS = 1000
DRIP = bytes(1024)  # a second, of each
ROUNDS = 6
READS = 1000  # of a round
PAUSE = 0.008  # seconds at most between two reads
MOST_MEMORY = 100  # MiB

_processes = get_context("spawn")


def drip(port: int, guids: list[str], told: Connection) -> None:
    """Opens an upload to each package, and sends to each once a second until it is told to end."""
    with ExitStack() as stack:
        sockets = []
        for guid in guids:
            upload = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
            upload.sendall(
                f"POST /v3/packages/{guid}/upload HTTP/1.1\r\nHost: packtrail\r\n"
                f"Authorization: {bearer()['Authorization']}\r\n"
                "Content-Type: multipart/form-data; boundary=edge\r\n"
                "Content-Length: 100000000\r\n\r\n--edge\r\n".encode()
            )
            sockets.append(upload)
        told.send("open")
        due = time.monotonic()
        while not told.poll():
            for upload in sockets:
                due += 1 / len(sockets)
                time.sleep(max(0.0, due - time.monotonic()))
                upload.sendall(DRIP)
        told.send(due - time.monotonic())  # negative where it could not keep up


def read(port: int, guid: str, told: Connection) -> None:
    """Reads one package again and again over one connection; sends the milliseconds of each."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    times = []
    for _ in range(READS):
        time.sleep(random.random() * PAUSE)
        start = time.perf_counter()
        connection.request("GET", f"/v3/packages/{guid}", headers=bearer())
        answer = connection.getresponse()
        answer.read()
        times.append((time.perf_counter() - start) * 1000)
        assert answer.status == 200, answer.status
    connection.close()
    told.send(times)


def times_of_reads(service: Service, guid: str) -> list[float]:
    ours, theirs = _processes.Pipe()
    process = _processes.Process(target=read, args=(service.port, guid, theirs))
    process.start()
    times: list[float] = ours.recv()
    process.join()
    return times


def times_beside_drips(
    service: Service, client: Client, guids: list[str]
) -> tuple[list[float], int]:
    """The milliseconds of reads beside dripping uploads, and the service's anonymous memory."""
    ours, theirs = _processes.Pipe()
    process = _processes.Process(target=drip, args=(service.port, guids, theirs))
    process.start()
    assert ours.recv() == "open"
    eventually(lambda: len(service.staged_files()) == len(guids), within=120)
    times = times_of_reads(service, guids[0])
    memory = anonymous_memory(service.pid)
    assert len(service.staged_files()) == len(guids), "an upload was cut off"
    ours.send("end")
    ahead: float = ours.recv()
    assert ahead > -0.5, f"the drips were {-ahead:.1f} s late: their process was the bottleneck"
    process.join()
    eventually(lambda: service.staged_files() == [], within=60)
    return times, memory


def p99(times: list[float]) -> float:
    return statistics.quantiles(times, n=100)[98]


def main() -> None:
    with (
        tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder,
        Service(Path(folder)) as service,
    ):
        client = service.client()
        guids = [client.create(f"app-{number}") for number in range(UPLOADS)]
        times_of_reads(service, guids[0])
        before = memory = anonymous_memory(service.pid)
        without: list[float] = []
        beside: list[float] = []
        for number in range(ROUNDS):
            alone = times_of_reads(service, guids[0])
            among, most = times_beside_drips(service, client, guids)
            print(f"round {number + 1}: p99 {p99(alone):.2f} ms, {p99(among):.2f} ms with drips")
            without += alone
            beside += among
            memory = max(memory, most)
    report(
        "slow_clients",
        [
            Figure("GET with 1,000 dripping uploads, p99", p99(beside), "without", p99(without),
                   "ms", ROUNDS),
            Figure("GET with 1,000 dripping uploads, median", statistics.median(beside), "without",
                   statistics.median(without), "ms", ROUNDS),
            Figure("anonymous memory of 1,000 uploads", (memory - before) / MIB, "our bound",
                   MOST_MEMORY, "MiB", ROUNDS),
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
