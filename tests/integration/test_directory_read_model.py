"""The read model of the directory: apps, spaces and organizations that are known, and no others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import select

from adapters.store import Store
from domain.directory import App, Space
from domain.directory_service import DirectoryService
from domain.journal import Journal
from domain.package import PackageType
from domain.package_service import PackageService
from projections.directory import (
    AppEntry,
    DirectoryEntry,
    DirectoryProjection,
    DirectoryReadModel,
)
from tests.support.packages import BY, DIGESTS, STAGED, STORED, LocalStore


@pytest.fixture
def store(any_store: Store) -> LocalStore:
    return LocalStore.of(any_store)


@pytest.fixture
def model(any_store: Store) -> DirectoryReadModel:
    return DirectoryReadModel(any_store.reader)


@pytest.fixture
def directory(any_store: Store) -> DirectoryService:
    return any_store.services.directory


def package(store: LocalStore, app: str = "app-1") -> str:
    return store.service.create(app, PackageType.BITS, None, BY).aggregate.guid


def app_of(store: LocalStore, model: DirectoryReadModel, guid: str = "app-1") -> AppEntry:
    store.projector.catch_up()
    app = model.app(guid)
    assert app is not None
    return app


def space_of(store: LocalStore, model: DirectoryReadModel) -> DirectoryEntry:
    store.projector.catch_up()
    space = model.space("space-1")
    assert space is not None
    return space


def test_an_unknown_entry_is_not_found(store: LocalStore, model: DirectoryReadModel) -> None:
    """None, not an error; and what never was is not deleted."""
    assert (model.app("x"), model.space("x"), model.organization("x")) == (None, None, None)
    assert not model.is_deleted("x")
    assert (model.apps_of_space("x"), model.spaces_of_organization("x")) == ([], [])


def test_a_guid_may_be_any_text(store: LocalStore, model: DirectoryReadModel) -> None:
    """None is found by one like that; that is no fault of the database."""
    assert (model.app("a\0b"), model.space("a\0b"), model.organization("a\0b")) == (
        None, None, None,
    )  # fmt: skip
    assert not model.is_deleted("a\0b")


@pytest.mark.parametrize("copied", [False, True])
def test_an_app_is_there_from_its_first_package_on(
    store: LocalStore, model: DirectoryReadModel, copied: bool
) -> None:
    """Created or copied: without a name, since then, and not changed by further packages."""
    first = package(store, "source" if copied else "app-1")
    if copied:
        store.service.start_upload(first, STAGED, None, BY)
        store.service.record_stored(first, STORED, BY)
        store.service.record_hashes(first, DIGESTS, BY)
        first = store.service.copy(first, "app-1", BY).aggregate.guid
    app = app_of(store, model)
    created_on = store.service.load(first).created_on
    assert app == AppEntry("app-1", None, None, created_on, None, None, None, False)
    package(store)
    store.service.delete(first, BY)
    assert app_of(store, model) == app


def test_an_announced_app_shows_what_was_told(
    store: LocalStore, model: DirectoryReadModel, directory: DirectoryService
) -> None:
    """Name, space and buildpack; it was never updated, also when its packages come."""
    told = directory.announce_app("app-1", "one", "space-1", "ruby", BY).aggregate
    package(store)
    assert app_of(store, model) == AppEntry(
        "app-1", "one", "space-1", told.created_on, None, "ruby", None, True
    )


@pytest.mark.parametrize("batch", ["one by one", "all at once"])
def test_an_app_may_be_announced_after_its_first_package(
    store: LocalStore, model: DirectoryReadModel, directory: DirectoryService, batch: str
) -> None:
    """It is as old as its first package, and updated when it was announced."""
    first = store.service.load(package(store))
    if batch == "one by one":
        store.projector.catch_up()
    told = directory.announce_app("app-1", "one", None, None, BY).aggregate
    assert app_of(store, model) == AppEntry(
        "app-1", "one", None, first.created_on, told.created_on, None, None, True
    )


def test_an_app_is_renamed_and_moved(
    store: LocalStore, model: DirectoryReadModel, directory: DirectoryService
) -> None:
    """Each is shown, with the time of the last."""
    directory.announce_app("app-1", "one", "space-1", "ruby", BY)
    renamed = directory.rename_app("app-1", "two", BY).aggregate
    app = app_of(store, model)
    assert (app.name, app.parent, app.buildpack, app.updated_at) == (
        "two", "space-1", "ruby", renamed.modified_on,
    )  # fmt: skip
    moved = directory.announce_app("app-1", "two", "space-2", None, BY).aggregate
    app = app_of(store, model)
    assert (app.name, app.parent, app.buildpack, app.updated_at) == (
        "two", "space-2", None, moved.modified_on,
    )  # fmt: skip
    assert (model.apps_of_space("space-1"), model.apps_of_space("space-2")) == ([], ["app-1"])


def announced(store: LocalStore) -> None:
    store.store.services.directory.announce_app("app-1", "one", "space-1", None, BY)


def implicit(store: LocalStore) -> None:
    package(store)


def unknown(store: LocalStore) -> None:
    """Nobody ever told of the app."""


class EveryApp(DirectoryService):
    """Knows of no deletion yet."""

    def app(self, guid: str) -> None:
        return None


def late_package(store: LocalStore) -> str:
    """A package that was decided on before the deletion was known: it is in the log behind it."""
    journal = Journal(store.store.events, store.log)
    service = PackageService(journal, EveryApp(journal))
    return service.create("app-1", PackageType.BITS, None, BY).aggregate.guid


@pytest.mark.parametrize("batch", ["one by one", "all at once"])
@pytest.mark.parametrize("before", [announced, implicit, unknown])
def test_a_deleted_app_stays_so(
    store: LocalStore,
    model: DirectoryReadModel,
    directory: DirectoryService,
    before: Callable[[LocalStore], None],
    batch: str,
) -> None:
    """It is shown no more, however it was known; a package that comes late changes nothing."""
    before(store)
    if batch == "one by one":
        store.projector.catch_up()
    directory.delete_app("app-1", BY)
    if batch == "one by one":
        store.projector.catch_up()
        assert (model.app("app-1"), model.is_deleted("app-1")) == (None, True)
    late = late_package(store)
    store.projector.catch_up()
    assert store.packages.find(late) is not None
    assert (model.app("app-1"), model.is_deleted("app-1")) == (None, True)
    assert model.apps_of_space("space-1") == []


def test_only_a_deleted_app_is_deleted(
    store: LocalStore, model: DirectoryReadModel, directory: DirectoryService
) -> None:
    """An announced or implicit one is not, nor one that has a deleted space's guid."""
    package(store)
    directory.announce_app("app-2", "two", None, None, BY)
    directory.announce_space("app-1", "a space", None, BY)
    directory.delete_space("app-1", BY)
    store.projector.catch_up()
    assert not model.is_deleted("app-1") and not model.is_deleted("app-2")
    assert model.space("app-1") is None


