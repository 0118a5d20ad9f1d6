"""The past, read from the log: where a time is in it, and what something was like there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Protocol, TypeVar

from adapters.moments import moment_told
from domain.aggregate import Aggregate
from domain.ports import LoggedEvent

A = TypeVar("A", bound=Aggregate)
_POSITION = re.compile(r"[0-9]{1,1000}", re.ASCII)


class History(Protocol):
    """What is used of the log."""

    def head(self) -> int: ...

    def history(self, originator_id: str, upto: int | None = None) -> Sequence[LoggedEvent]: ...

    def position_at(self, moment: datetime) -> int: ...


class NoSuchPast(ValueError):
    """A value that names no place of the log; the text says why, and what would be right."""


def position_told(log: History, at: str) -> int:
    """The position that is meant by a position, or by a time: the last appended before it.

    0 is before everything. What is not there yet can't be told of: raises `NoSuchPast`.
    """
    if _POSITION.fullmatch(at):
        head, position = log.head(), int(at)
        if position > head:
            raise NoSuchPast(f"position {at} is beyond the newest event, which is at {head}")
        return position
    try:
        moment = moment_told(at).start
    except ValueError as error:
        raise NoSuchPast(f"{error}, and no position such as 4711") from None
    now = datetime.now(UTC)
    if moment > now:
        raise NoSuchPast(f"{at!r} is in the future: it is {now:%Y-%m-%dT%H:%M:%S.%fZ} now")
    return log.position_at(moment)


def trail(log: History, kind: type[Aggregate], guid: str) -> Sequence[LoggedEvent]:
    """All that ever happened to something, in order; nothing if it was never there."""
    return log.history(kind.ID_PREFIX + guid)


def aggregate_at(log: History, kind: type[A], guid: str, position: int | None = None) -> A | None:
    """Something as it was when the log ended with `position`, or as it is now.

    None if it was not there yet; what was deleted by then is there, and says so.
    """
    found: A | None = None
    for logged in log.history(kind.ID_PREFIX + guid, position):
        changed = logged.event.mutate(found)
        assert isinstance(changed, kind), "no event makes an aggregate of another kind"
        found = changed
    return found
