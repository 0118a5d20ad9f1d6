"""The life of a droplet: given what happened, when a command comes, then these events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from eventsourcing.utils import get_topic

from domain.aggregate import Cause, RecordedEvent
from domain.droplet import (
    BuiltDroplet,
    Droplet,
    DropletState,
    StageRequest,
    faults_of_buildpack,
    faults_of_stage_request,
    procfile_of,
)
from domain.errors import DropletNotFound, DropletNotStaged, DropletNotWaiting, WrongState
from domain.package import Digests, StoredBits

BY = Cause("user-1", "request-1")
REQUEST = StageRequest(1024, 4096, "cflinuxfs2", "ruby")
BUILT = BuiltDroplet(
    StoredBits("ab/cd/droplet-1", 3000),
    Digests("a" * 40, "b" * 64),
    {"web": "bundle exec rackup", "worker": "rake work"},
    "ruby 1.6",
)

Command = Callable[[Droplet], None]


def created(request: StageRequest = REQUEST) -> Droplet:
    return Droplet.create("droplet-1", "package-1", "app-1", request, BY)


def start(droplet: Droplet) -> None:
    droplet.start_staging(BY)


def complete(droplet: Droplet) -> None:
    droplet.complete(BUILT, BY)


def fail(droplet: Droplet) -> None:
    droplet.fail("no buildpack fits", BY)


def expire(droplet: Droplet) -> None:
    droplet.expire(BY)


def delete(droplet: Droplet) -> None:
    droplet.delete(BY)


def given(*commands: Command) -> Droplet:
    """A droplet that has had these commands; its events are in the past."""
    droplet = created()
    for command in commands:
        command(droplet)
    droplet.collect_events()
    return droplet


STATES: dict[str, tuple[list[Command], DropletState]] = {
    "created": ([], DropletState.PENDING),
    "begun": ([start], DropletState.STAGING),
    "staged": ([start, complete], DropletState.STAGED),
    "staged at once": ([complete], DropletState.STAGED),
    "failed": ([start, fail], DropletState.FAILED),
    "failed at once": ([fail], DropletState.FAILED),
    "expired": ([start, complete, expire], DropletState.EXPIRED),
}

# What each command does in each state: the events it triggers, or the refusal.
OUTCOMES: dict[str, tuple[Command, dict[str, Any]]] = {
    "start staging": (
        start,
        {state: DropletNotWaiting for state in STATES}
        | {"created": ["StagingStarted"], "begun": []},
    ),
    "complete": (
        complete,
        {state: DropletNotWaiting for state in STATES}
        | {"created": ["Staged"], "begun": ["Staged"]},
    ),
    "fail": (
        fail,
        {state: DropletNotWaiting for state in STATES}
        | {"created": ["StagingFailed"], "begun": ["StagingFailed"]},
    ),
    "check waiting": (
        Droplet.check_waiting,
        {state: DropletNotWaiting for state in STATES} | {"created": [], "begun": []},
    ),
    "expire": (
        expire,
        {state: DropletNotStaged for state in STATES}
        | {"staged": ["Expired"], "staged at once": ["Expired"], "expired": []},
    ),
    "delete": (delete, {state: ["Deleted"] for state in STATES}),
}


@pytest.mark.parametrize("state", STATES)
def test_events_lead_to_a_state(state: str) -> None:
    """The state follows from what happened."""
    commands, expected = STATES[state]
    assert given(*commands).state is expected


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("command", OUTCOMES)
def test_a_command_triggers_events_or_is_refused(command: str, state: str) -> None:
    """Every command, in every state, does what the table says."""
    act, outcomes = OUTCOMES[command]
    droplet = given(*STATES[state][0])
    before = droplet.version
    expected = outcomes[state]
    if isinstance(expected, list):
        act(droplet)
        assert [type(event).__name__ for event in droplet.pending_events] == expected
    else:
        with pytest.raises(expected) as refused:
            act(droplet)
        assert isinstance(refused.value, WrongState)
        assert (refused.value.guid, refused.value.found) == ("droplet-1", STATES[state][1])
        assert droplet.version == before


@pytest.mark.parametrize("command", OUTCOMES)
@pytest.mark.parametrize("state", STATES)
def test_a_deleted_droplet_refuses_every_command(command: str, state: str) -> None:
    """Gone is gone, whatever it was: there is no such droplet."""
    droplet = given(*STATES[state][0], delete)
    with pytest.raises(DropletNotFound) as refusal:
        OUTCOMES[command][0](droplet)
    assert refusal.value.guid == "droplet-1"


def test_a_new_droplet_knows_what_it_is_made_of() -> None:
    """Its package, its app, what was asked for; nothing yet of what will be built."""
    droplet = created()
    assert (droplet.guid, droplet.package_guid, droplet.app_guid) == (
        "droplet-1", "package-1", "app-1",
    )  # fmt: skip
    assert (droplet.request, droplet.buildpack) == (REQUEST, "ruby")
    assert (droplet.stored, droplet.digests, droplet.process_types, droplet.error) == (
        None, None, None, None,
    )  # fmt: skip


def test_a_staged_droplet_has_what_the_builder_made() -> None:
    """Bits, checksums, processes, and the buildpack that was found to fit."""
    droplet = given(start, complete)
    assert (droplet.stored, droplet.digests, droplet.process_types, droplet.buildpack) == (
        BUILT.stored, BUILT.digests, BUILT.process_types, "ruby 1.6",
    )  # fmt: skip


@pytest.mark.parametrize("said", [None, ""])
def test_a_builder_that_names_no_buildpack_used_the_wanted_one(said: str | None) -> None:
    """What was asked for is still shown."""
    droplet = created()
    droplet.complete(BuiltDroplet(BUILT.stored, BUILT.digests, {}, said), BY)
    assert droplet.buildpack == "ruby"


def test_a_failure_says_why() -> None:
    """The sentence is kept, up to 4096 characters."""
    assert given(fail).error == "no buildpack fits"
    droplet = created()
    droplet.fail("x" * 5000, BY)
    assert droplet.error == "x" * 4096


def test_a_late_answer_changes_nothing() -> None:
    """The first answer stands, in state, error and bits."""
    droplet = given(start, complete)
    with pytest.raises(DropletNotWaiting):
        droplet.fail("too late", BY)
    assert (droplet.state, droplet.error, droplet.version) == (DropletState.STAGED, None, 3)
    droplet = given(start, fail)
    with pytest.raises(DropletNotWaiting):
        complete(droplet)
    assert (droplet.state, droplet.stored, droplet.buildpack) == ("FAILED", None, "ruby")


@pytest.mark.parametrize(
    ("state", "waits", "needs_blob"),
    [
        ("created", True, True),
        ("begun", True, True),
        ("staged", False, True),
        ("failed", False, False),
        ("expired", False, False),
    ],
)
def test_what_is_waited_for_and_kept(state: str, waits: bool, needs_blob: bool) -> None:
    """A builder until it answers; a blob while it may come, or is there; nothing once deleted."""
    droplet = given(*STATES[state][0])
    assert (droplet.waits_for_builder, droplet.needs_blob) == (waits, needs_blob)
    delete(droplet)
    assert (droplet.waits_for_builder, droplet.needs_blob) == (False, False)


@pytest.mark.parametrize("state", [*STATES, "deleted"])
def test_the_events_alone_bring_the_state_back(state: str) -> None:
    """Replayed, the same droplet stands there: state, version, times and all."""
    droplet = created()
    for command in STATES[state][0] if state in STATES else [start, complete, delete]:
        command(droplet)
    replayed: Droplet | None = None
    for event in droplet.collect_events():
        replayed = event.mutate(replayed)
    assert replayed is not droplet
    assert replayed == droplet


def test_every_event_of_a_life_carries_its_cause() -> None:
    """From the first event to the last, each says who, which request, and after what."""
    by = Cause("builder-1", "request-2", "package-1/4")
    droplet = Droplet.create("droplet-1", "package-1", "app-1", REQUEST, by)
    droplet.start_staging(by)
    droplet.complete(BUILT, by)
    droplet.expire(by)
    droplet.delete(by)
    failed = Droplet.create("droplet-2", "package-1", "app-1", REQUEST, by)
    failed.fail("no", by)
    events = [*droplet.collect_events(), *failed.collect_events()]
    assert [type(event).__name__ for event in events] == [
        "Created", "StagingStarted", "Staged", "Expired", "Deleted", "Created", "StagingFailed",
    ]  # fmt: skip
    for event in events:
        assert isinstance(event, RecordedEvent)
        assert (event.actor, event.request_id, event.caused_by) == (
            "builder-1", "request-2", "package-1/4",
        )  # fmt: skip
    assert isinstance(events[2], Droplet.Staged)
    assert (events[2].guid, events[2].event_id) == ("droplet-1", "droplet-1/3")


def test_stored_names_are_explicit() -> None:
    """Old logs name events by these words, whatever module the classes are in."""
    topics = [
        get_topic(kind)
        for kind in (
            Droplet, Droplet.Created, Droplet.StagingStarted, Droplet.Staged,
            Droplet.StagingFailed, Droplet.Expired, Droplet.Deleted,
        )
    ]  # fmt: skip
    assert topics == [
        "droplet", "droplet.created", "droplet.staging_started", "droplet.staged",
        "droplet.staging_failed", "droplet.expired", "droplet.deleted",
    ]  # fmt: skip
    assert created().id == "droplet:droplet-1"


def test_every_event_class_is_named() -> None:
    """No event falls back on the name of its module, not even one that is added later."""
    classes = [kind for kind in vars(Droplet).values() if isinstance(kind, type)]
    events = [kind for kind in classes if issubclass(kind, Droplet.Event)]
    assert len(events) >= 7
    for kind in events:
        assert str(vars(kind)["TOPIC"]).startswith("droplet.")


@pytest.mark.parametrize(
    ("fields", "faults"),
    [
        ({}, []),
        ({"memory_limit": None, "disk_limit": None, "stack": None, "buildpack": None}, []),
        ({"environment_variables": None}, []),
        ({"memory_limit": 1, "disk_limit": -1, "stack": "x", "buildpack": ""}, []),
        ({"stack": "x" * 4096, "environment_variables": {"A": 1, "B": {"c": []}}}, []),
        ({"environment_variables": {"CF": "1", "VCAP": "1", "PORTS": "1", "A_PORT": "1"}}, []),
        ({"memory_limit": "1"}, ["Memory limit must be an integer"]),
        ({"memory_limit": 1.0}, ["Memory limit must be an integer"]),
        ({"memory_limit": True}, ["Memory limit must be an integer"]),
        ({"disk_limit": "4096"}, ["Disk limit must be an integer"]),
        ({"disk_limit": False}, ["Disk limit must be an integer"]),
        ({"stack": 5}, ["Stack must be a string"]),
        ({"stack": ["x"]}, ["Stack must be a string"]),
        ({"stack": ""}, ["Stack must be between 1 and 4096 characters"]),
        ({"stack": "x" * 4097}, ["Stack must be between 1 and 4096 characters"]),
        ({"buildpack": 5}, ["Buildpack must be a string"]),
        ({"environment_variables": []}, ["Environment variables must be a hash"]),
        ({"environment_variables": "A=1"}, ["Environment variables must be a hash"]),
        ({"environment_variables": {"CF_X": 1}}, ["Environment variables cannot start with CF_"]),
        ({"environment_variables": {"cf_x": 1}}, ["Environment variables cannot start with CF_"]),
        (
            {"environment_variables": {"Vcap_Services": 1}},
            ["Environment variables cannot start with VCAP_"],
        ),
        ({"environment_variables": {"PORT": 1}}, ["Environment variables cannot set PORT"]),
        ({"environment_variables": {"port": 1}}, ["Environment variables cannot set PORT"]),
        (
            {
                "environment_variables": {"Port": 1, "VCAP_A": 1, "CF_A": 1},
                "buildpack": [], "stack": 1, "disk_limit": "x", "memory_limit": "x",
            },
            [
                "Memory limit must be an integer", "Disk limit must be an integer",
                "Stack must be a string", "Buildpack must be a string",
                "Environment variables cannot start with CF_",
                "Environment variables cannot start with VCAP_",
                "Environment variables cannot set PORT",
            ],
        ),
    ],
)  # fmt: skip
def test_a_request_to_stage_is_told_all_that_is_wrong(
    fields: dict[str, Any], faults: list[str]
) -> None:
    """One sentence for each thing, in the contract's words and order."""
    assert faults_of_stage_request(fields) == faults


