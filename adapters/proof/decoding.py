"""Whether this program can make events of what is stored."""

from __future__ import annotations

from dataclasses import MISSING, fields
from datetime import datetime
from functools import cache
from typing import Any

import orjson

from adapters.event_store.transcoding import EventMapper
from adapters.proof.findings import shown
from adapters.proof.rows import Row
from domain.aggregate import RecordedEvent
from domain.ports import LoggedEvent

_OF_THE_ROW = frozenset(("originator_id", "originator_version"))


class Decoder:
    """Makes events of rows as the log itself does."""

    def __init__(self) -> None:
        self._event_of = EventMapper().event_of
        # what events of a topic that could be decoded had in them: another with the same can be
        self._seen: dict[bytes, frozenset[str]] = {}

    def fault_of(self, row: Row) -> str | None:
        """What keeps a row from being an event; None if nothing does."""
        try:
            found = orjson.loads(row[5])
            if found.keys() == self._seen[bytes(row[4])] and row[2].isascii():
                datetime.fromisoformat(found["timestamp"])
                return None
        except (LookupError, TypeError, ValueError, AttributeError):
            pass  # looked at again, and told
        return self._fault_of(row)

    def logged(self, row: Row) -> LoggedEvent | None:
        """The event that a row is; None if it can't be decoded."""
        try:
            event = self._event(row)
        except Exception:  # noqa: BLE001 - `fault_of` tells it
            return None
        if required(type(event)) - event.__dict__.keys():
            return None
        return LoggedEvent(row[0], event)

    def _fault_of(self, row: Row) -> str | None:
        try:
            event = self._event(row)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            return f"it can't be decoded: {shown(str(error) or type(error).__name__)}"
        kind = type(event)
        missing = required(kind) - event.__dict__.keys()
        if missing:
            return f"it can't be decoded: {kind.TOPIC} has no {', '.join(sorted(missing))}"
        if getattr(kind, "class_version", 1) == 1:
            self._seen[bytes(row[4])] = frozenset(event.__dict__.keys() - _OF_THE_ROW)
        return None

    def _event(self, row: Row) -> RecordedEvent:
        _, _, originator_id, version, topic, state, _ = row
        return self._event_of(originator_id.decode(), version, topic.decode(), state)


@cache
def required(kind: Any) -> frozenset[str]:
    """The fields that every event of a kind has."""
    return frozenset(
        field.name
        for field in fields(kind)
        if field.default is MISSING and field.default_factory is MISSING
    )
