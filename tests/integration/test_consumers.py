"""Log, relay, bus and workers together: what becomes of a package when something goes wrong."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from eventsourcing.persistence import OperationalError

from adapters.blob_store.local import LocalBlobs
from adapters.bus import work
from adapters.bus.bus import HASHING, STORAGE, Bus
from adapters.bus.memory import MemoryBus
from adapters.bus.messages import message_of
from adapters.bus.redispatch import Redispatcher
from adapters.bus.relay import Relay
from adapters.bus.work import WORK, Worker
from adapters.follower import KeptPosition
from adapters.metrics import Metrics
from adapters.staging.local import LocalStaging
from adapters.tracing import NoTracing
from domain.archive import ArchiveLimits
from domain.package import Fault, Package, PackageState, PackageType, StagedBits, StoredBits
from domain.ports import Bits, BlobStore
from domain.processing import Processing, blob_key
from projections.unfinished import Step
from tests.support.packages import BY, LocalStore, droplet_processing
from tests.support.waiting import eventually
from tests.support.zips import random_zip, sha1

BITS = random_zip(5000)


@dataclass
class UnreliableBlobs:
    """A blob store that is away, or has a defect, as often as it is told."""

    blobs: BlobStore
    store_errors: list[Exception] = field(default_factory=list)
    open_errors: list[Exception] = field(default_factory=list)
    delete_errors: list[Exception] = field(default_factory=list)
    tries: int = 0

    def store(self, key: str, staged: StagedBits) -> StoredBits:
        self._try(self.store_errors)
        return self.blobs.store(key, staged)

    def copy(self, source_key: str, key: str) -> StoredBits:
        self._try(self.store_errors)
        return self.blobs.copy(source_key, key)

    def open(self, key: str) -> Bits:
        self._try(self.open_errors)
        return self.blobs.open(key)

    def delete(self, key: str) -> None:
        self._try(self.delete_errors)
        self.blobs.delete(key)

    def _try(self, errors: list[Exception]) -> None:
        self.tries += 1
        if errors:
            raise errors.pop(0)


@dataclass(frozen=True)
class Plant:
    store: LocalStore
    staging: LocalStaging
    blobs: UnreliableBlobs
    folder: Path
    bus: Bus

    def upload(self, bits: bytes = BITS) -> str:
        guid = self.store.service.create("app-1", PackageType.BITS, None, BY).aggregate.guid
        staged = self.staging.create("guid-1")
        staged.write(bits)
        staged.seal()
        staged.close()
        where = StagedBits(staged.uri, 0, len(bits))
        self.store.service.start_upload(guid, where, "app.zip", BY)
        return guid

    def package(self, guid: str) -> Package:
        return self.store.service.load(guid)

    def becomes(self, guid: str, state: PackageState) -> Package:
        eventually(lambda: self.package(guid).state is state)
        return self.package(guid)

    def events(self, guid: str) -> list[str]:
        logged = self.store.log.read(0, 10_000)
        return [type(entry.event).__name__ for entry in logged if entry.event.guid == guid]

    def staged_files(self) -> list[str]:
        return [path.name for path in self.staging.folder.iterdir()]

    def has_blob(self, guid: str) -> bool:
        return (self.folder / blob_key(guid)).exists()


READY = ["Created", "UploadStarted", "BitsStored", "HashComputed"]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def idle(tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> Plant:
    """Workers and projector run, the relay does not: messages are lost, as in a crash."""
    monkeypatch.setattr(work, "FIRST_DELAY", 0.001)
    monkeypatch.setattr(work, "MAX_DELAY", 0.02)
    return built(tmp_path, stack, MemoryBus())


def built(
    tmp_path: Path, stack: ExitStack, bus: Bus, over: Callable[[BlobStore], BlobStore] | None = None
) -> Plant:
    """`over`: what the workers have instead of the blob store, around it."""
    store = LocalStore.open(tmp_path / "log.db")
    stack.callback(store.close)
    staging = LocalStaging(tmp_path / "staging", tmp_path / "uploads")
    staging.prepare("identity-1")
    local = LocalBlobs(tmp_path / "blobs", staging)
    local.prepare("identity-1")
    blobs = UnreliableBlobs(over(local) if over else local)
    bus.declare()
    stack.callback(bus.close)
    store.projector.start()
    stack.callback(store.projector.stop)
    processing = Processing(store.service, staging, blobs, ArchiveLimits(1_000_000))
    droplets = droplet_processing(store, staging, blobs)
    for consumer in Worker(bus, processing, droplets, Metrics(), NoTracing()).consumers():
        consumer.start()
        stack.callback(consumer.stop, 10)
    return Plant(store, staging, blobs, tmp_path / "blobs", bus)


@pytest.fixture
def plant(idle: Plant, stack: ExitStack) -> Plant:
    """All of it runs."""
    relay = Relay(idle.store.log, idle.bus, KeptPosition(idle.store.writer, idle.store.writing))
    relay.start()
    stack.callback(relay.stop)
    return idle


def test_an_upload_becomes_ready_by_itself(plant: Plant) -> None:
    """Stored, hashed, and its staged bits are gone."""
    guid = plant.upload()
    package = plant.becomes(guid, PackageState.READY)
    assert package.digests is not None
    assert package.digests.sha1 == sha1(BITS)
    assert (plant.folder / blob_key(guid)).read_bytes() == BITS
    eventually(lambda: plant.staged_files() == [])
    assert plant.events(guid) == READY


def test_many_uploads_become_ready(plant: Plant) -> None:
    """Each by its own four events, however many are worked on."""
    guids = [plant.upload() for _ in range(30)]
    for guid in guids:
        plant.becomes(guid, PackageState.READY)
        assert plant.events(guid) == READY
    eventually(lambda: plant.staged_files() == [])


def test_every_event_knows_what_led_to_it(plant: Plant) -> None:
    """From the upload on, the trail leads back, to the user and the request."""
    guid = plant.upload()
    plant.becomes(guid, PackageState.READY)
    events = [entry.event for entry in plant.store.log.read(0, 10)]
    assert [event.caused_by for event in events] == [None, None, f"{guid}/2", f"{guid}/3"]
    assert {(event.actor, event.request_id) for event in events} == {(BY.actor, BY.request_id)}


@pytest.mark.parametrize("step", WORK)
@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        ConnectionRefusedError("the object store is away"),
        OperationalError("the database is away"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_environment_that_is_away_is_waited_for(
    plant: Plant, step: Step, error: Exception
) -> None:
    """Far longer than a defect is tried; the package never becomes FAILED for it."""
    errors = plant.blobs.store_errors if step is Step.STORAGE else plant.blobs.open_errors
    errors += [error] * 20
    guid = plant.upload()
    plant.becomes(guid, PackageState.READY)
    assert errors == []
    assert plant.events(guid) == READY


def test_staged_bits_are_kept_while_something_is_away(plant: Plant) -> None:
    """For as long as it takes."""
    plant.blobs.store_errors += [OSError("away")] * 1_000_000
    guid = plant.upload()
    eventually(lambda: plant.blobs.tries > 10)
    assert plant.package(guid).state is PackageState.PROCESSING_UPLOAD
    assert len(plant.staged_files()) == 1
    plant.blobs.store_errors.clear()
    plant.becomes(guid, PackageState.READY)


def test_others_are_not_held_up_by_one_that_waits(plant: Plant) -> None:
    """More packages that wait than there are workers, and one that does not need what is away."""
    plant.blobs.store_errors += [OSError("away")] * 1_000_000
    waiting = [plant.upload() for _ in range(5)]
    eventually(lambda: plant.blobs.tries > 10)
    bad = plant.upload(b"this is no zip")
    plant.becomes(bad, PackageState.FAILED)
    plant.blobs.store_errors.clear()
    for guid in waiting:
        plant.becomes(guid, PackageState.READY)


@pytest.mark.parametrize("step", WORK)
def test_a_defect_fails_the_package_after_five_tries(plant: Plant, step: Step) -> None:
    """By our fault: its bits are kept, and an operator finds it among the dead letters."""
    errors = plant.blobs.store_errors if step is Step.STORAGE else plant.blobs.open_errors
    errors += [RuntimeError(f"defect {number}") for number in range(1000)]
    guid = plant.upload()
    package = plant.becomes(guid, PackageState.FAILED)
    assert package.fault is Fault.SERVICE
    assert len(errors) == 995
    assert package.error is not None
    assert "defect" not in package.error
    assert BY.request_id in package.error
    letter = eventually(plant.store.work.dead_letters)[0]
    assert (letter.guid, letter.step) == (guid, step)
    assert letter.detail == "RuntimeError: defect 4"
    assert letter.error == package.error
    assert plant.store.work.unfinished() == []
    assert len(plant.staged_files()) == 1
    assert plant.has_blob(guid) == (step is Step.HASHING)


@pytest.mark.parametrize("step", WORK)
def test_a_resumed_package_becomes_ready(plant: Plant, step: Step) -> None:
    """Once the defect is mended, what was kept is enough."""
    errors = plant.blobs.store_errors if step is Step.STORAGE else plant.blobs.open_errors
    errors += [RuntimeError("defect")] * 5
    guid = plant.upload()
    plant.becomes(guid, PackageState.FAILED)
    eventually(plant.store.work.dead_letters)
    plant.store.service.resume(guid, BY)
    plant.becomes(guid, PackageState.READY)
    eventually(lambda: plant.store.work.dead_letters() == [])
    eventually(lambda: plant.staged_files() == [])
    assert (plant.folder / blob_key(guid)).read_bytes() == BITS


def test_a_defect_that_goes_away_in_time_is_forgotten(plant: Plant) -> None:
    """Four failed tries are nobody's business; nor do failures of the environment count."""
    plant.blobs.store_errors += [RuntimeError("defect"), OSError("away"), OSError("away")] * 4
    guid = plant.upload()
    plant.becomes(guid, PackageState.READY)
    assert plant.events(guid) == READY


