"""Under a receipt: what a command leads to is in the log together with its record, once."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from eventsourcing.persistence import EventStore, OperationalError, StoredEvent

from adapters.event_store.sqlite import SQLiteFile, SQLiteRecorder
from adapters.event_store.transcoding import EventMapper
from domain.aggregate import Cause
from domain.command import Command, Receipt
from domain.directory_service import DirectoryService
from domain.droplet_service import Wanted
from domain.errors import AlreadyExecuted, PackageNotFound
from domain.journal import Journal
from domain.package import PackageType
from domain.package_service import PackageService
from tests.support.packages import BY, DIGESTS, STAGED, STORED, LocalStore
from tests.unit.domain.test_service import AbsentRecorder, ForgetfulRecorder, InterruptingRecorder

DIGEST = "d" * 64
RECEIPT = Receipt(
    "/their/system", "command-1", "package.create", DIGEST, Cause("user-7", "request-7")
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    store = LocalStore.open(tmp_path / "log.db")
    yield store
    store.close()


def another(number: int) -> Receipt:
    return Receipt("/their/system", f"command-{number}", "package.create", DIGEST, BY)


def journal_on(store: LocalStore, recorder: SQLiteRecorder) -> Journal:
    return Journal(EventStore(EventMapper(), recorder), store.log)


def packages_under(journal: Journal, receipt: Receipt = RECEIPT) -> PackageService:
    return PackageService(journal.under(receipt))


def create(packages: PackageService, by: Cause = RECEIPT.by) -> str:
    return packages.create("app-1", PackageType.BITS, None, by).aggregate.guid


def topics(store: LocalStore, after: int = 0) -> list[str]:
    return [logged.event.TOPIC for logged in store.log.read(after, 1000)]


class MeetingRecorder(SQLiteRecorder):
    """The first two inserts wait for each other, so that neither has seen the other's events."""

    def __init__(self, file: SQLiteFile) -> None:
        super().__init__(file)
        self._meeting = threading.Barrier(2)
        self._met: set[int] = set()

    def insert_events(
        self, stored_events: Sequence[StoredEvent], **kwargs: Any
    ) -> Sequence[int] | None:
        if threading.get_ident() not in self._met:
            self._met.add(threading.get_ident())
            self._meeting.wait(10)
        return super().insert_events(stored_events, **kwargs)


def test_the_record_tells_the_command_and_what_it_led_to(store: LocalStore) -> None:
    """Event and record are neighbours in the log, with the sender's actor and request."""
    packages = packages_under(store.store.journal)
    committed = packages.create("app-1", PackageType.BITS, None, RECEIPT.by)
    event, record = (logged.event for logged in store.log.read(0, 10))
    assert (event.TOPIC, event.guid) == ("package.created", committed.aggregate.guid)
    assert isinstance(record, Command.Executed)
    assert record.guid == RECEIPT.guid
    assert (record.command_source, record.command_id, record.command_type, record.result) == (
        "/their/system", "command-1", "package.create", committed.aggregate.guid,
    )  # fmt: skip
    assert (record.actor, record.request_id) == ("user-7", "request-7")
    assert committed.position == store.log.head() == 2
    found = store.store.journal.find(Command, RECEIPT.guid)
    assert found is not None
    assert (found.type, found.digest, found.result) == (
        "package.create", DIGEST, committed.aggregate.guid,
    )  # fmt: skip


def test_a_second_time_nothing_is_appended(store: LocalStore) -> None:
    """Whoever tries is told what it was carried out on."""
    guid = create(packages_under(store.store.journal))
    for _ in range(2):
        with pytest.raises(AlreadyExecuted) as told:
            create(packages_under(store.store.journal))
        assert told.value.result == guid
    assert topics(store) == ["package.created", "command.executed"]


def test_a_change_is_not_made_a_second_time(store: LocalStore) -> None:
    """Also where it would be possible: a name that was changed meanwhile stays."""
    directory = store.store.services.directory
    directory.announce_app("app-1", "one", None, None, BY)
    under = DirectoryService(store.store.journal.under(RECEIPT))
    under.rename_app("app-1", "two", RECEIPT.by)
    directory.rename_app("app-1", "three", BY)
    with pytest.raises(AlreadyExecuted):
        DirectoryService(store.store.journal.under(RECEIPT)).rename_app("app-1", "two", RECEIPT.by)
    app = directory.app("app-1")
    assert app is not None and app.name == "three"
    assert topics(store) == ["app.created", "app.renamed", "command.executed", "app.renamed"]


def test_a_command_that_changes_nothing_is_on_record(store: LocalStore) -> None:
    """It was carried out all the same, and has a position."""
    directory = store.store.services.directory
    directory.announce_app("app-1", "one", None, None, BY)
    under = DirectoryService(store.store.journal.under(RECEIPT))
    committed = under.rename_app("app-1", "one", RECEIPT.by)
    assert committed.position == store.log.head()
    assert topics(store) == ["app.created", "command.executed"]


def test_a_refused_command_leaves_no_record(store: LocalStore) -> None:
    """It may be sent again, when what it was refused for is different."""
    with pytest.raises(PackageNotFound):
        packages_under(store.store.journal).delete("nobody", RECEIPT.by)
    assert store.log.head() == 0
    create(packages_under(store.store.journal))
    assert topics(store) == ["package.created", "command.executed"]


