"""The steps of the work, on real folders: done once, whatever is repeated or late."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from adapters.bits import FileBits
from adapters.blob_store.local import LocalBlobs
from adapters.staging.local import LocalStaging
from domain.aggregate import Cause
from domain.archive import ArchiveLimits
from domain.errors import BlobMissing, LargeBits, StagedBitsMissing
from domain.package import (
    Fault,
    Package,
    PackageState,
    PackageType,
    StagedBits,
    StoredBits,
)
from domain.processing import Processing, blob_key
from tests.support.packages import BY, LocalStore, take_file
from tests.support.zips import random_zip, sha1, sha256

BITS = random_zip(5000)


@dataclass(frozen=True)
class Work:
    store: LocalStore
    staging: LocalStaging
    blobs: LocalBlobs
    processing: Processing

    def uploaded(self, bits: bytes = BITS, before: bytes = b"", after: bytes = b"") -> str:
        """A package whose bits are staged, as a slice of a body."""
        guid = self.store.service.create("app-1", PackageType.BITS, None, BY).aggregate.guid
        staged = self.staging.create("guid-1")
        staged.write(before + bits + after)
        staged.seal()
        staged.close()
        where = StagedBits(staged.uri, len(before), len(bits))
        self.store.service.start_upload(guid, where, "app.zip", BY)
        return guid

    def ready(self) -> str:
        guid = self.uploaded()
        self.processing.store(guid, BY)
        self.processing.hash(guid, BY)
        return guid

    def package(self, guid: str) -> Package:
        return self.store.service.load(guid)

    def staged_files(self) -> list[str]:
        return [path.name for path in self.staging.folder.iterdir()]

    def blob(self, guid: str) -> Path:
        return self.blobs.folder / blob_key(guid)


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Work]:
    store = LocalStore.open(tmp_path / "log.db")
    staging = LocalStaging(tmp_path / "staging", tmp_path / "uploads")
    staging.prepare("identity-1")
    blobs = LocalBlobs(tmp_path / "blobs", staging)
    blobs.prepare("identity-1")
    processing = Processing(store.service, staging, blobs, ArchiveLimits(1_000_000))
    yield Work(store, staging, blobs, processing)
    store.close()


@pytest.mark.parametrize(("before", "after"), [(b"", b""), (b"--edge\r\n\r\n", b"\r\n--edge--")])
def test_storing_and_hashing_make_a_package_ready(work: Work, before: bytes, after: bytes) -> None:
    """The blob is the bits, whole file or slice; the checksums are theirs."""
    guid = work.uploaded(before=before, after=after)
    work.processing.store(guid, BY)
    work.processing.hash(guid, BY)
    package = work.package(guid)
    assert package.state is PackageState.READY
    assert package.digests is not None
    assert (package.digests.sha1, package.digests.sha256) == (sha1(BITS), sha256(BITS))
    assert work.blob(guid).read_bytes() == BITS
    work.processing.discard(guid)
    assert work.staged_files() == []
    assert work.blob(guid).exists()


def hashing_up_to(work: Work, size: int) -> Processing:
    return Processing(work.store.service, work.staging, work.blobs, ArchiveLimits(1_000_000), size)


def test_small_bits_are_stored_and_hashed_in_one_step(work: Work) -> None:
    """Both events are there, one after the other and because of it; a late message does nothing."""
    guid = work.uploaded()
    processing = hashing_up_to(work, len(BITS))
    by = Cause("user-1", "request-1", f"{guid}/2")
    seconds = processing.store(guid, by)
    assert seconds is not None
    assert seconds >= 0
    package = work.package(guid)
    assert package.state is PackageState.READY
    assert package.digests is not None
    assert (package.digests.sha1, package.digests.sha256) == (sha1(BITS), sha256(BITS))
    assert work.blob(guid).read_bytes() == BITS
    stored, hashed = (logged.event for logged in work.store.log.read(2, 10))
    assert (stored.TOPIC, hashed.TOPIC) == ("package.bits_stored", "package.hash_computed")
    assert (stored.caused_by, hashed.caused_by) == (f"{guid}/2", f"{guid}/3")
    assert processing.hash(guid, BY) is None
    assert processing.store(guid, BY) is None
    assert work.store.log.head() == 4


class StubbornStaging(LocalStaging):
    """Removes nothing, as often as it is told."""

    refusals = 0

    def discard(self, uri: str) -> None:
        if self.refusals:
            self.refusals -= 1
            raise OSError(errno.EIO, "Input/output error")
        super().discard(uri)


@pytest.mark.parametrize("small", [0, len(BITS)], ids=["in two steps", "in one step"])
def test_whoever_makes_a_package_ready_removes_its_staged_bits(work: Work, small: int) -> None:
    """Not before; and where that fails, the step that is tried again does so."""
    staging = StubbornStaging(work.staging.folder, work.staging.folder)
    processing = Processing(
        work.store.service, staging, work.blobs, ArchiveLimits(1_000_000), small
    )
    guid = work.uploaded()
    last = processing.store
    if not small:
        processing.store(guid, BY)
        assert len(work.staged_files()) == 1
        last = processing.hash
    staging.refusals = 2
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output error"):
            last(guid, BY)
        assert (work.package(guid).state, len(work.staged_files())) == (PackageState.READY, 1)
    head = work.store.log.head()
    last(guid, BY)
    assert work.staged_files() == []
    assert work.store.log.head() == head
    assert work.blob(guid).read_bytes() == BITS


def test_bits_that_are_not_small_are_hashed_in_a_step_of_its_own(work: Work) -> None:
    """One byte more."""
    guid = work.uploaded()
    processing = hashing_up_to(work, len(BITS) - 1)
    assert processing.store(guid, BY) is None
    assert work.package(guid).needs_hashing
    assert processing.hash(guid, BY) is not None
    assert work.package(guid).state is PackageState.READY


def test_repeated_and_late_messages_change_nothing(work: Work) -> None:
    """Every step again, in any order, after the package is READY: the log stays as it is."""
    guid = work.ready()
    head = work.store.log.head()
    for step in (work.processing.store, work.processing.hash, work.processing.store):
        step(guid, BY)
    work.processing.discard(guid)
    work.processing.discard(guid)
    work.processing.store(guid, BY)
    assert work.store.log.head() == head
    assert work.blob(guid).read_bytes() == BITS


def test_storing_again_after_a_crash_before_the_event(work: Work) -> None:
    """A blob that was made, but not recorded, is made again."""
    guid = work.uploaded()
    staged = work.package(guid).staged
    assert staged is not None
    work.blobs.store(blob_key(guid), staged)
    work.processing.store(guid, BY)
    assert work.package(guid).stored is not None


@pytest.mark.parametrize("bits", [BITS, b"this is no zip"], ids=["zip", "no zip"])
def test_a_consumed_file_is_gone_while_the_package_is_unfinished(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: bytes
) -> None:
    """Whoever dies after the step's event has nothing left to do that the log does not know."""
    path = tmp_path / "uploads" / "app.zip"
    path.write_bytes(bits)
    guid = work.store.service.create("app-1", PackageType.BITS, None, BY).aggregate.guid
    staged = take_file(work.staging, str(path), len(bits))
    work.store.service.start_upload(guid, staged, "app.zip", BY)
    gone = []
    for command in ("record_stored", "fail"):
        monkeypatch.setattr(work.store.service, command, lambda *_: gone.append(not path.exists()))
    work.processing.store(guid, BY)
    assert gone == [True]


