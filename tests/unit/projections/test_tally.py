"""Counts by stretch of the log: where a page of a list begins."""

from __future__ import annotations

import pytest

from projections.tally import STRETCH, Seek, seek

STRETCHES = [(0, 3), (1, 4), (7, 2)]


@pytest.mark.parametrize(
    ("offset", "upwards", "downwards"),
    [
        (0, Seek(0, 0), Seek(8 * STRETCH, 0)),
        (1, Seek(0, 1), Seek(8 * STRETCH, 1)),
        (2, Seek(0, 2), Seek(2 * STRETCH, 0)),
        (3, Seek(STRETCH, 0), Seek(2 * STRETCH, 1)),
        (6, Seek(STRETCH, 3), Seek(STRETCH, 0)),
        (8, Seek(7 * STRETCH, 1), Seek(STRETCH, 2)),
        (9, None, None),
        (10**30, None, None),
    ],
)
def test_whole_stretches_are_passed_over(
    offset: int, upwards: Seek | None, downwards: Seek | None
) -> None:
    """From whichever end; behind the last row there is nothing."""
    assert seek(STRETCHES, offset, descending=False) == upwards
    assert seek(STRETCHES, offset, descending=True) == downwards


def test_of_nothing_there_is_no_page() -> None:
    """Not even the first."""
    assert seek([], 0, descending=False) is None
