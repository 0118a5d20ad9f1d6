"""The read model of droplets: a row for each, as its aggregate has it, found in any order."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
from sqlalchemy import select

from adapters.store import Store
from domain.droplet import BuiltDroplet, DropletState
from domain.droplet_service import DropletService, Wanted
from domain.errors import Refusal
from domain.package import Digests, PackageType, StoredBits
from projections.droplets import (
    DropletOrder,
    DropletQuery,
    DropletReadModel,
    DropletRow,
    droplets,
)
from projections.representation import view_of_droplet
from projections.unfinished import Step
from tests.support.packages import BY, DIGESTS, STAGED, STORED, LocalStore

Command = Callable[[DropletService, str], object]
BLOB = StoredBits("ef/01/droplet-1", 3000)
BUILT = BuiltDroplet(
    BLOB, Digests("c" * 40, "d" * 64), {"web": "run web", "worker": "run"}, "ruby 1.6"
)


@pytest.fixture
def store(any_store: Store) -> LocalStore:
    return LocalStore.of(any_store)


@pytest.fixture
def model(any_store: Store) -> DropletReadModel:
    return DropletReadModel(any_store.reader)


def commands_of(store: LocalStore) -> DropletService:
    return store.store.services.droplets


def ready(store: LocalStore, app: str = "app-1") -> str:
    guid = store.service.create(app, PackageType.BITS, None, BY).aggregate.guid
    store.service.start_upload(guid, STAGED, "app.zip", BY)
    store.service.record_stored(guid, STORED, BY)
    store.service.record_hashes(guid, DIGESTS, BY)
    return guid


def new(store: LocalStore, app: str = "app-1", buildpack: str | None = None) -> str:
    wanted = Wanted(buildpack=buildpack)
    return commands_of(store).stage(ready(store, app), wanted, BY).aggregate.guid


def start(service: DropletService, guid: str) -> None:
    service.start_staging(guid, BY)


def complete(service: DropletService, guid: str) -> None:
    service.complete(guid, BUILT, BY)


def fail(service: DropletService, guid: str) -> None:
    service.fail(guid, "no buildpack fits", BY)


def expire(service: DropletService, guid: str) -> None:
    service.expire(guid, BY)


def row_of(store: LocalStore, model: DropletReadModel, guid: str) -> DropletRow:
    store.projector.catch_up()
    row = model.find(guid)
    assert row is not None
    return row


def guids(
    model: DropletReadModel, query: DropletQuery, page: int = 1, per_page: int = 50
) -> list[str]:
    return [row.view.guid for row in model.page(query, page, per_page).droplets]


LIVES: dict[str, list[Command]] = {
    "staged and expired": [start, complete, expire],
    "staged at once": [complete],
    "failed": [start, fail],
    "failed at once": [fail],
}


@pytest.mark.parametrize("batch", ["one by one", "all at once"])
@pytest.mark.parametrize("life", LIVES)
def test_the_row_says_what_the_aggregate_says(
    store: LocalStore, model: DropletReadModel, life: str, batch: str
) -> None:
    """Through a whole life, in one batch or in many, both show the same droplet."""
    service, guid = commands_of(store), new(store, buildpack="ruby")
    for command in LIVES[life]:
        if batch == "one by one":
            assert row_of(store, model, guid).view == view_of_droplet(service.load(guid))
        command(service, guid)
    assert row_of(store, model, guid).view == view_of_droplet(service.load(guid))


def test_a_new_droplet_waits(store: LocalStore, model: DropletReadModel) -> None:
    """It shows what was asked for, has no bits, and was never updated."""
    package = ready(store)
    guid = commands_of(store).stage(package, Wanted(buildpack="ruby"), BY).aggregate.guid
    row = row_of(store, model, guid)
    view = row.view
    assert (view.package_guid, view.app_guid, view.state) == (package, "app-1", "PENDING")
    assert (view.buildpack, view.procfile, view.error, view.sha1, view.updated_at) == (
        "ruby", None, None, None, None,
    )  # fmt: skip
    assert (row.sha256, row.blob_key, row.size) == (None, None, None)


def test_a_staged_droplet_can_be_downloaded(store: LocalStore, model: DropletReadModel) -> None:
    """The row has the blob, its size and checksums, the procfile and the builder's buildpack."""
    guid = new(store, buildpack="ruby")
    complete(commands_of(store), guid)
    row = row_of(store, model, guid)
    assert (row.blob_key, row.size, row.sha256, row.view.sha1) == (
        BLOB.key, BLOB.size, BUILT.digests.sha256, BUILT.digests.sha1,
    )  # fmt: skip
    assert (row.view.state, row.view.buildpack, row.view.procfile) == (
        "STAGED", "ruby 1.6", "web: run web\nworker: run",
    )  # fmt: skip
    assert row.view.updated_at is not None


