"""Retention: of what an app has the newest stay, and what is in use stays until it is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from adapters import follower as follower_module
from adapters import policies as policies_module
from adapters.follower import KeptPosition
from adapters.policies import RETENTION, Policies, PolicyRules
from adapters.store import Store
from domain.aggregate import Cause, RecordedEvent
from domain.droplet import BuiltDroplet
from domain.droplet_service import DropletService, Wanted
from domain.errors import Refusal
from domain.package import Fault, PackageType
from projections import engine
from projections.directory import DirectoryReadModel
from tests.support.packages import BY, DIGESTS, STAGED, STORED, LocalStore
from tests.support.waiting import eventually

BUILT = BuiltDroplet(STORED, DIGESTS, {"web": "run"}, None)
ALL = PolicyRules(None, None)
Step = Callable[[DropletService, str], object]


@dataclass(frozen=True)
class Bench:
    store: LocalStore
    stack: ExitStack

    @property
    def droplets(self) -> DropletService:
        return self.store.store.services.droplets

    @property
    def kept(self) -> KeptPosition:
        return KeptPosition(self.store.writer, self.store.writing, "policies")

    def project(self) -> None:
        """The read models follow from now on."""
        self.store.projector.start()
        self.stack.callback(self.store.projector.stop, 10)

    def start(self, rules: PolicyRules) -> Policies:
        store = self.store
        policies = Policies(
            store.log, self.kept, store.projector, store.packages, store.droplets,
            DirectoryReadModel(store.reader), store.store.services, rules,
        )  # fmt: skip
        policies.start()
        self.stack.callback(policies.stop, 10)
        return policies

    def run(self, rules: PolicyRules) -> Policies:
        """All of it runs."""
        self.project()
        return self.start(rules)

    def settle(self, policies: Policies) -> int:
        """Waits until all is handled, and what follows from it; where the log ends then."""
        eventually(lambda: policies.position == self.store.log.head())
        return self.store.log.head()

    def ready(self, app: str = "app-1", request: str = "request-1") -> str:
        service, by = self.store.service, Cause("user-1", request)
        guid = service.create(app, PackageType.BITS, None, by).aggregate.guid
        service.start_upload(guid, STAGED, "app.zip", by)
        service.record_stored(guid, STORED, by)
        service.record_hashes(guid, DIGESTS, by)
        return guid

    def pending(self, package: str) -> str:
        return self.droplets.stage(package, Wanted(), BY).aggregate.guid

    def staged(self, package: str, request: str = "request-1") -> str:
        guid = self.pending(package)
        self.droplets.complete(guid, BUILT, Cause("builder-1", request))
        return guid

    def state(self, guid: str) -> str:
        """Of a package or a droplet, as the log has it."""
        try:
            return str(self.store.service.get(guid).state)
        except Refusal:
            return str(self.droplets.get(guid).state)

    def states(self, *guids: str) -> list[str]:
        return [self.state(guid) for guid in guids]

    def last(self, guid: str) -> RecordedEvent:
        events = [entry.event for entry in self.store.log.read(0, 10_000)]
        return [event for event in events if event.guid == guid][-1]


@pytest.fixture
def bench(any_store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(follower_module, "PATIENCE", 0.05)
    monkeypatch.setattr(engine, "PATIENCE", 0.05)
    with ExitStack() as stack:
        yield Bench(LocalStore.of(any_store), stack)


def test_the_newest_packages_stay(bench: Bench) -> None:
    """Of each app as many as are kept; the others expire, the oldest first."""
    policies = bench.run(PolicyRules(2, None))
    other = bench.ready("app-2")
    guids = [bench.ready() for _ in range(5)]
    bench.settle(policies)
    assert bench.states(*guids) == ["EXPIRED"] * 3 + ["READY"] * 2
    assert bench.state(other) == "READY"


def test_the_newest_droplets_stay(bench: Bench) -> None:
    """As with packages, by themselves: the number of one says nothing of the other."""
    policies = bench.run(PolicyRules(None, 2))
    package, other = bench.ready(), bench.ready("app-2")
    of_other = bench.staged(other)
    guids = [bench.staged(package) for _ in range(5)]
    bench.settle(policies)
    assert bench.states(*guids) == ["EXPIRED"] * 3 + ["STAGED"] * 2
    assert bench.states(of_other, package, other) == ["STAGED", "READY", "READY"]


def test_the_trail_tells_why_a_package_expired(bench: Bench) -> None:
    """Retention did it, because of the event that was one too many, in that one's request."""
    policies = bench.run(PolicyRules(1, None))
    old = bench.ready()
    bench.settle(policies)
    new = bench.ready(request="request-9")
    bench.settle(policies)
    expired = bench.last(old)
    assert expired.TOPIC == "package.expired"
    assert (expired.actor, expired.request_id, expired.caused_by) == (
        RETENTION, "request-9", f"{new}/4",
    )  # fmt: skip


