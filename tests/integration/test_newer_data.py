"""What a later version of the program has written stops this one, and is not changed by it."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor

import pytest
from eventsourcing.persistence import StoredEvent
from sqlalchemy import select, update

from adapters import schema
from adapters.bus.memory import MemoryBus
from adapters.bus.relay import Relay
from adapters.follower import KeptPosition
from adapters.http.answers import answer_to
from adapters.store import Store, projections
from domain.errors import NewerData
from domain.package import Package, PackageType
from projections.packages import packages
from projections.positions import NOWHERE, positions, versions_of
from projections.progress import StoredProgress
from tests.support.packages import BY
from tests.support.waiting import eventually


class NoNotices:
    def count(self) -> int:
        return 0

    def wait(self, seen: int, timeout: float) -> bool:
        return False


@pytest.fixture
def store(any_store: Store) -> Store:
    any_store.migrate()
    return any_store


def create(store: Store) -> str:
    return store.packages.create("app-1", PackageType.BITS, None, BY).aggregate.guid


def append(store: Store, guid: str, topic: str, state: bytes) -> None:
    """An event as a later version may write it."""
    stored = StoredEvent(Package.ID_PREFIX + guid, 2, topic, state)
    store.events.recorder.insert_events([stored])


LATER = {
    "an event": ("package.teleported", b'{"timestamp":"2030-01-01T00:00:00Z","actor":"a"}'),
    "a version of one": (
        "package.deleted",
        b'{"timestamp":"2030-01-01T00:00:00Z","actor":"a","class_version":7}',
    ),
}


@pytest.mark.parametrize("what", LATER)
def test_followers_stop_before_a_newer_event(
    store: Store, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    """They have what comes before it, say what they do not know, and skip nothing."""
    projector = store.projector()
    guid = create(store)
    projector.catch_up()
    append(store, guid, *LATER[what])
    behind = create(store)
    with pytest.raises(NewerData, match=f"(?i){LATER[what][0]}.*upgrade it"):
        projector.catch_up()
    assert projector.position == 1
    bus = MemoryBus()
    bus.declare()
    relay = Relay(store.log, bus, KeptPosition(store.writer, store.writing))
    with caplog.at_level(logging.ERROR):
        relay.start()
        eventually(lambda: relay.failed)
        relay.stop()
    bus.close()
    assert "upgrade it" in caplog.text
    with pytest.raises(NewerData) as refused:
        store.packages.get(guid)
    assert answer_to(refused.value).status == 503
    assert store.packages.get(behind).guid == behind


def test_a_newer_read_model_is_neither_read_nor_changed(store: Store) -> None:
    """An older projector does not tear it down, an older API does not answer from it."""
    projector = store.projector()
    create(store)
    projector.catch_up()
    progress = StoredProgress(store.reader, versions_of(projections()), NoNotices())
    assert progress.position == 1
    with store.writer.begin() as connection:
        connection.execute(update(positions).values(version=99))
    create(store)
    for use in (
        projector.catch_up,
        store.projector,
        lambda: store.builder().build(["packages"]),
        lambda: progress.position,
    ):
        with pytest.raises(NewerData, match=r"version 99.*upgrade it"):
            use()
    with store.reader.connect() as connection:
        assert len(connection.execute(select(packages)).all()) == 1


def test_a_newer_schema_is_not_touched(store: Store) -> None:
    """A start, or a migration, of an older program ends with one line."""
    with store.writer.begin() as connection:
        connection.execute(update(schema.schema).values(version=99))
    with pytest.raises(NewerData, match=r"schema version 99.*upgrade it"):
        store.migrate()


def test_an_older_read_model_is_built_anew(store: Store) -> None:
    """The first projector of the newer program asks for it, and follows the old one until then."""
    store.projector().catch_up()
    guid = create(store)
    with store.writer.begin() as connection:
        connection.execute(update(positions).values(version=0))
    progress = StoredProgress(store.reader, versions_of(projections()), NoNotices())
    assert progress.position == NOWHERE, "nobody has said yet that it is built"
    assert store.builder().begun() == []
    projector = store.projector()
    assert store.builder().begun() == projector.names
    projector.catch_up()
    assert progress.position == 1
    store.builder().build(store.builder().begun())
    with store.reader.connect() as connection:
        assert [row.guid for row in connection.execute(select(packages))] == [guid]
        found = connection.execute(select(positions.c.name, positions.c.version))
        assert {row.name: row.version for row in found} == versions_of(projections())
    assert store.builder().begun() == []


def test_nobody_reads_before_there_is_a_read_model(store: Store) -> None:
    """Also of an empty log: whoever keeps them has not started yet, and there are no tables."""
    progress = StoredProgress(store.reader, versions_of(projections()), NoNotices())
    assert not progress.wait_for(store.log.head(), 0)
    store.projector()
    assert progress.wait_for(store.log.head(), 0)


@pytest.mark.parametrize("position", [1, 1000], ids=["another event", "beyond the log"])
def test_a_read_model_of_another_history_is_built_anew(
    store: Store, position: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A restored log may lack events that the read model has had: it is noticed, and said."""
    store.projector().catch_up()
    guids = [create(store) for _ in range(3)]
    with store.writer.begin() as connection:
        connection.execute(update(positions).values(position=position, event_id="lost/2"))
    projector = store.projector()
    projector.catch_up()
    assert "was the log restored?" in caplog.text
    with store.reader.connect() as connection:
        assert {row.guid for row in connection.execute(select(packages))} == set(guids)


def test_processes_that_start_at_once_do_not_collide(store: Store) -> None:
    """All of them migrate, and one of them does it."""
    with store.writer.begin() as connection:
        for table in (
            "packtrail_schema",
            "events",
            "projection_positions",
            "relay_positions",
            "projection_builds",
            "projection_stops",
        ):
            connection.exec_driver_sql(f"DROP TABLE {table}")
    with ThreadPoolExecutor(4) as pool:
        steps = list(pool.map(lambda _: store.migrate(), range(4)))
    assert sorted(steps) == [0, 0, 0, len(schema.STEPS)]
    assert create(store)
