"""Aggregates that are known already are brought up to date, not read from their beginning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from eventsourcing.persistence import EventStore, StoredEvent

from adapters.event_store.sqlite import SQLiteFile, SQLiteRecorder
from adapters.event_store.transcoding import EventMapper
from domain.droplet import Droplet
from domain.droplet_service import Wanted
from domain.journal import Journal
from domain.known import Known
from domain.package import Package, PackageState, PackageType
from domain.package_service import PackageService
from tests.support.packages import BY, DIGESTS, STAGED, STORED, LocalStore, hash_, upload
from tests.support.packages import store as store_bits


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    store = LocalStore.open(tmp_path / "log.db")
    yield store
    store.close()


class CountingRecorder(SQLiteRecorder):
    """Counts the events that are read of aggregates."""

    read = 0

    def select_events(self, *asked: Any, **how: Any) -> list[StoredEvent]:
        found: Sequence[StoredEvent] = super().select_events(*asked, **how)
        self.read += len(found)
        return list(found)


def create(service: PackageService) -> str:
    return service.create("app-1", PackageType.BITS, None, BY).aggregate.guid


def test_what_a_command_wrote_is_not_read_again(store: LocalStore) -> None:
    """However long its history becomes."""
    file = SQLiteFile(str(store.path))
    recorder = CountingRecorder(file)
    service = PackageService(Journal(EventStore(EventMapper(), recorder), store.log))
    guid = create(service)
    service.start_upload(guid, STAGED, None, BY)
    service.record_stored(guid, STORED, BY)
    assert service.get(guid).version == 3
    assert recorder.read == 0
    file.close()


def test_what_others_wrote_is_known_next_time(store: LocalStore, tmp_path: Path) -> None:
    """Only their events are read, and decisions are made on them."""
    file = SQLiteFile(str(store.path))
    recorder = CountingRecorder(file)
    service = PackageService(Journal(EventStore(EventMapper(), recorder), store.log))
    guid = create(service)
    store.service.start_upload(guid, STAGED, None, BY)
    store.service.record_stored(guid, STORED, BY)
    ready = service.record_hashes(guid, DIGESTS, BY).aggregate
    assert (ready.state, ready.staged, ready.stored) == (PackageState.READY, STAGED, STORED)
    assert recorder.read == 2
    assert vars(service.get(guid)) == vars(store.service.get(guid))
    file.close()


def test_what_is_decided_and_not_written_is_forgotten(store: LocalStore) -> None:
    """Each gets an aggregate of its own."""
    guid = create(store.service)
    one, other = store.service.get(guid), store.service.get(guid)
    upload(one)
    assert other.state is PackageState.AWAITING_UPLOAD
    assert store.service.get(guid).state is PackageState.AWAITING_UPLOAD
    assert list(store.service.get(guid).pending_events) == []


def test_the_newest_is_kept_and_no_more_than_there_is_room_for() -> None:
    """A late one does not take the place of a newer, and the longest unused one goes."""
    known = Known(most=2)
    packages = [Package.create(f"guid-{n}", "app-1", PackageType.BITS, None, BY) for n in range(3)]
    older = Package.create("guid-0", "app-1", PackageType.BITS, None, BY)
    upload(packages[0])
    for package in (packages[0], older, packages[1]):
        known.keep(package)
    found = known.find(Package, "package:guid-0")
    assert found is not None
    assert found.version == 2
    known.keep(packages[2])
    assert known.find(Package, "package:guid-1") is None
    assert known.find(Package, "package:guid-2") is not None


def test_what_may_be_large_is_not_kept(store: LocalStore) -> None:
    """A builder may say much of a droplet, and there may be a thousand."""
    guid = create(store.service)
    for command in (upload, store_bits, hash_):
        store.service._journal.change(lambda: store.service.get(guid), command)
    journal, droplets = store.store.journal, store.store.services.droplets
    droplet = droplets.stage(guid, Wanted(), BY).aggregate
    assert droplets.get(droplet.guid).version == 1
    assert journal.known(Droplet, droplet.guid) is None
    assert journal.known(Package, guid) is not None