def test_the_trail_tells_why_a_droplet_expired(bench: Bench) -> None:
    """As with packages."""
    policies = bench.run(PolicyRules(None, 1))
    package = bench.ready()
    old = bench.staged(package)
    bench.settle(policies)
    new = bench.staged(package, "request-9")
    bench.settle(policies)
    expired = bench.last(old)
    assert expired.TOPIC == "droplet.expired"
    assert (expired.actor, expired.request_id, expired.caused_by) == (
        RETENTION, "request-9", f"{new}/2",
    )  # fmt: skip
    assert RETENTION == "packtrail.retention"


def test_none_keeps_all(bench: Bench) -> None:
    """Of either."""
    policies = bench.run(ALL)
    packages = [bench.ready() for _ in range(7)]
    droplets = [bench.staged(packages[0]) for _ in range(7)]
    bench.settle(policies)
    assert bench.states(*packages) == ["READY"] * 7
    assert bench.states(*droplets) == ["STAGED"] * 7


def test_what_has_no_bits_is_not_counted(bench: Bench) -> None:
    """Docker packages, those that wait for bits, and those that failed: nor do they expire."""
    policies = bench.run(PolicyRules(1, None))
    service = bench.store.service
    first = bench.ready()
    images = [
        service.create("app-1", PackageType.DOCKER, "image", BY).aggregate.guid for _ in range(3)
    ]
    awaiting = service.create("app-1", PackageType.BITS, None, BY).aggregate.guid
    failed = service.create("app-1", PackageType.BITS, None, BY).aggregate.guid
    service.start_upload(failed, STAGED, None, BY)
    service.fail(failed, "no zip", Fault.BITS, BY)
    bench.settle(policies)
    assert bench.states(first, *images, awaiting, failed) == [
        *["READY"] * 4, "AWAITING_UPLOAD", "FAILED",
    ]  # fmt: skip
    second = bench.ready()
    bench.settle(policies)
    assert bench.states(first, second, *images) == ["EXPIRED", *["READY"] * 4]


def test_only_staged_droplets_are_counted(bench: Bench) -> None:
    """What waits for a builder, or failed, takes no other's place, and does not expire."""
    policies = bench.run(PolicyRules(None, 1))
    package = bench.ready()
    staged = bench.staged(package)
    pending, begun, failed = (bench.pending(package) for _ in range(3))
    bench.droplets.start_staging(begun, BY)
    bench.droplets.fail(failed, "no buildpack fits", BY)
    bench.settle(policies)
    assert bench.states(staged, pending, begun, failed) == [
        "STAGED", "PENDING", "STAGING", "FAILED",
    ]  # fmt: skip


def complete(service: DropletService, guid: str) -> None:
    service.complete(guid, BUILT, BY)


def fail(service: DropletService, guid: str) -> None:
    service.fail(guid, "no buildpack fits", BY)


def delete(service: DropletService, guid: str) -> None:
    service.delete(guid, BY)


