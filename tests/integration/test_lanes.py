"""Small packages overtake large ones, whatever step those are held up in."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from adapters.bus import work
from adapters.bus.bus import Bus
from adapters.bus.memory import MemoryBus
from adapters.bus.rabbit import RabbitBus
from adapters.bus.relay import Relay
from adapters.bus.work import LARGE_QUEUES, WORK, large_at_once
from adapters.follower import KeptPosition
from domain.package import PackageState, StagedBits, StoredBits
from domain.ports import Bits, BlobStore
from projections.unfinished import Step
from tests.integration.test_consumers import READY, built
from tests.support.rabbit import RabbitServer
from tests.support.waiting import eventually
from tests.support.zips import random_zip

LARGE = 10_000  # bytes, in these tests
SMALL_BITS, LARGE_BITS = random_zip(5000), random_zip(2 * LARGE)


@dataclass
class HeldBlobs:
    """A blob store in which work on large bits goes no further than the test lets it."""

    blobs: BlobStore
    held: Step
    gate: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    waiting: int = 0
    most_waiting: int = 0

    def store(self, key: str, staged: StagedBits) -> StoredBits:
        if self.held is Step.STORAGE:
            self._hold(staged.length)
        return self.blobs.store(key, staged)

    def copy(self, source_key: str, key: str) -> StoredBits:
        return self.blobs.copy(source_key, key)

    def open(self, key: str) -> Bits:
        bits = self.blobs.open(key)
        if self.held is Step.HASHING:
            self._hold(bits.size)
        return bits

    def delete(self, key: str) -> None:
        self.blobs.delete(key)

    def _hold(self, size: int) -> None:
        if size <= LARGE:
            return
        with self.lock:
            self.waiting += 1
            self.most_waiting = max(self.waiting, self.most_waiting)
        assert self.gate.wait(60)
        with self.lock:
            self.waiting -= 1


@pytest.fixture(params=["memory", pytest.param("rabbit", marks=pytest.mark.slow)])
def bus(request: pytest.FixtureRequest) -> Bus:
    if request.param == "memory":
        return MemoryBus()
    server: RabbitServer = request.getfixturevalue("rabbit")
    server.forget_queues()
    return RabbitBus(server.url)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("step", WORK)
def test_a_small_package_overtakes_many_large_ones(
    bus: Bus, step: Step, tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten that came before it stand still; it becomes READY, and later they do."""
    monkeypatch.setattr(work, "LARGE", LARGE)
    held: list[HeldBlobs] = []

    def over(blobs: BlobStore) -> BlobStore:
        held.append(HeldBlobs(blobs, step))
        return held[0]

    plant = built(tmp_path, stack, bus, over)
    relay = Relay(plant.store.log, bus, KeptPosition(plant.store.writer, plant.store.writing))
    relay.start()
    stack.callback(relay.stop)
    stack.callback(held[0].gate.set)
    at_once = large_at_once(step, 2)
    large = [plant.upload(LARGE_BITS) for _ in range(10)]
    eventually(lambda: held[0].waiting == at_once)
    eventually(lambda: bus.waiting(LARGE_QUEUES[step]) == 10 - at_once)
    small = [plant.upload(SMALL_BITS) for _ in range(5)]
    for guid in small:
        plant.becomes(guid, PackageState.READY)
    assert {plant.package(guid).state for guid in large} == {PackageState.PROCESSING_UPLOAD}
    held[0].gate.set()
    for guid in large:
        plant.becomes(guid, PackageState.READY)
    assert [plant.events(guid) for guid in large + small] == [READY] * 15
    assert held[0].most_waiting == at_once
    eventually(lambda: plant.staged_files() == [])
