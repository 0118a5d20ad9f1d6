"""The event log's port: every adapter passes these tests."""

from __future__ import annotations

import resource
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import timedelta
from pathlib import Path

import pytest
from eventsourcing.persistence import IntegrityError, StoredEvent

from adapters.event_store.sqlite import SQLiteFile
from adapters.postgres import EVENTS_CHANNEL, PROJECTED_CHANNEL, REQUEST_PATIENCE, Listener
from adapters.store import Store, open_postgres, open_sqlite
from domain.errors import BitsAlreadyUploaded
from domain.package import Fault, Package, PackageType, StagedBits
from tests.support.packages import BY, STAGED, fail_by_us, hash_, resume, store, upload
from tests.support.postgres import PostgresServer


@pytest.fixture(params=["sqlite", "postgres"])
def open_log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Store]]:
    """Opens the same log again and again, as several processes do."""
    with ExitStack() as stack:
        if request.param == "sqlite":

            def store() -> Store:
                return open_sqlite(tmp_path / "log.db")

        else:
            server: PostgresServer = request.getfixturevalue("postgres")
            url = server.new_database()

            def store() -> Store:
                listener = Listener(url, (EVENTS_CHANNEL, PROJECTED_CHANNEL))
                stack.callback(listener.close)
                return open_postgres(url, listener, REQUEST_PATIENCE, 8)

        def open_it() -> Store:
            opened = store()
            stack.callback(opened.close)
            opened.migrate()
            return opened

        yield open_it


@pytest.fixture
def opened(open_log: Callable[[], Store]) -> Store:
    return open_log()


def create(opened: Store, count: int = 1) -> list[str]:
    return [
        opened.packages.create("app-1", PackageType.BITS, None, BY).aggregate.guid
        for _ in range(count)
    ]


