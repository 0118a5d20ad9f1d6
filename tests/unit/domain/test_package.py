"""The life of a package: given what happened, when a command comes, then these events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from eventsourcing.utils import get_topic

from domain.aggregate import Cause, RecordedEvent
from domain.errors import (
    BitsAlreadyUploaded,
    InvalidPackage,
    PackageNotFailedByUs,
    PackageNotFound,
    PackageNotReady,
    PackageTypeNotBits,
    SourceAppIsDestination,
    SourceNotReady,
    WrongState,
)
from domain.package import Digests, Fault, Package, PackageState, PackageType, StoredBits
from tests.support.packages import (
    BY,
    DIGESTS,
    STAGED,
    STORED,
    created,
    delete,
    expire,
    fail_by_bits,
    fail_by_us,
    given,
    hash_,
    resume,
    store,
    upload,
)

Command = Callable[[Package], None]


def event_names(package: Package) -> list[str]:
    return [type(event).__name__ for event in package.pending_events]


def docker() -> Package:
    return given(package=created(PackageType.DOCKER, "registry/image:1"))


def copy_of(source: Package) -> Package:
    return Package.copy(source, "guid-2", "app-2", BY)


STATES: dict[str, tuple[list[Command], PackageState]] = {
    "created": ([], PackageState.AWAITING_UPLOAD),
    "uploaded": ([upload], PackageState.PROCESSING_UPLOAD),
    "stored": ([upload, store], PackageState.PROCESSING_UPLOAD),
    "ready": ([upload, store, hash_], PackageState.READY),
    "failed by its bits": ([upload, fail_by_bits], PackageState.FAILED),
    "failed by us": ([upload, fail_by_us], PackageState.FAILED),
    "resumed": ([upload, fail_by_us, resume], PackageState.PROCESSING_UPLOAD),
    "expired": ([upload, store, hash_, expire], PackageState.EXPIRED),
}

# What each command does in each state: the events it triggers, or the refusal.
OUTCOMES: dict[str, tuple[Command, dict[str, Any]]] = {
    "upload": (
        upload,
        {state: BitsAlreadyUploaded for state in STATES} | {"created": ["UploadStarted"]},
    ),
    "record stored": (
        store,
        {state: [] for state in STATES} | {"uploaded": ["BitsStored"], "resumed": ["BitsStored"]},
    ),
    "record hashes": (hash_, {state: [] for state in STATES} | {"stored": ["HashComputed"]}),
    "fail": (
        fail_by_bits,
        {state: [] for state in STATES}
        | {state: ["ProcessingFailed"] for state in ("uploaded", "stored", "resumed")},
    ),
    "resume": (
        resume,
        {state: PackageNotFailedByUs for state in STATES} | {"failed by us": ["ProcessingResumed"]},
    ),
    "expire": (
        expire,
        {state: PackageNotReady for state in STATES} | {"ready": ["Expired"], "expired": []},
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
    package = given(*STATES[state][0])
    before = package.version
    expected = outcomes[state]
    if isinstance(expected, list):
        act(package)
        assert event_names(package) == expected
    else:
        with pytest.raises(expected):
            act(package)
        assert package.version == before


@pytest.mark.parametrize("command", OUTCOMES)
def test_a_deleted_package_refuses_every_command(command: str) -> None:
    """Gone is gone: every command answers that there is no such package."""
    package = given(upload, delete)
    with pytest.raises(PackageNotFound) as refusal:
        OUTCOMES[command][0](package)
    assert refusal.value.guid == "guid-1"


def test_a_docker_package_is_born_ready() -> None:
    """A docker package has an image and no bits: nothing can be uploaded to it, or expire."""
    package = docker()
    assert (package.state, package.url) == (PackageState.READY, "registry/image:1")
    for command in (upload, expire):
        with pytest.raises(PackageTypeNotBits):
            command(package)


@pytest.mark.parametrize(
    ("type", "url", "app_guid", "faults"),
    [
        ("zip", None, "a", ["Type must be one of 'bits, docker'"]),
        (["bits"], None, "a", ["Type must be one of 'bits, docker'"]),
        (PackageType.BITS, "x", "a", ["Url must be blank when type is bits"]),
        (PackageType.DOCKER, None, "a", ["Url can not be blank when type is docker"]),
        (PackageType.DOCKER, "", "a", ["Url can not be blank when type is docker"]),
        (PackageType.DOCKER, 5, "a", ["Url must be a string"]),
        *(
            (PackageType.DOCKER, url, "a", ["Url must not hold credentials"])
            for url in (
                "https://ada:hunter2@registry.example/image", "ada:hunter2@registry/image",
                "https://hunter2@registry.example/image", "registry/image?token=hunter2",
                "ada:hunt/er2@registry/image@sha256:" + "ab" * 32, "docker://a:b@c/d@sha256:short",
            )
        ),
        (PackageType.BITS, None, "", ["App guid must be between 1 and 200 characters"]),
        (
            "zip", None, "a" * 201,
            ["Type must be one of 'bits, docker'", "App guid must be between 1 and 200 characters"],
        ),
    ],
)  # fmt: skip
def test_a_wrong_package_is_not_created(
    type: PackageType, url: str | None, app_guid: str, faults: list[str]
) -> None:
    """All that is wrong is said at once."""
    with pytest.raises(InvalidPackage) as refusal:
        Package.create("guid-1", app_guid, type, url, BY)
    assert refusal.value.faults == faults


@pytest.mark.parametrize(
    "url",
    [
        "image", "registry.example:5000/org/image:1", "https://registry.example/image:1",
        "image:1@sha256:" + "ab" * 32, "registry/image@sha512:" + "AB" * 64,
    ],
)  # fmt: skip
def test_an_image_is_named_as_images_are(url: str) -> None:
    """With a port, a tag, or a digest: these are no credentials."""
    assert created(PackageType.DOCKER, url).url == url


@pytest.mark.parametrize("url", [None, "", "  "])
def test_a_blank_url_of_bits_is_none(url: str | None) -> None:
    """An empty url is as good as none."""
    assert created(url=url).url is None


def test_a_copy_takes_type_name_and_app() -> None:
    """A copy of bits begins COPYING, for its own app, and knows its source."""
    copy = copy_of(given(upload, store, hash_))
    assert event_names(copy) == ["CopyStarted"]
    assert (copy.state, copy.app_guid, copy.source_guid, copy.file_name) == (
        PackageState.COPYING, "app-2", "guid-1", "app.zip",
    )  # fmt: skip
    assert copy.needs_storing


def test_a_copy_of_docker_is_ready_at_once() -> None:
    """There is nothing to be copied but the image's name."""
    copy = copy_of(docker())
    assert (copy.state, copy.url) == (PackageState.READY, "registry/image:1")


