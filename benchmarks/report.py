"""How a benchmark tells what it measured: a table for people, JSON for programs."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True)
class Figure:
    """What was measured, and what it is compared with, in the same unit."""

    what: str
    ours: float
    beside: str
    theirs: float
    unit: str
    rounds: int

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs


def report(name: str, figures: list[Figure]) -> None:
    """Prints the figures, and keeps them in `results/<name>.json`."""
    machine = {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    print(f"\n{name}: {machine['cores']} cores, {machine['processor']}, Python {machine['python']}")
    print(f"{'what':<44} {'ours':>10}  {'beside':<28} {'theirs':>10} {'unit':<5} {'ratio':>6}")
    for f in figures:
        print(
            f"{f.what:<44} {f.ours:>10.2f}  {f.beside:<28} {f.theirs:>10.2f} {f.unit:<5} "
            f"{f.ratio:>6.2f}"
        )
    RESULTS.mkdir(exist_ok=True)
    kept = {
        "machine": machine,
        "figures": [{**asdict(f), "ratio": f.ratio} for f in figures],
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(kept, indent=2) + "\n")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
