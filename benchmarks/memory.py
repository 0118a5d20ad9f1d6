"""How much anonymous memory the service takes for eight uploads of a GiB at once.

All of its processes count, from before the first byte until the last package is READY.

Run by `make bench`, or `.venv/bin/python -m benchmarks.memory`.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from benchmarks.contenders import contest
from benchmarks.crowd import Crowd
from benchmarks.report import Figure, at_most, report
from benchmarks.targets import Bits, uploading
from tests.support.memory import MIB, anonymous_memory

CLIENTS = 8
SIZE = 1016 * MIB  # what our default limit of a GiB leaves for the entry of a zip
MOST = 150  # MiB


def family(pid: int) -> list[int]:
    """A process and all that came of it."""
    found = [pid]
    for one in found:
        with suppress(OSError):  # it has just ended
            for task in Path(f"/proc/{one}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


class Peak:
    """The most anonymous memory that a process and its children have together while entered."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.first = self.most = self._now()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.01):
            self.most = max(self.most, self._now())

    def _now(self) -> int:
        total = 0
        for pid in family(self._pid):
            with suppress(OSError, AssertionError):  # it has just ended
                total += anonymous_memory(pid)
        return total


def peaks(crowd: Crowd, files: Sequence[Bits], folder: Path) -> tuple[int, int]:
    """Bytes that a new service has before, and at most."""
    folder.mkdir()
    with contest(folder) as alone:
        with Peak(alone.service.pid) as peak:
            crowd.run([partial(uploading, alone.ours.target, bits, False) for bits in files])
            alone.until_ready()
        return peak.first, peak.most


def main() -> None:
    with (
        tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as name,
        Crowd(CLIENTS) as crowd,
    ):
        folder = Path(name)
        files = [Bits.of(folder / f"{n}.zip", SIZE) for n in range(CLIENTS)]
        first, most = peaks(crowd, files, folder / "eight")
        _, of_one = peaks(crowd, files[:1], folder / "one")
    what = f"{CLIENTS} x 1 GiB at once, anonymous memory"
    report(
        "memory",
        [
            Figure(what, most / MIB, "our bound", MOST, "MiB", 1, at_most(1)),
            Figure(what, most / MIB, "of 1 x 1 GiB", of_one / MIB, "MiB", 1),
            Figure(what, most / MIB, "before the first", first / MIB, "MiB", 1),
        ],
    )


if __name__ == "__main__":
    main()
