"""A droplet's bits: taken from where a builder has put them, stored, and removed with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest
from eventsourcing.persistence import OperationalError

from adapters.blob_store.local import LocalBlobs
from adapters.claims import Claim, Claims
from adapters.cores import ALL, stay_on_one, use_all
from adapters.metrics import Metrics
from adapters.staging.local import LocalStaging
from adapters.store import Services, Store
from domain.aggregate import Cause
from domain.droplet import Droplet, DropletState
from domain.droplet_processing import BuildReport, DropletProcessing, faults_of_report
from domain.droplet_service import Wanted
from domain.errors import (
    BitsPathInvalid,
    DropletNotFound,
    DropletNotWaiting,
    InvalidRequest,
    NoBitsInForm,
    Refusal,
    UploadTooLarge,
)
from domain.hashing import digests_of
from domain.package import Digests, PackageType
from domain.ports import Bits
from domain.processing import droplet_blob_key
from tests.support.packages import BY, DIGESTS, STAGED, STORED, LocalStore, droplet_processing
from tests.support.packages import stage as stage_bits
from tests.support.zips import sha1, sha256

BITS, OTHERS = b"what a builder has made" * 1000, b"what another has made" * 900
BUILDER = Cause("builder-1", "request-2")
MAX_SIZE = 100_000  # bytes of a droplet


@dataclass(frozen=True)
class Bench:
    store: LocalStore
    staging: LocalStaging
    blobs: LocalBlobs
    processing: DropletProcessing
    claims: Claims

    @property
    def services(self) -> Services:
        return self.store.store.services

    def pending(self) -> str:
        service = self.services.packages
        package = service.create("app-1", PackageType.BITS, None, BY).aggregate.guid
        service.start_upload(package, STAGED, "app.zip", BY)
        service.record_stored(package, STORED, BY)
        service.record_hashes(package, DIGESTS, BY)
        wanted = Wanted(environment={"SECRET": "x"})
        return self.services.droplets.stage(package, wanted, BY).aggregate.guid

    def delivered(self, bits: bytes = BITS, name: str = "droplet.tgz") -> Path:
        path = self.staging.upload_folder / name
        path.write_bytes(bits)
        return path

    def claim(self, guid: str, path: Path, report: BuildReport | None = None) -> Droplet:
        report = report or report_of(path.read_bytes())
        claim = Claim(path=str(path))
        droplets = self.services.droplets
        return self.claims.droplet(droplets, guid, claim, report, BUILDER).aggregate

    def staged(self, bits: bytes = BITS) -> str:
        guid = self.pending()
        self.claim(guid, self.delivered(bits))
        return guid

    def staged_files(self) -> list[str]:
        return [path.name for path in self.staging.folder.iterdir()]

    def blob_files(self) -> dict[str, bytes]:
        folder = self.blobs.folder
        files = [path for path in folder.rglob("*") if path.is_file()]
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def key_of(guid: str, bits: bytes = BITS) -> str:
    return droplet_blob_key(guid, sha256(bits))


def report_of(bits: bytes, types: dict[str, str] | None = None) -> BuildReport:
    return BuildReport(sha1(bits), {"web": "run"} if types is None else types, "procfile")


@pytest.fixture
def bench(any_store: Store, tmp_path: Path) -> Bench:
    store = LocalStore.of(any_store)
    staging = LocalStaging(tmp_path / "staging", tmp_path / "uploads")
    staging.prepare("identity-1")
    blobs = LocalBlobs(tmp_path / "blobs", staging)
    blobs.prepare("identity-1")
    processing = droplet_processing(store, staging, blobs)
    claims = Claims(staging, processing, 1 << 20, MAX_SIZE, Metrics())
    return Bench(store, staging, blobs, processing, claims)


def test_a_delivered_droplet_is_stored(bench: Bench) -> None:
    """Under its key, with both checksums, and what the builder says of it."""
    guid = bench.pending()
    report = BuildReport(sha1(BITS), {"web": "run web", "worker": "run"}, "procfile 1")
    droplet = bench.claim(guid, bench.delivered(), report)
    assert droplet.state is DropletState.STAGED
    assert bench.blob_files() == {key_of(guid): BITS}
    assert droplet.stored is not None
    assert (droplet.stored.key, droplet.stored.size) == (key_of(guid), len(BITS))
    assert droplet.digests == Digests(sha1(BITS), sha256(BITS))
    assert droplet.process_types == {"web": "run web", "worker": "run"}
    assert droplet.buildpack == "procfile 1"
    assert (droplet.guid, bench.services.droplets.get(guid).state) == (guid, DropletState.STAGED)


def test_a_droplet_is_hashed_on_any_core(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by a thread that stays on one for what else it does."""
    found: list[set[int]] = []

    def digests(bits: Bits) -> Digests:
        found.append(os.sched_getaffinity(0))
        return digests_of(bits)

    monkeypatch.setattr("domain.droplet_processing.digests_of", digests)
    stay_on_one()
    own = os.sched_getaffinity(0)
    try:
        bench.staged()
        assert os.sched_getaffinity(0) == own
    finally:
        use_all()
    assert found == [set(ALL)]


