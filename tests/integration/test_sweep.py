"""The sweep: removes what a crash left, and never what the log names."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import delete

from adapters import sweep as sweep_module
from adapters.blob_store.local import LocalBlobs
from adapters.staging.local import LocalStaging
from adapters.sweep import Sweep
from domain.archive import ArchiveLimits
from domain.package import Fault, PackageType, StagedBits
from domain.processing import Processing, blob_key
from projections.packages import packages
from projections.unfinished import unfinished
from tests.support.packages import BY, LocalStore, take_file
from tests.support.zips import random_zip

BITS = random_zip(1000)
GRACE = 3600.0  # seconds


@dataclass
class Clock:
    """Seconds since the epoch, ahead of the real time by what it is told."""

    ahead: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@dataclass(frozen=True)
class Bench:
    store: LocalStore
    staging: LocalStaging
    blobs: LocalBlobs
    processing: Processing
    clock: Clock
    sweep: Sweep

    def stage(self, guid: str = "nobody") -> StagedBits:
        """Staged bits that no package names: the process died before UploadStarted."""
        staged = self.staging.create(guid)
        staged.write(BITS)
        staged.seal()
        staged.close()
        return StagedBits(staged.uri, 0, len(BITS))

    def uploaded(self) -> str:
        guid = self.created()
        self.store.service.start_upload(guid, self.stage(guid), "app.zip", BY)
        return guid

    def created(self) -> str:
        return self.store.service.create("app-1", PackageType.BITS, None, BY).aggregate.guid

    def stored(self) -> str:
        guid = self.uploaded()
        self.processing.store(guid, BY)
        return guid

    def ready(self) -> str:
        guid = self.stored()
        self.processing.hash(guid, BY)
        return guid

    def ready_with_staged_bits(self) -> str:
        """Whoever made it READY died before it could remove them."""
        guid = self.stored()
        with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
            patch.setattr(self.staging, "discard", sys.exit)
            self.processing.hash(guid, BY)
        return guid

    def given_up(self, guid: str) -> str:
        self.processing.fail_by_defect(guid, RuntimeError("x"), BY)
        return guid

    def staged_files(self) -> set[str]:
        return {path.name for path in self.staging.folder.iterdir()}

    def blob_files(self) -> set[str]:
        folder = self.blobs.folder
        return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}

    def staged_name(self, guid: str) -> str:
        staged = self.store.service.load(guid).staged
        assert staged is not None
        return self.staging.name_of(staged.uri)

    def later(self, seconds: float = GRACE + 60) -> None:
        self.clock.ahead += seconds

    def level(self) -> None:
        self.store.projector.catch_up()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    store = LocalStore.open(tmp_path / "log.db")
    staging = LocalStaging(tmp_path / "staging", tmp_path / "uploads")
    staging.prepare("identity-1")
    blobs = LocalBlobs(tmp_path / "blobs", staging)
    blobs.prepare("identity-1")
    clock = Clock()
    sweep = Sweep(
        staging, blobs, store.packages, store.droplets, store.work, store.projector, store.log,
        store.store.services, GRACE, True, clock,
    )  # fmt: skip
    processing = Processing(store.service, staging, blobs, ArchiveLimits(1_000_000))
    yield Bench(store, staging, blobs, processing, clock, sweep)
    store.close()


def test_staged_bits_that_nobody_names_are_removed(bench: Bench) -> None:
    """When they are older than the grace period."""
    bench.stage()
    bench.stage()
    bench.level()
    bench.later()
    assert bench.sweep.sweep_staging() == 2
    assert bench.staged_files() == set()
    assert bench.sweep.sweep_staging() == 0


def test_young_staged_bits_are_left_alone(bench: Bench) -> None:
    """Their request may still be running."""
    bench.stage()
    bench.level()
    bench.later(GRACE - 60)
    assert bench.sweep.sweep_staging() == 0
    assert len(bench.staged_files()) == 1


def test_at_a_start_there_is_no_grace(bench: Bench) -> None:
    """No request is running yet: what nobody names was left by the last process."""
    bench.stage()
    named = bench.staged_name(bench.uploaded())
    bench.level()
    bench.later(1)
    assert bench.sweep.sweep_staging(grace=0) == 1
    assert bench.staged_files() == {named}


def test_staged_bits_that_the_log_names_are_kept(bench: Bench) -> None:
    """Of work that is unfinished, or was given up by our fault, however old it is."""
    guids = [bench.uploaded(), bench.stored(), bench.given_up(bench.uploaded())]
    guids.append(bench.given_up(bench.stored()))
    named = {bench.staged_name(guid) for guid in guids}
    bench.stage()
    bench.level()
    bench.later(365 * 86_400)
    assert bench.sweep.sweep_staging() == 1
    assert bench.staged_files() == named


def test_a_resumed_package_keeps_its_staged_bits(bench: Bench) -> None:
    """It needs them again."""
    guid = bench.given_up(bench.uploaded())
    bench.store.service.resume(guid, BY)
    bench.level()
    bench.later()
    assert bench.sweep.sweep_staging() == 0
    bench.processing.store(guid, BY)
    bench.processing.hash(guid, BY)


def test_staged_bits_of_finished_packages_are_removed(bench: Bench) -> None:
    """If whoever should have discarded them did not live to do it."""
    bench.ready_with_staged_bits()
    bad, deleted = bench.uploaded(), bench.given_up(bench.uploaded())
    bench.store.service.fail(bad, "no zip", Fault.BITS, BY)
    bench.store.service.delete(deleted, BY)
    bench.level()
    bench.later()
    assert bench.sweep.sweep_staging() == 3
    assert bench.staged_files() == set()


def test_what_the_log_has_named_meanwhile_is_kept(bench: Bench) -> None:
    """The sweep waits for the read models: here they can't come, and nothing is removed."""
    staged = bench.stage()
    bench.level()
    guid = bench.created()
    bench.store.service.start_upload(guid, staged, None, BY)
    bench.later()
    sweep_staging_behind(bench)
    assert bench.staged_files() == {bench.staged_name(guid)}
    bench.level()
    assert bench.sweep.sweep_staging() == 0
    assert bench.staged_files() == {bench.staged_name(guid)}


