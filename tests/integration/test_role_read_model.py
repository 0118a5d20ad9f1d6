"""The roles that count for an app, a space, an organization, on both engines."""

from __future__ import annotations

import pytest

from adapters.store import Store
from domain.errors import InvalidRequest, RoleNotFound
from domain.package import PackageType
from domain.role import Grant, RoleType
from projections.packages import PackageReadModel
from projections.roles import RoleReadModel
from tests.support.packages import BY

DEVELOPER, AUDITOR, ORG_MANAGER = (
    RoleType.SPACE_DEVELOPER,
    RoleType.SPACE_AUDITOR,
    RoleType.ORG_MANAGER,
)


@pytest.fixture
def store(any_store: Store) -> Store:
    any_store.migrate()
    any_store.projector()
    directory = any_store.services.directory
    directory.announce_organization("org-1", "one", BY)
    directory.announce_space("space-1", "one", "org-1", BY)
    directory.announce_space("space-2", "two", "org-2", BY)  # which nobody has announced
    directory.announce_app("app-1", "one", "space-1", None, BY)
    directory.announce_app("app-2", "two", "space-2", None, BY)
    directory.announce_app("app-3", "three", "space-3", None, BY)  # nor this space
    directory.announce_app("app-4", "four", None, None, BY)
    return any_store


def assign(store: Store, user: str, type: RoleType, place: str) -> Grant:
    in_space = type is not RoleType.ORG_MANAGER
    grant = Grant(user, type, place if in_space else None, None if in_space else place)
    store.services.directory.assign_role(grant, BY)
    return grant


def reached(store: Store, user: str) -> dict[str, set[RoleType]]:
    """By a user, one app after the other; and the list of them says the same."""
    store.projector().catch_up()
    model = RoleReadModel(store.reader)
    found = {f"app-{n}": model.in_app(user, f"app-{n}") for n in range(1, 6)}
    with store.reader.connect() as connection:
        listed = {row.guid for row in connection.execute(model.apps_of(user))}
    assert listed == {app for app, roles in found.items() if roles}
    return {app: roles for app, roles in found.items() if roles}


def test_roles_count_where_they_were_given(store: Store) -> None:
    """In the space's apps; in an organization, in all apps of its spaces."""
    assign(store, "dev", DEVELOPER, "space-1")
    assign(store, "dev", AUDITOR, "space-2")
    assign(store, "boss", ORG_MANAGER, "org-1")
    assert reached(store, "dev") == {"app-1": {DEVELOPER}, "app-2": {AUDITOR}}
    assert reached(store, "boss") == {"app-1": {ORG_MANAGER}}
    assert reached(store, "nobody") == {}


def test_places_need_not_be_announced(store: Store) -> None:
    """Announcements come in any order: a space or organization is known by its guid."""
    assign(store, "dev", DEVELOPER, "space-3")
    assign(store, "boss", ORG_MANAGER, "org-2")
    assert reached(store, "dev") == {"app-3": {DEVELOPER}}
    assert reached(store, "boss") == {"app-2": {ORG_MANAGER}}


def test_a_space_is_not_an_organization_of_the_same_guid(store: Store) -> None:
    """What they are called by others may be the same."""
    store.services.directory.announce_space("same", "s", "org-9", BY)
    store.services.directory.announce_app("app-5", "five", "same", None, BY)
    assign(store, "boss", ORG_MANAGER, "same")
    assert reached(store, "boss") == {}
    assign(store, "dev", DEVELOPER, "same")
    assert reached(store, "dev") == {"app-5": {DEVELOPER}}


def test_a_role_is_given_taken_and_given_back(store: Store) -> None:
    """Each once in the log, however often it is told."""
    directory = store.services.directory
    grant = assign(store, "dev", DEVELOPER, "space-1")
    for _ in range(2):
        assert directory.assign_role(grant, BY).position is None
    assert directory.remove_role(grant, BY).position is not None
    assert directory.remove_role(grant, BY).position is None
    assert reached(store, "dev") == {}
    assert directory.assign_role(grant, BY).position is not None
    assert reached(store, "dev") == {"app-1": {DEVELOPER}}


