"""Logs that benchmarks write: nobody could tell them from the program's own."""

from __future__ import annotations

from eventsourcing.persistence import StoredEvent

from adapters.event_store.chain import GENESIS, link
from adapters.event_store.transcoding import EventMapper
from adapters.store import Store
from benchmarks.logs import rows_of_log, write_log
from domain.package import PackageState, PackageType
from tests.support.packages import BY, LocalStore


def test_a_written_log_goes_on(any_store: Store) -> None:
    """All its packages are READY; the next command's event is behind them, and in the chain."""
    write_log(any_store, 400)
    store = LocalStore.of(any_store)
    assert store.log.head() == 400
    committed = store.service.create("app-1", PackageType.BITS, None, BY)
    assert committed.position == 401
    records = store.log.records(0, 1000)
    previous = GENESIS
    for record in records:
        assert record.hash == link(previous, *record[:-1])
        previous = record.hash
    events = store.log.read(0, 1000)
    assert [logged.position for logged in events] == list(range(1, 402))
    guids = list(dict.fromkeys(logged.event.guid for logged in events))
    assert len(guids) == 101
    assert {store.service.load(guid).state for guid in guids[:-1]} == {PackageState.READY}
    store.projector.catch_up()
    assert store.packages.page(None, 1, 1).total == 101


def test_its_events_are_the_programs_own_bytes() -> None:
    """What is read from a row is written again as the same row."""
    mapper = EventMapper()
    for row in rows_of_log(400):
        stored = StoredEvent(row.originator_id, row.originator_version, row.topic, row.state)
        assert mapper.to_stored_event(mapper.to_domain_event(stored)) == stored
