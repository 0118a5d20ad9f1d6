"""Events as lines: for people, and for programs."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from adapters.event_store.chain import Record
from adapters.event_store.transcoding import OrjsonTranscoder
from entrypoints.event_lines import EventLines, is_coloured

MOMENT = datetime(2026, 3, 2, 8, 0, 0, 125_000, UTC)
APPENDED = int(MOMENT.timestamp() * 1_000_000) + 7


def record(topic: str, position: int = 12, guid: str = "guid-1", **fields: Any) -> Record:
    state = {
        "timestamp": MOMENT, "actor": "user-1", "request_id": "req-1", "caused_by": None, **fields,
    }  # fmt: skip
    encoded = OrjsonTranscoder().encode(state)
    return Record(position, APPENDED, f"package:{guid}", 3, topic, encoded, bytes(32))


def text(event: Record, coloured: bool = False) -> str:
    return EventLines(head=1234, as_json=False, coloured=coloured).of(event)


def test_a_line_tells_position_time_type_guid_actor_and_why() -> None:
    """And of what the event says what is of use to people, but for what is not there."""
    line = text(record("package.bits_stored", blob_key="ab/cd/x", size=20, caused_by="guid-1/2"))
    assert line.split() == [
        "12", "2026-03-02T08:00:00.125007Z", "package.bits_stored", "guid-1/3", "user-1",
        "size=20", "request=req-1", "because=guid-1/2",
    ]  # fmt: skip


def test_lines_are_aligned() -> None:
    """What is shorter is filled up."""
    one, other = text(record("package.deleted", 9)), text(record("package.expired", 1234, "g"))
    assert one.index("user-1") == other.index("user-1")
    assert one.index("request=") == other.index("request=")


def test_what_would_tell_a_terminal_to_do_something_is_escaped() -> None:
    """Also a line end, and text that changes its direction; a line stays a line."""
    evil = "a\x1b[2J\nb\x7f\u202ec"
    line = text(record("package.upload_started", staged_uri="s", staged_offset=0,
                       staged_length=1, file_name=evil, actor=evil, request_id=evil))  # fmt: skip
    assert line.isprintable()
    assert r'file_name="a\u001b[2J\nb\u007f\u202ec"' in line


def test_json_has_nothing_that_would_tell_a_terminal_to_do_something() -> None:
    """It may be printed on one, too; what the JSON says is the same."""
    evil = "a\x1b[2J\nb\x7f\x9b2J\u202ec\u2028 日本"
    line = EventLines(1, True, False).of(
        record("package.upload_started", staged_uri="s", staged_offset=0, staged_length=1,
               file_name=evil)
    )  # fmt: skip
    assert line.isprintable() and "日本" in line
    assert orjson.loads(line)["data"]["file_name"] == evil


def test_long_values_are_cut_for_people_and_whole_for_programs() -> None:
    """An error may have thousands of characters."""
    failed = record("package.processing_failed", error="x" * 500, fault="bits", detail=None)
    assert "…" in text(failed) and len(text(failed)) < 400
    whole = orjson.loads(EventLines(1, True, False).of(failed))
    assert whole["data"]["error"] == "x" * 500


def test_an_event_as_json() -> None:
    """The fields that GET /v3/packages/:guid/events has, and what else the log knows."""
    line = EventLines(1, True, True).of(record("package.expired", actor="packtrail.retention"))
    assert orjson.loads(line) == {
        "position": 12,
        "id": "guid-1/3",
        "type": "package.expired",
        "guid": "guid-1",
        "version": 3,
        "created_at": "2026-03-02T08:00:00.125000Z",
        "appended_at": "2026-03-02T08:00:00.125007Z",
        "actor": {"guid": "packtrail.retention", "type": "system"},
        "request_id": "req-1",
        "caused_by": None,
        "data": {},
    }


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_only_a_terminal_is_coloured(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not where NO_COLOR says so, or the terminal can't be."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert is_coloured(Terminal()) and not is_coloured(io.StringIO())
    assert "\x1b[" in text(record("package.deleted"), coloured=True)
    assert "\x1b[" not in text(record("package.deleted"))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not is_coloured(Terminal())
    monkeypatch.setenv("NO_COLOR", "")
    assert is_coloured(Terminal())
    monkeypatch.setenv("TERM", "dumb")
    assert not is_coloured(Terminal())
