"""From the 200 of an upload until the package is READY, beside `openssl dgst -sha256` of the file.

In that time the bits are checked, stored and hashed, with SHA-1 and SHA-256. Rounds of both take
turns; both find the file in the page cache. How soon small packages are READY is measured alone,
and while packages of a GiB are hashed, and nothing else is received.

Run by `make bench`, or `.venv/bin/python -m benchmarks.hashing [ROUNDS]`.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from adapters.bits import FileBits
from benchmarks.client import Connection
from benchmarks.contenders import Contender, contest
from benchmarks.crowd import Crowd
from benchmarks.peers import openssl_sha256, openssl_version, tell_missing
from benchmarks.plots import plot
from benchmarks.report import Figure, at_most, report
from benchmarks.targets import Bits, uploading
from domain.hashing import digests_of
from tests.support.memory import MIB
from tests.support.programs import Missing

ROUNDS = 5
SIZES = [MIB // 16, MIB // 4, MIB, 4 * MIB, 16 * MIB, 64 * MIB, 256 * MIB, 1016 * MIB]
JUDGED = 256 * MIB
SMALL = MIB // 16
SMALL_ONES = 100  # at least, of a round
LARGE_AT_ONCE = 4  # of the largest size
OPENSSL = "openssl dgst -sha256"


def state(connection: Connection, package: str, headers: dict[str, str]) -> str:
    answer = connection.ask("GET", package, headers)
    assert answer.status == 200, answer
    found: str = json.loads(answer.body)["state"]
    return found


def pushed(ours: Contender, bits: Bits, pause: float) -> tuple[float, float]:
    """Seconds until the 200, and from it until READY; looked for every `pause` seconds.

    The package is deleted then.
    """
    with Connection(ours.target.port) as connection:
        package = ours.target.prepare(connection, bits)
        start = time.perf_counter()
        ours.target.push(connection, package, bits, chunked=False)
        accepted = time.perf_counter()
        while (found := state(connection, package, ours.target.headers())) != "READY":
            assert found == "PROCESSING_UPLOAD", found
            time.sleep(pause)
        ready = time.perf_counter()
        answer = connection.ask("DELETE", package, ours.target.headers())
        assert answer.status == 204, answer
    return accepted - start, ready - accepted


def hashed_here(bits: Bits) -> float:
    """Seconds that the checksums take without the service around them."""
    start = time.perf_counter()
    with FileBits.of_file(bits.path) as opened:
        digests_of(opened)
    return time.perf_counter() - start


def until_ready(ours: Contender, bits: Bits) -> float:
    pause = 0.0005 if bits.path.stat().st_size < 4 * MIB else 0.005
    os.sync()
    seconds = pushed(ours, bits, pause)[1]
    ours.clear()
    return seconds


def small_ones(ours: Contender, bits: Bits, beside: Sequence[str]) -> list[float]:
    """Milliseconds from the first byte until READY, of each; while `beside` are not READY."""
    times: list[float] = []
    with Connection(ours.target.port) as connection:
        headers = ours.target.headers()
        while len(times) < SMALL_ONES if not beside else True:
            seconds = sum(pushed(ours, bits, 0.0005))
            if beside and all(
                state(connection, large, headers) == "READY" for large in reversed(beside)
            ):
                return times
            times.append(seconds * 1000)
    return times


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    with (
        tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as name,
        Crowd(LARGE_AT_ONCE) as crowd,
        contest(Path(name)) as all_of_them,
    ):
        ours = all_of_them.contenders[0]
        versions = _openssl()
        files = {size: Bits.of(Path(name, f"{size}.zip"), size) for size in SIZES}
        ready: dict[int, list[float]] = {size: [] for size in SIZES}
        openssl: dict[int, list[float]] = {size: [] for size in SIZES}
        alone_here: list[float] = []
        for number in range(rounds):
            for size, bits in files.items():
                if versions and number % 2:
                    openssl[size].append(openssl_sha256(bits.path))
                ready[size].append(until_ready(ours, bits))
                if versions and not number % 2:
                    openssl[size].append(openssl_sha256(bits.path))
            alone_here.append(hashed_here(files[JUDGED]))
        alone: list[float] = []
        beside: list[float] = []
        sending = partial(uploading, ours.target, files[SIZES[-1]], False)
        for _ in range(rounds):
            alone += small_ones(ours, files[SMALL], [])
            done = crowd.run([sending] * LARGE_AT_ONCE)
            large = [str(one.result).removesuffix("/download") for one in done]
            beside += small_ones(ours, files[SMALL], large)
            ours.clear()
    print(f"{len(alone)} small ones alone, {len(beside)} beside large ones")
    beside_openssl = [
        Figure.of_rounds("256 MiB: from the 200 to READY", ready[JUDGED], OPENSSL,
                         openssl[JUDGED], "s", at_most(1.5)),
        Figure.of_rounds("256 MiB: both checksums alone", alone_here, OPENSSL,
                         openssl[JUDGED], "s"),
    ] if versions else []  # fmt: skip
    report(
        "hashing",
        [
            *beside_openssl,
            Figure.of_rounds("256 MiB: from the 200 to READY", ready[JUDGED],
                             "both checksums alone", alone_here, "s"),
            Figure.of_rounds("64 KiB until READY beside 1 GiB, median", beside, "alone", alone,
                             "ms"),
            Figure("64 KiB until READY beside 1 GiB, p99", p99(beside), "alone", p99(alone), "ms",
                   rounds),
        ],
        versions,
        [] if versions else [OPENSSL],
        curves={"seconds by size": {"packtrail": ready, OPENSSL: openssl}},
    )  # fmt: skip
    plot(
        "hashing_by_size",
        "From the 200 until READY",
        ("MiB of the bits", "MiB a second"),
        {
            name: [(size / MIB, size / MIB / statistics.median(times[size])) for size in SIZES]
            for name, times in (("packtrail", ready), (OPENSSL, openssl))
            if times[JUDGED]
        },
        logarithmic=True,
    )


def _openssl() -> dict[str, str]:
    """Its version; nothing where it is not installed, which is said on stderr."""
    try:
        return {"openssl": openssl_version()}
    except Missing as reason:
        tell_missing(OPENSSL, reason)
        return {}


def p99(times: Sequence[float]) -> float:
    return statistics.quantiles(times, n=100)[98]


if __name__ == "__main__":
    main()
