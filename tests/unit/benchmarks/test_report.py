"""What a benchmark says of what it measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import report as reporting
from benchmarks.report import Bar, Figure, at_least, at_most, report


@pytest.mark.parametrize(
    ("bar", "ours", "theirs", "verdict"),
    [
        (at_most(0.5), 1.0, 2.0, "<= 0.50: reached"),
        (at_most(0.5), 1.5, 2.0, "<= 0.50: MISSED, x 1.50"),
        (at_least(2), 4.0, 2.0, ">= 2.00: reached"),
        (at_least(2), 3.0, 2.0, ">= 2.00: MISSED, x 1.33"),
        (None, 3.0, 2.0, ""),
    ],
)
def test_a_bar_says_whether_it_is_reached(
    bar: Bar | None, ours: float, theirs: float, verdict: str
) -> None:
    """A figure says by how much it misses its bar, whichever side of it is the better one."""
    assert Figure("upload", ours, "nginx", theirs, "s", 1, bar).verdict == verdict


def test_a_figure_of_rounds_is_their_median() -> None:
    """One slow round of many does not decide; every round is kept."""
    figure = Figure.of_rounds("upload", [1, 9, 2], "nginx", [4, 4, 40], "s")
    assert (figure.ours, figure.theirs, figure.rounds) == (2, 4, 3)
    assert figure.kept()["our_rounds"] == (1, 9, 2)


def test_a_report_names_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It tells people and programs of a bar that is missed and a peer that was not there."""
    monkeypatch.setattr(reporting, "RESULTS", tmp_path)
    missed = Figure.of_rounds("upload", [3.0], "nginx", [2.0], "s", at_most(1))
    report("uploads", [missed], {"nginx": "1.22.1"}, ["docker-registry"])
    said = capsys.readouterr().out
    assert "MISSED, x 1.50" in said
    assert "!!! NO FIGURES OF docker-registry" in said
    kept = json.loads((tmp_path / "uploads.json").read_text())
    assert kept["missing"] == ["docker-registry"]
    assert kept["machine"]["peers"] == {"nginx": "1.22.1"}
    assert kept["figures"][0]["verdict"] == "<= 1.00: MISSED, x 1.50"
    assert kept["figures"][0]["their_rounds"] == [2.0]