class TestEventLog:
    def test_a_new_log_is_empty(self, opened: Store) -> None:
        """There is nothing to read, and its head is 0."""
        assert opened.log.head() == 0
        assert opened.log.read(0, 10) == []

    def test_what_was_appended_is_read_in_order(self, opened: Store) -> None:
        """Positions grow, and the head is the last one."""
        guids = create(opened, 5)
        logged = opened.log.read(0, 100)
        assert [entry.event.guid for entry in logged] == guids
        positions = [entry.position for entry in logged]
        assert positions == sorted(set(positions))
        assert opened.log.head() == positions[-1]

    def test_a_reader_goes_on_where_it_was(self, opened: Store) -> None:
        """A piece at a time, behind the last position that it has."""
        guids = create(opened, 7)
        seen: list[str] = []
        position = 0
        while batch := opened.log.read(position, 3):
            assert len(batch) <= 3
            seen += [entry.event.guid for entry in batch]
            position = batch[-1].position
        assert seen == guids
        assert opened.log.read(opened.log.head(), 10) == []
        assert opened.log.read(opened.log.head() + 100, 10) == []

    def test_events_are_read_as_they_were_written(self, opened: Store) -> None:
        """Every kind of event, with every field and its type."""
        package = Package.create("guid-1", "äpp\u2028😀", PackageType.BITS, None, BY)
        for act in (upload, fail_by_us, resume, store, hash_):
            act(package)
        copy = Package.copy(package, "guid-2", "app-2", BY)
        package.expire(BY)
        package.delete(BY)
        written = [*package.collect_events(), *copy.collect_events()]
        opened.events.put(written)
        read = [entry.event for entry in opened.log.read(0, 100)]
        assert [type(event) for event in read] == [type(event) for event in written]
        assert [vars(event) for event in read] == [vars(event) for event in written]
        assert read[0].timestamp.utcoffset() == timedelta(0)

    def test_stored_names_are_those_of_the_events(self, opened: Store) -> None:
        """A log can be read whatever module the code is in."""
        create(opened)
        opened.packages.start_upload(opened.log.read(0, 1)[0].event.guid, STAGED, None, BY)
        assert [record.topic for record in opened.recorder.records(0, 10)] == [
            "package.created",
            "package.upload_started",
        ]

    def test_an_event_of_an_earlier_version_is_read_as_one_of_now(self, opened: Store) -> None:
        """A failure that did not say at which step it was says so now; the others do."""
        guid = create(opened)[0]
        opened.packages.start_upload(guid, STAGED, None, BY)
        state = (
            b'{"actor":"user-1","caused_by":null,"detail":null,"error":"no zip","fault":"bits",'
            b'"request_id":"request-1","timestamp":"2026-11-01T10:00:00.000000Z"}'
        )
        topic = "package.processing_failed"
        opened.events.recorder.insert_events([StoredEvent(f"package:{guid}", 3, topic, state)])
        other = create(opened)[0]
        opened.packages.start_upload(other, STAGED, None, BY)
        opened.packages.fail(other, "no zip", Fault.BITS, BY)
        failures = [
            logged.event
            for logged in opened.log.read(0, 10)
            if isinstance(logged.event, Package.ProcessingFailed)
        ]
        assert [failure.step for failure in failures] == [None, "storage"]
        assert opened.packages.get(guid).error == "no zip"

    def test_a_conflict_is_an_integrity_error(self, opened: Store) -> None:
        """And nothing of what came with it is stored."""
        first = Package.create("guid-1", "app-1", PackageType.BITS, None, BY)
        opened.events.put(first.collect_events())
        late = Package.create("guid-1", "app-1", PackageType.BITS, None, BY)
        another = Package.create("guid-2", "app-1", PackageType.BITS, None, BY)
        with pytest.raises(IntegrityError):
            opened.events.put([*another.collect_events(), *late.collect_events()])
        assert [entry.event.guid for entry in opened.log.read(0, 10)] == ["guid-1"]
        assert list(opened.events.get("package:guid-2")) == []

    def test_events_appended_together_are_there_together(self, opened: Store) -> None:
        """At positions that follow each other."""
        package = Package.create("guid-1", "app-1", PackageType.BITS, None, BY)
        upload(package)
        store(package)
        recordings = opened.events.put(package.collect_events())
        positions = [recording.notification.id for recording in recordings]
        assert positions == [entry.position for entry in opened.log.read(0, 10)]
        assert len(positions) == 3

    def test_a_position_told_is_the_position_read(self, opened: Store) -> None:
        """Whoever waits for what a command has written waits for the right thing."""
        create(opened, 3)
        committed = opened.packages.create("app-1", PackageType.BITS, None, BY)
        assert committed.position is not None
        entry = opened.log.read(committed.position - 1, 1)[0]
        assert entry.event.guid == committed.aggregate.guid

    def test_what_was_appended_is_there_after_opening_again(
        self, open_log: Callable[[], Store]
    ) -> None:
        """With the same positions."""
        first = open_log()
        create(first, 3)
        assert open_log().log.read(0, 10) == first.log.read(0, 10)

    def test_several_processes_write_one_log(self, open_log: Callable[[], Store]) -> None:
        """Each sees what the others have appended, and decides on it."""
        one, other = open_log(), open_log()
        guid = create(one)[0]
        other.packages.start_upload(guid, STAGED, None, BY)
        with pytest.raises(BitsAlreadyUploaded):
            one.packages.start_upload(guid, STAGED, None, BY)
        assert one.log.read(0, 10) == other.log.read(0, 10)
        assert len(one.log.read(0, 10)) == 2

    def test_one_of_many_writers_wins(self, opened: Store) -> None:
        """Eight uploads to one package at a time: one succeeds, seven are refused."""
        for guid in create(opened, 10):

            def try_upload(number: int, guid: str = guid) -> bool:
                try:
                    staged = StagedBits(f"staging:{number}", 0, 1)
                    opened.packages.start_upload(guid, staged, None, BY)
                except BitsAlreadyUploaded:
                    return False
                return True

            with ThreadPoolExecutor(8) as pool:
                assert sum(pool.map(try_upload, range(8))) == 1
            assert opened.packages.get(guid).version == 2

    def test_a_follower_misses_nothing_while_many_write(
        self, open_log: Callable[[], Store]
    ) -> None:
        """No event appears behind a position that a reader has passed."""
        writer, reader = open_log(), open_log()
        seen: list[str] = []
        finished = threading.Event()

        def follow() -> None:
            position = 0
            while True:
                done = finished.is_set()
                batch = reader.log.read(position, 7)
                for entry in batch:
                    assert entry.position > position
                    position = entry.position
                    seen.append(entry.event.guid)
                if done and not batch:
                    return

        with ThreadPoolExecutor(9) as pool:
            following = pool.submit(follow)
            written = list(pool.map(lambda number: create(writer, 25), range(8)))
            finished.set()
            following.result(20)
        assert len(seen) == 200
        assert sorted(seen) == sorted(guid for guids in written for guid in guids)

    def test_waiting_ends_when_something_is_there(self, opened: Store) -> None:
        """At once, if it is there already."""
        create(opened)
        opened.log.wait(0, 3600)
        assert len(opened.log.read(0, 10)) == 1

    def test_waiting_ends_when_something_is_appended(self, opened: Store) -> None:
        """Whoever waits behind the head is woken by the next event."""
        seen: list[str] = []

        def follow() -> None:
            position = 0
            while len(seen) < 20:
                opened.log.wait(position, 3600)
                for entry in opened.log.read(position, 100):
                    position = entry.position
                    seen.append(entry.event.guid)

        follower = threading.Thread(target=follow, daemon=True)
        follower.start()
        guids = create(opened, 20)
        follower.join(20)
        assert not follower.is_alive()
        assert seen == guids

    def test_waiting_is_bounded(self, opened: Store) -> None:
        """It ends without an event, too."""
        opened.log.wait(0, 0.01)
        assert opened.log.head() == 0

    def test_waiting_can_be_ended(self, opened: Store) -> None:
        """For stopping a follower that has nothing to do."""
        stopping = threading.Event()

        def follow() -> None:
            while not stopping.is_set():
                opened.log.wait(0, 0.5)

        follower = threading.Thread(target=follow, daemon=True)
        follower.start()
        stopping.set()
        opened.log.wake()
        follower.join(10)
        assert not follower.is_alive()