def sweep_staging_behind(bench: Bench) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep_module, "CATCH_UP", 0.01)
        assert bench.sweep.sweep_staging() == 0
        assert bench.sweep.sweep_blobs() == 0


def test_an_old_file_of_a_front_server_is_not_swept_while_it_is_taken(bench: Bench) -> None:
    """It was staged just now, by an upload whose event is not in the log yet."""
    path = bench.staging.folder.with_name("uploads") / "app.zip"
    path.write_bytes(BITS)
    last_year = time.time() - 365 * 86_400
    os.utime(path, (last_year, last_year))
    staged = take_file(bench.staging, str(path), 1 << 20)
    bench.level()
    bench.sweep.sweep_staging()
    guid = bench.created()
    bench.store.service.start_upload(guid, staged, "app.zip", BY)
    assert bench.staged_files() == {bench.staged_name(guid)}


def test_blobs_that_nobody_names_are_removed(bench: Bench) -> None:
    """Left by a crash between a deletion and the removal of the bits."""
    kept, deleted, expired = bench.ready(), bench.ready(), bench.ready()
    bench.store.service.delete(deleted, BY)
    bench.store.service.expire(expired, BY)
    bench.blobs.store(blob_key("nobody"), bench.stage())
    bench.level()
    bench.later()
    assert bench.sweep.sweep_blobs() == 3
    assert bench.blob_files() == {blob_key(kept)}


def test_blobs_that_the_log_names_are_kept(bench: Bench) -> None:
    """Of READY packages, copies, unfinished work, and dead letters, however old they are."""
    source = bench.ready()
    copy = bench.store.service.copy(source, "app-2", BY).aggregate.guid
    bench.processing.store(copy, BY)
    guids = [source, copy, bench.stored(), bench.given_up(bench.stored())]
    bench.level()
    bench.later(365 * 86_400)
    assert bench.sweep.sweep_blobs() == 0
    assert bench.blob_files() == {blob_key(guid) for guid in guids}


def test_a_blob_whose_event_is_not_there_yet_is_kept(bench: Bench) -> None:
    """A worker has made it and will record it: also where no grace is given."""
    guid = bench.uploaded()
    staged = bench.store.service.load(guid).staged
    assert staged is not None
    bench.blobs.store(blob_key(guid), staged)
    dead = bench.uploaded()
    staged = bench.store.service.load(dead).staged
    assert staged is not None
    bench.blobs.store(blob_key(dead), staged)
    bench.given_up(dead)
    bench.level()
    bench.later()
    assert bench.sweep.sweep_blobs(grace=0) == 0
    assert bench.blob_files() == {blob_key(guid), blob_key(dead)}


def test_young_blobs_are_left_alone(bench: Bench) -> None:
    """However old the bits in them are."""
    bench.blobs.store(blob_key("nobody"), bench.stage())
    os.utime(bench.blobs.folder / blob_key("nobody"), (1, 1))
    bench.level()
    assert bench.sweep.sweep_blobs() == 0
    bench.later()
    assert bench.sweep.sweep_blobs() == 1


def test_blobs_are_swept_in_batches(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, each is looked up."""
    monkeypatch.setattr(sweep_module, "BATCH", 3)
    kept = {blob_key(bench.ready()) for _ in range(4)}
    for number in range(7):
        bench.blobs.store(blob_key(f"nobody-{number}"), bench.stage())
    bench.level()
    bench.later()
    assert bench.sweep.sweep_blobs() == 7
    assert bench.blob_files() == kept


def test_what_the_log_names_is_kept_though_a_read_model_is_wrong(bench: Bench) -> None:
    """The log alone decides: a table that lost its rows costs nobody their bits."""
    ready, uploaded = bench.ready_with_staged_bits(), bench.uploaded()
    bench.level()
    with bench.store.writer.begin() as connection:
        for table in (packages, unfinished):
            connection.execute(delete(table))
    bench.later()
    staged = bench.staged_files()
    assert bench.sweep.sweep_blobs() == 0
    bench.sweep.sweep_staging()
    assert bench.blob_files() == {blob_key(ready)}
    assert bench.staged_name(uploaded) in bench.staged_files() < staged


def test_half_made_blobs_are_removed(bench: Bench) -> None:
    """What a crash left in the middle of storing."""
    (bench.blobs.folder / "incoming" / "half").write_bytes(b"x")
    bench.level()
    bench.sweep.sweep_staging()
    assert bench.blob_files() == {"incoming/half"}
    bench.later()
    bench.sweep.sweep_staging()
    assert bench.blob_files() == set()


def test_an_empty_service_is_swept_without_harm(bench: Bench) -> None:
    """There is no log yet, and nothing to remove."""
    assert (bench.sweep.sweep_staging(), bench.sweep.sweep_blobs()) == (0, 0)