def test_bits_at_fault_fail_at_once(plant: Plant) -> None:
    """Without a second try, with a sentence, and nothing is kept."""
    guid = plant.upload(b"this is no zip")
    package = plant.becomes(guid, PackageState.FAILED)
    assert package.fault is Fault.BITS
    assert package.error is not None
    assert "not a readable zip file" in package.error
    assert plant.blobs.store_errors == []
    eventually(lambda: plant.staged_files() == [])
    assert plant.events(guid) == ["Created", "UploadStarted", "ProcessingFailed"]
    assert plant.store.work.dead_letters() == []


def test_a_copy_becomes_ready_by_itself(plant: Plant) -> None:
    """With bits and checksums of its source."""
    source = plant.upload()
    plant.becomes(source, PackageState.READY)
    copy = plant.store.service.copy(source, "app-2", BY).aggregate.guid
    package = plant.becomes(copy, PackageState.READY)
    assert package.digests == plant.package(source).digests
    assert (plant.folder / blob_key(copy)).read_bytes() == BITS


def test_a_deleted_package_leaves_nothing(plant: Plant) -> None:
    """READY or given up, its blob and its staged bits are removed."""
    ready = plant.upload()
    plant.becomes(ready, PackageState.READY)
    plant.blobs.open_errors += [RuntimeError("defect")] * 5
    dead = plant.upload()
    plant.becomes(dead, PackageState.FAILED)
    assert plant.has_blob(ready) and plant.has_blob(dead)
    plant.store.service.delete(ready, BY)
    plant.store.service.delete(dead, BY)
    eventually(lambda: not plant.has_blob(ready) and not plant.has_blob(dead))
    eventually(lambda: plant.staged_files() == [])


