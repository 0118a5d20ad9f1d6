"""What a thousand uploads cost those who read, and in memory: such as drip, and such as are idle.

An idle one has sent its headers, and nothing of its body; one that drips sends 1 KiB/s. Rounds
without them and with either take turns; a round ends before the service cuts off the idle ones.
Whoever reads and whoever uploads are processes of their own, so that neither waits for the other.

Run by `make bench`, or `.venv/bin/python -m benchmarks.slow_clients`.
"""

from __future__ import annotations

import http.client
import random
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.contenders import usual_service
from benchmarks.report import Bar, Figure, at_most, report
from tests.support.memory import MIB, anonymous_memory
from tests.support.service import Service, bearer
from tests.support.waiting import eventually

UPLOADS = 1000
DRIP = bytes(1024)  # a second, of each
ROUNDS = 6
READS = 1000  # of a round
PAUSE = 0.008  # seconds at most between two reads
MOST_MEMORY = 100  # MiB
TIMES_AS_LONG = 2  # that a read may take beside them

_processes = get_context("spawn")


@contextmanager
def opened(port: int, guids: list[str]) -> Iterator[list[socket.socket]]:
    """An upload to each package whose headers are there, and nothing else."""
    with ExitStack() as stack:
        sockets = []
        for guid in guids:
            upload = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
            upload.sendall(
                f"POST /v3/packages/{guid}/upload HTTP/1.1\r\nHost: packtrail\r\n"
                f"Authorization: {bearer()['Authorization']}\r\n"
                "Content-Type: multipart/form-data; boundary=edge\r\n"
                "Content-Length: 100000000\r\n\r\n".encode()
            )
            sockets.append(upload)
        yield sockets


def idle(port: int, guids: list[str], told: Connection) -> None:
    """Opens an upload to each package, and sends nothing more until it is told to end."""
    with opened(port, guids):
        told.send("open")
        told.recv()
        told.send(0.0)


def drip(port: int, guids: list[str], told: Connection) -> None:
    """Opens an upload to each package, and sends to each once a second until it is told to end.

    It tells how many seconds it was ahead at the end: less than 0 where it could not keep up.
    """
    with opened(port, guids) as sockets:
        for upload in sockets:
            upload.sendall(b"--edge\r\n")
        told.send("open")
        due = time.monotonic()
        while not told.poll():
            for upload in sockets:
                due += 1 / len(sockets)
                time.sleep(max(0.0, due - time.monotonic()))
                upload.sendall(DRIP)
        told.send(due - time.monotonic())


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


def times_beside(
    uploads: Callable[[int, list[str], Connection], None], service: Service, guids: list[str]
) -> tuple[list[float], int]:
    """The milliseconds of reads beside such uploads, and the service's anonymous memory."""
    ours, theirs = _processes.Pipe()
    process = _processes.Process(target=uploads, args=(service.port, guids, theirs))
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


KINDS = {"idle": idle, "dripping": drip}


def p99(times: list[float]) -> float:
    return statistics.quantiles(times, n=100)[98]


def main() -> None:
    with (
        tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder,
        usual_service(Path(folder)) as service,
    ):
        client = service.client()
        guids = [client.create(f"app-{number}") for number in range(UPLOADS)]
        times_of_reads(service, guids[0])
        before = anonymous_memory(service.pid)
        without: list[list[float]] = []
        beside: dict[str, list[list[float]]] = {name: [] for name in KINDS}
        memory: dict[str, list[float]] = {name: [] for name in KINDS}
        for number in range(ROUNDS):
            without.append(times_of_reads(service, guids[0]))
            said = f"round {number + 1}: p99 {p99(without[-1]):.2f} ms"
            for name, uploads in KINDS.items():
                times, most = times_beside(uploads, service, guids)
                beside[name].append(times)
                memory[name].append((most - before) / MIB)
                said += f", {p99(times):.2f} ms with {name} ones"
            print(said)
    report("slow_clients", list(figures(without, beside, memory)))


MEASURES: list[tuple[str, Callable[[list[float]], float], Bar | None]] = [
    ("p99", p99, at_most(TIMES_AS_LONG)),
    ("median", statistics.median, None),
]


def figures(
    without: list[list[float]],
    beside: dict[str, list[list[float]]],
    memory: dict[str, list[float]],
) -> Iterator[Figure]:
    """The medians of what each round has: its p99, its median."""
    for name, rounds in beside.items():
        what = f"GET with 1,000 {name} uploads"
        for of_times, told, bar in MEASURES:
            ours, theirs = list(map(told, rounds)), list(map(told, without))
            yield Figure.of_rounds(f"{what}, {of_times}", ours, "without", theirs, "ms", bar)
        yield Figure(f"anonymous memory of 1,000 {name} uploads", max(memory[name]), "our bound",
                     MOST_MEMORY, "MiB", ROUNDS, at_most(1), tuple(memory[name]))  # fmt: skip


if __name__ == "__main__":
    main()