def test_a_copy_becomes_ready_and_resumes_as_a_copy() -> None:
    """A copy goes through the same steps; resumed, it is COPYING again."""
    source = given(upload, store, hash_)
    assert given(store, hash_, package=copy_of(source)).state is PackageState.READY
    assert given(fail_by_us, resume, package=copy_of(source)).state is PackageState.COPYING


@pytest.mark.parametrize("state", [state for state in STATES if state != "ready"])
def test_only_a_ready_package_is_copied(state: str) -> None:
    """The refusal says which state was found."""
    with pytest.raises(SourceNotReady) as refusal:
        copy_of(given(*STATES[state][0]))
    assert refusal.value.found == STATES[state][1]


def test_a_copy_is_for_another_app() -> None:
    """Source and destination app can't be the same, and a deleted source is unknown."""
    with pytest.raises(SourceAppIsDestination):
        Package.copy(given(upload, store, hash_), "guid-2", "app-1", BY)
    with pytest.raises(PackageNotFound):
        copy_of(given(upload, store, hash_, delete))


NEEDS = {
    "created": (False, False),
    "uploaded": (True, True),
    "stored": (True, True),
    "ready": (False, True),
    "failed by its bits": (False, False),
    "failed by us": (True, True),
    "resumed": (True, True),
    "expired": (False, False),
}


@pytest.mark.parametrize("state", NEEDS)
def test_what_is_kept_of_the_bits(state: str) -> None:
    """Staged bits until READY or bad, a blob while READY or in work; both if we are at fault."""
    package = given(*STATES[state][0])
    assert (package.needs_staged_bits, package.needs_blob) == NEEDS[state]
    delete(package)
    assert (package.needs_staged_bits, package.needs_blob) == (False, False)


def test_events_carry_their_cause_and_fields() -> None:
    """Who, which request and which event led to it is in every event."""
    package = created()
    by = Cause("user-2", "request-2", "guid-1/1")
    package.start_upload(STAGED, "app.zip", by)
    event = package.pending_events[-1]
    assert isinstance(event, Package.UploadStarted)
    assert (event.actor, event.request_id, event.caused_by) == ("user-2", "request-2", "guid-1/1")
    assert (event.staged_uri, event.staged_offset, event.staged_length) == (
        STAGED.uri, STAGED.offset, STAGED.length,
    )  # fmt: skip
    assert (event.event_id, event.guid) == ("guid-1/2", "guid-1")


def test_a_failure_says_why_and_whose_fault() -> None:
    """The error is for the client, the fault decides about resuming."""
    package = given(upload, fail_by_us)
    assert (package.error, package.fault) == ("our fault", Fault.SERVICE)
    assert given(resume, package=package).error is None


