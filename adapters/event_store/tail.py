"""The newest events that this process has appended: followers need not read them again."""

from __future__ import annotations

from collections.abc import Sequence

from domain.ports import LoggedEvent

LENGTH = 1_000  # events that are kept at least, once there are as many


class Tail:
    """Added to by one thread at a time, in the order of the log; read by any."""

    def __init__(self) -> None:
        self._held: tuple[int, list[LoggedEvent]] = (0, [])  # the first one's position, and all

    def add(self, events: Sequence[LoggedEvent]) -> None:
        """Events that were committed; what another process has appended before is not here."""
        held = self._held[1]
        if held and held[-1].position + 1 == events[0].position:
            held.extend(events)
            if len(held) > 2 * LENGTH:
                self._held = held[-LENGTH].position, held[-LENGTH:]
        else:
            self._held = events[0].position, list(events)

    def read(self, after: int, limit: int) -> list[LoggedEvent]:
        """Up to `limit` events that are next behind position `after`; none if those aren't here."""
        first, held = self._held
        start = after + 1 - first
        return held[start : start + limit] if start >= 0 else []
