"""Downloads of large bits: MiB a second, beside nginx's static files and docker-registry's blobs.

The same client reads whole files, and 100 MiB out of their middle, into one buffer; rounds of all
take turns. What was stored is in the page cache for all of them. That the bits are the right ones
is looked at before the clock starts.

Run by `make bench`, or `.venv/bin/python -m benchmarks.downloads [ROUNDS]`.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
import urllib.request
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.contenders import Contest, contest
from benchmarks.crowd import Crowd, seconds_of_all
from benchmarks.peers import Nginx, Registry
from benchmarks.report import Figure, at_least, report
from benchmarks.targets import Bits, Packtrail, Target, downloading, uploading
from tests.support.memory import MIB

ROUNDS = 9
SIZE = 256 * MIB
MIDDLE = (78 * MIB, 178 * MIB - 1)  # 100 MiB: the first byte and the last
MOST_CLIENTS = 4
Paths = dict[str, list[str]]  # of what each client fetches, by whose


def stored(contest: Contest, crowd: Crowd, files: Sequence[Bits]) -> Paths:
    """Uploads the files to all contenders, and looks whether they come back as they were."""
    paths: Paths = {}
    for contender in contest.contenders:
        done = crowd.run([partial(uploading, contender.target, bits, False) for bits in files])
        paths[contender.name] = [one.result for one in done]
    contest.until_ready()
    for contender in contest.contenders:
        for path, bits in zip(paths[contender.name], files, strict=True):
            assert digest(contender.target, path) == bits.digest(), (contender.name, path)
    return paths


def digest(target: Target, path: str) -> str:
    url = f"http://127.0.0.1:{target.port}{path}"
    with urllib.request.urlopen(urllib.request.Request(url, headers=target.headers())) as answer:
        return "sha256:" + hashlib.file_digest(answer, "sha256").hexdigest()


def measure(
    contest: Contest, crowd: Crowd, paths: Paths, rounds: int, span: tuple[int, int] | None
) -> dict[str, list[float]]:
    """MiB a second of all clients together, in each round, by whose."""
    rates: dict[str, list[float]] = {}
    for number in range(rounds):
        for contender in contest.in_turn(number):
            jobs = [
                partial(downloading, contender.target, path, span) for path in paths[contender.name]
            ]
            done = crowd.run(jobs)
            received = sum(one.result for one in done)
            rates.setdefault(contender.name, []).append(received / MIB / seconds_of_all(done))
    return rates


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    figures = []
    with (
        tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as name,
        Crowd(MOST_CLIENTS) as crowd,
        contest(Path(name), Nginx, Registry) as everybody,
    ):
        contest_of_reads = everybody.only("nginx", "docker-registry")
        files = [Bits.of(Path(name, f"{n}.zip"), SIZE) for n in range(MOST_CLIENTS)]
        for bits in files:
            bits.change()
        paths = stored(contest_of_reads, crowd, files)
        for clients in (1, MOST_CLIENTS):
            some = {who: of_all[:clients] for who, of_all in paths.items()}
            for what, span in (("256 MiB", None), ("100 MiB out of them", MIDDLE)):
                rates = measure(contest_of_reads, crowd, some, rounds, span)
                ours = rates.pop(Packtrail.name)
                figures += [
                    Figure.of_rounds(
                        f"{what}, clients: {clients}", ours, who, theirs, "MiB/s",
                        at_least(1) if who == "nginx" and clients == 1 and span is None else None,
                    )
                    for who, theirs in rates.items()
                ]  # fmt: skip
    report("downloads", figures, everybody.versions, everybody.missing)


if __name__ == "__main__":
    main()
