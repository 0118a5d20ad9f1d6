"""The log as its followers see it, on any of the library's recorders that can wake them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

from eventsourcing.persistence import Mapper, Notification

from domain.aggregate import RecordedEvent
from domain.ports import LoggedEvent


class Recorder(Protocol):
    """What is used of a recorder."""

    @property
    def appends(self) -> int: ...

    def wait_for_append(self, appends: int, timeout: float) -> None: ...

    def wake(self) -> None: ...

    def max_notification_id(self) -> int | None: ...

    def select_notifications(
        self, start: int | None, limit: int, *, inclusive_of_start: bool = True
    ) -> Sequence[Notification]: ...


class RecordedLog:
    """An `EventLog` (see `domain.ports`) over a recorder."""

    def __init__(self, recorder: Recorder, mapper: Mapper[str]) -> None:
        self._recorder = recorder
        self._mapper = mapper

    def head(self) -> int:
        return self._recorder.max_notification_id() or 0

    def read(self, after: int, limit: int) -> list[LoggedEvent]:
        return [
            LoggedEvent(
                notification.id, cast(RecordedEvent, self._mapper.to_domain_event(notification))
            )
            for notification in self._recorder.select_notifications(
                after, limit, inclusive_of_start=False
            )
        ]

    def wait(self, after: int, timeout: float) -> None:
        appends = self._recorder.appends
        if self.head() <= after:
            self._recorder.wait_for_append(appends, timeout)

    def wake(self) -> None:
        self._recorder.wake()
