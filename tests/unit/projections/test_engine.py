"""The engine: read models follow the log, whole, and can be built again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Connection, Table, func, select
from sqlalchemy.exc import OperationalError

from domain.package import Fault, PackageType
from domain.ports import LoggedEvent
from projections import engine
from projections.engine import Projection
from projections.packages import PackagesProjection, packages
from projections.positions import positions
from projections.unfinished import WorkProjection, dead_letters, unfinished
from tests.support.packages import BY, DIGESTS, STAGED, STORED, LocalStore
from tests.support.waiting import eventually

ROOT = Path(__file__).resolve().parents[3]
Open = Callable[..., LocalStore]


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[Open]:
    """Opens the same database, as a process of another version would."""
    opened: list[LocalStore] = []

    def open_it(*projections: Projection) -> LocalStore:
        opened.append(LocalStore.open(tmp_path / "log.db", list(projections) or None))
        return opened[-1]

    yield open_it
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Open) -> LocalStore:
    return open_store()


@pytest.fixture
def following(store: LocalStore) -> Iterator[LocalStore]:
    store.projector.start()
    yield store
    store.projector.stop()


def create(store: LocalStore) -> str:
    return store.service.create("app-1", PackageType.BITS, None, BY).aggregate.guid


def live(store: LocalStore) -> None:
    """Packages in every state."""
    for number in range(6):
        guid = create(store)
        if number > 0:
            store.service.start_upload(guid, STAGED, "app.zip", BY)
        if number > 1:
            store.service.record_stored(guid, STORED, BY)
        if number == 3:
            store.service.record_hashes(guid, DIGESTS, BY)
            store.service.copy(guid, "app-2", BY)
        if number == 4:
            store.service.fail(guid, "our fault", Fault.SERVICE, BY)
        if number == 5:
            store.service.delete(guid, BY)


def rows(store: LocalStore) -> dict[str, list[tuple[object, ...]]]:
    with store.reader.connect() as connection:
        return {
            table.name: sorted((tuple(row) for row in connection.execute(select(table))), key=repr)
            for table in (packages, unfinished, dead_letters)
        }


def kept_positions(store: LocalStore) -> dict[str, int]:
    with store.reader.connect() as connection:
        return {row.name: row.position for row in connection.execute(select(positions))}


class Faulty:
    """A projection without rows whose database fails while it is told to."""

    name = "faulty"
    version = 1
    tables: Sequence[Table] = ()

    def __init__(self) -> None:
        self.failing = True
        self.seen: list[int] = []
        self.failures = 0

    def apply(self, connection: Connection, events: Sequence[LoggedEvent]) -> None:
        if self.failing:
            self.failures += 1
            raise OperationalError("INSERT", {}, Exception("disk I/O error"))
        self.seen += [logged.position for logged in events]


class Watching:
    """A projection without rows that remembers what it was given."""

    name = "watching"
    version = 1
    tables: Sequence[Table] = ()

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def apply(self, connection: Connection, events: Sequence[LoggedEvent]) -> None:
        self.batches.append([logged.position for logged in events])


def test_catching_up_applies_every_event_once_in_order(
    open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In batches of bounded size, whatever the length of the log."""
    monkeypatch.setattr(engine, "BATCH", 4)
    watching = Watching()
    store = open_store(PackagesProjection(), watching)
    for _ in range(10):
        create(store)
    reached: list[int] = []
    store.projector.catch_up(reached.append)
    assert watching.batches == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]
    assert reached == [4, 8, 10]
    store.projector.catch_up()
    assert len(watching.batches) == 3


def test_positions_are_kept_with_the_rows(store: LocalStore) -> None:
    """A new start goes on behind the events whose rows are there."""
    live(store)
    store.projector.catch_up()
    assert kept_positions(store) == dict.fromkeys(store.projector.names, store.log.head())


