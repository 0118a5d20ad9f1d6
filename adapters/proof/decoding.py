"""Whether this program can make events of what is stored."""

from __future__ import annotations

from dataclasses import MISSING, fields

from adapters.event_store.transcoding import EventMapper
from adapters.proof.findings import shown
from adapters.proof.rows import Row
from domain.aggregate import RecordedEvent
from domain.ports import LoggedEvent


class Decoder:
    """Makes events of rows as the log itself does."""

    def __init__(self) -> None:
        self._event_of = EventMapper().event_of
        self._names: dict[type[RecordedEvent], frozenset[str]] = {}

    def fault_of(self, row: Row) -> str | None:
        """What keeps a row from being an event; None if nothing does."""
        _, _, originator_id, version, topic, state, _ = row
        try:
            event = self._event_of(originator_id.decode(), version, topic.decode(), state)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            return f"it can't be decoded: {shown(str(error) or type(error).__name__)}"
        kind = type(event)
        names = self._names.get(kind)
        if names is None:
            names = self._names[kind] = _required(kind)
        if names <= event.__dict__.keys():
            return None
        missing = ", ".join(sorted(names - event.__dict__.keys()))
        return f"it can't be decoded: {kind.TOPIC} has no {missing}"

    def logged(self, row: Row) -> LoggedEvent | None:
        """The event that a row is; None if it can't be decoded."""
        if self.fault_of(row) is not None:
            return None
        position, _, originator_id, version, topic, state, _ = row
        event = self._event_of(originator_id.decode(), version, topic.decode(), state)
        return LoggedEvent(position, event)


def _required(kind: type[RecordedEvent]) -> frozenset[str]:
    return frozenset(
        field.name
        for field in fields(kind)  # type: ignore[arg-type]  # the library makes them dataclasses
        if field.default is MISSING and field.default_factory is MISSING
    )
