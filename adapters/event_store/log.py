"""The log as its followers see it, on any of the library's recorders that can wake them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from adapters.event_store.chain import Record
from adapters.event_store.tail import Tail
from adapters.event_store.transcoding import EventMapper
from domain.errors import UnreadableEvent
from domain.ports import LoggedEvent
from projections.rows import microseconds

LAST_POSITION = 2**63 - 1
Stored = tuple[int, str, int, str, bytes]  # position, originator id and version, topic, state


class Recorder(Protocol):
    """What is used of a recorder."""

    @property
    def appends(self) -> int: ...

    def wait_for_append(self, appends: int, timeout: float) -> None: ...

    def wake(self) -> None: ...

    def max_notification_id(self) -> int | None: ...

    def records(self, after: int, limit: int) -> Sequence[Record]: ...

    def events(self, after: int, limit: int) -> Sequence[Stored]: ...

    def history(self, originator_id: str, upto: int) -> Sequence[Stored]: ...


class RecordedLog:
    """An `EventLog` (see `domain.ports`) over a recorder."""

    def __init__(self, recorder: Recorder, mapper: EventMapper, tail: Tail | None = None) -> None:
        """`tail`: what of it need not be read again."""
        self._tail = tail or Tail()
        self._recorder = recorder
        self._event_of = mapper.event_of

    def head(self) -> int:
        return self._recorder.max_notification_id() or 0

    def read(self, after: int, limit: int) -> list[LoggedEvent]:
        newest = self._tail.read(after, limit)
        if not newest:
            return self._read(after, limit)
        if len(newest) == limit:
            return newest
        try:  # others may have appended behind it
            return newest + self._read(newest[-1].position, limit - len(newest))
        except UnreadableEvent:
            return newest  # the next one who reads from there is told

    def _read(self, after: int, limit: int) -> list[LoggedEvent]:
        stored = self._recorder.events(after, limit)
        event_of = self._event_of
        found: list[LoggedEvent] = []
        try:
            for position, originator_id, version, topic, state in stored:
                found.append(LoggedEvent(position, event_of(originator_id, version, topic, state)))
        except Exception:  # noqa: BLE001 - the next one who reads from there is told
            if not found:
                self._event(stored[0])  # which raises what is wrong with it
        return found

    def records(self, after: int, limit: int) -> Sequence[Record]:
        """Up to `limit` events behind position `after` as they are stored, in order."""
        return self._recorder.records(after, limit)

    def history(self, originator_id: str, upto: int | None = None) -> list[LoggedEvent]:
        if "\0" in originator_id:  # PostgreSQL can't even be asked
            return []
        last = LAST_POSITION if upto is None else upto
        return [self._event(stored) for stored in self._recorder.history(originator_id, last)]

    def position_at(self, moment: datetime) -> int:
        """By halving: times never go back from one position to the next."""
        sought = microseconds(moment)
        before, head = 0, self.head()  # `before` is a position appended before, or none
        behind = head + 1  # nothing from here on was
        while behind - before > 1:
            middle = (before + behind) // 2
            found = self._recorder.records(middle - 1, 1)  # at it, or behind a gap
            if found and found[0].position < behind and found[0].appended_at < sought:
                before = found[0].position
            else:
                behind = middle
        return before

    def wait(self, after: int, timeout: float) -> None:
        appends = self._recorder.appends
        if self.head() <= after:
            self._recorder.wait_for_append(appends, timeout)

    def wake(self) -> None:
        self._recorder.wake()

    def _event(self, stored: Stored) -> LoggedEvent:
        position, originator_id, version, topic, state = stored
        try:
            return LoggedEvent(position, self._event_of(originator_id, version, topic, state))
        except (
            ValueError, LookupError, TypeError, AttributeError, OverflowError
        ) as error:  # fmt: skip
            event_id = f"{originator_id.partition(':')[2]}/{version}"
            raise UnreadableEvent(position, event_id, f"{type(error).__name__}: {error}") from error
