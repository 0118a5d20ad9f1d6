"""The list of who did what, on both engines: as things were when it happened."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from adapters.store import Store
from domain.aggregate import Cause
from domain.directory_service import DirectoryService
from domain.download import BitsOf, Downloaded
from domain.droplet_service import Wanted
from domain.package import Package, PackageType
from domain.role import Grant, RoleType
from projections.audit_list import AuditPage, AuditQuery, AuditReadModel, Places, Visible
from projections.representation import AuditView
from projections.rows import microseconds
from projections.tally import STRETCH
from tests.support.packages import BY, DIGESTS, STAGED, STORED

ANN = Cause("ann", "request-1")
BOB = Cause("bob", "request-2")


class Bench:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.services = store.services
        self.projector = store.projector()
        self.model = AuditReadModel(store.reader)

    @property
    def directory(self) -> DirectoryService:
        return self.services.directory

    def announce(self, app: str = "app-1", name: str = "shop", space: str = "space-1") -> None:
        self.directory.announce_app(app, name, space, None, BY)

    def create(self, app: str = "app-1", by: Cause = ANN) -> str:
        return self.services.packages.create(app, PackageType.BITS, None, by).aggregate.guid

    def ready(self, app: str = "app-1") -> str:
        guid = self.create(app)
        self.services.packages.start_upload(guid, STAGED, "app.zip", BOB)
        self.services.packages.record_copied(guid, STORED, DIGESTS, BY)
        return guid

    def page(self, page: int = 1, per_page: int = 5000, **query: Any) -> AuditPage:
        self.projector.catch_up()
        return self.model.page(AuditQuery(**query), page, per_page)

    def events(self, **query: Any) -> list[AuditView]:
        return self.page(**query).events

    def types(self, **query: Any) -> list[str]:
        return [event.type.removeprefix("audit.") for event in self.events(**query)]


@pytest.fixture
def bench(any_store: Store) -> Bench:
    any_store.migrate()
    return Bench(any_store)


def test_what_is_done_to_a_package_is_told(bench: Bench) -> None:
    """Its creation, upload, download and end; not what the service does to go on with it."""
    guid = bench.ready()
    bench.services.downloads.record(Downloaded(BitsOf.PACKAGE, guid, "app-1", 0, 9), BOB)
    bench.services.packages.delete(guid, ANN)
    events = bench.events()
    assert [(event.type, event.actor) for event in events] == [
        ("audit.app.package.create", "ann"),
        ("audit.app.package.upload", "bob"),
        ("audit.app.package.download", "bob"),
        ("audit.app.package.delete", "ann"),
    ]
    assert {(e.target_type, e.target_guid, e.data["package_guid"]) for e in events} == {
        ("app", "app-1", guid)
    }
    assert [event.data.get("request") for event in events] == [
        {"type": "bits"},
        {"file_name": "app.zip", "size": 2000},
        {"first_byte": 0, "last_byte": 9},
        None,
    ]
    assert events[1].data["event_id"] == f"{guid}/2"
    assert events[1].data["request_id"] == "request-2"
    assert [event.position for event in events] == [1, 2, 5, 6]


def test_what_is_done_with_droplets_is_told(bench: Bench) -> None:
    """Asked for, assigned, downloaded, deleted: each names the droplet."""
    package = bench.ready()
    droplet = bench.services.droplets.stage(package, Wanted(), ANN).aggregate
    bench.services.downloads.record(Downloaded(BitsOf.DROPLET, droplet.guid, "app-1"), BOB)
    bench.services.droplets.delete(droplet.guid, ANN)
    told = [event for event in bench.events() if "droplet" in event.type]
    assert [event.type for event in told] == [
        "audit.app.droplet.create",
        "audit.app.droplet.download",
        "audit.app.droplet.delete",
    ]
    assert {event.data["droplet_guid"] for event in told} == {droplet.guid}
    assert told[0].data["package_guid"] == package


def test_a_copy_names_its_source(bench: Bench) -> None:
    """It is the new package's creation."""
    source = bench.ready()
    copy = bench.services.packages.copy(source, "app-2", ANN).aggregate.guid
    (event,) = bench.events(targets=[copy])
    assert (event.type, event.target_guid) == ("audit.app.package.create", "app-2")
    assert event.data["request"] == {"source_package_guid": source}


