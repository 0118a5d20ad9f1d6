"""Droplets after a crash: their orphaned bits are swept, and those that wait are handed out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import kombu
import orjson
import pytest
from sqlalchemy import delete

from adapters import sweep as sweep_module
from adapters.blob_store.local import LocalBlobs
from adapters.bus.bus import HASHING, STAGING, STORAGE
from adapters.bus.memory import MemoryBus
from adapters.bus.messages import STAGING_REQUESTED, Message
from adapters.bus.redispatch import FIRST_WAIT, MAX_WAIT, PATIENCE, Redispatcher
from adapters.bus.work import HANDED_OUT_AGAIN
from adapters.staging.local import LocalStaging
from adapters.store import Services, Store
from adapters.sweep import Sweep
from domain.droplet_processing import BuildReport
from domain.droplet_service import Wanted
from domain.package import PackageType
from domain.processing import droplet_blob_key
from projections.droplets import droplets as droplets_table
from tests.support.packages import BY, DIGESTS, STAGED, STORED, LocalStore, droplet_processing
from tests.support.packages import stage as stage_bits
from tests.support.zips import sha1, sha256

BITS = b"what a builder has made" * 100
GRACE = 3600.0  # seconds
REPORT = BuildReport(sha1(BITS), {"web": "run"}, None)


def key_of(guid: str) -> str:
    return droplet_blob_key(guid, sha256(BITS))


@dataclass
class Clock:
    """Seconds since the epoch, ahead of the real time by what it is told."""

    ahead: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@dataclass
class Stopwatch:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Bench:
    store: LocalStore
    staging: LocalStaging
    blobs: LocalBlobs
    clock: Clock
    sweep: Sweep
    bus: MemoryBus
    watch: Stopwatch
    redispatcher: Redispatcher

    @property
    def services(self) -> Services:
        return self.store.store.services

    def pending(self) -> str:
        service = self.services.packages
        package = service.create("app-1", PackageType.BITS, None, BY).aggregate.guid
        service.start_upload(package, STAGED, "app.zip", BY)
        service.record_stored(package, STORED, BY)
        service.record_hashes(package, DIGESTS, BY)
        return self.services.droplets.stage(package, Wanted(), BY).aggregate.guid

    def begun(self) -> str:
        guid = self.pending()
        self.services.droplets.start_staging(guid, BY)
        return guid

    def staged(self) -> str:
        guid, bits = self.pending(), stage_bits(self.staging, BITS)
        processing = droplet_processing(self.store, self.staging, self.blobs)
        processing.accept(guid, bits, REPORT, BY)
        processing.release(bits.uri)
        return guid

    def with_blob(self, guid: str) -> str:
        """Its blob is made, and the event was not written."""
        bits = stage_bits(self.staging, BITS)
        self.blobs.store(key_of(guid), bits)
        self.staging.discard(bits.uri)
        return guid

    def blob_files(self) -> set[str]:
        folder = self.blobs.folder
        return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}

    def environments(self, *guids: str) -> list[bool]:
        found = self.services.environments.find_all(f"droplet:{guid}" for guid in guids)
        return [f"droplet:{guid}" in found for guid in guids]

    def level(self, later: float = GRACE + 60) -> None:
        """The read models have all, and so many seconds have passed."""
        self.store.projector.catch_up()
        self.clock.ahead += later

    def look(self, first: bool = False, later: float = 0.0) -> int:
        self.store.projector.catch_up()
        self.watch.now += later
        return self.redispatcher.look(first)

    def handed_out(self) -> list[str]:
        """The guids of the droplets that builders are asked for; the queue is empty then."""
        guids = []
        with self.bus.connect() as connection, connection.channel() as channel:
            while (message := kombu.Queue(STAGING)(channel).get(no_ack=True)) is not None:
                assert message.headers[HANDED_OUT_AGAIN]
                body = orjson.loads(message.body)
                assert body["type"] == STAGING_REQUESTED
                assert body["id"] == f"{body['subject']}/1/staging_requested"
                guids.append(str(body["subject"]))
        return guids


@pytest.fixture
def bench(any_store: Store, tmp_path: Path) -> Iterator[Bench]:
    with ExitStack() as stack:
        store = LocalStore.of(any_store)
        staging = LocalStaging(tmp_path / "staging", tmp_path / "uploads")
        staging.prepare("identity-1")
        blobs = LocalBlobs(tmp_path / "blobs", staging)
        blobs.prepare("identity-1")
        clock, watch, bus = Clock(), Stopwatch(), MemoryBus()
        bus.declare()
        stack.callback(bus.close)
        sweep = Sweep(
            staging, blobs, store.packages, store.droplets, store.work, store.projector, store.log,
            store.store.services, GRACE, True, clock,
        )  # fmt: skip
        redispatcher = Redispatcher(store.work, store.droplets, store.log, bus, True, watch)
        yield Bench(store, staging, blobs, clock, sweep, bus, watch, redispatcher)


def test_blobs_of_droplets_that_are_needed_are_kept(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """Of STAGED ones, and of those that wait: the event that names it is about to come."""
    guids = [bench.staged(), bench.with_blob(bench.pending()), bench.with_blob(bench.begun())]
    bench.level(365 * 86_400)
    assert bench.sweep.sweep_blobs() == 0
    assert bench.sweep.sweep_blobs(grace=0) == 0
    assert bench.blob_files() == {key_of(guid) for guid in guids}
    assert "replay them" not in caplog.text  # the read models know them, and not the log alone


def test_blobs_of_droplets_that_are_over_are_removed(bench: Bench) -> None:
    """Expired, deleted, failed with the event unwritten, or never heard of."""
    service, kept = bench.services.droplets, bench.staged()
    expired, deleted, gone = bench.staged(), bench.staged(), bench.with_blob(bench.pending())
    failed = bench.with_blob(bench.pending())
    service.expire(expired, BY)
    service.delete(deleted, BY)
    service.delete(gone, BY)
    service.fail(failed, "timed out", BY)
    bench.with_blob("nobody's")
    bench.level(GRACE - 60)
    assert bench.sweep.sweep_blobs() == 0
    bench.level(120)
    assert bench.sweep.sweep_blobs() == 5
    assert bench.blob_files() == {key_of(kept)}


def test_environments_of_droplets_are_kept(bench: Bench) -> None:
    """In whatever state the droplet is, and however old: it is shown with it."""
    service = bench.services.droplets
    guids = [bench.pending(), bench.begun(), bench.staged(), bench.staged(), bench.pending()]
    service.expire(guids[3], BY)
    service.fail(guids[4], "timed out", BY)
    bench.level(365 * 86_400)
    assert bench.sweep.sweep_environments() == 0
    assert bench.environments(*guids) == [True] * 5


def test_environments_without_a_droplet_are_removed(bench: Bench) -> None:
    """After the grace: kept before the droplet was recorded, or left by a deletion."""
    kept, deleted = bench.pending(), bench.pending()
    bench.services.environments.keep("droplet:nobody's", {"SECRET": "x"})
    bench.services.droplets.delete(deleted, BY)
    bench.level(GRACE - 60)
    assert bench.sweep.sweep_environments() == 0
    assert bench.environments(kept, deleted, "nobody's") == [True, True, True]
    bench.level(120)
    assert bench.sweep.sweep_environments() == 2
    assert bench.environments(kept, deleted, "nobody's") == [True, False, False]
    assert bench.sweep.sweep_environments() == 0


def test_environments_of_apps_are_not_swept(bench: Bench) -> None:
    """They have no droplet of their own; not even those with a name that looks like one's."""
    environments = bench.services.environments
    for owner in ("app:app-1", "app:droplet:x", "droplets:x"):
        environments.keep(owner, {"A": "b"})
    bench.level(365 * 86_400)
    assert bench.sweep.sweep_environments() == 0
    assert len(environments.find_all(["app:app-1", "app:droplet:x", "droplets:x"])) == 3