def test_what_was_delivered_is_consumed(bench: Bench) -> None:
    """Its file is gone, and nothing is left in staging; other files stay."""
    guid, path, other = bench.pending(), bench.delivered(), bench.delivered(OTHERS, "other.tgz")
    bench.claim(guid, path)
    assert not path.exists()
    assert other.read_bytes() == OTHERS
    assert bench.staged_files() == []


def test_a_begun_droplet_is_taken_too(bench: Bench) -> None:
    """That a builder said that it began makes no difference."""
    guid = bench.pending()
    bench.services.droplets.start_staging(guid, BUILDER)
    assert bench.claim(guid, bench.delivered()).state is DropletState.STAGED


def test_nobody_can_change_the_bits_afterwards(bench: Bench) -> None:
    """Though the builder may still have its file open for writing."""
    guid, path = bench.pending(), bench.delivered()
    with path.open("r+b") as still_open:
        bench.claim(guid, path)
        still_open.write(b"something else")
    assert bench.blob_files() == {key_of(guid): BITS}


def test_exactly_the_largest_size_is_taken(bench: Bench) -> None:
    """A byte more is not."""
    guid, path = bench.pending(), bench.delivered(bytes(MAX_SIZE + 1))
    with pytest.raises(UploadTooLarge):
        bench.claim(guid, path)
    path.write_bytes(bytes(MAX_SIZE))
    assert bench.claim(guid, path).state is DropletState.STAGED


def fine(bench: Bench, guid: str) -> None:
    """The droplet waits."""


def failed(bench: Bench, guid: str) -> None:
    bench.services.droplets.fail(guid, "timed out", BY)


def deleted(bench: Bench, guid: str) -> None:
    bench.services.droplets.delete(guid, BY)


def expired(bench: Bench, guid: str) -> None:
    staged = stage_bits(bench.staging, OTHERS)
    bench.processing.accept(guid, staged, report_of(OTHERS), BUILDER)
    bench.processing.release(staged.uri)
    bench.services.droplets.expire(guid, BY)
    bench.processing.discard(guid)


@pytest.mark.parametrize(
    ("before", "report", "refusal"),
    [
        (fine, report_of(OTHERS), InvalidRequest),
        (fine, report_of(BITS, {"web": ""}), InvalidRequest),
        (fine, BuildReport(sha1(BITS).upper(), {"web": "run"}, None), InvalidRequest),
        (failed, report_of(BITS), DropletNotWaiting),
        (expired, report_of(BITS), DropletNotWaiting),
        (deleted, report_of(BITS), DropletNotFound),
    ],
    ids=["another sha1", "no command", "upper case", "failed", "expired", "deleted"],
)
def test_a_refused_droplet_leaves_everything(
    bench: Bench,
    before: Callable[[Bench, str], None],
    report: BuildReport,
    refusal: type[Refusal],
) -> None:
    """The file stays, for whoever put it there; nothing is staged, stored or recorded."""
    guid, path = bench.pending(), bench.delivered()
    before(bench, guid)
    head = bench.store.log.head()
    with pytest.raises(refusal):
        bench.claim(guid, path, report)
    assert path.read_bytes() == BITS
    assert bench.staged_files() == []
    assert bench.blob_files() == {}
    assert bench.store.log.head() == head


