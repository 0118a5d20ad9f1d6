"""The trail of all that happened, as somebody looks through it, on either engine."""

from __future__ import annotations

import pytest

from adapters import trail
from adapters.event_store.chain import Record
from adapters.store import Store
from adapters.trail import NoSuchType, Trail, Wanted, types_named
from domain.download import BitsOf, Downloaded
from tests.support.eventful import ALICE, BOB, ODD, SHOP, Told, by, live

ALL = 10_000


@pytest.fixture
def store(any_store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """One that is looked through in many steps, whatever there is."""
    monkeypatch.setattr(trail, "WINDOW", 7)
    any_store.migrate()
    return any_store


@pytest.fixture
def told(store: Store) -> Told:
    return live(store)


def found(store: Store, wanted: Wanted, first: int = 1, last: int = ALL) -> list[Record]:
    last = min(last, store.log.head())
    return [
        r for batch in Trail(store.reader, store.log).batches(wanted, first, last) for r in batch
    ]


def test_all_of_it_in_order(store: Store, told: Told) -> None:
    """Each event once, as the log has it; or those of some positions, both ends included."""
    everything = list(store.log.records(0, ALL))
    assert found(store, Wanted()) == everything
    assert found(store, Wanted(), 9, 24) == everything[8:24]


def test_the_trail_of_a_package_has_its_downloads(store: Store, told: Told) -> None:
    """They are events of their own, and name it; what others of its app did is not there."""
    topics = [record.topic for record in found(store, Wanted(told.ready))]
    assert topics == [
        "package.created", "package.upload_started", "package.bits_stored",
        "package.hash_computed", *["package.staging_requested"] * 5, *["download.started"] * 2,
    ]  # fmt: skip
    without = Wanted(told.ready, types_named(["package.*"]))
    assert [r.topic for r in found(store, without)] == topics[:-2]
    first_download = found(store, Wanted(told.ready))[-2].position
    assert len(found(store, Wanted(told.ready), first_download)) == 2


def test_downloads_are_found_by_the_read_model_and_behind_it(store: Store, told: Told) -> None:
    """However far it is: not yet built, up to date, or behind; each download once."""
    expected = found(store, Wanted(told.ready))
    store.projector().catch_up()
    assert found(store, Wanted(told.ready)) == expected
    download = expected[-1].position
    assert [r.position for r in found(store, Wanted(told.ready), download)] == [download]
    of = Downloaded(BitsOf.PACKAGE, told.ready, SHOP)
    new = store.services.downloads.record(of, by()).position
    assert [r.position for r in found(store, Wanted(told.ready))[-2:]] == [download, new]


@pytest.mark.parametrize(
    ("guid", "topics"),
    [
        (ODD, ["app.created", "app.renamed", "app.deleted"]),
        ("space-3", ["space.created", "space.deleted"]),
        ("org-3", ["organization.created", "organization.deleted"]),
        ("nothing's", []),
        ("a\0b", []),
    ],
)
def test_the_trail_of_anything_by_its_guid(
    store: Store, told: Told, guid: str, topics: list[str]
) -> None:
    """Whatever kind it is of; nothing for what was never there."""
    assert [record.topic for record in found(store, Wanted(guid))] == topics


def test_by_type_and_by_actor(store: Store, told: Told) -> None:
    """Names and patterns; of several it is one, and the others must hold, too."""
    everything = list(store.log.records(0, ALL))
    some = found(store, Wanted(types=types_named(["app.deleted", "role.*"])))
    assert some == [r for r in everything if r.topic == "app.deleted" or r.topic[:5] == "role."]
    of_two = found(store, Wanted(types=types_named(["package.created"]), actors=frozenset([BOB])))
    assert 0 < len(of_two) < len([r for r in everything if r.topic == "package.created"])
    both = found(store, Wanted(actors=frozenset([ALICE, BOB])))
    assert len(both) > len(found(store, Wanted(actors=frozenset([BOB]))))
    assert found(store, Wanted(actors=frozenset(["nobody"]))) == []


def test_a_type_that_there_is_none_of_is_told_with_those_that_there_are() -> None:
    """So that a misspelt one does not look like nothing has happened."""
    with pytest.raises(NoSuchType, match=r"'package.creatd', only app.created, .*space.updated"):
        types_named(["package.created", "package.creatd"])


def test_the_newest_of_what_is_wanted(store: Store, told: Told) -> None:
    """The last so many, in order, however far apart they are."""
    newest, head = Trail(store.reader, store.log).newest, store.log.head()
    everything = list(store.log.records(0, ALL))
    assert newest(Wanted(), 1, head, 12) == everything[-12:]
    assert newest(Wanted(), 1, head, ALL) == everything
    spaces = Wanted(types=types_named(["space.*"]))
    assert newest(spaces, 1, head, 3) == found(store, spaces)[-3:]
    assert newest(Wanted(told.ready), 1, head, 2) == found(store, Wanted(told.ready))[-2:]
    assert newest(Wanted(), 5, 8, 3) == everything[5:8]
