"""Uploads of large bits: seconds until the answer, beside nginx's and docker-registry's.

Ours is a multipart form, durable with its event when the 200 leaves; nginx takes a WebDAV PUT of
the same file and syncs nothing; docker-registry takes a blob, checks its digest and syncs the
file. Rounds of all take turns, and between them what was written before gets to the disk and is
deleted, so that nobody pays for another's. All packages have to become READY, after the clock.
The limit is `cp` and `sync` of the file.

Run by `make bench`, or `.venv/bin/python -m benchmarks.uploads [ROUNDS]`.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.contenders import Contest, contest
from benchmarks.crowd import Crowd, seconds_of_all
from benchmarks.peers import Nginx, NginxAsItComes, Registry, copy_and_sync
from benchmarks.plots import plot
from benchmarks.report import Bar, Figure, at_least, at_most, report
from benchmarks.targets import Bits, Packtrail, uploading
from tests.support.memory import MIB

ROUNDS = 5
FEWER_ROUNDS = 3  # for the curves
LARGE = 256 * MIB
CLIENTS = 4
# the last is what our default limit of a GiB leaves for the entry of a zip
SIZES = [MIB // 16, MIB // 4, MIB, 4 * MIB, 16 * MIB, 64 * MIB, LARGE, 1016 * MIB]
CONCURRENCY = [1, 2, 4, 8]
LIMIT = "cp + sync"

Times = dict[str, list[float]]  # of each round in seconds, by whose


def measure(
    contest: Contest, crowd: Crowd, files: Sequence[Bits], rounds: int, chunked: bool = False
) -> Times:
    """As many clients as there are files send one each, at the same time."""
    times: Times = {}
    for number in range(rounds):
        for contender in contest.in_turn(number):
            for bits in files:
                bits.change()
            os.sync()
            done = crowd.run([partial(uploading, contender.target, one, chunked) for one in files])
            times.setdefault(contender.name, []).append(seconds_of_all(done))
            contender.clear()
    return times


def measure_limit(bits: Bits, folder: Path, rounds: int) -> list[float]:
    times = []
    for _ in range(rounds):
        os.sync()
        times.append(copy_and_sync(bits.path, folder / "copy"))
    return times


def best(times: Times, name: str) -> str | None:
    """Of the ways to do the same, which begin with one name, the quickest; None without any."""
    ways = [way for way in times if way.startswith(name)]
    return min(ways, key=lambda way: statistics.median(times[way]), default=None)


def beside_all(what: str, times: Times, bars: dict[str | None, Bar]) -> list[Figure]:
    """Seconds of ours beside those of all others."""
    return [
        Figure.of_rounds(what, times[Packtrail.name], name, theirs, "s", bars.get(name))
        for name, theirs in times.items()
        if name != Packtrail.name
    ]


def rates(times: Sequence[float], size: int) -> list[float]:
    """MiB a second."""
    return [size / MIB / seconds for seconds in times]


def total_beside_all(times: Times, size: int, bars: dict[str | None, Bar]) -> list[Figure]:
    """Rates of ours beside those of all others."""
    ours = rates(times[Packtrail.name], size)
    what = f"256 MiB of {CLIENTS} clients, in total"
    return [
        Figure.of_rounds(what, ours, name, rates(theirs, size), "MiB/s", bars.get(name))
        for name, theirs in times.items()
        if name != Packtrail.name
    ]


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    fewer = min(rounds, FEWER_ROUNDS)
    with (
        tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as name,
        Crowd(max(CONCURRENCY)) as crowd,
        contest(Path(name), Nginx, NginxAsItComes, Registry) as all_of_them,
    ):
        folder = Path(name)
        files = [Bits.of(folder / f"{n}.zip", LARGE) for n in range(max(CONCURRENCY))]
        one = measure(all_of_them, crowd, files[:1], rounds)
        registry = best(one, "docker-registry") or ""
        limit = measure_limit(files[0], folder, rounds)
        chunked = measure(all_of_them, crowd, files[:1], rounds, chunked=True)
        four = measure(all_of_them.only("nginx", "nginx (16k buffer)", registry), crowd,
                       files[:CLIENTS], rounds)  # fmt: skip
        few = all_of_them.only("nginx", registry)
        crowds = {n: measure(few, crowd, files[:n], fewer) for n in CONCURRENCY}
        sizes: dict[int, Times] = {}
        for size in SIZES:
            bits = Bits.of(folder / "size.zip", size)
            sizes[size] = measure(few, crowd, [bits], fewer if size > MIB else 3 * fewer)
            sizes[size][LIMIT] = measure_limit(bits, folder, fewer)
    ours = Figure.of_rounds("256 MiB until the answer", one[Packtrail.name], LIMIT, limit, "s")
    report(
        "uploads",
        [
            *beside_all("256 MiB until the answer", one, {"nginx": at_most(1 / 3),
                                                          registry: at_most(1 / 4)}),
            ours,
            *beside_all("256 MiB in chunks", chunked, {}),
            *total_beside_all(four, CLIENTS * LARGE, {"nginx": at_least(2),
                                                      registry: at_least(3)}),
        ],
        all_of_them.versions,
        all_of_them.missing,
        {"seconds by size": sizes, "seconds by clients": crowds},
    )  # fmt: skip
    plot(
        "uploads_by_size",
        "An upload of one client",
        ("MiB of the bits", "MiB a second"),
        _lines({size: {who: rates(times, size) for who, times in one_size.items()}
                for size, one_size in sizes.items()}, per=MIB),
        logarithmic=True,
    )  # fmt: skip
    plot(
        "uploads_by_clients",
        "256 MiB of each client, at once",
        ("clients", "MiB a second, in total"),
        _lines({n: {who: rates(times, n * LARGE) for who, times in of_n.items()}
                for n, of_n in crowds.items()}),
    )  # fmt: skip


def _lines(found: dict[int, Times], per: int = 1) -> dict[str, list[tuple[float, float]]]:
    """The medians, by whose."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for x, of_x in found.items():
        for who, values in of_x.items():
            lines.setdefault(who, []).append((x / per, statistics.median(values)))
    return lines


if __name__ == "__main__":
    main()
