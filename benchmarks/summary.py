"""The table of `docs/performance.md`: every figure that has a bar, out of the kept results.

`.venv/bin/python -m benchmarks.summary` prints it; a test compares it with the page.
"""

from __future__ import annotations

import json
from typing import Any

from benchmarks.report import RESULTS

HEADINGS = ("what", "ours", "beside", "theirs", "ratio", "bar")


def barred() -> list[dict[str, Any]]:
    """The figures with a bar, in the order of their benchmarks' names."""
    return [
        figure
        for path in sorted(RESULTS.glob("*.json"))
        for figure in json.loads(path.read_text())["figures"]
        if figure.get("bar")
    ]


def table() -> str:
    """All of them in Markdown."""
    rows = [HEADINGS, ("---",) * len(HEADINGS)]
    for figure in barred():
        unit = figure["unit"]
        rows.append(
            (
                figure["what"],
                f"{figure['ours']:.4g} {unit}",
                figure["beside"],
                f"{figure['theirs']:.4g} {unit}",
                f"{figure['ratio']:.2f}",
                figure["verdict"],
            )
        )
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    print(table(), end="")
