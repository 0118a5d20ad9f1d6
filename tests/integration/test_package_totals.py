"""Totals and pages of packages, beside what counting says: however packages come and go."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import cast

import pytest
from sqlalchemy import Table, delete, select

from adapters.store import Store
from domain.aggregate import RecordedEvent
from domain.package import Package, PackageType
from domain.ports import LoggedEvent
from projections import totals
from projections.packages import PackageReadModel, PackagesProjection
from tests.support.packages import BY, STAGED, LocalStore

APPS = ("app-1", "app-2", "app-3")


@pytest.fixture(params=range(3))
def chance(request: pytest.FixtureRequest) -> random.Random:
    return random.Random(request.param)


@pytest.fixture(autouse=True)
def small_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some dozen packages are in as many buckets as a million are else."""
    monkeypatch.setattr(totals, "BUCKET", 8)


@pytest.fixture
def store(any_store: Store) -> LocalStore:
    return LocalStore.of(any_store)


def history(chance: random.Random, kept: list[Package]) -> Iterator[LoggedEvent]:
    """Packages of all apps are created, uploaded to and deleted; `kept` is what is left."""
    position = 0
    for number in range(120):
        position += chance.randint(1, 5)  # of other events, too
        if kept and chance.random() < 0.4:
            package = kept.pop(chance.randrange(len(kept)))
            package.delete(BY)
        else:
            package = Package.create(f"p-{number}", chance.choice(APPS), PackageType.BITS, None, BY)
            kept.append(package)
            if chance.random() < 0.3:
                package.start_upload(STAGED, None, BY)
        for event in package.collect_events():
            yield LoggedEvent(position, cast(RecordedEvent, event))
            position += 1


def apply(store: LocalStore, events: Sequence[LoggedEvent], sizes: Iterator[int]) -> None:
    """In batches of these sizes, each in a transaction of its own."""
    projection = PackagesProjection()
    while events:
        size = next(sizes)
        with store.writing, store.writer.begin() as connection:
            projection.apply(connection, events[:size])
        events = events[size:]


def some(chance: random.Random) -> Iterator[int]:
    while True:
        yield chance.choice((1, 2, 7, 60))


def guids_on(packages: PackageReadModel, app: str | None, page: int, per_page: int) -> list[str]:
    return [row.view.guid for row in packages.page(app, page, per_page).packages]


def test_every_page_is_what_counting_finds(store: LocalStore, chance: random.Random) -> None:
    """Of every list, at every place, and the total with it."""
    kept: list[Package] = []
    apply(store, list(history(chance, kept)), some(chance))
    for app in (None, *APPS):
        theirs = [package.guid for package in kept if app in (None, package.app_guid)]
        for per_page in (1, 3, 10, 1000):
            last = -(-len(theirs) // per_page)
            for page in range(1, last + 2):
                wanted = theirs[(page - 1) * per_page : page * per_page]
                assert guids_on(store.packages, app, page, per_page) == wanted
            assert store.packages.page(app, 1, per_page).total == len(theirs)
    assert [store.packages.count_of_app(app) for app in APPS] == [
        sum(package.app_guid == app for package in kept) for app in APPS
    ]


def test_apps_together_have_what_each_has(store: LocalStore, chance: random.Random) -> None:
    """The list of what a caller may see: its total is theirs, and nobody else's."""
    kept: list[Package] = []
    apply(store, list(history(chance, kept)), some(chance))
    seen = ("app-1", "app-3", "nobody's", totals.ALL)
    theirs = [package.guid for package in kept if package.app_guid in seen]
    page = store.packages.page_of_apps(seen, 1, 1000)
    assert (page.total, [row.view.guid for row in page.packages]) == (len(theirs), theirs)


def test_totals_do_not_tell_how_they_came_to_be(store: LocalStore, chance: random.Random) -> None:
    """Built one event at a time, or all in one batch, the tables are the same."""
    events = list(history(chance, []))
    projection = PackagesProjection()
    found = []
    for size in (1, 7, len(events)):
        apply(store, events, repeat(size))
        found.append([rows(store, table) for table in projection.tables])
        with store.writing, store.writer.begin() as connection:
            for table in projection.tables:
                connection.execute(delete(table))
    assert found[0] == found[1] == found[2]


def rows(store: LocalStore, table: Table) -> list[tuple[object, ...]]:
    with store.reader.connect() as connection:
        return sorted(tuple(row) for row in connection.execute(select(table)))


@pytest.mark.parametrize("app", [totals.ALL, "a\0b"])
def test_what_is_no_apps_guid_has_no_packages(store: LocalStore, app: str) -> None:
    """Nobody is shown all packages by asking for an app without a name."""
    apply(store, list(history(random.Random(1), [])), some(random.Random(1)))
    assert store.packages.page(app, 1, 50).total == 0
    assert store.packages.count_of_app(app) == 0


def test_no_packages_have_one_page(store: LocalStore) -> None:
    """It is empty, and so is the next."""
    for page in (1, 2):
        found = store.packages.page(None, page, 50)
        assert (found.total, found.packages) == (0, [])
