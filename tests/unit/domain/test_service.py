"""Commands become events: conflicts, lost answers, and what is found again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from eventsourcing.persistence import EventStore, OperationalError, StoredEvent

from adapters.event_store.sqlite import SQLiteFile, SQLiteRecorder
from adapters.event_store.transcoding import EventMapper
from domain.aggregate import Cause
from domain.errors import BitsAlreadyUploaded, PackageNotFound
from domain.journal import Journal
from domain.package import PackageState, PackageType, StagedBits
from domain.package_service import PackageService
from domain.processing import blob_key
from tests.support.packages import BY, DIGESTS, STAGED, STORED, LocalStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    store = LocalStore.open(tmp_path / "log.db")
    yield store
    store.close()


def test_a_package_is_found_as_it_was_left(store: LocalStore) -> None:
    """What a command committed is what the next one loads."""
    guid = store.service.create("app-1", PackageType.BITS, None, BY).aggregate.guid
    store.service.start_upload(guid, STAGED, "app.zip", BY)
    store.service.record_stored(guid, STORED, BY)
    store.service.record_hashes(guid, DIGESTS, BY)
    package = store.service.get(guid)
    assert (package.state, package.staged, package.stored, package.digests) == (
        PackageState.READY, STAGED, STORED, DIGESTS,
    )  # fmt: skip


def test_positions_grow(store: LocalStore) -> None:
    """A command tells the position of what it wrote; one that changed nothing tells none."""
    first = store.service.create("app-1", PackageType.BITS, None, BY)
    second = store.service.start_upload(first.aggregate.guid, STAGED, None, BY)
    assert first.position is not None and second.position is not None
    assert second.position > first.position
    store.service.record_stored(first.aggregate.guid, STORED, BY)
    assert store.service.record_stored(first.aggregate.guid, STORED, BY).position is None


def test_both_events_of_a_copy_are_appended_together(store: LocalStore) -> None:
    """A copy's bits and checksums come in one transaction, at neighbouring positions."""
    source = store.service.create("app-1", PackageType.BITS, None, BY).aggregate.guid
    store.service.start_upload(source, STAGED, None, BY)
    store.service.record_stored(source, STORED, BY)
    store.service.record_hashes(source, DIGESTS, BY)
    copy = store.service.copy(source, "app-2", BY).aggregate.guid
    committed = store.service.record_copied(copy, STORED, DIGESTS, BY)
    assert committed.aggregate.state is PackageState.READY
    assert [type(e.event).__name__ for e in store.log.read(committed.position - 2, 2)] == [  # type: ignore[operator]
        "BitsStored", "HashComputed",
    ]  # fmt: skip


def test_an_unknown_or_deleted_package_is_not_found(store: LocalStore) -> None:
    """Deleted packages are gone for commands, but their history can be loaded."""
    with pytest.raises(PackageNotFound):
        store.service.get("nobody")
    guid = store.service.create("app-1", PackageType.BITS, None, BY).aggregate.guid
    store.service.delete(guid, BY)
    with pytest.raises(PackageNotFound):
        store.service.delete(guid, BY)
    assert store.service.load(guid).deleted


class InterruptingRecorder(SQLiteRecorder):
    """Lets something happen right before the next insert."""

    interrupt: Any = None

    def insert_events(
        self, stored_events: Sequence[StoredEvent], **kwargs: Any
    ) -> Sequence[int] | None:
        interrupt, self.interrupt = self.interrupt, None
        if interrupt is not None:
            interrupt()
        return super().insert_events(stored_events, **kwargs)


class ForgetfulRecorder(SQLiteRecorder):
    """Stores the next events, and loses the answer."""

    forgets = False

    def insert_events(
        self, stored_events: Sequence[StoredEvent], **kwargs: Any
    ) -> Sequence[int] | None:
        positions = super().insert_events(stored_events, **kwargs)
        forgets, self.forgets = self.forgets, False
        if forgets:
            raise OperationalError("server closed the connection unexpectedly")
        return positions


def test_the_later_of_two_writers_decides_again(store: LocalStore) -> None:
    """It loses on the version, reloads, and is refused on what the other left."""
    recorder = InterruptingRecorder(SQLiteFile(str(store.path)))
    service = PackageService(Journal(EventStore(EventMapper(), recorder), store.log))
    guid = service.create("app-1", PackageType.BITS, None, BY).aggregate.guid
    theirs = StagedBits("staging:theirs", 0, 1)
    recorder.interrupt = lambda: store.service.start_upload(guid, theirs, None, BY)
    with pytest.raises(BitsAlreadyUploaded):
        service.start_upload(guid, STAGED, None, BY)
    assert service.get(guid).staged == theirs


def test_the_later_of_two_writers_may_still_succeed(store: LocalStore) -> None:
    """What can follow on the other's event follows it."""
    recorder = InterruptingRecorder(SQLiteFile(str(store.path)))
    service = PackageService(Journal(EventStore(EventMapper(), recorder), store.log))
    guid = service.create("app-1", PackageType.BITS, None, BY).aggregate.guid
    recorder.interrupt = lambda: store.service.start_upload(guid, STAGED, None, BY)
    assert service.delete(guid, BY).aggregate.version == 3