def test_a_new_start_applies_only_what_is_new(open_store: Open) -> None:
    """What was applied before is not applied again."""
    first = open_store(PackagesProjection(), WorkProjection())
    live(first)
    first.projector.catch_up()
    before = first.log.head()
    watching = Watching()
    second = open_store(PackagesProjection(), WorkProjection())
    create(second)
    create(second)
    second.projector.catch_up()
    third = open_store(PackagesProjection(), WorkProjection(), watching)
    third.projector.catch_up()
    assert third.packages.page(None, 1, 50).total == 8
    assert watching.batches[0][0] == 1, "a projection of its own begins at the beginning"
    assert kept_positions(third) == dict.fromkeys(("packages", "work", "watching"), before + 2)


def test_rows_of_a_failed_batch_are_not_there(open_store: Open) -> None:
    """Rows and positions change together or not at all; healed, it goes on where it stood."""
    faulty = Faulty()
    store = open_store(PackagesProjection(), faulty)
    guid = create(store)
    with pytest.raises(OperationalError):
        store.projector.catch_up()
    assert store.packages.find(guid) is None
    assert kept_positions(store) == {"packages": 0, "faulty": 0}
    faulty.failing = False
    store.projector.catch_up()
    assert store.packages.find(guid) is not None
    assert kept_positions(store) == {"packages": 1, "faulty": 1}


def test_a_failing_projection_holds_the_position_until_it_is_healed(open_store: Open) -> None:
    """The thread survives, says that it is behind, tries again, and catches up."""
    faulty = Faulty()
    store = open_store(PackagesProjection(), faulty)
    store.projector.start()
    try:
        position = store.service.create("app-1", PackageType.BITS, None, BY).position
        assert position is not None
        eventually(lambda: faulty.failures)
        assert store.projector.position < position
        assert not store.projector.wait_for(position, 0.01)
        faulty.failing = False
        assert store.projector.wait_for(position, 10)
        assert faulty.seen == [1]
    finally:
        store.projector.stop()


def test_whoever_waits_for_a_position_gets_it(following: LocalStore) -> None:
    """After a command, a reader that waited finds what was written."""
    for _ in range(20):
        committed = following.service.create("app-1", PackageType.BITS, None, BY)
        assert committed.position is not None
        assert following.projector.wait_for(committed.position, 10)
        assert following.packages.find(committed.aggregate.guid) is not None


def test_waiting_for_what_does_not_come_is_bounded(store: LocalStore) -> None:
    """The answer is no, and a position that is there already is not waited for."""
    create(store)
    assert not store.projector.wait_for(1, 0.01)
    store.projector.catch_up()
    assert store.projector.wait_for(1, 0)
    assert not store.projector.wait_for(2, 0.01)


def test_events_of_another_recorder_are_noticed(
    following: LocalStore, open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing wakes the projector for them: it looks by itself."""
    monkeypatch.setattr(engine, "PATIENCE", 0.02)
    following.log.wake()
    guid = create(open_store())
    eventually(lambda: following.packages.find(guid))


def test_events_of_another_process_are_noticed(following: LocalStore) -> None:
    """A command line that appends beside the service is followed too."""
    program = (
        "import sys; from pathlib import Path; from tests.support.packages import *; "
        "store = LocalStore.open(Path(sys.argv[1])); "
        "print(store.service.create('app-1', PackageType.BITS, None, BY).aggregate.guid); "
        "store.close()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(following.path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    guid = done.stdout.strip()
    assert guid
    eventually(lambda: following.packages.find(guid))


def test_writers_and_the_projector_do_not_lose_each_other(following: LocalStore) -> None:
    """Commands from many threads while the projector writes: all rows are there at the end."""

    def write(number: int) -> None:
        for _ in range(25):
            guid = create(following)
            following.service.start_upload(guid, STAGED, None, BY)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert following.projector.wait_for(following.log.head(), 20)
    with following.reader.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(unfinished)) == 200
