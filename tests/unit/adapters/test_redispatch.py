"""Unfinished work is handed out again: at once at a start, later ever more rarely."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import kombu
import orjson
import pytest

from adapters.bus.bus import HASHING, STORAGE, STORAGE_LARGE
from adapters.bus.memory import MemoryBus
from adapters.bus.messages import Message
from adapters.bus.redispatch import FIRST_WAIT, MAX_WAIT, PATIENCE, Redispatcher
from adapters.bus.work import HANDED_OUT_AGAIN
from domain.package import Fault, PackageType
from tests.support.packages import BY, DIGESTS, STAGED, STORED, LocalStore


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Bench:
    store: LocalStore
    bus: MemoryBus
    clock: Clock
    redispatcher: Redispatcher

    def look(self, first: bool = False) -> int:
        self.store.projector.catch_up()
        return self.redispatcher.look(first)

    def uploaded(self) -> str:
        guid = self.store.service.create("app-1", PackageType.BITS, None, BY).aggregate.guid
        self.store.service.start_upload(guid, STAGED, "app.zip", BY)
        return guid

    def handed_out(self, queue: str) -> list[str]:
        """The ids of the events that are in a work queue, which is empty then."""
        ids = []
        with self.bus.connect() as connection, connection.channel() as channel:
            while (message := kombu.Queue(queue)(channel).get(no_ack=True)) is not None:
                assert message.headers[HANDED_OUT_AGAIN]
                ids.append(orjson.loads(message.body)["id"])
        return ids


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    store = LocalStore.open(tmp_path / "log.db")
    bus = MemoryBus()
    bus.declare()
    clock = Clock()
    redispatcher = Redispatcher(store.work, store.droplets, store.log, bus, True, clock)
    yield Bench(store, bus, clock, redispatcher)
    bus.close()
    store.close()


def test_everything_unfinished_is_handed_out_at_a_start(bench: Bench) -> None:
    """Each to its own work queue, by the very event that asked for the step."""
    stored, uploaded = bench.uploaded(), bench.uploaded()
    bench.store.service.record_stored(stored, STORED, BY)
    assert bench.look(first=True) == 2
    assert bench.handed_out(STORAGE) == [f"{uploaded}/2"]
    assert bench.handed_out(HASHING) == [f"{stored}/3"]


def test_what_is_finished_or_given_up_is_not_handed_out(bench: Bench) -> None:
    """Nor what waits for its client."""
    ready, dead, bad, deleted = (bench.uploaded() for _ in range(4))
    bench.store.service.create("app-1", PackageType.BITS, None, BY)
    bench.store.service.record_stored(ready, STORED, BY)
    bench.store.service.record_hashes(ready, DIGESTS, BY)
    bench.store.service.fail(dead, "our fault", Fault.SERVICE, BY)
    bench.store.service.fail(bad, "no zip", Fault.BITS, BY)
    bench.store.service.delete(deleted, BY)
    assert bench.look(first=True) == 0
    assert bench.handed_out(STORAGE) == []


def test_new_work_has_time_to_be_done(bench: Bench) -> None:
    """Its own message is on its way: it is handed out only if it is still there later."""
    guid = bench.uploaded()
    assert bench.look() == 0
    bench.clock.now += FIRST_WAIT - 1
    assert bench.look() == 0
    bench.clock.now += 1
    assert bench.look() == 1
    assert bench.handed_out(STORAGE) == [f"{guid}/2"]


def test_work_is_handed_out_ever_more_rarely(bench: Bench) -> None:
    """With a pause that doubles up to a bound, and for as long as it is unfinished."""
    bench.uploaded()
    moments = []
    bench.look(first=True)
    start = bench.clock.now
    for _ in range(360):
        bench.handed_out(STORAGE)
        bench.clock.now += 10
        if bench.redispatcher.look():
            moments.append(bench.clock.now - start)
    pauses = [later - earlier for earlier, later in zip([0.0, *moments], moments, strict=False)]
    assert pauses[0] == FIRST_WAIT
    assert set(pauses[1:]) == {MAX_WAIT}


def test_a_queue_with_messages_gets_no_more(bench: Bench) -> None:
    """The work's own may be among them: it is handed out when none wait, or after ten minutes."""
    bench.uploaded()
    assert bench.look(first=True) == 1
    until = bench.clock.now + PATIENCE
    for moment in (*range(int(bench.clock.now), int(until), 10), until - 1):
        bench.clock.now = moment
        assert bench.look() == 0
    bench.clock.now = until
    assert bench.look() == 1
    bench.clock.now += FIRST_WAIT
    assert bench.look() == 0
    bench.handed_out(STORAGE)
    bench.clock.now += MAX_WAIT
    assert bench.look() == 1


def test_the_next_step_is_new_work(bench: Bench) -> None:
    """It has its own time to be done, whatever the step before it took."""
    guid = bench.uploaded()
    bench.look(first=True)
    bench.clock.now += 10_000
    bench.store.service.record_stored(guid, STORED, BY)
    assert bench.look() == 0
    bench.clock.now += FIRST_WAIT
    assert bench.look() == 1
    assert bench.handed_out(HASHING) == [f"{guid}/3"]


def test_resumed_work_is_handed_out_by_the_resuming_event(bench: Bench) -> None:
    """Whoever does it knows who resumed it."""
    guid = bench.uploaded()
    bench.store.service.fail(guid, "our fault", Fault.SERVICE, BY)
    bench.store.service.resume(guid, BY)
    assert bench.look(first=True) == 1
    assert bench.handed_out(STORAGE) == [f"{guid}/4"]


def test_finished_work_is_forgotten(bench: Bench) -> None:
    """Nothing is kept of it."""
    guid = bench.uploaded()
    bench.look(first=True)
    bench.store.service.fail(guid, "no zip", Fault.BITS, BY)
    bench.clock.now += 10_000
    assert bench.look() == 0
    assert bench.handed_out(STORAGE) == [f"{guid}/2"]


def test_nothing_is_handed_out_while_large_ones_wait(bench: Bench) -> None:
    """Its own message may be among those that were sent on."""
    guid = bench.uploaded()
    bench.look()
    bench.bus.send(STORAGE_LARGE, Message("x/1", "package.upload_started", b"{}"))
    bench.clock.now += FIRST_WAIT
    assert bench.look() == 0
    with bench.bus.connect() as connection, connection.channel() as channel:
        assert kombu.Queue(STORAGE_LARGE)(channel).get(no_ack=True) is not None
    assert bench.look() == 1
    assert bench.handed_out(STORAGE) == [f"{guid}/2"]
