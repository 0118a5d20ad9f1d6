"""Times as people and clients write them: RFC 3339, as precise as they are written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from projections.rows import microseconds

EXAMPLE = "2026-11-26T09:30:00Z"
_DIGITS = 6  # of a second that count: the log's times are in microseconds
_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d+))?(?:([Zz])|([+ -])(\d\d:[0-5]\d))", re.ASCII
)


@dataclass(frozen=True)
class Moment:
    """A time, and how long it lasts: a second, or what the digits behind its point tell.

    Who is shown whole seconds asks with whole seconds, and means all of such a second.
    """

    start: datetime  # UTC
    lasts: timedelta

    @property
    def span(self) -> tuple[int, int]:
        """From and up to, in microseconds since the epoch, UTC."""
        first = microseconds(self.start)
        return first, first + self.lasts // timedelta(microseconds=1)


def moment_told(text: str) -> Moment:
    """Raises `ValueError` for what is no date and time with an offset, by RFC 3339.

    A plus sign that was not encoded in a URL arrives as a space.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no time such as {EXAMPLE}")
    day, clock, fraction, _, sign, offset = match.groups()
    digits = (fraction or "")[:_DIGITS]
    zone = "+00:00" if offset is None else f"{'-' if sign == '-' else '+'}{offset}"
    written = f"{day}T{clock}.{digits.ljust(_DIGITS, '0')}{zone}"
    try:
        start = datetime.fromisoformat(written).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no time that there is, such as {EXAMPLE}") from None
    return Moment(start, timedelta(microseconds=10 ** (_DIGITS - len(digits))))