def test_what_is_told_of_the_directory_is_told_here(bench: Bench) -> None:
    """Apps, spaces, organizations and roles."""
    directory = bench.directory
    directory.announce_organization("org-1", "retail", ANN)
    directory.announce_space("space-1", "production", "org-1", ANN)
    directory.announce_app("app-1", "shop", "space-1", None, ANN)
    directory.rename_app("app-1", "store", ANN)
    developer = Grant("bob", RoleType.SPACE_DEVELOPER, "space-1")
    manager = Grant("bob", RoleType.ORG_MANAGER, None, "org-1")
    directory.assign_role(developer, ANN)
    directory.remove_role(developer, ANN)
    directory.assign_role(developer, ANN)
    directory.assign_role(manager, ANN)
    directory.delete_app("app-1", ANN)
    directory.rename_space("space-1", "prod", ANN)
    directory.delete_space("space-1", ANN)
    directory.announce_organization("org-1", "sales", ANN, suspended=True)
    directory.delete_organization("org-1", ANN)
    assert [(event.type, event.target_type, event.target_name) for event in bench.events()] == [
        ("audit.organization.create", "organization", "retail"),
        ("audit.space.create", "space", "production"),
        ("audit.app.create", "app", "shop"),
        ("audit.app.update", "app", "store"),
        ("audit.user.space_developer_add", "user", None),
        ("audit.user.space_developer_remove", "user", None),
        ("audit.user.space_developer_add", "user", None),
        ("audit.user.organization_manager_add", "user", None),
        ("audit.app.delete-request", "app", "store"),
        ("audit.space.update", "space", "prod"),
        ("audit.space.delete-request", "space", "prod"),
        ("audit.organization.update", "organization", "sales"),
        ("audit.organization.update", "organization", "sales"),
        ("audit.organization.delete-request", "organization", "sales"),
    ]
    roles = [event for event in bench.events() if event.target_type == "user"]
    assert {event.target_guid for event in roles} == {"bob"}
    assert [(event.space_guid, event.organization_guid) for event in roles] == [
        ("space-1", "org-1"), ("space-1", "org-1"), ("space-1", "org-1"), (None, "org-1"),
    ]  # fmt: skip


def test_an_app_that_nobody_announced_is_created_when_it_is(bench: Bench) -> None:
    """What is deleted before it was ever told of was not created, either."""
    bench.directory.delete_app("app-1", ANN)
    assert bench.types() == ["app.delete-request"]


def test_names_and_places_are_those_of_then(bench: Bench) -> None:
    """Whatever an app is called, and wherever it is, later."""
    first = bench.create()
    bench.directory.announce_organization("org-1", "retail", BY)
    bench.directory.announce_space("space-1", "production", "org-1", BY)
    bench.directory.announce_space("space-2", "test", "org-2", BY)
    bench.announce()
    second = bench.create()
    bench.announce(name="store", space="space-2")
    bench.services.packages.delete(second, ANN)
    created = {e.data["package_guid"]: e for e in bench.events(types=["audit.app.package.create"])}
    (deleted,) = bench.events(types=["audit.app.package.delete"])

    def shown(event: AuditView) -> tuple[str | None, ...]:
        return (event.target_name, event.space_guid, event.organization_guid)

    assert shown(created[first]) == (None, None, None)
    assert shown(created[second]) == ("shop", "space-1", "org-1")
    assert shown(deleted) == ("store", "space-2", "org-2")


def rows_of(bench: Bench) -> list[Any]:
    with bench.store.reader.connect() as connection:
        return [
            connection.exec_driver_sql(f"SELECT * FROM {table} ORDER BY 1, 2").all()
            for table in ("audit", "audit_places", "audit_counts")
        ]


def test_built_again_it_is_the_same(bench: Bench) -> None:
    """Guids, too: whoever has kept one finds it again. And event by event as in one batch."""
    bench.announce()
    bench.projector.catch_up()
    bench.services.packages.delete(bench.ready(), ANN)
    bench.projector.catch_up()
    bench.create("app-2")
    guids = [event.guid for event in bench.events()]
    before = rows_of(bench)
    bench.store.builder().build(["audit"])
    assert rows_of(bench) == before
    assert [event.guid for event in bench.events()] == guids
    assert len(set(guids)) == len(guids)


FILTERS: list[tuple[Callable[[str], dict[str, Any]], list[str]]] = [
    (lambda guid: {"types": ["audit.app.package.upload"]}, ["app.package.upload"]),
    (
        lambda guid: {"types": ["audit.app.package.upload", "audit.app.create"]},
        ["app.create", "app.package.upload"],
    ),
    (lambda guid: {"types": []}, []),
    (lambda guid: {"types": ["audit.unknown", "a\0b"]}, []),
    (lambda guid: {"targets": [guid]}, ["app.package.create", "app.package.upload"]),
    (lambda guid: {"targets": ["app-2", "a\0b"]}, ["app.package.create"]),
    (
        lambda guid: {"targets": ["app-1"], "types": ["audit.app.create", "audit.space.create"]},
        ["app.create"],
    ),
    (lambda guid: {"other_targets": [guid, "space-1"]}, ["app.create", "app.package.create"]),
    (
        lambda guid: {"spaces": ["space-1"]},
        ["space.create", "app.create", "app.package.create", "app.package.upload"],
    ),
    (lambda guid: {"organizations": ["org-1"], "types": ["audit.space.create"]}, ["space.create"]),
    (lambda guid: {"spaces": ["space-9"]}, []),
]


