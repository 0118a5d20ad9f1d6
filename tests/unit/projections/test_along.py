"""Read models that are written in the transaction of the events themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from eventsourcing.persistence import OperationalError
from sqlalchemy import Connection, Table

from domain.errors import NewerData
from domain.ports import LoggedEvent
from projections.engine import Projection
from projections.packages import PackagesProjection
from projections.unfinished import WorkProjection
from tests.support.packages import BY, LocalStore
from tests.support.waiting import eventually
from tests.unit.projections.test_engine import Faulty, Watching, create, kept_positions, live, rows

Open = Callable[..., LocalStore]


class Filling:
    """A projection that fills the disk, as SQLite sees it."""

    name = "filling"
    version = 1
    tables: Sequence[Table] = ()

    def apply(self, connection: Connection, events: Sequence[LoggedEvent]) -> None:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 1}")
        connection.exec_driver_sql("CREATE TABLE filling (bytes BLOB)")
        connection.exec_driver_sql("INSERT INTO filling VALUES (zeroblob(100000))")


@pytest.fixture
def watching() -> Watching:
    return Watching()


@pytest.fixture
def opened(tmp_path: Path, watching: Watching) -> Iterator[LocalStore]:
    projections: list[Projection] = [PackagesProjection(), WorkProjection(), watching]
    store = LocalStore.open(tmp_path / "log.db", projections)
    yield store
    store.close()


@pytest.fixture
def along(opened: LocalStore) -> LocalStore:
    """Its projector has no thread."""
    opened.store.project_along(opened.projector)
    return opened


def applied(watching: Watching) -> list[int]:
    return [position for batch in watching.batches for position in batch]


def test_what_is_appended_is_applied_when_that_returns(
    along: LocalStore, watching: Watching
) -> None:
    """Nobody has to wait for it, and each event is applied once."""
    live(along)
    head = along.log.head()
    assert along.projector.position == head
    assert set(kept_positions(along).values()) == {head}
    assert applied(watching) == list(range(1, head + 1))
    along.projector.catch_up()
    assert len(applied(watching)) == head


def test_the_rows_are_those_of_a_rebuild(along: LocalStore, tmp_path: Path) -> None:
    """Whoever applies the events, and in which batches."""
    live(along)
    kept = rows(along)
    with along.store.writing, along.store.writer.begin() as connection:
        connection.exec_driver_sql("DELETE FROM projection_positions")
    again = LocalStore.open(tmp_path / "log.db")
    again.projector.catch_up()
    assert rows(again) == kept
    again.close()


def test_what_another_process_appended_comes_first(
    along: LocalStore, watching: Watching, tmp_path: Path
) -> None:
    """An event is applied behind all that are before it in the log."""
    other = LocalStore.open(tmp_path / "log.db")
    create(along)
    create(other)
    create(other)
    assert along.projector.position == 1
    create(along)
    assert along.projector.position == 4
    assert applied(watching) == [1, 2, 3, 4]
    assert [logged.position for logged in along.log.read(0, 10)] == [1, 2, 3, 4]
    other.close()


def test_what_another_process_appended_is_not_passed_over_where_it_cannot_be_read(
    along: LocalStore, watching: Watching, tmp_path: Path
) -> None:
    """An event of a newer program: the thread meets it, and waits for an upgrade."""
    other = LocalStore.open(tmp_path / "log.db")
    create(other)
    create(other)
    with along.store.writing, along.store.writer.begin() as connection:
        connection.exec_driver_sql("UPDATE events SET topic = 'of.the.future' WHERE rowid = 2")
    create(along)
    assert applied(watching) == []
    with pytest.raises(NewerData):
        along.projector.catch_up()
    assert applied(watching) == [1]
    assert along.projector.position == 1
    other.close()


def test_large_events_are_not_held_in_memory(
    along: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Followers get them from the log, in their place."""
    create(along)
    monkeypatch.setattr("adapters.event_store.along.LARGEST_HELD", 10)
    create(along)
    monkeypatch.undo()
    create(along)
    assert along.store.along is not None
    tail = along.store.along.tail
    assert [[e.position for e in tail.read(after, 9)] for after in range(3)] == [[], [], [3]]
    assert [logged.position for logged in along.log.read(0, 9)] == [1, 2, 3]
    assert [logged.position for logged in along.log.read(1, 9)] == [2, 3]


def test_what_is_far_behind_is_left_to_the_thread(
    opened: LocalStore, watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command does not wait until all that was missed is there."""
    monkeypatch.setattr("projections.engine.BATCH", 3)
    for _ in range(5):
        create(opened)
    opened.store.project_along(opened.projector)
    create(opened)
    assert applied(watching) == []
    opened.projector.start()
    eventually(lambda: opened.projector.position == 6)
    create(opened)
    assert opened.projector.position == 7
    opened.projector.stop()
    assert applied(watching) == [1, 2, 3, 4, 5, 6, 7]


def test_a_read_model_that_fails_fails_no_command(tmp_path: Path) -> None:
    """The event is in the log, and the thread applies it when the read model works again."""
    faulty, watching = Faulty(), Watching()
    store = LocalStore.open(tmp_path / "log.db", [PackagesProjection(), watching, faulty])
    store.store.project_along(store.projector)
    guid = create(store)
    assert store.service.get(guid).version == 1
    assert store.projector.position == 0
    assert set(kept_positions(store).values()) == {0}
    store.service.delete(guid, BY)
    faulty.failing = False
    store.projector.start()
    eventually(lambda: store.projector.position == 2)
    store.projector.stop()
    assert faulty.seen == [1, 2]
    store.close()


def test_a_full_disk_fails_the_command(tmp_path: Path) -> None:
    """The event was taken back with the rows: that is told as when the log could not be written."""
    store = LocalStore.open(tmp_path / "log.db", [PackagesProjection(), Filling()])
    store.store.project_along(store.projector)
    with pytest.raises(OperationalError):
        create(store)
    assert store.log.head() == 0
    assert store.store.breaker.is_away
    store.close()
