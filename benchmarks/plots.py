"""Curves, as PNG beside the raw results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from benchmarks.report import RESULTS


def plot(
    name: str,
    title: str,
    axes: tuple[str, str],
    lines: Mapping[str, Sequence[tuple[float, float]]],
    logarithmic: bool = False,
) -> None:
    """Draws lines, each of points (x, y), into `results/<name>.png`.

    `axes` are the names of x and y, with their units.
    """
    figure = Figure(figsize=(8, 5), layout="constrained")
    area = figure.subplots()
    for label, points in lines.items():
        area.plot(*zip(*points, strict=True), marker="o", label=label)
    if logarithmic:
        area.set_xscale("log", base=2)
        area.set_yscale("log")
    else:
        area.set_ylim(bottom=0)
    measured = sorted({x for points in lines.values() for x, _ in points})
    area.set_xticks(measured, [f"{x:g}" for x in measured])
    area.set_title(title)
    area.set_xlabel(axes[0])
    area.set_ylabel(axes[1])
    area.grid(visible=True, which="major", alpha=0.3)
    area.legend()
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / f"{name}.png", dpi=100)