def test_a_space_shows_what_was_told(
    store: LocalStore, model: DirectoryReadModel, directory: DirectoryService
) -> None:
    """Name and organization, then new ones; nothing once it is deleted."""
    told = directory.announce_space("space-1", "one", "org-1", BY).aggregate
    entry = space_of(store, model)
    assert entry == DirectoryEntry("space-1", "one", "org-1", told.created_on, None)
    renamed = directory.rename_space("space-1", "two", BY).aggregate
    assert space_of(store, model) == DirectoryEntry(
        "space-1", "two", "org-1", told.created_on, renamed.modified_on
    )
    moved = directory.announce_space("space-1", "two", "org-2", BY).aggregate
    assert space_of(store, model) == DirectoryEntry(
        "space-1", "two", "org-2", told.created_on, moved.modified_on
    )
    directory.delete_space("space-1", BY)
    store.projector.catch_up()
    assert model.space("space-1") is None


def test_an_organization_shows_what_was_told(
    store: LocalStore, model: DirectoryReadModel, directory: DirectoryService
) -> None:
    """Its name, then a new one; nothing once it is deleted."""
    told = directory.announce_organization("org-1", "one", BY).aggregate
    store.projector.catch_up()
    assert model.organization("org-1") == DirectoryEntry(
        "org-1", "one", None, told.created_on, None
    )
    renamed = directory.rename_organization("org-1", "two", BY).aggregate
    store.projector.catch_up()
    assert model.organization("org-1") == DirectoryEntry(
        "org-1", "two", None, told.created_on, renamed.modified_on
    )
    directory.delete_organization("org-1", BY)
    store.projector.catch_up()
    assert model.organization("org-1") is None