def test_receipts_are_independent(store: LocalStore) -> None:
    """Another id is another command, and so is the same id of another source."""
    receipts = [
        RECEIPT, another(2),
        Receipt("/another/system", "command-1", "package.create", DIGEST, BY),
        Receipt("/their/system/command-1", "", "package.create", DIGEST, BY),
        Receipt("", "/their/system/command-1", "package.create", DIGEST, BY),
    ]  # fmt: skip
    guids = {create(packages_under(store.store.journal, receipt)) for receipt in receipts}
    assert len(guids) == len({receipt.guid for receipt in receipts}) == len(receipts)
    assert topics(store) == ["package.created", "command.executed"] * len(receipts)


def test_who_has_no_receipt_leaves_no_record(store: LocalStore) -> None:
    """The journal that another was made of stays what it was."""
    journal = store.store.journal
    create(packages_under(journal))
    create(PackageService(journal))
    create(PackageService(journal))
    assert topics(store, after=2) == ["package.created"] * 2


def test_a_lost_answer_does_not_do_it_twice(store: LocalStore) -> None:
    """The second try meets events and record of its own: success, and once in the log."""
    recorder = ForgetfulRecorder(SQLiteFile(str(store.path)))
    packages = packages_under(journal_on(store, recorder))
    recorder.forgets = True
    committed = packages.create("app-1", PackageType.BITS, None, RECEIPT.by)
    assert topics(store) == ["package.created", "command.executed"]
    assert committed.position == store.log.head()
    with pytest.raises(AlreadyExecuted):
        create(packages)


def test_a_lost_answer_to_a_command_that_changes_nothing_is_success(store: LocalStore) -> None:
    """Its record alone is met again."""
    recorder = ForgetfulRecorder(SQLiteFile(str(store.path)))
    store.store.services.directory.announce_app("app-1", "one", None, None, BY)
    under = DirectoryService(journal_on(store, recorder).under(RECEIPT))
    recorder.forgets = True
    assert under.delete_app("app-1", RECEIPT.by).position == store.log.head()
    recorder.forgets = True
    again = DirectoryService(journal_on(store, recorder).under(another(2)))
    assert again.delete_app("app-1", BY).position == store.log.head()
    assert topics(store, after=1) == ["app.deleted", "command.executed", "command.executed"]


def test_a_command_that_failed_by_a_database_away_can_be_done_again(store: LocalStore) -> None:
    """Nothing of it is in the log: neither its event nor its record."""
    recorder = AbsentRecorder(SQLiteFile(str(store.path)))
    packages = packages_under(journal_on(store, recorder))
    recorder.away = 2
    with pytest.raises(OperationalError):
        create(packages)
    assert store.log.head() == 0
    create(packages_under(store.store.journal))
    assert topics(store) == ["package.created", "command.executed"]


def test_the_same_command_done_in_the_same_moment_elsewhere_is_told(store: LocalStore) -> None:
    """Also where it changes the very package that the other has changed: it is not refused."""
    recorder = InterruptingRecorder(SQLiteFile(str(store.path)))
    guid = create(store.service, BY)
    packages = packages_under(journal_on(store, recorder))
    recorder.interrupt = lambda: packages_under(store.store.journal).delete(guid, RECEIPT.by)
    with pytest.raises(AlreadyExecuted) as told:
        packages.delete(guid, RECEIPT.by)
    assert told.value.result == guid
    assert topics(store) == ["package.created", "package.deleted", "command.executed"]


def test_another_writer_is_no_reason_to_give_a_command_up(store: LocalStore) -> None:
    """It decides again on what the other left, and is on record once."""
    recorder = InterruptingRecorder(SQLiteFile(str(store.path)))
    guid = create(store.service, BY)
    packages = packages_under(journal_on(store, recorder))
    recorder.interrupt = lambda: store.service.start_upload(guid, STAGED, None, BY)
    packages.delete(guid, RECEIPT.by)
    assert topics(store, after=1) == [
        "package.upload_started", "package.deleted", "command.executed",
    ]  # fmt: skip


def test_all_events_of_a_command_are_appended_with_one_record(store: LocalStore) -> None:
    """A droplet that is asked for, and a copy's two events: each with what belongs to it."""
    source = create(store.service, BY)
    store.service.start_upload(source, STAGED, None, BY)
    store.service.record_stored(source, STORED, BY)
    store.service.record_hashes(source, DIGESTS, BY)
    copy = store.service.copy(source, "app-2", BY).aggregate.guid
    before = store.log.head()
    packages_under(store.store.journal).record_copied(copy, STORED, DIGESTS, RECEIPT.by)
    services = store.store.services_under(another(2))
    services.droplets.stage(source, Wanted(), BY)
    assert topics(store, before) == [
        "package.bits_stored", "package.hash_computed", "command.executed",
        "droplet.created", "package.staging_requested", "command.executed",
    ]  # fmt: skip


@pytest.mark.parametrize("turn", range(5))
def test_of_two_at_once_one_does_it(store: LocalStore, turn: int) -> None:
    """Whoever is later is told what the other has made."""
    recorder = MeetingRecorder(SQLiteFile(str(store.path)))
    journal = journal_on(store, recorder)

    def attempt(_: int) -> tuple[str, bool]:
        try:
            return create(packages_under(journal)), True
        except AlreadyExecuted as done:
            return done.result, False

    with ThreadPoolExecutor(2) as pool:
        (one, did), (other, did_too) = pool.map(attempt, range(2))
    assert one == other
    assert did != did_too
    assert topics(store) == ["package.created", "command.executed"]
