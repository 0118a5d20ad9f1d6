"""Events as other systems hear them: CloudEvents that say what the log says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson
import pytest

from adapters.bus.messages import Heard, message_of
from domain.aggregate import Cause, RecordedEvent
from domain.ports import LoggedEvent
from tests.support.packages import BY, created, delete, fail_by_us, hash_, resume, store, upload


def life() -> list[RecordedEvent]:
    package = created()
    for act in (upload, store, fail_by_us, resume, hash_, delete):
        act(package)
    return [event for event in package.collect_events() if isinstance(event, RecordedEvent)]


def body_of(event: RecordedEvent, position: int = 1) -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads(message_of(LoggedEvent(position, event)).body)
    return body


def test_a_message_is_a_cloud_event() -> None:
    """With all that CloudEvents 1.0 asks for."""
    event = life()[1]
    body = body_of(event, 4711)
    moment = body.pop("time")
    assert datetime.fromisoformat(moment) == event.timestamp
    assert moment.endswith("Z")
    assert body == {
        "specversion": "1.0",
        "id": "guid-1/2",
        "source": "/v3/packages",
        "type": "package.upload_started",
        "subject": "guid-1",
        "sequence": "00000000000000004711",
        "datacontenttype": "application/json",
        "data": {
            "actor": "user-1",
            "request_id": "request-1",
            "caused_by": None,
            "staged_uri": "staging:abc",
            "staged_offset": 100,
            "staged_length": 2000,
            "file_name": "app.zip",
        },
    }


def test_every_event_makes_a_message_under_its_stored_name() -> None:
    """The type is the routing key, the id is unique."""
    messages = [message_of(LoggedEvent(number, event)) for number, event in enumerate(life(), 1)]
    assert [message.type for message in messages] == [
        "package.created", "package.upload_started", "package.bits_stored",
        "package.processing_failed", "package.processing_resumed", "package.hash_computed",
        "package.deleted",
    ]  # fmt: skip
    assert [message.id for message in messages] == [f"guid-1/{number}" for number in range(1, 8)]
    for message in messages:
        body = orjson.loads(message.body)
        assert (body["id"], body["type"]) == (message.id, message.type)
        assert message.headers == {}


def test_the_time_is_told_in_utc() -> None:
    """Wherever the event was made."""
    event = life()[-1]
    elsewhere = timezone(timedelta(hours=2))
    vars(event)["timestamp"] = datetime(2015, 10, 7, 2, 35, 46, 120, tzinfo=elsewhere)
    assert body_of(event)["time"] == "2015-10-07T00:35:46.000120Z"


def test_sequences_sort_as_text() -> None:
    """Message 10 comes behind message 9 for whoever sorts by it, up to the last position."""
    event = life()[0]
    positions = [1, 9, 10, 99, 100, 2**63 - 1]
    sequences = [body_of(event, position)["sequence"] for position in positions]
    assert sequences == sorted(sequences)
    assert [int(sequence) for sequence in sequences] == positions


def test_a_message_tells_nothing_of_how_events_are_stored() -> None:
    """The log's own bookkeeping stays in the log."""
    for event in life():
        assert not {name for name in body_of(event)["data"] if name.startswith("originator")}


def test_what_was_said_is_heard() -> None:
    """A consumer knows package, event, and that what it does is caused by this event."""
    event = life()[1]
    heard = Heard.of(message_of(LoggedEvent(7, event)).body)
    assert (heard.guid, heard.type, heard.event_id) == (
        "guid-1", "package.upload_started", "guid-1/2",
    )  # fmt: skip
    assert heard.cause == Cause("user-1", "request-1", "guid-1/2")
    assert heard.cause.actor == BY.actor
    assert event.timestamp.tzinfo is UTC


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no json",
        b"[]",
        b"null",
        b"7",
        b"{}",
        b'{"data": null}',
        b'{"data": []}',
        b"\xff",
        "{",
    ],
)
def test_what_is_no_message_of_ours_is_told(body: bytes | str) -> None:
    """Whatever somebody else has put into the queue."""
    with pytest.raises(ValueError, match="not a package event"):
        Heard.of(body)