def test_an_expired_droplet_names_no_blob(store: LocalStore, model: DropletReadModel) -> None:
    """Its bits may be removed, its checksum is still shown."""
    guid = new(store)
    complete(commands_of(store), guid)
    store.projector.catch_up()
    assert model.blobs_named([BLOB.key, "another"]) == {BLOB.key}
    expire(commands_of(store), guid)
    row = row_of(store, model, guid)
    assert (row.view.state, row.blob_key, row.view.sha1) == ("EXPIRED", None, "c" * 40)
    assert model.blobs_named([BLOB.key]) == set()


@pytest.mark.parametrize("seen_before", [False, True])
def test_a_deleted_droplet_has_no_row(
    store: LocalStore, model: DropletReadModel, seen_before: bool
) -> None:
    """Whether or not the read model ever had it; the others stay."""
    guid, other = new(store), new(store)
    if seen_before:
        store.projector.catch_up()
    start(commands_of(store), guid)
    commands_of(store).delete(guid, BY)
    store.projector.catch_up()
    assert model.find(guid) is None
    assert guids(model, DropletQuery()) == [other]
    assert [waiting.guid for waiting in model.waiting()] == [other]


def test_a_droplet_outlives_its_package(store: LocalStore, model: DropletReadModel) -> None:
    """The package's row goes, the droplet's stays."""
    package = ready(store)
    guid = commands_of(store).stage(package, Wanted(), BY).aggregate.guid
    store.service.delete(package, BY)
    assert row_of(store, model, guid).view.package_guid == package
    assert store.packages.find(package) is None


def test_a_list_is_filtered_by_apps_and_states(store: LocalStore, model: DropletReadModel) -> None:
    """Both filters hold at once; an empty one lets nothing through, none lets everything."""
    service = commands_of(store)
    one, two, three, four = (new(store, app) for app in ("app-1", "app-2", "app-3", "app-1"))
    start(service, one)
    complete(service, two)
    complete(service, four)
    store.projector.catch_up()
    for query, expected in (
        (DropletQuery(), [one, two, three, four]),
        (DropletQuery(["app-1"]), [one, four]),
        (DropletQuery(["app-1", "app-3", "app-1"]), [one, three, four]),
        (DropletQuery(states=["STAGED"]), [two, four]),
        (DropletQuery(states=["STAGED", "STAGING"]), [one, two, four]),
        (DropletQuery(["app-1"], ["STAGED"]), [four]),
        (DropletQuery(["app-1"], ["FAILED"]), []),
        (DropletQuery(["nobody's"]), []),
        (DropletQuery(states=["nonsense"]), []),
        (DropletQuery([]), []),
        (DropletQuery(states=[]), []),
    ):
        assert guids(model, query) == expected
        assert model.page(query, 1, 1).total == len(expected)


def test_a_filter_may_hold_any_text(store: LocalStore, model: DropletReadModel) -> None:
    """No droplet is of an app with a name like that; that is no fault of the database."""
    guid = new(store)
    store.projector.catch_up()
    assert guids(model, DropletQuery(["a\0b", "app-1"])) == [guid]
    assert guids(model, DropletQuery(states=["a\0b"])) == []
    assert model.find("a\0b") is None


def test_droplets_are_listed_in_four_orders(store: LocalStore, model: DropletReadModel) -> None:
    """Of creation or of the last update, up or down; what never changed counts as created."""
    service = commands_of(store)
    one, two, three = (new(store) for _ in range(3))
    start(service, two)
    four = new(store)
    store.projector.catch_up()
    created, updated = DropletOrder.CREATED_AT, DropletOrder.UPDATED_AT
    assert guids(model, DropletQuery()) == [one, two, three, four]
    assert guids(model, DropletQuery(order=created, descending=True)) == [four, three, two, one]
    assert guids(model, DropletQuery(order=updated)) == [one, three, two, four]
    assert guids(model, DropletQuery(order=updated, descending=True)) == [four, two, three, one]
    complete(service, one)
    store.projector.catch_up()
    assert guids(model, DropletQuery(order=updated)) == [three, two, four, one]
    assert guids(model, DropletQuery()) == [one, two, three, four]


def test_a_list_comes_page_by_page(store: LocalStore, model: DropletReadModel) -> None:
    """Each page goes on where the one before ended, in either direction; totals are of all."""
    all_of_them = [new(store) for _ in range(5)]
    new(store, "app-2")
    store.projector.catch_up()
    for descending, expected in ((False, all_of_them), (True, all_of_them[::-1])):
        query = DropletQuery(["app-1"], descending=descending)
        pages = [guids(model, query, number, 2) for number in (1, 2, 3)]
        assert pages == [expected[:2], expected[2:4], expected[4:]]
        assert {model.page(query, number, 2).total for number in (1, 2, 3, 4)} == {5}