def test_nothing_is_swept_by_read_models_that_are_behind(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They can't come here, and so what they do not know is left alone."""
    monkeypatch.setattr(sweep_module, "CATCH_UP", 0.01)
    bench.with_blob("nobody's")
    bench.services.environments.keep("droplet:nobody's", {})
    bench.level()
    guid = bench.with_blob(bench.pending())
    assert (bench.sweep.sweep_blobs(), bench.sweep.sweep_environments()) == (0, 0)
    assert bench.blob_files() == {key_of(guid), key_of("nobody's")}
    assert bench.environments(guid, "nobody's") == [True, True]
    bench.level(0)
    assert (bench.sweep.sweep_blobs(), bench.sweep.sweep_environments()) == (1, 1)


@pytest.fixture
def wrong(bench: Bench) -> Bench:
    """A bench whose read model of droplets has lost its rows."""
    bench.staged()
    bench.with_blob(bench.pending())
    bench.level()
    with bench.store.writing, bench.store.writer.begin() as connection:
        connection.execute(delete(droplets_table))
    return bench


def test_what_the_log_names_is_kept_though_a_read_model_is_wrong(wrong: Bench) -> None:
    """It costs nobody a droplet, or its environment."""
    blobs, owners = wrong.blob_files(), wrong.services.environments.owners("droplet:", 2**40)
    assert (len(blobs), len(owners)) == (2, 2)
    assert wrong.sweep.sweep_blobs() == 0
    wrong.sweep.sweep_environments()
    assert wrong.blob_files() == blobs
    assert wrong.services.environments.owners("droplet:", 2**40) == owners


def test_what_is_kept_is_not_counted_as_removed(wrong: Bench) -> None:
    """How many environments were removed is what is told."""
    assert wrong.sweep.sweep_environments() == 0


# Those that wait are handed out ---------------------------------------------------------------


def test_droplets_that_wait_are_handed_out_at_a_start(bench: Bench) -> None:
    """The oldest first, also what a builder had begun: it may have died with the queues."""
    begun, pending = bench.begun(), bench.pending()
    bench.staged()
    bench.services.droplets.fail(bench.pending(), "timed out", BY)
    bench.services.droplets.delete(bench.pending(), BY)
    assert bench.look(first=True) == 2
    assert bench.handed_out() == [begun, pending]
    assert (bench.bus.waiting(STORAGE), bench.bus.waiting(HASHING)) == (0, 0)


def test_what_a_builder_has_begun_is_its_own_to_finish(bench: Bench) -> None:
    """Later it is not handed out to another, however long it takes."""
    begun, pending = bench.begun(), bench.pending()
    bench.look()
    assert bench.look(later=FIRST_WAIT) == 1
    assert bench.handed_out() == [pending]
    bench.services.droplets.start_staging(pending, BY)
    assert bench.look(later=PATIENCE * 2) == 0
    assert bench.handed_out() == []
    assert bench.services.droplets.get(begun).waits_for_builder


def test_a_new_droplet_has_time_to_be_begun(bench: Bench) -> None:
    """Its own message is on its way; then it is handed out ever more rarely."""
    pending = bench.pending()
    assert bench.look() == 0
    assert bench.look(later=FIRST_WAIT - 1) == 0
    assert bench.look(later=1) == 1
    assert bench.handed_out() == [pending]
    assert bench.look(later=FIRST_WAIT - 1) == 0
    assert bench.look(later=1) == 1
    assert bench.handed_out() == [pending]
    assert bench.look(later=MAX_WAIT - 1) == 0
    assert bench.look(later=1) == 1


def test_a_queue_with_requests_gets_no_more(bench: Bench) -> None:
    """Where no builder takes them, they do not pile up."""
    pending = bench.pending()
    assert bench.look(first=True) == 1
    for _ in range(5):
        assert bench.look(later=MAX_WAIT) == 0
    assert bench.handed_out() == [pending]
    assert bench.look(later=MAX_WAIT) == 1


def test_begun_droplets_are_handed_out_though_the_queue_was_not_empty(bench: Bench) -> None:
    """The relay may put its first messages there before the first look."""
    begun = bench.begun()
    other = Message("x/1/staging_requested", STAGING_REQUESTED, b"{}")
    bench.bus.send(STAGING, other)
    assert bench.look(first=True) == 0
    with bench.bus.connect() as connection, connection.channel() as channel:
        assert kombu.Queue(STAGING)(channel).get(no_ack=True) is not None
    assert bench.look(later=MAX_WAIT) == 1
    assert bench.handed_out() == [begun]
