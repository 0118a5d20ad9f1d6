"""How a benchmark tells what it measured: a table for people, JSON for programs."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True)
class Bar:
    """What the ratio of ours to theirs has to be: so much at most, or at least."""

    ratio: float
    smaller_is_better: bool

    def distance(self, ratio: float) -> float:
        """How many times worse a ratio is than the bar; 1 or less where it is reached."""
        return ratio / self.ratio if self.smaller_is_better else self.ratio / ratio

    def __str__(self) -> str:
        return f"{'<=' if self.smaller_is_better else '>='} {self.ratio:.2f}"


def at_most(ratio: float) -> Bar:
    return Bar(ratio, smaller_is_better=True)


def at_least(ratio: float) -> Bar:
    return Bar(ratio, smaller_is_better=False)


@dataclass(frozen=True)
class Figure:
    """What was measured, and what it is compared with, in the same unit."""

    what: str
    ours: float
    beside: str
    theirs: float
    unit: str
    rounds: int
    bar: Bar | None = None  # None: nothing was promised
    our_rounds: tuple[float, ...] = ()
    their_rounds: tuple[float, ...] = ()

    @classmethod
    def of_rounds(
        cls,
        what: str,
        ours: Sequence[float],
        beside: str,
        theirs: Sequence[float],
        unit: str,
        bar: Bar | None = None,
    ) -> Self:
        """The medians of all rounds, which are kept beside them."""
        return cls(
            what, statistics.median(ours), beside, statistics.median(theirs), unit, len(ours),
            bar, tuple(ours), tuple(theirs),
        )  # fmt: skip

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs

    @property
    def verdict(self) -> str:
        """Whether the bar is reached, and else by how much it is missed."""
        if self.bar is None:
            return ""
        distance = self.bar.distance(self.ratio)
        return f"{self.bar}: " + (f"MISSED, x {distance:.2f}" if distance > 1 else "reached")

    def kept(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": self.ratio, "verdict": self.verdict}


def report(
    name: str,
    figures: Sequence[Figure],
    versions: Mapping[str, str] | None = None,
    missing: Sequence[str] = (),
    curves: Mapping[str, Any] | None = None,
) -> None:
    """Prints the figures, and keeps them in `results/<name>.json`.

    `versions` are those of the peers, `missing` the peers without figures; `curves` are further
    raw results, for the JSON alone.
    """
    machine = {**_machine(), "peers": dict(versions or {})}
    print(
        f"\n{name}: {machine['cores']} cores, {machine['processor']}, "
        f"{machine['memory']} GiB, {machine['file_system']}, Python {machine['python']}"
        + "".join(f", {peer} {version}" for peer, version in machine["peers"].items())
    )
    width = max((len(f.what) for f in figures), default=0)
    print(
        f"{'what':<{width}} {'ours':>10}  {'beside':<28} {'theirs':>10} {'unit':<5} "
        f"{'ratio':>6}  bar"
    )
    for f in figures:
        print(
            f"{f.what:<{width}} {f.ours:>10.2f}  {f.beside:<28} {f.theirs:>10.2f} {f.unit:<5} "
            f"{f.ratio:>6.2f}  {f.verdict}".rstrip()
        )
    for peer in missing:
        print(f"!!! NO FIGURES OF {peer}: make bench-peers installs it")
    RESULTS.mkdir(exist_ok=True)
    kept = {
        "machine": machine,
        "missing": list(missing),
        "figures": [f.kept() for f in figures],
        "curves": dict(curves or {}),
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(kept, indent=2) + "\n")


def _machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "memory": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)),
        "system": platform.platform(),
        "file_system": _file_system(Path.cwd()),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),  # of the last minute, the benchmark's own included
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _file_system(folder: Path) -> str:
    """The kind of the file system that a folder is on, such as ext4."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    around = [(point, kind) for _, point, kind, *_ in mounts if folder.is_relative_to(point)]
    return max(around, key=lambda mount: len(mount[0]))[1]