def test_a_wrong_checksum_tells_both(bench: Bench) -> None:
    """The builder's developer sees what came; a right answer is still taken."""
    guid, path = bench.pending(), bench.delivered()
    with pytest.raises(InvalidRequest) as refused:
        bench.claim(guid, path, report_of(OTHERS))
    assert refused.value.faults == [
        f"Sha1 is '{sha1(OTHERS)}', and the droplet's bits have '{sha1(BITS)}'"
    ]
    assert bench.claim(guid, path).state is DropletState.STAGED


def test_a_droplet_that_nobody_asked_for_is_refused(bench: Bench) -> None:
    """There is none of that guid."""
    path = bench.delivered()
    with pytest.raises(DropletNotFound):
        bench.claim("nobody's", path)
    assert path.exists()


def test_files_elsewhere_are_refused(bench: Bench, tmp_path: Path) -> None:
    """A builder names files in the upload directory, and no others, nor what is in no folder."""
    guid, droplets = bench.pending(), bench.services.droplets
    secret = tmp_path / "secret"
    secret.write_bytes(BITS)
    (bench.staging.upload_folder / "link").symlink_to(secret)
    for path in (str(secret), str(bench.staging.upload_folder / "link"), "droplet.tgz", "/none"):
        with pytest.raises(BitsPathInvalid):
            bench.claims.droplet(droplets, guid, Claim(path=path), report_of(BITS), BUILDER)
    with pytest.raises(BitsPathInvalid):
        url = Claim(url="s3://bucket/uploads/droplet.tgz")
        bench.claims.droplet(droplets, guid, url, report_of(BITS), BUILDER)
    for nothing in (Claim(), Claim(path="", url="")):
        with pytest.raises(NoBitsInForm):
            bench.claims.droplet(droplets, guid, nothing, report_of(BITS), BUILDER)
    assert secret.read_bytes() == BITS
    assert bench.services.droplets.get(guid).state is DropletState.PENDING


def test_a_second_answer_changes_nothing(bench: Bench) -> None:
    """Another builder was faster: its bits stay what they are."""
    guid = bench.staged()
    late = bench.delivered(OTHERS)
    with pytest.raises(DropletNotWaiting):
        bench.claim(guid, late)
    assert bench.blob_files() == {key_of(guid): BITS}
    assert late.read_bytes() == OTHERS


def test_of_two_answers_at_once_the_first_one_counts(bench: Bench) -> None:
    """Both found the droplet waiting: the bits that are served are those that the log names."""
    guid = bench.pending()
    first, second = (stage_bits(bench.staging, bits) for bits in (BITS, OTHERS))
    bench.processing.accept(guid, first, report_of(BITS), BUILDER)
    with pytest.raises(DropletNotWaiting):
        bench.processing.accept(guid, second, report_of(OTHERS), BUILDER)
    stored = bench.services.droplets.get(guid).stored
    assert stored is not None
    assert bench.blob_files()[stored.key] == BITS


def test_a_droplet_that_is_deleted_meanwhile_leaves_no_bits(bench: Bench) -> None:
    """Its deletion has been seen to already: nobody would remove them before the next sweep."""
    guid = bench.pending()
    bits = stage_bits(bench.staging, BITS)
    bench.services.droplets.delete(guid, BY)
    bench.processing.discard(guid)
    with pytest.raises(DropletNotFound):
        bench.processing.accept(guid, bits, report_of(BITS), BUILDER)
    assert bench.blob_files() == {}