def test_a_file_that_can_not_be_removed_holds_up_nothing(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package becomes READY; that its file is still there is told behind that."""
    path = tmp_path / "uploads" / "app.zip"
    path.write_bytes(BITS)
    guid = work.store.service.create("app-1", PackageType.BITS, None, BY).aggregate.guid
    staged = take_file(work.staging, str(path), len(BITS))
    work.store.service.start_upload(guid, staged, "app.zip", BY)

    def consume(uri: str) -> None:
        raise PermissionError("read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(work.staging, "consume", consume)
        work.processing.store(guid, BY)
        with pytest.raises(PermissionError):
            work.processing.hash(guid, BY)
    assert work.package(guid).state is PackageState.READY
    work.processing.hash(guid, BY)
    assert not path.exists()
    assert work.staged_files() == []


def test_bits_at_fault_fail_the_package_at_once(work: Work) -> None:
    """The package is FAILED with the sentence, and nothing of its bits is kept."""
    guid = work.uploaded(b"this is no zip")
    work.processing.store(guid, BY)
    package = work.package(guid)
    assert (package.state, package.fault) == (PackageState.FAILED, Fault.BITS)
    assert package.error is not None and "not a readable zip file" in package.error
    work.processing.discard(guid)
    assert (work.staged_files(), work.blob(guid).exists()) == ([], False)


def test_a_package_deleted_meanwhile_leaves_nothing(work: Work) -> None:
    """Whichever step comes after the deletion, no blob and no staged file remain."""
    guid = work.uploaded()
    work.processing.store(guid, BY)
    work.store.service.delete(guid, BY)
    work.processing.hash(guid, BY)
    work.processing.store(guid, BY)
    work.processing.discard(guid)
    assert (work.staged_files(), work.blob(guid).exists()) == ([], False)


def test_missing_staged_bits_are_a_defect_while_they_are_needed(work: Work) -> None:
    """Only we remove them: that they are gone too early is not the client's fault."""
    guid = work.uploaded()
    staged = work.package(guid).staged
    assert staged is not None
    work.staging.discard(staged.uri)
    with pytest.raises(StagedBitsMissing):
        work.processing.store(guid, BY)
    assert work.package(guid).state is PackageState.PROCESSING_UPLOAD


def test_a_copy_takes_bits_and_checksums_and_outlives_its_source(work: Work) -> None:
    """The copy's blob stays when the source's goes."""
    source = work.ready()
    copy = work.store.service.copy(source, "app-2", BY).aggregate.guid
    work.processing.store(copy, BY)
    assert work.package(copy).state is PackageState.READY
    assert work.package(copy).digests == work.package(source).digests
    work.store.service.delete(source, BY)
    work.processing.discard(source)
    assert not work.blob(source).exists()
    assert work.blob(copy).read_bytes() == BITS


def test_a_copy_whose_source_vanished_fails(work: Work) -> None:
    """The error says that it failed to copy, and why."""
    source = work.ready()
    copy = work.store.service.copy(source, "app-2", BY).aggregate.guid
    work.store.service.delete(source, BY)
    work.processing.discard(source)
    work.processing.store(copy, BY)
    package = work.package(copy)
    assert package.state is PackageState.FAILED
    assert package.error == "failed to copy - the source package was deleted"


def test_a_defect_keeps_the_bits_until_it_is_resumed(work: Work) -> None:
    """FAILED by us: staged bits stay; resumed, the package becomes READY."""
    guid = work.uploaded()
    work.processing.fail_by_defect(guid, RuntimeError("x"), BY)
    work.processing.discard(guid)
    package = work.package(guid)
    assert (package.state, package.fault) == (PackageState.FAILED, Fault.SERVICE)
    assert package.error is not None and "RuntimeError" not in package.error
    work.store.service.resume(guid, BY)
    work.processing.store(guid, BY)
    work.processing.hash(guid, BY)
    assert work.package(guid).state is PackageState.READY


class InterruptedBlobs(LocalBlobs):
    """Lets something happen right after a blob was made."""

    def __init__(self, blobs: LocalBlobs, staging: LocalStaging) -> None:
        super().__init__(blobs.folder, staging)
        self.interrupt: Callable[[], object] = lambda: None

    def store(self, key: str, staged: StagedBits) -> StoredBits:
        stored = super().store(key, staged)
        self.interrupt()
        return stored

    def copy(self, source_key: str, key: str) -> StoredBits:
        stored = super().copy(source_key, key)
        self.interrupt()
        return stored


@pytest.fixture
def interrupted(work: Work) -> tuple[Processing, InterruptedBlobs]:
    blobs = InterruptedBlobs(work.blobs, work.staging)
    limits = ArchiveLimits(1_000_000)
    return Processing(work.store.service, work.staging, blobs, limits), blobs


def test_a_package_deleted_while_its_bits_are_stored_leaves_no_blob(
    work: Work, interrupted: tuple[Processing, InterruptedBlobs]
) -> None:
    """The worker finds nobody to record the blob for, and removes it."""
    processing, blobs = interrupted
    guid = work.uploaded()
    blobs.interrupt = lambda: work.store.service.delete(guid, BY)
    processing.store(guid, BY)
    assert not work.blob(guid).exists()


def test_a_copy_deleted_while_it_is_made_leaves_no_blob(
    work: Work, interrupted: tuple[Processing, InterruptedBlobs]
) -> None:
    """The same for a copy; the source keeps its bits."""
    processing, blobs = interrupted
    source = work.ready()
    copy = work.store.service.copy(source, "app-2", BY).aggregate.guid
    blobs.interrupt = lambda: work.store.service.delete(copy, BY)
    processing.store(copy, BY)
    assert not work.blob(copy).exists()
    assert work.blob(source).read_bytes() == BITS


def test_a_second_worker_changes_nothing(
    work: Work, interrupted: tuple[Processing, InterruptedBlobs]
) -> None:
    """Two workers on one package, one of them late: one BitsStored, and the package is READY."""
    processing, blobs = interrupted
    guid = work.uploaded()
    blobs.interrupt = lambda: work.processing.store(guid, BY)
    processing.store(guid, BY)
    work.processing.hash(guid, BY)
    package = work.package(guid)
    assert (package.state, package.version) == (PackageState.READY, 4)
    assert work.blob(guid).read_bytes() == BITS


class VanishingStaging(LocalStaging):
    """Lets something happen right before staged bits are opened."""

    interrupt: Callable[[], object]

    def open(self, staged: StagedBits) -> FileBits:
        self.interrupt()
        return super().open(staged)


def test_bits_that_another_worker_stored_and_discarded_are_not_missed(work: Work) -> None:
    """A late worker finds the staged bits gone, sees why, and leaves it at that."""
    staging = VanishingStaging(work.staging.folder, work.staging.folder)
    processing = Processing(work.store.service, staging, work.blobs, ArchiveLimits(1_000_000))
    guid = work.uploaded()

    def finished_by_another() -> None:
        work.processing.store(guid, BY)
        work.processing.hash(guid, BY)
        work.processing.discard(guid)

    staging.interrupt = finished_by_another
    processing.store(guid, BY)
    assert work.package(guid).state is PackageState.READY


def test_a_missing_blob_is_a_defect_while_it_is_needed(work: Work) -> None:
    """Only we remove blobs: the package is not FAILED for it, the caller hears of it."""
    guid = work.uploaded()
    work.processing.store(guid, BY)
    work.blobs.delete(blob_key(guid))
    with pytest.raises(BlobMissing):
        work.processing.hash(guid, BY)
    assert work.package(guid).state is PackageState.PROCESSING_UPLOAD


def test_a_copy_of_an_expired_source_fails(work: Work) -> None:
    """The error says what became of the source."""
    source = work.ready()
    copy = work.store.service.copy(source, "app-2", BY).aggregate.guid
    work.store.service.expire(source, BY)
    work.processing.discard(source)
    work.processing.store(copy, BY)
    package = work.package(copy)
    assert (package.state, package.fault) == (PackageState.FAILED, Fault.BITS)
    assert package.error == "failed to copy - the source package is EXPIRED"


class SourceDeletedBlobs(LocalBlobs):
    """The source is deleted between the look at it and the copying of its blob."""

    before_copy: Callable[[], object]

    def copy(self, source_key: str, key: str) -> StoredBits:
        self.before_copy()
        return super().copy(source_key, key)


def test_a_copy_whose_source_vanishes_meanwhile_fails(work: Work) -> None:
    """It makes no difference whether the source goes before the work begins, or in it."""
    blobs = SourceDeletedBlobs(work.blobs.folder, work.staging)
    processing = Processing(work.store.service, work.staging, blobs, ArchiveLimits(1_000_000))
    source = work.ready()
    copy = work.store.service.copy(source, "app-2", BY).aggregate.guid

    def delete_source() -> None:
        work.store.service.delete(source, BY)
        work.processing.discard(source)

    blobs.before_copy = delete_source
    processing.store(copy, BY)
    assert work.package(copy).error == "failed to copy - the source package was deleted"


def test_discard_keeps_what_is_still_needed(work: Work) -> None:
    """In the middle of the work, a stray message to clean up removes nothing."""
    guid = work.uploaded()
    work.processing.discard(guid)
    assert len(work.staged_files()) == 1
    work.processing.store(guid, BY)
    work.processing.discard(guid)
    assert len(work.staged_files()) == 1
    assert work.blob(guid).read_bytes() == BITS


def test_a_resumed_package_that_is_deleted_leaves_nothing(work: Work) -> None:
    """What was kept for an operator goes with the package."""
    guid = work.uploaded()
    work.processing.store(guid, BY)
    work.processing.fail_by_defect(guid, RuntimeError("x"), BY)
    work.processing.discard(guid)
    assert (len(work.staged_files()), work.blob(guid).exists()) == (1, True)
    work.store.service.delete(guid, BY)
    work.processing.discard(guid)
    assert (work.staged_files(), work.blob(guid).exists()) == ([], False)


def test_a_defect_in_a_deleted_package_is_forgotten(work: Work) -> None:
    """There is nobody to tell it to."""
    guid = work.uploaded()
    work.store.service.delete(guid, BY)
    head = work.store.log.head()
    work.processing.fail_by_defect(guid, RuntimeError("x"), BY)
    assert work.store.log.head() == head


def test_work_for_an_unknown_package_does_nothing(work: Work) -> None:
    """A message of a package that was never in this log is no reason to fail."""
    work.processing.store("nobody", BY)
    work.processing.hash("nobody", BY)
    assert work.store.log.head() == 0


def test_larger_bits_than_are_asked_for_are_not_touched(work: Work) -> None:
    """Each step says how large they are, and has done nothing; a byte less, and it works."""
    size = len(BITS)
    guid = work.uploaded()
    with pytest.raises(LargeBits) as refused:
        work.processing.store(guid, BY, most=size - 1)
    assert refused.value.size == size
    assert not work.blob(guid).exists()
    work.processing.store(guid, BY, most=size)
    with pytest.raises(LargeBits):
        work.processing.hash(guid, BY, most=size - 1)
    assert work.package(guid).digests is None
    work.processing.hash(guid, BY, most=size)
    copy = work.store.service.copy(guid, "app-2", BY).aggregate.guid
    with pytest.raises(LargeBits):
        work.processing.store(copy, BY, most=size - 1)
    assert not work.blob(copy).exists()
    work.processing.store(copy, BY, most=size)
    work.store.service.delete(guid, BY)
    with pytest.raises(LargeBits):
        work.processing.discard(guid, most=size - 1)
    assert work.blob(guid).exists()
    work.processing.discard(guid, most=size)
    assert not work.blob(guid).exists()