KNOWN = frozenset({"ruby", "go"})
NAME_OR_URL = "Buildpack must be a name or the URL of a git repository"
KNOWN_OR_URL = "Buildpack must be one of 'go, ruby' or the URL of a git repository"
CREDENTIALS = "Buildpack must not hold credentials"


@pytest.mark.parametrize(
    ("buildpack", "known", "faults"),
    [
        (None, KNOWN, []),
        ("ruby", KNOWN, []),
        ("java", KNOWN, [KNOWN_OR_URL]),
        ("", KNOWN, [KNOWN_OR_URL]),
        ("java_buildpack-4.x", frozenset(), []),
        ("a" * 255, frozenset(), []),
        ("a" * 256, frozenset(), [NAME_OR_URL]),
        ("", frozenset(), [NAME_OR_URL]),
        ("-x", frozenset(), [NAME_OR_URL]),
        ("two words", frozenset(), [NAME_OR_URL]),
        ("ruby\n", frozenset(), [NAME_OR_URL]),
        ("https://github.com/cloudfoundry/ruby-buildpack.git", KNOWN, []),
        ("https://github.com/cloudfoundry/ruby-buildpack#v1.6", KNOWN, []),
        ("http://host/x", KNOWN, []),
        ("git://host/x.git", KNOWN, []),
        ("ssh://host/x.git", KNOWN, []),
        ("git@github.com:cloudfoundry/ruby-buildpack.git", KNOWN, []),
        ("https://host/a@b", KNOWN, [CREDENTIALS]),
        ("https://user:sec/ret@host/x", KNOWN, [CREDENTIALS]),
        ("https://host/x?access_token=secret", KNOWN, [CREDENTIALS]),
        ("ssh://git@host/x.git", KNOWN, []),
        ("https://", KNOWN, [KNOWN_OR_URL]),
        ("https:///x", KNOWN, [KNOWN_OR_URL]),
        ("https://host/a b", KNOWN, [KNOWN_OR_URL]),
        ("https://host/a\0b", KNOWN, [KNOWN_OR_URL]),
        ("git@host:a\0b", KNOWN, [KNOWN_OR_URL]),
        ("file:///etc", frozenset(), [NAME_OR_URL]),
        ("https://host/" + "x" * 4084, frozenset(), [NAME_OR_URL]),
        ("https://host/" + "x" * 4083, frozenset(), []),
        ("https://user:secret@host/x.git", KNOWN, [CREDENTIALS]),
        ("HTTPS://user:secret@host/x.git", KNOWN, [CREDENTIALS]),
        ("https://token@host/x.git", frozenset(), [CREDENTIALS]),
        ("git+ssh://user:secret@host/x", frozenset(), [CREDENTIALS]),
    ],
)
def test_a_buildpack_is_a_name_or_a_git_url(
    buildpack: str | None, known: frozenset[str], faults: list[str]
) -> None:
    """Of names only known ones, where some are; never credentials, which would stay in the log."""
    assert faults_of_buildpack(buildpack, known) == faults


def test_a_procfile_has_a_line_a_process_type() -> None:
    """In the builder's order, without a newline at the end."""
    assert procfile_of(BUILT.process_types) == "web: bundle exec rackup\nworker: rake work"
    assert procfile_of({}) == ""
