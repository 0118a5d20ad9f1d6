"""Events as lines: aligned and perhaps coloured for people, or JSON for programs."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from typing import Any, TextIO

import orjson

from adapters.event_store.chain import Record
from adapters.event_store.transcoding import EventMapper
from domain.aggregate import ENVELOPE, RecordedEvent
from projections.representation import SERVICE, exact_timestamp
from projections.rows import moment_of

TYPE_WIDTH = 28
GUID_WIDTH = 38  # a UUID and a version
ACTOR_WIDTH = 20
LONGEST = 100  # characters of a value that are shown to people
_CAUSE = ("actor", "request_id", "caused_by")
_INNER = ("staged_uri", "staged_offset", "blob_key", "command_digest")  # of use to the service
# what JSON may have as it is, and a terminal may obey: DEL, C1 controls, the order of writing
_OBEYED = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_DIM, _RED, _GREEN, _YELLOW, _CYAN = 2, 31, 32, 33, 36
_COLOURS = {
    "failed": _RED,
    "deleted": _YELLOW,
    "expired": _YELLOW,
    "removed": _YELLOW,
    "hash_computed": _GREEN,
    "staged": _GREEN,
}


def is_coloured(stream: TextIO) -> bool:
    """Only a terminal's is, and not where NO_COLOR is set (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class EventLines:
    """Makes a line of each event. `head` is the newest position there is: so wide are they."""

    def __init__(self, head: int, as_json: bool, coloured: bool) -> None:
        self._event_of = EventMapper().event_of
        self._width = max(4, len(str(head)))
        self._coloured = coloured
        self.of: Callable[[Record], str] = self._json if as_json else self._text

    def told(self, record: Record) -> dict[str, Any]:
        """What is told of an event to programs. Raises `NewerData`."""
        event = self._event(record)
        kind = "system" if event.actor.startswith(SERVICE) else "user"
        return {
            "position": record.position,
            "id": event.event_id,
            "type": event.TOPIC,
            "guid": event.guid,
            "version": event.originator_version,
            "created_at": exact_timestamp(event.timestamp),
            "appended_at": exact_timestamp(moment_of(record.appended_at)),
            "actor": {"guid": event.actor, "type": kind},
            "request_id": event.request_id,
            "caused_by": event.caused_by,
            "data": _data(event),
        }

    def _event(self, record: Record) -> RecordedEvent:
        return self._event_of(
            record.originator_id, record.originator_version, record.topic, record.state
        )

    def _json(self, record: Record) -> str:
        return printed_json(orjson.dumps(self.told(record)))

    def _text(self, record: Record) -> str:
        event = self._event(record)
        data = {name: value for name, value in _data(event).items() if name not in _INNER}
        cause = {"request": event.request_id, "because": event.caused_by}
        return "  ".join(
            (
                f"{record.position:>{self._width}}",
                self._in(_DIM, exact_timestamp(moment_of(record.appended_at))),
                self._in(_colour_of(event.TOPIC), f"{event.TOPIC:<{TYPE_WIDTH}}"),
                f"{shown_plainly(event.event_id):<{GUID_WIDTH}}",
                f"{shown_plainly(event.actor):<{ACTOR_WIDTH}}",
                " ".join([*_pairs(data), self._in(_DIM, " ".join(_pairs(cause)))]),
            )
        )

    def _in(self, colour: int, text: str) -> str:
        return f"\033[{colour}m{text}\033[0m" if self._coloured else text


def _data(event: RecordedEvent) -> dict[str, Any]:
    """The event's own fields."""
    return {name: value for name, value in vars(event).items() if name not in (*ENVELOPE, *_CAUSE)}


def _colour_of(topic: str) -> int:
    word = topic.partition(".")[2]
    return _COLOURS.get(word) or _COLOURS.get(word.rpartition("_")[2], _CYAN)


def _pairs(fields: dict[str, Any]) -> list[str]:
    return [f"{name}={shown_plainly(value)}" for name, value in fields.items() if value is not None]


def printed_json(document: bytes) -> str:
    """The same JSON, without what would tell a terminal to do something."""
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", document.decode())


def shown_plainly(value: Any) -> str:
    """On one line, and without what would tell a terminal to do something."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) > LONGEST:
        text = f"{text[: LONGEST - 1]}…"
    if not text.isprintable():
        return json.dumps(text).replace("\x7f", "\\u007f")
    if isinstance(value, str) and (not text or " " in text or '"' in text):
        return json.dumps(text, ensure_ascii=False)
    return text