def test_cleaning_up_is_tried_again_too(plant: Plant) -> None:
    """A blob store that is away when a package is deleted is waited for."""
    guid = plant.upload()
    plant.becomes(guid, PackageState.READY)
    plant.blobs.delete_errors += [OSError("away")] * 10
    plant.store.service.delete(guid, BY)
    eventually(lambda: not plant.has_blob(guid))


def test_repeated_messages_change_nothing(plant: Plant) -> None:
    """Every message again, to both queues, after all is done."""
    guid = plant.upload()
    plant.becomes(guid, PackageState.READY)
    eventually(lambda: plant.staged_files() == [])
    for entry in plant.store.log.read(0, 10):
        for queue in (STORAGE, HASHING):
            plant.bus.send(queue, message_of(entry))
    last = plant.upload()
    plant.becomes(last, PackageState.READY)
    eventually(lambda: plant.staged_files() == [])
    assert plant.events(guid) == READY
    assert (plant.folder / blob_key(guid)).read_bytes() == BITS


def test_lost_messages_do_not_matter(idle: Plant) -> None:
    """Nobody was told of the upload: it is found in the log, step by step, and done."""
    guid = idle.upload()
    redispatcher = Redispatcher(
        idle.store.work, idle.store.droplets, idle.store.log, idle.bus, True
    )
    eventually(idle.store.work.unfinished)
    assert redispatcher.look(first=True) == 1
    eventually(lambda: [w.step for w in idle.store.work.unfinished()] == [Step.HASHING])
    assert idle.package(guid).state is PackageState.PROCESSING_UPLOAD
    restarted = Redispatcher(idle.store.work, idle.store.droplets, idle.store.log, idle.bus, True)
    assert restarted.look(first=True) == 1
    idle.becomes(guid, PackageState.READY)


def test_a_defect_found_after_a_restart_ends_as_well(idle: Plant) -> None:
    """What was handed out again is given up after five tries, not tried for ever."""
    idle.blobs.store_errors += [RuntimeError("defect")] * 1000
    guid = idle.upload()
    eventually(idle.store.work.unfinished)
    Redispatcher(idle.store.work, idle.store.droplets, idle.store.log, idle.bus, True).look(
        first=True
    )
    assert idle.becomes(guid, PackageState.FAILED).fault is Fault.SERVICE
    assert len(idle.blobs.store_errors) == 995
