"""The chain of hashes: every event's hash covers it and the one before, on either engine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from eventsourcing.persistence import IntegrityError
from sqlalchemy import text, update
from sqlalchemy.exc import IntegrityError as NotTaken

from adapters import schema
from adapters.event_store.chain import GENESIS, Record, link
from adapters.store import Store
from domain.package import Package, PackageType
from projections.rows import moment_of
from tests.support.packages import BY, hash_, store, upload

AS_BEFORE_THE_CHAIN = (
    "INSERT INTO events (originator_id, originator_version, topic, state) "
    "SELECT 'package:late', 1, topic, state FROM events LIMIT 1"
)


@pytest.fixture
def log(any_store: Store) -> Store:
    any_store.migrate()
    return any_store


def create(opened: Store, app: str = "app-1") -> str:
    return opened.packages.create(app, PackageType.BITS, None, BY).aggregate.guid


def append(opened: Store, *, guid: str, app: str = "app-1") -> None:
    package = Package.create(guid, app, PackageType.BITS, None, BY)
    for act in (upload, store, hash_):
        act(package)
    opened.events.put(package.collect_events())


def chained(records: list[Record]) -> Iterator[tuple[bytes, bytes]]:
    """The hash that each record must have, and the one that it has."""
    previous = GENESIS
    for record in records:
        yield link(previous, *record[:-1]), record.hash
        previous = record.hash


def test_each_event_is_chained_to_the_one_before(log: Store) -> None:
    """One by one and several at once, whatever letters they hold."""
    create(log)
    append(log, guid="guid-1", app="äpp \u2028 😀")
    create(log, "x" * 200)
    records = list(log.log.records(0, 100))
    assert len(records) == 6
    assert all(expected == found for expected, found in chained(records))
    assert len({record.hash for record in records}) == 6


def test_a_refused_append_leaves_the_chain_as_it_was(log: Store) -> None:
    """PostgreSQL leaves a gap of positions behind, and no gap in the chain."""
    append(log, guid="guid-1")
    with pytest.raises(IntegrityError):
        append(log, guid="guid-1")
    append(log, guid="guid-2")
    records = list(log.log.records(0, 100))
    assert len(records) == 8
    assert all(expected == found for expected, found in chained(records))


def test_writers_at_once_make_one_chain(log: Store) -> None:
    """Each writes behind the other, in the order of their positions."""
    writers = [threading.Thread(target=lambda: [create(log) for _ in range(20)]) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    records = list(log.log.records(0, 100))
    assert len(records) == 80
    assert all(expected == found for expected, found in chained(records))


def test_times_of_appending_are_now_and_never_go_back(log: Store) -> None:
    """Also where the clock was put back since the event before."""
    began = datetime.now(UTC)
    create(log)
    first = log.log.records(0, 1)[0]
    assert timedelta(0) <= moment_of(first.appended_at) - began < timedelta(seconds=30)
    later = first.appended_at + 3_600_000_000
    with log.writing, log.writer.begin() as connection:
        connection.execute(text("UPDATE events SET appended_at = :at"), {"at": later})
    append(log, guid="guid-1")
    assert {record.appended_at for record in log.log.records(1, 10)} == {later}


def test_a_moment_finds_the_last_position_appended_before_it(log: Store) -> None:
    """At any moment between two events, at each event's own, and outside of all."""
    for _ in range(3):
        create(log)
    with pytest.raises(IntegrityError):  # a gap, on PostgreSQL
        append_twice(log)
    for _ in range(3):
        create(log)
    times = [(record.position, record.appended_at) for record in log.log.records(0, 10)]
    for asked in sorted({at + near for _, at in times for near in (-1, 0, 1)}):
        last = max((position for position, at in times if at < asked), default=0)
        assert log.log.position_at(moment_of(asked)) == last
    assert log.log.position_at(datetime.now(UTC) + timedelta(days=1)) == times[-1][0]


def append_twice(opened: Store) -> None:
    packages = [Package.create("twice", "app-1", PackageType.BITS, None, BY) for _ in range(2)]
    opened.events.put([event for package in packages for event in package.collect_events()])


def test_the_moment_of_an_empty_log_is_the_beginning(log: Store) -> None:
    """There is nothing before anything."""
    assert log.log.position_at(datetime.now(UTC)) == 0


def test_an_aggregates_history_has_positions_and_an_end(log: Store) -> None:
    """All its events, or those up to a position; none of another's, none of nobody's."""
    append(log, guid="guid-1")
    create(log)
    log.packages.delete("guid-1", BY)
    history = log.log.history("package:guid-1")
    assert [logged.position for logged in history] == [
        record.position
        for record in log.log.records(0, 10)
        if record.originator_id == "package:guid-1"
    ]
    assert isinstance(history[-1].event, Package.Deleted)
    assert log.log.history("package:guid-1", history[1].position) == history[:2]
    assert log.log.history("package:guid-1", 0) == []
    assert log.log.history("package:nobody") == log.log.history("package:a\0b") == []


def test_a_log_from_before_the_chain_is_chained_by_the_migration(log: Store) -> None:
    """Its events keep their positions; their own times stand for those of appending.

    A program from before, which still runs, can't append to it any more.
    """
    append(log, guid="guid-1")
    create(log)
    before = [record[:1] + record[2:6] for record in log.log.records(0, 10)]
    with log.writing, log.writer.begin() as connection:
        if connection.dialect.name == "sqlite":
            connection.execute(text("DROP TRIGGER events_are_chained"))
        connection.execute(text("ALTER TABLE events DROP COLUMN hash"))
        connection.execute(text("ALTER TABLE events DROP COLUMN appended_at"))
        for later in ("projection_builds", "projection_stops"):
            connection.execute(text(f"DROP TABLE {later}"))
        connection.execute(update(schema.schema).values(version=3))
    assert log.migrate() == len(schema.STEPS) - 3
    records = list(log.log.records(0, 10))
    assert [record[:1] + record[2:6] for record in records] == before
    assert all(expected == found for expected, found in chained(records))
    with pytest.raises(NotTaken), log.writing, log.writer.begin() as connection:
        connection.execute(text(AS_BEFORE_THE_CHAIN))
    events = [logged.event for logged in log.log.read(0, 10)]
    assert [moment_of(r.appended_at) for r in records] == [e.timestamp for e in events]
    create(log)
    assert all(expected == found for expected, found in chained(list(log.log.records(0, 10))))