def open_migrated(path: Path) -> Store:
    store = open_sqlite(path)
    store.migrate()
    return store


class TestPostgres:
    """What only a server over a network needs."""

    def test_a_process_with_many_descriptors_is_served(
        self, any_store: Store, tmp_path: Path
    ) -> None:
        """More than 1,023 files and connections are open; select could not look at the next."""
        any_store.migrate()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
        with ExitStack() as stack:
            stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
            for _ in range(1100):
                stack.enter_context((tmp_path / "many").open("w"))
            for _ in range(3):
                create(any_store)
        assert any_store.log.head() == 3


class TestSQLiteFile:
    """What only an SQLite file promises."""

    def test_a_dump_keeps_positions(self, tmp_path: Path) -> None:
        """Restored from `.dump`, with gaps where rows were removed, a follower's position holds."""
        log = open_migrated(tmp_path / "log.db")
        create(log, 10)
        with closing(sqlite3.connect(tmp_path / "log.db")) as connection:
            connection.execute("DELETE FROM events WHERE rowid IN (1, 4, 5, 8)")
            connection.commit()
            dump = "\n".join(connection.iterdump())
        with closing(sqlite3.connect(tmp_path / "restored.db")) as connection:
            connection.executescript(dump)
        restored = open_migrated(tmp_path / "restored.db")
        assert [entry.position for entry in restored.log.read(0, 100)] == [2, 3, 6, 7, 9, 10]
        assert restored.log.read(0, 100) == log.log.read(0, 100)
        assert restored.log.read(6, 1)[0].position == 7
        create(restored)
        assert restored.log.head() == 11
        restored.close()
        log.close()

    def test_a_vacuum_keeps_positions(self, tmp_path: Path) -> None:
        """An operator who compacts the file renumbers nothing."""
        log = open_migrated(tmp_path / "log.db")
        create(log, 6)
        before = log.log.read(3, 100)
        log.close()
        with closing(sqlite3.connect(tmp_path / "log.db")) as connection:
            connection.execute("DELETE FROM events WHERE rowid < 4")
            connection.commit()
            connection.execute("VACUUM")
        again = open_migrated(tmp_path / "log.db")
        assert again.log.read(0, 100) == before
        again.close()

    def test_a_commit_is_on_the_disk(self, tmp_path: Path) -> None:
        """Every connection that writes waits for the disk (synchronous=FULL)."""
        file = SQLiteFile(str(tmp_path / "log.db"))
        for _ in range(3):
            with file.transaction(commit=True) as cursor:
                cursor.execute("PRAGMA synchronous")
                assert cursor.fetchone()[0] == 2
                cursor.execute("PRAGMA journal_mode")
                assert cursor.fetchone()[0] == "wal"
        file.close()

    def test_there_is_room_for_more_columns(self, tmp_path: Path) -> None:
        """A later version may add a column without rewriting the log."""
        log = open_migrated(tmp_path / "log.db")
        create(log)
        with closing(sqlite3.connect(tmp_path / "log.db")) as connection:
            connection.execute("ALTER TABLE events ADD COLUMN chain BLOB")
        create(log)
        assert len(log.log.read(0, 10)) == 2
        log.close()
