"""Puts the kept results into `docs/performance.md`, so that the page says what was measured.

Between `<!-- figures NAME -->` and `<!-- end -->` it has a table of `results/NAME.json`; `bars`
names the table of every figure that has a bar.

Run by `make bench` at its end, or `.venv/bin/python -m benchmarks.summary`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import RESULTS

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
BARS = "bars"
_HEADINGS = ("what", "ours", "beside", "theirs", "ratio", "bar")
_PLACE = re.compile(r"(<!-- figures (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def figures_of(name: str) -> list[dict[str, Any]]:
    """What one benchmark has found; or all figures with a bar, by their benchmarks' names."""
    if name != BARS:
        found: list[dict[str, Any]] = json.loads((RESULTS / f"{name}.json").read_text())["figures"]
        return found
    return [
        {**figure, "what": f"{path.stem}: {figure['what']}"}
        for path in sorted(RESULTS.glob("*.json"))
        for figure in figures_of(path.stem)
        if figure.get("bar")
    ]


def table(figures: Sequence[dict[str, Any]]) -> str:
    """In Markdown, without a column for bars where none has one."""
    rows = [_HEADINGS, ("---",) * len(_HEADINGS)]
    rows += [
        (
            figure["what"],
            f"{figure['ours']:.4g} {figure['unit']}",
            figure["beside"],
            f"{figure['theirs']:.4g} {figure['unit']}",
            f"{figure['ratio']:.2f}",
            figure.get("verdict", ""),
        )
        for figure in figures
    ]
    if not any(figure.get("verdict") for figure in figures):
        rows = [row[:-1] for row in rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def filled(page: str) -> str:
    """The page with the tables of the results there are now."""
    return _PLACE.sub(lambda place: place[1] + table(figures_of(place[2])) + place[3], page)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