def test_filters_leave_what_is_asked_for(bench: Bench) -> None:
    """Targets are also the packages that events are about; the total counts what is left."""
    bench.directory.announce_space("space-1", "production", "org-1", BY)
    bench.announce()
    guid = bench.ready()
    bench.create("app-2")
    for query, expected in FILTERS:
        assert bench.types(**query(guid)) == expected
        backwards = bench.page(descending=True, **query(guid))
        assert [event.type.removeprefix("audit.") for event in backwards.events] == expected[::-1]
        assert backwards.total == len(expected)


def test_times_are_from_and_up_to(bench: Bench) -> None:
    """To the microsecond."""
    for _ in range(3):
        bench.create()
    first, second, third = (microseconds(event.created_at) for event in bench.events())
    assert first < second < third

    def found(**query: Any) -> list[int]:
        return [microseconds(event.created_at) for event in bench.events(**query)]

    assert found(since=second) == [second, third]
    assert found(until=second) == [first]
    assert found(since=second, until=third) == [second]
    assert found(spans=[(first, first + 1), (third, third + 1)]) == [first, third]
    assert found(spans=[]) == []


def test_a_caller_sees_what_is_theirs(bench: Bench) -> None:
    """Events of their apps, wherever those were, and what happened in their spaces."""
    bench.directory.announce_space("space-1", "production", "org-1", BY)
    bench.directory.announce_space("space-2", "test", "org-1", BY)
    bench.announce()
    bench.announce("app-2", "other", "space-2")
    bench.create("app-2")
    nowhere = Places((), ())

    def seen(apps: list[str], places: Places = nowhere, **query: Any) -> list[str]:
        return bench.types(visible=Visible(apps, places), **query)

    assert seen(["app-2"]) == ["app.create", "app.package.create"]
    assert seen(["app-2"], types=["audit.app.create"]) == ["app.create"]
    assert seen([], Places(["space-1"], ())) == ["space.create", "app.create"]
    assert len(seen([], Places((), ["org-1"]))) == 5
    assert seen([]) == []
    of_space = bench.events(types=["audit.space.create"])[0].guid
    assert bench.model.happened_in(of_space, Places(["space-1"], ()))
    assert not bench.model.happened_in(of_space, Places(["space-2"], ["org-2"]))


def test_it_tells_which_apps_are_meant(bench: Bench) -> None:
    """By their guids, or those of packages that they had; not a user who is called the same."""
    guid = bench.create()
    bench.services.packages.delete(guid, ANN)
    bench.create("app-2")
    bench.directory.assign_role(Grant("user-9", RoleType.SPACE_DEVELOPER, "space-1"), BY)
    bench.projector.catch_up()
    assert bench.model.apps_about([guid], 9) == ["app-1"]
    assert sorted(bench.model.apps_about([guid, "app-2", "app-3", "a\0b"], 9)) == ["app-1", "app-2"]
    assert len(bench.model.apps_about([guid, "app-2"], 1)) == 1
    assert bench.model.apps_about(["user-9", "space-1"], 9) == []


def test_an_event_is_found_by_its_guid(bench: Bench) -> None:
    """And nothing by another."""
    bench.create()
    (event,) = bench.events()
    assert bench.model.find(event.guid) == event
    assert bench.model.find("nobody") is None
    assert bench.model.find("a\0b") is None


CREATED, DELETED = "audit.app.package.create", "audit.app.package.delete"


@pytest.mark.slow
@pytest.mark.parametrize("types", [None, [DELETED], [CREATED, DELETED]])
def test_every_page_has_its_own_events(bench: Bench, types: list[str] | None) -> None:
    """In either order, over more than a stretch of the log that is counted together."""
    written: list[Any] = []
    for n in range(STRETCH // 2 + 600):
        package = Package.create(f"guid-{n}", f"app-{n % 7}", PackageType.BITS, None, ANN)
        package.delete(ANN)
        written += package.collect_events()
    bench.store.events.put(written)
    whole = bench.page(types=types)
    expected = [event.guid for event in whole.events]
    expected += [event.guid for event in bench.page(2, types=types).events]
    assert len(expected) == len(set(expected)) == whole.total
    for descending in (False, True):
        listed: list[str] = []
        for page in range(1, whole.total // 700 + 3):
            found = bench.page(page, 700, types=types, descending=descending)
            assert found.total == whole.total
            listed += [event.guid for event in found.events]
        assert listed == (expected[::-1] if descending else expected)
