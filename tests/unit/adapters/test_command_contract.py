"""The data of commands: what is accepted, and what a sender is told of what is not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import BaseModel

from adapters.bus.contract import COMMANDS, CommandAccepted, CommandData, CommandRefused
from adapters.tokens import Scope
from domain.errors import InvalidRequest

KINDS = list(COMMANDS.values())
every_command = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.TYPE)
Kind = type[CommandData]

ANNOUNCEMENTS = {
    "app.created", "app.renamed", "app.deleted",
    "space.created", "space.renamed", "space.deleted",
    "organization.created", "organization.renamed", "organization.deleted",
    "role.assigned", "role.removed",
}  # fmt: skip


def faults(kind: Kind, data: Mapping[str, Any]) -> list[str]:
    with pytest.raises(InvalidRequest) as refused:
        kind.of(data)
    return refused.value.faults


def required(kind: Kind) -> list[str]:
    return [name for name, field in kind.model_fields.items() if field.is_required()]


def label(name: str) -> str:
    """A field's name as people read it."""
    return name.replace("_", " ").capitalize()


def test_these_are_the_commands() -> None:
    """One less, or another name, would break who sends them."""
    assert set(COMMANDS) == ANNOUNCEMENTS | {
        "package.create", "package.upload", "package.copy", "package.delete", "package.stage",
        "droplet.delete", "droplet.staging_started", "droplet.staged", "droplet.staging_failed",
    }  # fmt: skip
    assert all(name == kind.TYPE for name, kind in COMMANDS.items())


@every_command
def test_announcements_are_for_admins(kind: Kind) -> None:
    """And all other commands for whoever may write."""
    assert (Scope.ADMIN if kind.TYPE in ANNOUNCEMENTS else Scope.WRITE) == kind.SCOPE


@every_command
def test_the_example_is_accepted(kind: Kind) -> None:
    """With all that it says."""
    assert kind.of(kind.EXAMPLE).model_dump(exclude_unset=True) == dict(kind.EXAMPLE)


@every_command
def test_what_is_required_is_enough(kind: Kind) -> None:
    """Everything else may be left out, or be null."""
    least = {name: kind.EXAMPLE[name] for name in required(kind)}
    assert kind.of(least).model_dump(exclude_unset=True) == least
    optional = dict.fromkeys(set(kind.model_fields) - set(least))
    assert kind.of(least | optional) == kind.of(least)


@every_command
def test_unknown_fields_are_refused(kind: Kind) -> None:
    """All of them by name, in one sentence."""
    told = faults(kind, {**kind.EXAMPLE, "colour": "blue", "tokén": 1})
    assert told == ["Unknown field(s): 'colour', 'tokén'"]


@every_command
def test_missing_fields_are_refused(kind: Kind) -> None:
    """Each in a sentence of its own."""
    assert faults(kind, {}) == [f"{label(name)} is required" for name in required(kind)]


@every_command
def test_fields_of_another_type_are_refused(kind: Kind) -> None:
    """Each field is told, and nothing is made to fit."""
    takes_true = kind.TYPE == "organization.created"
    for wrong in (1.5, ["a"], *(() if takes_true else (True,))):
        told = faults(kind, dict.fromkeys(kind.model_fields, wrong))
        assert len(told) == len(kind.model_fields)
        for name, sentence in zip(kind.model_fields, told, strict=True):
            assert re.match(rf"{label(name)} must [a-z]", sentence), sentence


@every_command
def test_all_that_is_wrong_is_told_at_once(kind: Kind) -> None:
    """Unknown fields first, then what is missing and what is wrong, with no more than words."""
    first, *others = required(kind)
    data: dict[str, Any] = {"colour": "blue", first: 7, "shape": None}
    told = faults(kind, data)
    assert told[0] == "Unknown field(s): 'colour', 'shape'"
    assert told[1].startswith(f"{label(first)} must ")
    assert told[2:] == [f"{label(name)} is required" for name in others]
    assert not any("\n" in sentence or "pydantic" in sentence for sentence in told)