def test_a_log_that_is_away_costs_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is still there when the command is tried again."""
    guid, path = bench.pending(), bench.delivered()

    def away(*arguments: object) -> NoReturn:
        raise OperationalError("the database is away")

    with monkeypatch.context() as patch:
        patch.setattr(bench.services.droplets, "complete", away)
        with pytest.raises(OperationalError):
            bench.claim(guid, path)
    assert path.read_bytes() == BITS
    assert bench.staged_files() == []
    assert bench.claim(guid, path).state is DropletState.STAGED
    assert bench.blob_files() == {key_of(guid): BITS}


# What a report may say ------------------------------------------------------------------------

NAMES = "Process types must be named by letters, digits, _ and -"
COMMANDS = "Commands must be one line of 1 to 4096 characters"


@pytest.mark.parametrize(
    ("types", "faults"),
    [
        ({"web": "run web", "WORKER_1-b": "x" * 4096}, []),
        ({}, []),
        ({f"p{number}": "x" for number in range(100)}, []),
        (
            {f"p{number}": "x" for number in range(101)},
            ["Process types must not be more than 100"],
        ),
        ({"": "x"}, [NAMES]),
        ({"my web": "x", "a:b": "x", "grün": "x", "web\n": "x"}, [NAMES]),
        ({"w" * 255: "x"}, []),
        ({"w" * 256: "x"}, [NAMES]),
        ({"web": ""}, [COMMANDS]),
        ({"web": "x" * 4097}, [COMMANDS]),
        ({"web": "a\nb: c"}, [COMMANDS]),
        ({"web:": "\n"}, [NAMES, COMMANDS]),
    ],
)
def test_process_types_are_lines_of_a_procfile(types: dict[str, str], faults: list[str]) -> None:
    """A name, and a command that fits on one line; each fault is told once."""
    assert faults_of_report(report_of(BITS, types)) == faults


@pytest.mark.parametrize("command", ["a\0b", "a\rb: c"], ids=["NUL", "CR"])
def test_commands_hold_nothing_that_ends_them(command: str) -> None:
    """PostgreSQL keeps no NUL: the read models of all droplets would stand still."""
    assert faults_of_report(report_of(BITS, {"web": command})) == [COMMANDS]


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        ("a" * 40, False), ("A" * 40, True), ("a" * 39, True), ("a" * 41, True), ("", True),
        ("g" * 40, True), ("a" * 40 + "\n", True),
    ],
)  # fmt: skip
def test_a_checksum_is_forty_digits(value: str, wrong: bool) -> None:
    """Lower-case and hexadecimal."""
    sentence = "Sha1 must be 40 lower-case hexadecimal digits"
    assert faults_of_report(BuildReport(value, {}, None)) == ([sentence] if wrong else [])


@pytest.mark.parametrize(
    ("buildpack", "wrong"),
    [(None, False), ("ruby 1.6", False), ("x" * 4096, False), ("x" * 4097, True), ("", True),
     ("a\0b", True)],
)  # fmt: skip
def test_a_buildpack_is_a_short_text(buildpack: str | None, wrong: bool) -> None:
    """Of 1 to 4096 characters that can be kept."""
    assert bool(faults_of_report(BuildReport("a" * 40, {}, buildpack))) == wrong


# What is removed ------------------------------------------------------------------------------


@pytest.fixture
def kept(bench: Bench) -> Iterator[Bench]:
    """A bench, in which another droplet's bits and environment stay whatever happens."""
    other = bench.staged(OTHERS)
    yield bench
    assert bench.blob_files()[key_of(other, OTHERS)] == OTHERS
    assert bench.services.environments.find(f"droplet:{other}") is not None


@pytest.mark.parametrize("end", ["expired", "deleted"])
def test_bits_that_are_no_longer_needed_are_removed(kept: Bench, end: str) -> None:
    """With the environment where the droplet was deleted; once more does no harm."""
    guid, droplets = kept.staged(), kept.services.droplets
    if end == "expired":
        droplets.expire(guid, BY)
    else:
        droplets.delete(guid, BY)
    for _ in range(2):
        kept.processing.discard(guid)
    assert key_of(guid) not in kept.blob_files()
    environment = kept.services.environments.find(f"droplet:{guid}")
    assert (environment is None) == (end == "deleted")


def test_bits_that_are_needed_stay(kept: Bench) -> None:
    """Of a STAGED droplet; and of one that waits, for they are being stored."""
    staged, pending = kept.staged(), kept.pending()
    kept.blobs.store(key_of(pending), stage_bits(kept.staging, BITS))
    for guid in (staged, pending):
        kept.processing.discard(guid)
        assert kept.blob_files()[key_of(guid)] == BITS
        assert kept.services.environments.find(f"droplet:{guid}") is not None
