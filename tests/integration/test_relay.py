"""The relay: everything in the log is published, in order, whatever happens to the broker."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kombu
import orjson
import pytest

from adapters import follower as follower_module
from adapters.bus.bus import EVENTS, HASHING
from adapters.bus.memory import MemoryBus
from adapters.bus.messages import Message
from adapters.bus.relay import Relay
from adapters.follower import Follower, KeptPosition
from domain.package import Digests, PackageType, StoredBits
from domain.ports import LoggedEvent
from projections.positions import Position
from tests.support.packages import BY, STAGED, LocalStore
from tests.support.waiting import eventually


class UnreliableBus(MemoryBus):
    """A broker that goes away in the middle of publishing, as often as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.breaks_after: list[int] = []  # messages published before it goes away

    def publish(self, messages: Sequence[Message]) -> None:
        if self.breaks_after:
            super().publish(messages[: self.breaks_after.pop(0)])
            raise ConnectionResetError("the broker is away")
        super().publish(messages)


@dataclass(frozen=True)
class Bench:
    store: LocalStore
    bus: UnreliableBus
    start: Callable[..., Relay]
    channel: Any
    heard: list[int]  # the positions of what a subscriber has heard

    @property
    def kept(self) -> KeptPosition:
        return KeptPosition(self.store.writer, self.store.writing)

    def append(self, count: int) -> list[int]:
        """Their positions."""
        before = self.store.log.head()
        for _ in range(count):
            self.store.service.create("app-1", PackageType.BITS, None, BY)
        return [entry.position for entry in self.store.log.read(before, count)]

    def listen(self) -> list[int]:
        """All that was heard until now."""
        while (delivery := kombu.Queue("theirs")(self.channel).get(no_ack=True)) is not None:
            self.heard.append(int(orjson.loads(delivery.body)["sequence"]))
        return self.heard

    def until(self, positions: list[int]) -> None:
        eventually(lambda: set(self.listen()) >= set(positions))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(follower_module, "BATCH", 10)
    monkeypatch.setattr(follower_module, "PATIENCE", 0.05)
    with ExitStack() as stack:
        store = LocalStore.open(tmp_path / "log.db")
        stack.callback(store.close)
        bus = UnreliableBus()
        bus.declare()
        stack.callback(bus.close)
        channel = stack.enter_context(bus.connect()).channel()
        kombu.Queue("theirs", EVENTS, routing_key="package.#")(channel).declare()

        def start(position: KeptPosition | None = None) -> Relay:
            relay = Relay(store.log, bus, position or made.kept)
            relay.start()
            stack.callback(relay.stop)
            return relay

        made = Bench(store, bus, start, channel, [])
        yield made


def test_everything_is_published_once_in_order(bench: Bench) -> None:
    """What was in the log before, and what is appended while it runs."""
    positions = bench.append(35)
    relay = bench.start()
    bench.until(positions)
    positions += bench.append(25)
    bench.until(positions)
    assert bench.heard == positions
    assert relay.position == positions[-1]
    assert not relay.failed


def test_every_kind_of_event_is_published(bench: Bench) -> None:
    """Not only what the work queues want."""
    guid = bench.store.service.create("app-1", PackageType.BITS, None, BY).aggregate.guid
    bench.store.service.start_upload(guid, STAGED, None, BY)
    bench.store.service.delete(guid, BY)
    bench.start()
    bench.until([1, 2, 3])


def test_bits_that_were_hashed_as_they_were_stored_are_not_handed_to_hashing(
    bench: Bench,
) -> None:
    """Others hear of them all the same; what is still to be hashed is handed out."""
    service, stored, digests = bench.store.service, StoredBits("key", 5), Digests("1", "2")
    done, half = (service.create("app-1", PackageType.BITS, None, BY).aggregate.guid for _ in "12")
    for guid in (done, half):
        service.start_upload(guid, STAGED, None, BY)
    service.record_stored_and_hashed(done, stored, digests, BY)
    service.record_stored(half, stored, BY)
    bench.start()
    bench.until([1, 2, 3, 4, 5, 6, 7])
    queue = kombu.Queue(HASHING)(bench.channel)
    handed_out = queue.get(no_ack=True)
    assert handed_out is not None
    assert orjson.loads(handed_out.body)["subject"] == half
    assert queue.get(no_ack=True) is None