def test_a_lost_answer_is_not_a_lost_write(store: LocalStore) -> None:
    """The second try meets our own event: success, and one event in the log."""
    recorder = ForgetfulRecorder(SQLiteFile(str(store.path)))
    service = PackageService(Journal(EventStore(EventMapper(), recorder), store.log))
    guid = service.create("app-1", PackageType.BITS, None, BY).aggregate.guid
    recorder.forgets = True
    committed = service.start_upload(guid, STAGED, None, Cause("user-1", "request-7"))
    assert committed.aggregate.state is PackageState.PROCESSING_UPLOAD
    assert committed.position == store.log.head()
    assert store.service.get(guid).version == 2


def test_blob_keys_are_safe_paths() -> None:
    """Two levels from the guid's hash; a guid that is no plain file name is replaced by it."""
    assert blob_key("guid-1").split("/")[2] == "guid-1"
    for guid in ("../../etc/passwd", "a/b", ".", "..", ".hidden", "x" * 201, "é", "a\0b"):
        first, second, name = blob_key(guid).split("/")
        assert name.startswith("~") and name[1:].isalnum()
        assert name[1:].startswith(first + second)


def test_the_later_writer_sees_a_deletion(store: LocalStore) -> None:
    """A package that was deleted first is not found, and stays at its last event."""
    recorder = InterruptingRecorder(SQLiteFile(str(store.path)))
    service = PackageService(Journal(EventStore(EventMapper(), recorder), store.log))
    guid = service.create("app-1", PackageType.BITS, None, BY).aggregate.guid
    recorder.interrupt = lambda: store.service.delete(guid, BY)
    with pytest.raises(PackageNotFound):
        service.start_upload(guid, STAGED, None, BY)
    assert store.log.head() == 2


def test_a_lost_answer_is_no_excuse_to_take_over_anothers_event(store: LocalStore) -> None:
    """Another writer's event at our version is a conflict, even under the same request id."""
    recorder = InterruptingRecorder(SQLiteFile(str(store.path)))
    service = PackageService(Journal(EventStore(EventMapper(), recorder), store.log))
    guid = service.create("app-1", PackageType.BITS, None, BY).aggregate.guid
    recorder.interrupt = lambda: store.service.start_upload(guid, STAGED, None, BY)
    with pytest.raises(BitsAlreadyUploaded):
        service.start_upload(guid, STAGED, None, BY)
    assert store.log.head() == 2


def test_a_lost_answer_to_a_creation_is_success(store: LocalStore) -> None:
    """One package, once."""
    recorder = ForgetfulRecorder(SQLiteFile(str(store.path)))
    service = PackageService(Journal(EventStore(EventMapper(), recorder), store.log))
    recorder.forgets = True
    committed = service.create("app-1", PackageType.BITS, None, BY)
    assert [logged.event.guid for logged in store.log.read(0, 10)] == [committed.aggregate.guid]
    assert committed.position == 1


def test_a_lost_answer_to_two_events_is_success(store: LocalStore) -> None:
    """Both events of a copy are found again, and written once."""
    recorder = ForgetfulRecorder(SQLiteFile(str(store.path)))
    service = PackageService(Journal(EventStore(EventMapper(), recorder), store.log))
    source = service.create("app-1", PackageType.BITS, None, BY).aggregate.guid
    service.start_upload(source, STAGED, None, BY)
    service.record_stored(source, STORED, BY)
    service.record_hashes(source, DIGESTS, BY)
    copy = service.copy(source, "app-2", BY).aggregate.guid
    recorder.forgets = True
    assert service.record_copied(copy, STORED, DIGESTS, BY).aggregate.state is PackageState.READY
    assert store.service.get(copy).version == 3


class AbsentRecorder(SQLiteRecorder):
    """Is away for the next `away` inserts, and stores nothing then."""

    away = 0

    def insert_events(
        self, stored_events: Sequence[StoredEvent], **kwargs: Any
    ) -> Sequence[int] | None:
        if self.away:
            self.away -= 1
            raise OperationalError("could not connect to server")
        return super().insert_events(stored_events, **kwargs)


def test_a_database_away_for_a_moment_is_asked_again(store: LocalStore) -> None:
    """One failed try is not noticed by the caller."""
    recorder = AbsentRecorder(SQLiteFile(str(store.path)))
    service = PackageService(Journal(EventStore(EventMapper(), recorder), store.log))
    recorder.away = 1
    guid = service.create("app-1", PackageType.BITS, None, BY).aggregate.guid
    assert store.service.get(guid).version == 1


def test_a_database_that_stays_away_is_told(store: LocalStore) -> None:
    """The caller hears of it soon, and nothing was written."""
    recorder = AbsentRecorder(SQLiteFile(str(store.path)))
    service = PackageService(Journal(EventStore(EventMapper(), recorder), store.log))
    recorder.away = 1000
    with pytest.raises(OperationalError):
        service.create("app-1", PackageType.BITS, None, BY)
    assert store.log.head() == 0


def test_two_guids_never_share_a_blob() -> None:
    """Nor does a guid that looks like the name made for another."""
    odd = blob_key("a/b").split("/")[2]
    keys = [blob_key(guid) for guid in ("a", "b", "A", "a/b", "a\\b", odd)]
    assert len(set(keys)) == len(keys)
