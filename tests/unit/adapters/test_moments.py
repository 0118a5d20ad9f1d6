"""Times as they are written: RFC 3339, as precise as they are written."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from adapters.moments import moment_told

SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("text", "start", "lasts"),
    [
        ("2026-11-26T09:30:00Z", "2026-11-26T09:30:00", SECOND),
        ("2026-11-26t09:30:00z", "2026-11-26T09:30:00", SECOND),
        ("2026-11-26 09:30:00Z", "2026-11-26T09:30:00", SECOND),
        ("2026-11-26T09:30:00+02:00", "2026-11-26T07:30:00", SECOND),
        ("2026-11-26T09:30:00 02:00", "2026-11-26T07:30:00", SECOND),
        ("2026-11-26T09:30:00-02:00", "2026-11-26T11:30:00", SECOND),
        ("2026-11-26T09:30:00.5Z", "2026-11-26T09:30:00.500000", SECOND / 10),
        ("2026-11-26T09:30:00.120Z", "2026-11-26T09:30:00.120000", SECOND / 1000),
        (
            "2026-11-26T09:30:00.123456789Z",
            "2026-11-26T09:30:00.123456",
            timedelta(microseconds=1),
        ),
        ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59", SECOND),
    ],
)
def test_a_time_lasts_as_long_as_it_is_written(text: str, start: str, lasts: timedelta) -> None:
    """Whole seconds are all of a second; digits behind the point make it shorter."""
    told = moment_told(text)
    assert (told.start, told.lasts) == (datetime.fromisoformat(f"{start}+00:00"), lasts)
    first, behind = told.span
    assert timedelta(microseconds=behind - first) == lasts


@pytest.mark.parametrize(
    "text",
    [
        "", "yesterday", "2026-11-26", "2026-11-26T09:30:00", "2026-11-26T09:30Z",
        "20261126T093000Z", "2026-11-26T09:30:00.Z", "2026-11-26T09:30:00+0200",
        " 2026-11-26T09:30:00Z",
        "2026-02-30T00:00:00Z", "2026-11-26T24:00:00Z", "2026-11-26T23:59:60Z",
        "2026-11-26T09:30:00+99:00", "2026-11-26T09:30:00+00:60", "0001-01-01T00:00:00+10:00",
        "2026-11-26T09:30:00Z\0",
        "\u0662026-11-26T09:30:00Z",
    ],
)  # fmt: skip
def test_what_is_no_time_is_told_with_one_that_is(text: str) -> None:
    """In a sentence that has the value."""
    with pytest.raises(ValueError) as refused:
        moment_told(text)
    assert str(refused.value).startswith(f"{text!r} is no time")
    assert str(refused.value).endswith("such as 2026-11-26T09:30:00Z")