def test_stored_facts_are_remembered() -> None:
    """Blob and checksums are there once they are recorded."""
    package = given(upload, store, hash_)
    assert (package.stored, package.digests) == (STORED, DIGESTS)


def test_stored_names_are_explicit() -> None:
    """Old logs name events by these words, whatever module the classes are in."""
    names = [
        "Created", "CopyStarted", "UploadStarted", "BitsStored", "HashComputed",
        "ProcessingFailed", "ProcessingResumed", "Expired", "Deleted",
    ]  # fmt: skip
    topics = [get_topic(getattr(Package, name)) for name in names]
    assert topics == [
        "package.created", "package.copy_started", "package.upload_started",
        "package.bits_stored", "package.hash_computed", "package.processing_failed",
        "package.processing_resumed", "package.expired", "package.deleted",
    ]  # fmt: skip


def test_every_event_class_is_named() -> None:
    """No event falls back on the name of its module, not even one that is added later."""
    classes = [kind for kind in vars(Package).values() if isinstance(kind, type)]
    events = [kind for kind in classes if issubclass(kind, Package.Event)]
    assert len(events) >= 10
    for kind in events:
        assert str(vars(kind)["TOPIC"]).startswith("package.")


def test_every_event_of_a_life_carries_its_cause() -> None:
    """From the first event to the last, each says who, which request, and after what."""
    package = created()
    for act in (upload, store, fail_by_us, resume, hash_, expire, delete):
        act(package)
    copy = copy_of(given(upload, store, hash_))
    events = [*package.collect_events(), *copy.collect_events()]
    assert [type(event).__name__ for event in events] == [
        "Created", "UploadStarted", "BitsStored", "ProcessingFailed", "ProcessingResumed",
        "HashComputed", "Expired", "Deleted", "CopyStarted",
    ]  # fmt: skip
    for event in events:
        assert isinstance(event, RecordedEvent)
        assert (event.actor, event.request_id, event.caused_by) == ("user-1", "request-1", None)


@pytest.mark.parametrize(
    ("refusal", "act", "package", "found"),
    [
        (BitsAlreadyUploaded, upload, lambda: given(upload), PackageState.PROCESSING_UPLOAD),
        (BitsAlreadyUploaded, upload, lambda: given(upload, fail_by_us), PackageState.FAILED),
        (PackageTypeNotBits, upload, docker, PackageType.DOCKER),
        (PackageTypeNotBits, expire, docker, PackageType.DOCKER),
        (PackageNotReady, expire, lambda: given(upload), PackageState.PROCESSING_UPLOAD),
        (PackageNotFailedByUs, resume, lambda: given(upload, fail_by_bits), PackageState.FAILED),
        (SourceNotReady, copy_of, lambda: given(upload), PackageState.PROCESSING_UPLOAD),
    ],
)
def test_a_refusal_tells_what_was_found(
    refusal: type[WrongState],
    act: Callable[[Package], object],
    package: Callable[[], Package],
    found: str,
) -> None:
    """Which package, and the state or type that it was refused for."""
    with pytest.raises(refusal) as refused:
        act(package())
    assert (refused.value.guid, refused.value.found) == ("guid-1", found)


def test_a_copy_for_the_same_app_is_refused_by_its_name() -> None:
    """The refusal names the app that is source and destination."""
    with pytest.raises(SourceAppIsDestination) as refused:
        Package.copy(given(upload, store, hash_), "guid-2", "app-1", BY)
    assert refused.value.app_guid == "app-1"


def test_a_copy_needs_an_app() -> None:
    """A copy's app is checked as that of a new package is."""
    with pytest.raises(InvalidPackage) as refused:
        Package.copy(given(upload, store, hash_), "guid-2", "", BY)
    assert refused.value.faults == ["App guid must be between 1 and 200 characters"]


@pytest.mark.parametrize(
    ("commands", "step"), [([upload], "storage"), ([upload, store], "hashing")]
)
def test_a_failure_says_at_which_step(commands: list[Command], step: str) -> None:
    """Storage until the bits are stored, hashing then."""
    package = given(*commands)
    package.fail("no zip", Fault.BITS, BY)
    (event,) = package.collect_events()
    assert isinstance(event, Package.ProcessingFailed)
    assert event.step == step


def test_a_late_failure_does_not_unmake_a_ready_package() -> None:
    """Work that failed after another worker finished it changes nothing, in state or error."""
    package = given(upload, store, hash_, fail_by_us)
    assert (package.state, package.error, package.version) == (PackageState.READY, None, 4)


def test_the_first_outcome_stands() -> None:
    """A second record of stored bits, or of checksums, does not replace the first."""
    package = given(upload, store)
    package.record_stored(StoredBits("another/key", 1), BY)
    hash_(package)
    package.record_hashes(Digests("c" * 40, "d" * 64), BY)
    assert (package.stored, package.digests) == (STORED, DIGESTS)