def test_a_restart_goes_on_where_it_stopped(bench: Bench) -> None:
    """Nothing is published again, nothing is left out."""
    first = bench.append(25)
    relay = bench.start()
    bench.until(first)
    relay.stop()
    assert bench.kept.load().position == first[-1]
    second = bench.append(15)
    bench.start()
    bench.until(second)
    assert bench.heard == first + second


class Forgetful(KeptPosition):
    """What a crash leaves: messages were published, the position was not written."""

    def save(self, at: Position) -> None:
        return None


def test_a_crash_publishes_again_and_leaves_nothing_out(bench: Bench) -> None:
    """At least once: who hears it twice knows it by its id."""
    positions = bench.append(25)
    crashed = bench.start(Forgetful(bench.store.writer, bench.store.writing))
    bench.until(positions)
    crashed.stop()
    positions += bench.append(5)
    bench.start()
    bench.until(positions)
    assert bench.heard == positions[:25] + positions


def test_a_broker_that_goes_away_loses_nothing(bench: Bench) -> None:
    """What it had not confirmed is published again when it is back, in order."""
    bench.bus.breaks_after = [7]
    positions = bench.append(25)
    relay = bench.start()
    eventually(lambda: relay.failed)
    assert relay.position == 0
    bench.until(positions)
    eventually(lambda: not relay.failed)
    assert bench.heard == positions[:7] + positions
    assert relay.position == positions[-1]


def test_a_broker_that_is_away_at_the_stop_gets_it_at_the_next_start(bench: Bench) -> None:
    """The kept position is never ahead of what was published."""
    first = bench.append(5)
    relay = bench.start()
    bench.until(first)
    bench.bus.breaks_after = [0] * 1000
    second = bench.append(5)
    eventually(lambda: relay.failed)
    relay.stop()
    assert bench.kept.load().position <= first[-1]
    bench.bus.breaks_after = []
    bench.start()
    bench.until(second)
    assert bench.heard == first + second


def test_the_first_start_begins_at_the_beginning(bench: Bench) -> None:
    """No position was kept yet; one that was is not lost by looking at it."""
    assert bench.kept.load() == Position()
    bench.kept.save(Position(7, "guid-1/3"))
    assert bench.kept.load() == Position(7, "guid-1/3")
    assert bench.kept.load() == Position(7, "guid-1/3")


@pytest.mark.parametrize("position", [2, 1000], ids=["another event", "beyond the log"])
def test_a_position_of_another_history_is_noticed(
    bench: Bench, position: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A restored log may lack what was published: all of it is published again, and it is said."""
    positions = bench.append(5)
    bench.kept.save(Position(position, "lost/2"))
    bench.start()
    bench.until(positions)
    assert bench.heard == positions
    assert "was the log restored?" in caplog.text


def test_a_kept_position_does_not_go_back(bench: Bench) -> None:
    """A relay that has lost its lead may still want to keep where it was."""
    bench.kept.save(Position(7, "guid-1/3"))
    bench.kept.save(Position(5, "guid-1/2"))
    assert bench.kept.load() == Position(7, "guid-1/3")
    bench.kept.forget()
    assert bench.kept.load() == Position()


def test_events_of_another_process_are_published(bench: Bench) -> None:
    """Nothing wakes the relay for them: it looks by itself."""
    first = bench.append(1)
    bench.start()
    bench.until(first)
    other = LocalStore.open(bench.store.path)
    try:
        position = other.service.create("app-1", PackageType.BITS, None, BY).position
    finally:
        other.close()
    assert position is not None
    bench.until([position])


class Gathering(Follower):
    """Notes what it is handed, and then lets events gather for an hour."""

    gathers = 3600.0

    def __init__(self, bench: Bench) -> None:
        self.handled = threading.Event()
        self.seen: list[int] = []
        super().__init__("gathering", bench.store.log, bench.kept, logging.getLogger(__name__))

    def _handle(self, events: Sequence[LoggedEvent]) -> None:
        self.seen += [logged.position for logged in events]
        self.handled.set()


def test_what_comes_alone_is_handled_at_once_and_what_gathers_holds_up_no_stop(
    bench: Bench,
) -> None:
    """Where it stands is kept, and the rest is there for whoever follows next."""
    first = Gathering(bench)
    first.start()
    bench.append(1)
    assert first.handled.wait(15)
    bench.append(2)
    assert first.stop(15)
    assert first.seen == [1]
    assert bench.kept.load().position == 1
