"""What small reads cost, beside a bare Falcon application on waitress that says hello.

It runs once as it comes, and once on one core, as ours does. All have as many worker threads; one
client in a process of its own asks them, over connections that stay open. Rounds take turns. The
processor's time of the servers stands beside the rates: it depends less on what else the machine
does.

Run by `make bench`, or `.venv/bin/python -m benchmarks.reads [ROUNDS]`.
"""

from __future__ import annotations

import re
import select
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.api_processes import processor_seconds
from benchmarks.contenders import usual_service
from benchmarks.peers import Hello, HelloOnOneCore, started
from benchmarks.report import Figure, at_least, report
from tests.support.service import bearer
from tests.support.zips import random_zip

ROUNDS = 7
SECONDS = 1.5  # of a round
CLIENTS = 8
LISTED = 50  # packages
BAR = at_least(0.6)

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
_processes = get_context("spawn")


@dataclass(frozen=True)
class Load:
    """What is asked of whom, over how many connections, and how an answer has to begin."""

    port: int
    pid: int
    request: bytes
    status: bytes = b"HTTP/1.1 200 "
    clients: int = 1


@dataclass(frozen=True)
class Answers:
    """`times` are the milliseconds of each answer, `processor` the server's for one."""

    seconds: float
    times: list[float]
    processor: float

    @property
    def rate(self) -> float:
        return len(self.times) / self.seconds

    @property
    def median(self) -> float:
        return statistics.median(self.times)

    @property
    def p99(self) -> float:
        return statistics.quantiles(self.times, n=100)[98]


class Asking:
    """One connection: its request is sent again when the answer is whole."""

    def __init__(self, load: Load) -> None:
        self.socket = socket.create_connection(("127.0.0.1", load.port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._load = load

    def ask(self) -> None:
        self._received = b""
        self._size: int | None = None  # bytes of the answer that is being received
        self.asked_at = time.perf_counter()
        self.socket.sendall(self._load.request)

    def is_answered(self) -> bool:
        """Takes what there is; whether the answer is whole."""
        self._received += self.socket.recv(1 << 18)
        if self._size is None:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return False
            assert self._received.startswith(self._load.status), self._received[:300]
            length = _LENGTH.search(self._received, 0, end + 2)
            self._size = end + 4 + (int(length[1]) if length else 0)
        return len(self._received) >= self._size


def ask(load: Load, seconds: float, told: Connection) -> None:
    """Asks again and again for so many seconds; sends what came of it."""
    poll = select.epoll()
    asking = {one.socket.fileno(): one for one in (Asking(load) for _ in range(load.clients))}
    for descriptor, one in asking.items():
        poll.register(descriptor, select.EPOLLIN)
        one.ask()
    times: list[float] = []
    used, begin = processor_seconds(load.pid), time.perf_counter()
    now = begin
    while now < begin + seconds:
        for descriptor, _ in poll.poll(10):
            one = asking[descriptor]
            if one.is_answered():
                now = time.perf_counter()
                times.append((now - one.asked_at) * 1000)
                one.ask()
    used = processor_seconds(load.pid) - used
    told.send(Answers(now - begin, times, used / len(times) * 1000))


def answers_to(load: Load, seconds: float = SECONDS) -> Answers:
    ours, theirs = _processes.Pipe()
    process = _processes.Process(target=ask, args=(load, seconds, theirs))
    process.start()
    theirs.close()
    found: Answers = ours.recv()
    process.join()
    return found


def get(path: str, *lines: str) -> bytes:
    """A request with a good token."""
    head = [f"GET {path} HTTP/1.1", "Host: packtrail", *lines]
    head.append(f"Authorization: {bearer()['Authorization']}")
    return "".join(f"{line}\r\n" for line in [*head, ""]).encode()


_FIGURES: list[tuple[str, Callable[[Answers], float], str]] = [
    ("", lambda answers: answers.rate, "1/s"),
    (", median", lambda answers: answers.median, "ms"),
    (", p99", lambda answers: answers.p99, "ms"),
    (", processor for each", lambda answers: answers.processor, "ms"),
]


def compared(
    what: str, load: Load, peers: Mapping[str, Load], rounds: int, has_bar: bool
) -> list[Figure]:
    """Ours beside each peer's; the bar is for the one that is as it comes."""
    loads = [load, *peers.values()]
    for one in loads:
        answers_to(one, seconds=0.3)  # so that nothing is done for the first time
    found: list[list[Answers]] = [[] for _ in loads]
    for number in range(rounds):
        for at in range(len(loads)):
            turn = (number + at) % len(loads)
            found[turn].append(answers_to(loads[turn]))
    ours, *theirs = found
    return [
        Figure.of_rounds(
            f"{what}, clients: {load.clients}{name}",
            [of(answers) for answers in ours], peer, [of(answers) for answers in of_peer],
            unit, BAR if has_bar and not name and peer == Hello.name else None,
        )
        for peer, of_peer in zip(peers, theirs, strict=True)
        for name, of, unit in _FIGURES
    ]  # fmt: skip


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    figures = []
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-"))
        )
        service = stack.enter_context(usual_service(folder))
        peers = stack.enter_context(started(folder, Hello, HelloOnOneCore)).running
        client = service.client()
        path = f"/v3/packages/{client.push(random_zip(64 * 1024))['guid']}"
        for _ in range(LISTED):
            client.create("app-2")
        held = client.http.get(path).headers["ETag"]
        hello = get("/")
        asked = {
            "GET of a package": (get(path), b"HTTP/1.1 200 "),
            "GET of what has not changed": (get(path, f"If-None-Match: {held}"), b"HTTP/1.1 304 "),
            f"GET of a list of {LISTED}": (
                get(f"/v3/apps/app-2/packages?per_page={LISTED}"), b"HTTP/1.1 200 ",
            ),
        }  # fmt: skip
        for what, (request, status) in asked.items():
            for clients in (1, CLIENTS):
                figures += compared(
                    what,
                    Load(service.port, service.pid, request, status, clients),
                    {
                        peer.name: Load(peer.port, peer.pid, hello, clients=clients)
                        for peer in peers
                    },
                    rounds,
                    has_bar=what == "GET of a package",
                )
    report("reads", figures, {Hello.name: peers[0].version})


if __name__ == "__main__":
    main()