@pytest.mark.parametrize("end", [complete, fail, delete])
@pytest.mark.parametrize("begun", [False, True], ids=["pending", "staging"])
def test_a_package_that_is_being_staged_stays(bench: Bench, begun: bool, end: Step) -> None:
    """Until its droplet is made, failed or deleted; then it expires without being asked."""
    policies = bench.run(PolicyRules(1, None))
    old = bench.ready()
    droplet = bench.pending(old)
    if begun:
        bench.droplets.start_staging(droplet, BY)
    new = bench.ready()
    bench.settle(policies)
    assert bench.states(old, new) == ["READY", "READY"]
    end(bench.droplets, droplet)
    bench.settle(policies)
    assert bench.states(old, new) == ["EXPIRED", "READY"]


@pytest.mark.parametrize("end", ["copied", "failed", "deleted"])
def test_a_package_that_is_being_copied_stays(bench: Bench, end: str) -> None:
    """Until the copy has its bits, or needs them no more; then it expires without being asked."""
    policies, service = bench.run(PolicyRules(1, None)), bench.store.service
    old = bench.ready()
    copy = service.copy(old, "app-2", BY).aggregate.guid
    new = bench.ready()
    bench.settle(policies)
    assert bench.states(old, new, copy) == ["READY", "READY", "COPYING"]
    if end == "copied":
        service.record_copied(copy, STORED, DIGESTS, BY)
    elif end == "failed":
        service.fail(copy, "failed to copy", Fault.BITS, BY)
    else:
        service.delete(copy, BY)
    bench.settle(policies)
    assert bench.states(old, new) == ["EXPIRED", "READY"]
    if end == "copied":
        assert bench.state(copy) == "READY"


def test_a_copy_counts_where_it_is(bench: Bench) -> None:
    """It takes the place of an older package of its own app, and not of its source's."""
    policies, service = bench.run(PolicyRules(1, None)), bench.store.service
    theirs, source = bench.ready("app-2"), bench.ready()
    copy = service.copy(source, "app-2", BY).aggregate.guid
    service.record_copied(copy, STORED, DIGESTS, BY)
    bench.settle(policies)
    assert bench.states(theirs, source, copy) == ["EXPIRED", "READY", "READY"]


def test_a_source_that_is_gone_is_no_matter(bench: Bench) -> None:
    """The copy outlives it, and what follows is handled all the same."""
    policies, service = bench.run(PolicyRules(1, 1)), bench.store.service
    source = bench.ready()
    copy = service.copy(source, "app-2", BY).aggregate.guid
    service.delete(source, BY)
    service.record_copied(copy, STORED, DIGESTS, BY)
    bench.settle(policies)
    assert bench.state(copy) == "READY"
    assert not policies.failed


def test_what_was_there_before_the_policies_is_retained_too(bench: Bench) -> None:
    """They begin at the beginning of the log, and decide on what there is now."""
    guids = [bench.ready() for _ in range(4)]
    in_use = bench.pending(guids[0])
    bench.settle(bench.run(PolicyRules(2, None)))
    assert bench.states(*guids, in_use) == ["READY", "EXPIRED", "READY", "READY", "PENDING"]


def test_nothing_is_decided_on_read_models_that_are_behind(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They do not know yet that a package is in use: policies wait, and then know it."""
    monkeypatch.setattr(policies_module, "CATCH_UP", 0.02)
    old, new = bench.ready(), bench.ready()
    bench.store.projector.catch_up()
    droplet = bench.pending(old)
    head = bench.store.log.head()
    policies = bench.start(PolicyRules(1, None))
    eventually(lambda: "NotLevel" in caplog.text)
    assert policies.failed
    assert (policies.position, bench.store.log.head()) == (0, head)
    bench.project()
    bench.settle(policies)
    assert bench.states(old, new) == ["READY", "READY"]
    fail(bench.droplets, droplet)
    bench.settle(policies)
    assert bench.states(old, new) == ["EXPIRED", "READY"]
    eventually(lambda: not policies.failed)