def test_a_role_that_nobody_had_can_not_be_removed(store: Store) -> None:
    """It may be that its name is misspelt."""
    with pytest.raises(RoleNotFound):
        store.services.directory.remove_role(Grant("dev", DEVELOPER, "space-1"), BY)


def test_what_was_deleted_is_reached_by_nobody(store: Store) -> None:
    """Apps, spaces and organizations; and no roles are given in them any more."""
    directory = store.services.directory
    for user, type, place in (
        ("dev", DEVELOPER, "space-1"),
        ("boss", ORG_MANAGER, "org-1"),
        ("dev-2", DEVELOPER, "space-2"),
    ):
        assign(store, user, type, place)
    directory.delete_app("app-2", BY)
    assert reached(store, "dev-2") == {}
    directory.delete_organization("org-1", BY)
    assert reached(store, "dev") == {} == reached(store, "boss")
    with pytest.raises(InvalidRequest, match="Organization 'org-1' was deleted"):
        assign(store, "other", ORG_MANAGER, "org-1")
    directory.delete_space("space-2", BY)
    with pytest.raises(InvalidRequest, match="Space 'space-2' was deleted"):
        assign(store, "other", DEVELOPER, "space-2")


def test_an_app_that_moves_takes_nobody_along(store: Store) -> None:
    """The roles of where it is now count."""
    assign(store, "dev", DEVELOPER, "space-1")
    store.services.directory.announce_app("app-1", "one", "space-2", None, BY)
    assert reached(store, "dev") == {}


def test_spaces_and_organizations_are_seen_by_their_members(store: Store) -> None:
    """An organization by whoever has a role in a space of it, too."""
    assign(store, "dev", DEVELOPER, "space-1")
    assign(store, "boss", ORG_MANAGER, "org-1")
    store.projector().catch_up()
    model = RoleReadModel(store.reader)
    for user in ("dev", "boss"):
        assert model.in_space(user, "space-1") and model.in_organization(user, "org-1")
        assert not model.in_space(user, "space-2")
    assert not model.in_organization("nobody", "org-1")
    store.services.directory.announce_organization("org-1", "one", BY, suspended=True)
    store.projector().catch_up()
    assert not model.in_space("dev", "space-1") and not model.in_organization("boss", "org-1")


def test_an_organization_outlives_its_spaces(store: Store) -> None:
    """Its managers see it, also when its last space is deleted; who was in that space does not."""
    assign(store, "dev", DEVELOPER, "space-1")
    assign(store, "boss", ORG_MANAGER, "org-1")
    store.services.directory.delete_space("space-1", BY)
    store.projector().catch_up()
    model = RoleReadModel(store.reader)
    assert model.in_organization("boss", "org-1") == {ORG_MANAGER}
    assert model.in_organization("dev", "org-1") == set()


def test_what_can_not_be_asked_is_not_there(store: Store) -> None:
    """PostgreSQL refuses NUL characters."""
    model = RoleReadModel(store.reader)
    for ask in (model.in_app, model.in_space, model.in_organization):
        assert ask("dev", "a\0b") == set()


def test_a_list_holds_the_packages_of_these_apps(store: Store) -> None:
    """In creation order, as many on a page as are asked for."""

    assign(store, "dev", DEVELOPER, "space-1")
    assign(store, "dev", AUDITOR, "space-2")
    apps = ("app-2", "app-1", "app-3", "app-2", "app-1")
    made = [
        (app, store.services.packages.create(app, PackageType.BITS, None, BY).aggregate.guid)
        for app in apps
    ]
    store.projector().catch_up()
    model, seen = PackageReadModel(store.reader), RoleReadModel(store.reader).apps_of("dev")
    theirs = [guid for app, guid in made if app != "app-3"]
    pages = [model.page_of_apps(seen, page, 3) for page in (1, 2, 3)]
    assert [page.total for page in pages] == [4, 4, 4]
    assert [row.view.guid for page in pages for row in page.packages] == theirs
    assert model.page_of_apps([], 1, 3).total == 0
    assert model.page_of_apps(["app-3"], 1, 3).total == 1
