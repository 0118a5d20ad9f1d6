"""The directory: apps, spaces and organizations are told of more than once, and end once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from eventsourcing.utils import get_topic

from domain.aggregate import Cause
from domain.directory import App, Entry, Organization, Space
from domain.directory_service import DirectoryService
from domain.errors import (
    AppNotFound,
    InvalidRequest,
    OrganizationNotFound,
    Refusal,
    SpaceNotFound,
)
from domain.journal import Committed, Journal
from tests.support.packages import BY, LocalStore

Act = Callable[[DirectoryService, str], Committed[Any]]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    store = LocalStore.open(tmp_path / "log.db")
    yield store
    store.close()


@pytest.fixture
def directory(store: LocalStore) -> DirectoryService:
    return store.store.services.directory


def announce_app(directory: DirectoryService, name: str, guid: str = "guid-1") -> Committed[Any]:
    return directory.announce_app(guid, name, "space-1", "ruby", BY)


def announce_space(directory: DirectoryService, name: str, guid: str = "guid-1") -> Committed[Any]:
    return directory.announce_space(guid, name, "organization-1", BY)


def announce_organization(
    directory: DirectoryService, name: str, guid: str = "guid-1"
) -> Committed[Any]:
    return directory.announce_organization(guid, name, BY)


# For each kind: how it is announced, renamed and deleted, and what says that it is unknown.
KINDS: dict[str, tuple[Act, Act, Callable[..., Committed[Any]], type[Refusal]]] = {
    "App": (
        announce_app,
        lambda directory, name: directory.rename_app("guid-1", name, BY),
        lambda directory: directory.delete_app("guid-1", BY),
        AppNotFound,
    ),
    "Space": (
        announce_space,
        lambda directory, name: directory.rename_space("guid-1", name, BY),
        lambda directory: directory.delete_space("guid-1", BY),
        SpaceNotFound,
    ),
    "Organization": (
        announce_organization,
        lambda directory, name: directory.rename_organization("guid-1", name, BY),
        lambda directory: directory.delete_organization("guid-1", BY),
        OrganizationNotFound,
    ),
}


def logged(store: LocalStore) -> list[str]:
    return [get_topic(type(entry.event)) for entry in store.log.read(0, 100)]


@pytest.mark.parametrize("kind", KINDS)
def test_an_announcement_is_recorded_once(
    store: LocalStore, directory: DirectoryService, kind: str
) -> None:
    """Told of a second time, it changes nothing and writes nothing."""
    announce = KINDS[kind][0]
    first = announce(directory, "one")
    assert (first.aggregate.guid, first.aggregate.name, first.position) == ("guid-1", "one", 1)
    again = announce(directory, "one")
    assert (again.aggregate.name, again.position) == ("one", None)
    assert logged(store) == [f"{kind.lower()}.created"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["renamed", "announced again"])
def test_a_new_name_is_recorded(
    store: LocalStore, directory: DirectoryService, kind: str, how: str
) -> None:
    """Whether it comes as a renaming or in another announcement; the same name is no news."""
    announce, rename, _, _ = KINDS[kind]
    announce(directory, "one")
    tell = rename if how == "renamed" else announce
    assert tell(directory, "two").aggregate.name == "two"
    assert tell(directory, "two").position is None
    assert logged(store) == [f"{kind.lower()}.created", f"{kind.lower()}.renamed"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_deleted_stays_so(
    store: LocalStore, directory: DirectoryService, kind: str
) -> None:
    """A second deletion is no news; late announcements and renamings are refused."""
    announce, rename, delete, not_found = KINDS[kind]
    announce(directory, "one")
    assert delete(directory).aggregate.deleted
    assert delete(directory).position is None
    with pytest.raises(InvalidRequest) as refused:
        announce(directory, "one")
    assert refused.value.faults == [f"{kind} 'guid-1' was deleted"]
    with pytest.raises(not_found):
        rename(directory, "two")
    assert logged(store) == [f"{kind.lower()}.created", f"{kind.lower()}.deleted"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_one_is_not_renamed(
    store: LocalStore, directory: DirectoryService, kind: str
) -> None:
    """There is nothing that the name could be of."""
    _, rename, _, not_found = KINDS[kind]
    with pytest.raises(not_found):
        rename(directory, "one")
    assert logged(store) == []


def test_an_unknown_app_is_deleted_for_good(store: LocalStore, directory: DirectoryService) -> None:
    """It may have packages all the same; an announcement that comes late does not create it."""
    deleted = directory.delete_app("guid-1", BY).aggregate
    assert (deleted.name, deleted.deleted) == (None, True)
    assert directory.delete_app("guid-1", BY).position is None
    with pytest.raises(InvalidRequest):
        announce_app(directory, "one")
    with pytest.raises(AppNotFound):
        directory.app("guid-1")
    assert logged(store) == ["app.created", "app.deleted"]


@pytest.mark.parametrize("kind", ["Space", "Organization"])
def test_an_unknown_space_or_organization_is_not_deleted(
    store: LocalStore, directory: DirectoryService, kind: str
) -> None:
    """Unlike an app it can have nothing here."""
    _, _, delete, not_found = KINDS[kind]
    with pytest.raises(not_found):
        delete(directory)
    assert logged(store) == []


def test_an_app_moves_and_changes_its_buildpack(
    store: LocalStore, directory: DirectoryService
) -> None:
    """Each is recorded when it is new; a name that is new, too, is an event of its own."""
    announce_app(directory, "one")
    moved = directory.announce_app("guid-1", "one", "space-2", "ruby", BY).aggregate
    assert (moved.space_guid, moved.buildpack) == ("space-2", "ruby")
    both = directory.announce_app("guid-1", "two", "space-2", None, BY).aggregate
    assert (both.name, both.space_guid, both.buildpack) == ("two", "space-2", None)
    assert directory.announce_app("guid-1", "two", "space-2", None, BY).position is None
    assert logged(store) == ["app.created", "app.updated", "app.renamed", "app.updated"]


def test_a_space_moves_to_another_organization(
    store: LocalStore, directory: DirectoryService
) -> None:
    """Recorded when it is new."""
    announce_space(directory, "one")
    moved = directory.announce_space("guid-1", "one", "organization-2", BY)
    assert moved.aggregate.organization_guid == "organization-2"
    assert directory.announce_space("guid-1", "one", "organization-2", BY).position is None
    assert logged(store) == ["space.created", "space.updated"]


def test_kinds_do_not_share_guids(directory: DirectoryService) -> None:
    """An app, a space and an organization of the same guid have each their own name and end."""
    announce_app(directory, "an app")
    announce_space(directory, "a space")
    announce_organization(directory, "an organization")
    directory.delete_space("guid-1", BY)
    app, space = directory.app("guid-1"), directory.space("guid-1")
    assert app is not None and space is not None
    assert (app.name, app.deleted) == ("an app", False)
    assert (space.name, space.deleted) == ("a space", True)
    assert announce_organization(directory, "an organization").position is None


@pytest.mark.parametrize("registered", [False, True])
def test_which_apps_there_are(store: LocalStore, registered: bool) -> None:
    """Any that was not deleted; where apps are registered, only those announced."""
    directory = DirectoryService(Journal(store.store.events, store.log), registered)
    announce_app(directory, "one", "announced")
    announce_app(directory, "two", "deleted")
    directory.delete_app("deleted", BY)
    found = directory.app("announced")
    assert found is not None and found.name == "one"
    with pytest.raises(AppNotFound) as refused:
        directory.app("deleted")
    assert isinstance(refused.value, AppNotFound) and refused.value.guid == "deleted"
    if registered:
        with pytest.raises(AppNotFound):
            directory.app("unknown")
    else:
        assert directory.app("unknown") is None


NAME = "Name must be between 1 and 255 characters"
BUILDPACK = "Buildpack must be a name or the URL of a git repository"


@pytest.mark.parametrize(
    ("announce", "faults"),
    [
        (lambda d: d.announce_app("", "n", None, None, BY), ["App guid", 200]),
        (lambda d: d.announce_app("g" * 201, "n", None, None, BY), ["App guid", 200]),
        (lambda d: d.announce_app("g", "", None, None, BY), NAME),
        (lambda d: d.announce_app("g", "n" * 256, None, None, BY), NAME),
        (lambda d: d.announce_app("g", "a\0b", None, None, BY), NAME),
        (lambda d: d.announce_app("g", None, None, None, BY), NAME),
        (lambda d: d.announce_app("g", "n", "", None, BY), ["Space guid", 200]),
        (lambda d: d.announce_app("g", "n", None, "", BY), BUILDPACK),
        (
            lambda d: d.announce_app("g", "n", None, "https://user:secret@host/x", BY),
            "Buildpack must not hold credentials",
        ),
        (lambda d: d.rename_app("g", "", BY), NAME),
        (lambda d: d.delete_app("", BY), ["App guid", 200]),
        (lambda d: d.announce_space("", "n", None, BY), ["Space guid", 200]),
        (lambda d: d.announce_space("g", "", None, BY), NAME),
        (lambda d: d.announce_space("g", "n", "x" * 201, BY), ["Organization guid", 200]),
        (lambda d: d.rename_space("g", "", BY), NAME),
        (lambda d: d.announce_organization("", "n", BY), ["Organization guid", 200]),
        (lambda d: d.announce_organization("g", "", BY), NAME),
        (lambda d: d.rename_organization("g", "", BY), NAME),
    ],
)
def test_a_wrong_announcement_is_refused(
    store: LocalStore,
    directory: DirectoryService,
    announce: Callable[[DirectoryService], object],
    faults: str | list[Any],
) -> None:
    """The sentence says what must be; nothing is recorded."""
    if isinstance(faults, list):
        faults = f"{faults[0]} must be between 1 and {faults[1]} characters"
    with pytest.raises(InvalidRequest) as refused:
        announce(directory)
    assert refused.value.faults == [faults]
    assert logged(store) == []


def test_all_that_is_wrong_is_said_at_once(directory: DirectoryService) -> None:
    """In the order of the fields."""
    with pytest.raises(InvalidRequest) as refused:
        directory.announce_app("", "", "", "", BY)
    assert refused.value.faults == [
        "App guid must be between 1 and 200 characters", NAME,
        "Space guid must be between 1 and 200 characters", BUILDPACK,
    ]  # fmt: skip


def test_names_and_guids_may_be_as_long_as_the_limits(directory: DirectoryService) -> None:
    """The limits themselves pass, in characters and not in bytes."""
    app = directory.announce_app("ä" * 200, "ö" * 255, "ü" * 200, None, BY).aggregate
    assert (len(app.guid), len(app.name or ""), len(app.space_guid or "")) == (200, 255, 200)


def test_two_that_tell_of_one_app_at_once_agree(store: LocalStore) -> None:
    """The later one meets what the other wrote, and adds only what is new."""
    directory = store.store.services.directory

    class Interrupted(Journal):
        interrupted = False

        def save(self, aggregate: Any, together: Any = ()) -> Committed[Any]:
            if not self.interrupted:
                self.interrupted = True
                announce_app(directory, "theirs")
            return super().save(aggregate)

    late = DirectoryService(Interrupted(store.store.events, store.log))
    assert announce_app(late, "ours").aggregate.name == "ours"
    assert logged(store) == ["app.created", "app.renamed"]


def created(kind: type[Entry]) -> Entry:
    by = Cause("user-1", "request-1", "app-1/1")
    if kind is App:
        app = App.create("guid-1", "one", "space-1", "ruby", by)
        app.announce("two", None, None, by)
        app.delete(by)
        return app
    if kind is Space:
        space = Space.create("guid-1", "one", "organization-1", by)
        space.announce("two", None, by)
        space.delete(by)
        return space
    organization = Organization.create("guid-1", "one", by)
    organization.announce("two", None, by)
    organization.delete(by)
    return organization


LIVES: dict[type[Entry], list[str]] = {
    App: ["created", "renamed", "updated", "deleted"],
    Space: ["created", "renamed", "updated", "deleted"],
    Organization: ["created", "renamed", "deleted"],
}


@pytest.mark.parametrize("kind", LIVES)
def test_the_events_alone_bring_the_state_back(kind: type[Entry]) -> None:
    """Replayed, the same entry stands there; stored names are explicit, and causes are kept."""
    entry = created(kind)
    events = entry.collect_events()
    prefix = kind.__name__.lower()
    assert [get_topic(type(event)) for event in events] == [f"{prefix}.{e}" for e in LIVES[kind]]
    assert {vars(event)["caused_by"] for event in events} == {"app-1/1"}
    replayed: Entry | None = None
    for event in events:
        replayed = event.mutate(replayed)
    assert replayed == entry
    assert (entry.id, get_topic(kind)) == (f"{prefix}:guid-1", prefix)
