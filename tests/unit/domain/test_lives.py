"""The lives of packages and droplets, driven at random: every command in every state.

Beside each aggregate lives a model of a few lines, which tells what a command does or how it is
refused. The aggregate is what its events make of it, after they have been bytes in the log.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from adapters.event_store.transcoding import EventMapper
from domain.aggregate import Aggregate, Cause
from domain.droplet import BuiltDroplet, Droplet, StageRequest
from domain.errors import (
    BitsAlreadyUploaded,
    DropletNotFound,
    DropletNotStaged,
    DropletNotWaiting,
    PackageNotFailedByUs,
    PackageNotFound,
    PackageNotReady,
    PackageNotStageable,
    PackageTypeNotBits,
    Refusal,
    SourceAppIsDestination,
    SourceNotReady,
)
from domain.package import Digests, Fault, Package, PackageType, StagedBits, StoredBits

Outcome = type[Refusal] | str | None  # how it is refused, the event, or that nothing happens
MAPPER = EventMapper()
TEXT = st.text(max_size=20)
CAUSES = st.builds(Cause, TEXT, TEXT, st.none() | TEXT)
SIZES = st.integers(0, 1 << 50)
HEX = st.text("0123456789abcdef", min_size=40, max_size=40)
STORED = st.builds(StoredBits, TEXT, SIZES)
DIGESTS = st.builds(Digests, HEX, HEX)
STAGED = st.builds(StagedBits, TEXT, SIZES, SIZES)


class Life(RuleBasedStateMachine):
    """What lives of all aggregates have in common."""

    subject: Any
    log: list[Any]

    def begin(self, subject: Aggregate) -> None:
        self.subject = subject
        self.log = []
        self.by: list[Cause] = []

    def command(self, act: Callable[[], object], expected: Outcome, by: Cause) -> None:
        """Carries out a command, and sees that it does what is expected and nothing else."""
        before, version = dict(vars(self.subject)), self.subject.version
        self._collect()
        if isinstance(expected, type):
            with pytest.raises(expected):
                act()
        else:
            act()
        events = self.subject.collect_events()
        names = [type(event).__name__ for event in events]
        assert names == ([expected] if isinstance(expected, str) else [])
        assert self.subject.version == version + len(events)
        if not events:
            assert vars(self.subject) == before, "a refusal changes nothing"
        for event in events:
            assert (event.actor, event.request_id, event.caused_by) == (
                by.actor, by.request_id, by.caused_by,
            )  # fmt: skip
        self._keep(events)

    def _collect(self) -> None:
        self._keep(self.subject.collect_events())

    def _keep(self, events: Any) -> None:
        self.log += [MAPPER.to_stored_event(event) for event in events]

    @invariant()
    def the_log_alone_brings_it_back(self) -> None:
        if not hasattr(self, "subject"):
            return
        self._collect()
        replayed: Any = None
        for stored in self.log:
            event: Any = MAPPER.to_domain_event(stored)
            replayed = event.mutate(replayed)
        assert vars(replayed) == vars(self.subject)
        assert [stored.originator_version for stored in self.log] == list(
            range(1, self.subject.version + 1)
        )


@dataclass
class ModelOfPackage:
    docker: bool = False
    copy: bool = False
    state: str = "AWAITING_UPLOAD"
    ours: bool = False  # whose fault it is that it FAILED
    stored: bool = False
    deleted: bool = False

    @property
    def working(self) -> bool:
        return self.state in ("PROCESSING_UPLOAD", "COPYING")


class LifeOfPackage(Life):
    model: ModelOfPackage
    uploads = 0

    @initialize(by=CAUSES, kind=st.sampled_from(["bits", "bits", "docker", "copy", "docker copy"]))
    def create(self, by: Cause, kind: str) -> None:
        docker, copy = "docker" in kind, "copy" in kind
        url = "registry/image" if docker else None
        type = PackageType.DOCKER if docker else PackageType.BITS
        package = Package.create("guid-1", "app-1", type, url, by)
        self.model = ModelOfPackage(docker, copy)
        if copy:
            if not docker:
                package.start_upload(StagedBits("staging:x", 0, 1), None, by)
                package.record_stored(StoredBits("key", 1), by)
                package.record_hashes(Digests("a", "b"), by)
            package = Package.copy(package, "guid-2", "app-2", by)
            self.model.state = "COPYING"
        if docker:
            self.model.state = "READY"
        self.begin(package)

    def do(self, act: Callable[[], object], expected: Outcome, by: Cause) -> bool:
        """Whether it was done."""
        if self.model.deleted:
            expected = PackageNotFound
        self.command(act, expected, by)
        return isinstance(expected, str)

    @rule(staged=STAGED, name=st.none() | TEXT, by=CAUSES)
    def upload(self, staged: StagedBits, name: str | None, by: Cause) -> None:
        awaits = self.model.state == "AWAITING_UPLOAD"
        outcome: Outcome = "UploadStarted" if awaits else BitsAlreadyUploaded
        if self.model.docker:
            outcome = PackageTypeNotBits
        if self.do(lambda: self.subject.start_upload(staged, name, by), outcome, by):
            self.model.state = "PROCESSING_UPLOAD"
            self.uploads += 1
            assert (self.subject.staged, self.subject.file_name) == (staged, name)

    @rule(stored=STORED, by=CAUSES)
    def record_stored(self, stored: StoredBits, by: Cause) -> None:
        awaited = self.model.working and not self.model.stored
        outcome = "BitsStored" if awaited else None
        if self.do(lambda: self.subject.record_stored(stored, by), outcome, by):
            self.model.stored = True
            assert self.subject.stored == stored

    @rule(digests=DIGESTS, by=CAUSES)
    def record_hashes(self, digests: Digests, by: Cause) -> None:
        awaited = self.model.working and self.model.stored
        outcome = "HashComputed" if awaited else None
        if self.do(lambda: self.subject.record_hashes(digests, by), outcome, by):
            self.model.state = "READY"
            assert self.subject.digests == digests

    @rule(error=TEXT, fault=st.sampled_from(Fault), detail=st.none() | TEXT, by=CAUSES)
    def fail(self, error: str, fault: Fault, detail: str | None, by: Cause) -> None:
        outcome = "ProcessingFailed" if self.model.working else None
        if self.do(lambda: self.subject.fail(error, fault, by, detail), outcome, by):
            self.model.state, self.model.ours = "FAILED", fault is Fault.SERVICE
            assert self.subject.error == error

    @rule(by=CAUSES)
    def resume(self, by: Cause) -> None:
        ours = self.model.state == "FAILED" and self.model.ours
        outcome: Outcome = "ProcessingResumed" if ours else PackageNotFailedByUs
        if self.do(lambda: self.subject.resume(by), outcome, by):
            self.model.state = "COPYING" if self.model.copy else "PROCESSING_UPLOAD"
            assert self.subject.error is None

    @rule(by=CAUSES)
    def stage(self, by: Cause) -> None:
        stageable = self.model.state == "READY" and not self.model.docker
        outcome: Outcome = "StagingRequested" if stageable else PackageNotStageable
        self.do(lambda: self.subject.request_staging("droplet-1", by), outcome, by)

    @rule(by=CAUSES)
    def expire(self, by: Cause) -> None:
        outcome: Outcome = {"READY": "Expired", "EXPIRED": None}.get(
            self.model.state, PackageNotReady
        )
        if self.model.docker:
            outcome = PackageTypeNotBits
        if self.do(lambda: self.subject.expire(by), outcome, by):
            self.model.state = "EXPIRED"

    @precondition(lambda self: self.subject.version > 3)  # or lives would be short
    @rule(by=CAUSES)
    def delete(self, by: Cause) -> None:
        if self.do(lambda: self.subject.delete(by), "Deleted", by):
            self.model.deleted = True

    @rule(app=st.sampled_from(["app-1", "app-2", "app-3"]), by=CAUSES)
    def copy(self, app: str, by: Cause) -> None:
        """The source has no part in it: nothing happens to it, whatever comes of it."""
        source, copies = self.subject, []
        outcome: Outcome = None if self.model.state == "READY" else SourceNotReady
        if app == source.app_guid:
            outcome = SourceAppIsDestination
        self.do(lambda: copies.append(Package.copy(source, "guid-3", app, by)), outcome, by)
        for copy in copies:
            assert (copy.type, copy.url, copy.app_guid) == (source.type, source.url, app)
            assert copy.state == ("READY" if self.model.docker else "COPYING")

    @invariant()
    def it_is_as_the_model_says(self) -> None:
        if not hasattr(self, "model"):
            return
        package, model = self.subject, self.model
        assert (package.state, package.deleted) == (model.state, model.deleted)
        assert (package.stored is not None) == model.stored
        assert self.uploads <= 1
        assert (package.error is None) == (model.state != "FAILED")
        alive = model.working or (model.state == "FAILED" and model.ours)
        assert package.needs_blob == (not model.deleted and (alive or model.state == "READY"))
        assert package.needs_staged_bits == (not model.deleted and alive and self.uploads == 1)


class LifeOfDroplet(Life):
    state = "PENDING"
    deleted = False

    @initialize(by=CAUSES, buildpack=st.none() | TEXT)
    def create(self, by: Cause, buildpack: str | None) -> None:
        request = StageRequest(1024, 4096, "stack", buildpack)
        self.begin(Droplet.create("guid-1", "package-1", "app-1", request, by))

    def do(self, act: Callable[[], object], expected: Outcome, becomes: str, by: Cause) -> None:
        if self.deleted:
            expected = DropletNotFound
        self.command(act, expected, by)
        if isinstance(expected, str):
            self.state = becomes

    @property
    def waits(self) -> bool:
        return self.state in ("PENDING", "STAGING")

    @rule(by=CAUSES)
    def start(self, by: Cause) -> None:
        outcome: Outcome = {"PENDING": "StagingStarted", "STAGING": None}.get(
            self.state, DropletNotWaiting
        )
        self.do(lambda: self.subject.start_staging(by), outcome, "STAGING", by)

    @rule(stored=STORED, digests=DIGESTS, types=st.dictionaries(TEXT, TEXT, max_size=3), by=CAUSES)
    def complete(
        self, stored: StoredBits, digests: Digests, types: dict[str, str], by: Cause
    ) -> None:
        built = BuiltDroplet(stored, digests, types, "procfile")
        outcome: Outcome = "Staged" if self.waits else DropletNotWaiting
        self.do(lambda: self.subject.complete(built, by), outcome, "STAGED", by)

    @rule(error=st.text(max_size=5000), by=CAUSES)
    def fail(self, error: str, by: Cause) -> None:
        outcome: Outcome = "StagingFailed" if self.waits else DropletNotWaiting
        self.do(lambda: self.subject.fail(error, by), outcome, "FAILED", by)

    @rule(by=CAUSES)
    def expire(self, by: Cause) -> None:
        outcome: Outcome = {"STAGED": "Expired", "EXPIRED": None}.get(self.state, DropletNotStaged)
        self.do(lambda: self.subject.expire(by), outcome, "EXPIRED", by)

    @precondition(lambda self: self.subject.version > 2)
    @rule(by=CAUSES)
    def delete(self, by: Cause) -> None:
        self.do(lambda: self.subject.delete(by), "Deleted", self.state, by)
        self.deleted = True

    @invariant()
    def it_is_as_the_model_says(self) -> None:
        if hasattr(self, "subject"):
            assert (self.subject.state, self.subject.deleted) == (self.state, self.deleted)
            assert self.subject.waits_for_builder == (self.waits and not self.deleted)


TestLivesOfPackages = LifeOfPackage.TestCase
TestLivesOfPackages.settings = settings(max_examples=25, stateful_step_count=25)
TestLivesOfDroplets = LifeOfDroplet.TestCase
TestLivesOfDroplets.settings = settings(max_examples=30, stateful_step_count=15)