@pytest.mark.parametrize("page", [2, 10**18])
def test_a_page_behind_the_last_is_empty(
    store: LocalStore, model: DropletReadModel, page: int
) -> None:
    """However far behind; the total is still right."""
    new(store)
    store.projector.catch_up()
    behind = model.page(DropletQuery(), page, 5000)
    assert (behind.total, behind.droplets) == (1, [])


def test_those_that_wait_are_known(store: LocalStore, model: DropletReadModel) -> None:
    """Begun or not, the oldest first, since when and of which package; no others."""
    service = commands_of(store)
    pending, begun, staged, failed, last = (new(store) for _ in range(5))
    start(service, begun)
    complete(service, staged)
    fail(service, failed)
    store.projector.catch_up()
    waiting = model.waiting()
    assert [droplet.guid for droplet in waiting] == [pending, begun, last]
    for droplet in waiting:
        loaded = service.load(droplet.guid)
        since = loaded.modified_on if loaded.guid == begun else loaded.created_on
        assert (droplet.package_guid, droplet.since) == (loaded.package_guid, since)


def test_what_is_handed_out_is_not_begun(store: LocalStore, model: DropletReadModel) -> None:
    """Unless what a builder has begun is wanted, too: then all that waits, the oldest first."""
    begun, pending, staged = (new(store) for _ in range(3))
    start(commands_of(store), begun)
    complete(commands_of(store), staged)
    store.projector.catch_up()
    assert [work.guid for work in model.to_hand_out(begun_too=False)] == [pending]
    both = model.to_hand_out(begun_too=True)
    assert [work.guid for work in both] == [begun, pending]
    assert {work.step for work in both} == {Step.STAGING}
    created = {logged.position: logged.event.guid for logged in store.log.read(0, 100)}
    assert [created[work.position] for work in both] == [begun, pending]


def test_what_is_known_is_found_among_many(store: LocalStore, model: DropletReadModel) -> None:
    """More keys and guids than one statement takes; only those that there are come back."""
    guid = new(store)
    complete(commands_of(store), guid)
    store.projector.catch_up()
    many = [f"x{number}" for number in range(1000)]
    assert model.guids([*many, guid]) == {guid}
    assert model.blobs_named([BLOB.key, *many]) == {BLOB.key}
    assert (model.guids([]), model.blobs_named([])) == (set(), set())


def ask_for_nul(service: DropletService, package: str) -> None:
    service.stage(package, Wanted(buildpack="https://host/a\0b"), BY)


def fail_with_nul(service: DropletService, package: str) -> None:
    service.fail(service.stage(package, Wanted(), BY).aggregate.guid, "a\0b", BY)


def answer_with_nul(service: DropletService, package: str) -> None:
    guid = service.stage(package, Wanted(), BY).aggregate.guid
    service.complete(guid, BuiltDroplet(BLOB, BUILT.digests, {"web": "a\0b"}, None), BY)


@pytest.mark.parametrize("command", [ask_for_nul, fail_with_nul, answer_with_nul])
def test_nothing_that_others_say_brings_the_read_models_to_a_halt(
    store: LocalStore, model: DropletReadModel, command: Command
) -> None:
    """Text that PostgreSQL can't keep is refused, or kept in another way: reads go on."""
    package = ready(store)
    with suppress(Refusal):
        command(commands_of(store), package)
    later = new(store)
    assert row_of(store, model, later).view.state == "PENDING"


def test_a_rebuild_gives_the_same_rows(store: LocalStore, model: DropletReadModel) -> None:
    """From the log alone, whatever the droplets have gone through."""
    service = commands_of(store)
    lives: list[list[Command]] = [[], [start], *LIVES.values()]
    for commands in lives:
        guid = new(store)
        for command in commands:
            command(service, guid)
            store.projector.catch_up()
    service.delete(new(store), BY)
    store.projector.catch_up()

    def rows() -> list[tuple[object, ...]]:
        with store.reader.connect() as connection:
            found = connection.execute(select(droplets).order_by(droplets.c.number))
            return [tuple(row) for row in found]

    before = rows()
    assert len(before) == 6
    assert {row.view.state for row in model.page(DropletQuery(), 1, 50).droplets} == {
        state.value for state in DropletState
    }
    with store.writing, store.writer.begin() as connection:
        connection.execute(droplets.delete())
    assert rows() == []
    store.rebuild("droplets")
    assert rows() == before