def test_who_is_in_whom_is_known(
    store: LocalStore, model: DirectoryReadModel, directory: DirectoryService
) -> None:
    """The apps of a space, the spaces of an organization; what was deleted is in none."""
    for guid, space in (("a", "s1"), ("b", "s1"), ("c", "s2"), ("d", None), ("gone", "s1")):
        directory.announce_app(guid, guid, space, None, BY)
    for guid, organization in (("s1", "o1"), ("s2", "o1"), ("s3", "o2"), ("gone", "o1")):
        directory.announce_space(guid, guid, organization, BY)
    directory.delete_app("gone", BY)
    directory.delete_space("gone", BY)
    store.projector.catch_up()
    assert sorted(model.apps_of_space("s1")) == ["a", "b"]
    assert model.apps_of_space("s2") == ["c"]
    assert sorted(model.spaces_of_organization("o1")) == ["s1", "s2"]
    assert model.spaces_of_organization("o3") == []


def test_a_rebuild_gives_the_same_rows(
    store: LocalStore, model: DirectoryReadModel, directory: DirectoryService
) -> None:
    """From the log alone, whatever was told, and in which order."""
    package(store, "app-1")
    package(store, "app-2")
    store.projector.catch_up()
    directory.announce_app("app-2", "two", "space-1", "ruby", BY)
    directory.announce_app("app-3", "three", None, None, BY)
    store.projector.catch_up()
    directory.rename_app("app-3", "drei", BY)
    directory.announce_app("app-2", "two", "space-2", None, BY)
    directory.delete_app("app-1", BY)
    directory.delete_app("app-4", BY)
    late_package(store)
    directory.announce_space("space-1", "a space", "org-1", BY)
    directory.announce_space("space-2", "another", None, BY)
    directory.rename_space("space-2", "renamed", BY)
    directory.delete_space("space-1", BY)
    directory.announce_organization("org-1", "an organization", BY)
    directory.rename_organization("org-1", "renamed", BY)
    store.projector.catch_up()
    tables = DirectoryProjection().tables

    def rows() -> list[list[tuple[object, ...]]]:
        with store.reader.connect() as connection:
            found = [connection.execute(select(t).order_by(t.c.guid)) for t in tables]
            return [[tuple(row) for row in some] for some in found]

    before = rows()
    assert [len(table) for table in before] == [4, 2, 1]
    with store.writing, store.writer.begin() as connection:
        for table in tables:
            connection.execute(table.delete())
    assert rows() == [[], [], []]
    store.rebuild("directory")
    assert rows() == before
    assert app_of(store, model, "app-3").name == "drei"


def test_only_these_kinds_are_kept(
    store: LocalStore, model: DirectoryReadModel, directory: DirectoryService
) -> None:
    """An app and a space of the same guid do not meet."""
    directory.announce_app("same", "an app", None, None, BY)
    directory.announce_space("same", "a space", None, BY)
    store.projector.catch_up()
    app, space = model.app("same"), model.space("same")
    assert app is not None and space is not None
    assert (app.name, space.name) == ("an app", "a space")
    assert (App.ID_PREFIX, Space.ID_PREFIX) == ("app:", "space:")
