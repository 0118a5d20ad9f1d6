"""The message contract: the committed document is the code's own, and no earlier one is broken."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest

from adapters.bus import contract
from adapters.bus.asyncapi import VERSION, document, event_classes
from adapters.bus.bus import BINDINGS, EVENTS
from tests.support.compatibility import breaches

FOLDER = Path(__file__).resolve().parents[3] / "docs" / "asyncapi"
DOCUMENTS = sorted(FOLDER.glob("*.json"))
Document = dict[str, Any]


def load(path: Path) -> Document:
    found: Document = orjson.loads(path.read_bytes())
    return found


@pytest.fixture(scope="module")
def current() -> Document:
    return document()


def messages() -> list[tuple[str, Document]]:
    return sorted(document()["components"]["messages"].items())


def test_the_committed_document_is_what_the_code_says(current: Document) -> None:
    """`packtrail asyncapi > docs/asyncapi/VERSION.json` makes it."""
    assert load(FOLDER / f"{VERSION}.json") == orjson.loads(orjson.dumps(current))
    assert current["info"]["version"] == VERSION


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.stem))
def test_no_earlier_document_is_broken(path: Path, current: Document) -> None:
    """Fields are added, never changed or removed."""
    assert breaches(load(path), current) == []


def test_the_committed_document_is_the_newest() -> None:
    """What is added raises the version."""
    versions = [tuple(map(int, path.stem.split("."))) for path in DOCUMENTS]
    assert max(versions) == tuple(map(int, VERSION.split(".")))


def data_of(message: str) -> Callable[[Document], Document]:
    return lambda found: found["components"]["messages"][message]["payload"]["properties"]["data"]


STAGED, STAGE = data_of("event.droplet.staged"), data_of("command.package.stage")
BREAKS: dict[str, tuple[Callable[[Document], object], str]] = {
    "a message is gone": (
        lambda d: d["components"]["messages"].pop("event.package.created"),
        "event.package.created is gone",
    ),
    "a field is gone": (
        lambda d: STAGED(d)["properties"].pop("sha1"),
        "event.droplet.staged.data.sha1 is gone",
    ),
    "a field has another type": (
        lambda d: STAGED(d)["properties"].update(size={"type": "string"}),
        "event.droplet.staged.data.size was {'type': 'integer'} and is {'type': 'string'}",
    ),
    "a field that was always there may be missing": (
        lambda d: STAGED(d)["required"].remove("size"),
        "event.droplet.staged.data.size may be missing now",
    ),
    "a command needs more": (
        lambda d: STAGE(d)["required"].append("stack"),
        "command.package.stage.data.stack is required now",
    ),
    "a queue has another name": (
        lambda d: d["channels"]["commands"].update(address="other"),
        "channel commands is another",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_breach_is_found(name: str, current: Document) -> None:
    """The rule itself: each way to break a contract is told."""
    change, breach = BREAKS[name]
    later = copy.deepcopy(current)
    change(later)
    assert breaches(current, later) == [breach]


def test_what_is_added_breaks_nothing(current: Document) -> None:
    """A field, a field of a command that may be left out, and a message."""
    later = copy.deepcopy(current)
    STAGED(later)["properties"]["new"] = {"type": "string"}
    STAGED(later)["required"].append("new")
    STAGE(later)["properties"]["new"] = {"type": "string"}
    later["components"]["messages"]["event.package.new"] = {}
    assert breaches(current, later) == []


@pytest.mark.parametrize(("name", "message"), messages(), ids=[name for name, _ in messages()])
def test_every_example_keeps_to_its_schema(name: str, message: Document) -> None:
    """And every message has an example, and says what it is for."""
    assert message["summary"]
    for example in message["examples"]:
        jsonschema.Draft202012Validator.check_schema(message["payload"])
        jsonschema.validate(example["payload"], message["payload"])


def test_every_event_and_every_command_is_described(current: Document) -> None:
    """Under its stored name."""
    names = set(current["components"]["messages"])
    events = {f"event.{kind.TOPIC}" for kind in event_classes()}
    commands = {f"command.{name}" for name in contract.COMMANDS}
    assert names == {
        *events, *commands, "event.droplet.staging_requested",
        "reply.command.accepted", "reply.command.refused",
    }  # fmt: skip
    assert len(events) == 35


def test_every_reference_leads_somewhere(current: Document) -> None:
    """In the document itself."""

    def refs(part: Any) -> list[str]:
        if isinstance(part, dict):
            own = [part["$ref"]] if "$ref" in part else []
            return own + [ref for value in part.values() for ref in refs(value)]
        return [ref for value in part for ref in refs(value)] if isinstance(part, list) else []

    found = refs(current)
    assert len(found) > 100
    for ref in found:
        place: Any = current
        for step in ref.removeprefix("#/").split("/"):
            place = place[step]


def test_the_channels_are_those_of_the_bus(current: Document) -> None:
    """Exchange and queues have the names that the code uses."""
    addresses = {channel["address"] for channel in current["channels"].values()}
    assert addresses == {EVENTS.name, "packtrail.staging", "packtrail.commands", None}
    assert addresses - {None, EVENTS.name} <= set(BINDINGS)


def test_no_message_has_room_for_a_secret(current: Document) -> None:
    """No field of any message holds environment variables or a token."""
    for name, message in current["components"]["messages"].items():
        fields = set(message["payload"]["properties"]["data"]["properties"])
        assert not {f for f in fields if "environment" in f or "token" in f or "secret" in f}, name