@every_command
def test_guids_are_of_1_to_200_characters(kind: Kind) -> None:
    """Any such string is one."""
    guids = [name for name in kind.model_fields if name.endswith("guid")]
    assert guids
    for name in guids:
        for good in ("x", "x" * 200, "größe/../%00"):
            assert getattr(kind.of({**kind.EXAMPLE, name: good}), name) == good
        for bad in ("", "x" * 201):
            (sentence,) = faults(kind, {**kind.EXAMPLE, name: bad})
            assert sentence.startswith(f"{label(name)} must ")


@every_command
def test_no_text_holds_a_nul(kind: Kind) -> None:
    """PostgreSQL keeps none: which field does is told."""
    for name, value in kind.EXAMPLE.items():
        if isinstance(value, str) and name not in ("type", "sha1"):
            (sentence,) = faults(kind, {**kind.EXAMPLE, name: "a\0b"})
            assert sentence == f"{label(name)} must not hold NUL characters"


@pytest.mark.parametrize(
    ("command", "field", "longest"),
    [
        ("app.created", "name", 255), ("app.renamed", "name", 255),
        ("space.created", "name", 255), ("space.renamed", "name", 255),
        ("organization.created", "name", 255), ("organization.renamed", "name", 255),
        ("droplet.staging_failed", "error", 4096),
    ],
)  # fmt: skip
def test_texts_have_a_longest(command: str, field: str, longest: int) -> None:
    """And none is empty."""
    kind = COMMANDS[command]
    assert kind.of({**kind.EXAMPLE, field: "x" * longest})
    for bad in ("", "x" * (longest + 1)):
        (sentence,) = faults(kind, {**kind.EXAMPLE, field: bad})
        assert sentence.startswith(f"{label(field)} must ")


def test_process_types_are_texts() -> None:
    """Which of them is not is told."""
    kind = COMMANDS["droplet.staged"]
    told = faults(kind, {**kind.EXAMPLE, "process_types": {"web": ["rackup"], "worker": "run"}})
    assert told == ["Process types.web must be a string"]
    assert faults(kind, {**kind.EXAMPLE, "process_types": []}) == [
        "Process types must be an object"
    ]


@pytest.mark.parametrize("limit", ["1024", 1024.0, True])
def test_limits_are_integers(limit: object) -> None:
    """No text, no fraction, no truth."""
    kind = COMMANDS["package.stage"]
    assert faults(kind, {**kind.EXAMPLE, "memory_limit": limit}) == [
        "Memory limit must be an integer"
    ]


def test_environment_variables_are_no_field() -> None:
    """They may be secrets, and never travel in a message."""
    kind = COMMANDS["package.stage"]
    assert "environment_variables" not in kind.model_fields
    assert faults(kind, {**kind.EXAMPLE, "environment_variables": {}}) == [
        "Unknown field(s): 'environment_variables'"
    ]


@every_command
def test_the_schema_forbids_what_would_be_refused(kind: Kind) -> None:
    """Who checks before sending learns the same: no other fields, these required, and why."""
    schema = kind.model_json_schema()
    assert schema["additionalProperties"] is False
    assert schema["type"] == "object"
    assert set(schema["properties"]) == set(kind.model_fields)
    assert schema["required"] == required(kind)
    assert schema["description"]
    for name, described in schema["properties"].items():
        if name in required(kind) and name.endswith("guid"):
            assert (described["minLength"], described["maxLength"]) == (1, 200)


def test_no_token_has_a_field_of_its_own() -> None:
    """It is in a header: data is logged, stored and parked."""
    models: list[type[BaseModel]] = [*KINDS, CommandAccepted, CommandRefused]
    for model in models:
        names = " ".join(model.model_fields)
        assert not re.search("token|authori[sz]ation|secret|password", names)


def test_a_command_does_not_change() -> None:
    """What was checked is what is carried out."""
    command = COMMANDS["package.delete"].of({"guid": "guid-1"})
    with pytest.raises(ValueError, match="frozen"):
        command.guid = "guid-2"  # type: ignore[attr-defined]
