"""What is deleted takes along what it has; what no builder makes is given up; all of it once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from adapters import follower as follower_module
from adapters import policies as policies_module
from adapters.follower import KeptPosition
from adapters.policies import STAGING_TIMEOUT, Policies, PolicyRules
from adapters.store import Services, Store
from domain.aggregate import Cause, RecordedEvent
from domain.directory import App
from domain.droplet import BuiltDroplet, Droplet, DropletState, StageRequest
from domain.droplet_service import Wanted
from domain.errors import AppNotFound, InvalidRequest, PackageNotFound
from domain.package import Package, PackageState, PackageType
from projections import engine
from projections.directory import DirectoryReadModel
from tests.support.packages import BY, DIGESTS, STAGED, STORED, LocalStore
from tests.support.waiting import eventually

BUILT = BuiltDroplet(STORED, DIGESTS, {"web": "run"}, None)
ADMIN = Cause("admin-1", "request-9")
TIMEOUT = 900.0
KEEP, FEW = PolicyRules(None, None, TIMEOUT), PolicyRules(1, 1, TIMEOUT)


KEEP_ALL = PolicyRules(None, None, TIMEOUT)


@dataclass
class Clock:
    """The time, ahead of the real one by what it is told."""

    ahead: float = 0.0

    def __call__(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.ahead)


@dataclass(frozen=True)
class Bench:
    store: LocalStore
    stack: ExitStack
    clock: Clock = field(default_factory=Clock)

    @property
    def services(self) -> Services:
        return self.store.store.services

    @property
    def kept(self) -> KeptPosition:
        return KeptPosition(self.store.writer, self.store.writing, "policies")

    def make(self, rules: PolicyRules = KEEP) -> Policies:
        store = self.store
        return Policies(
            store.log, self.kept, store.projector, store.packages, store.droplets,
            DirectoryReadModel(store.reader), self.services, rules, self.clock,
        )  # fmt: skip

    def run(self, rules: PolicyRules = KEEP) -> Policies:
        policies = self.make(rules)
        policies.start()
        self.stack.callback(policies.stop, 10)
        return policies

    def settle(self, policies: Policies) -> int:
        """Waits until all is handled, and what follows from it; where the log ends then."""
        eventually(lambda: policies.position == self.store.log.head())
        return self.store.log.head()

    def awaiting(self, app: str = "app-1") -> str:
        return self.services.packages.create(app, PackageType.BITS, None, BY).aggregate.guid

    def ready(self, app: str = "app-1") -> str:
        guid, service = self.awaiting(app), self.services.packages
        service.start_upload(guid, STAGED, "app.zip", BY)
        service.record_stored(guid, STORED, BY)
        service.record_hashes(guid, DIGESTS, BY)
        return guid

    def pending(self, package: str) -> str:
        return self.services.droplets.stage(package, Wanted(), BY).aggregate.guid

    def staged(self, package: str) -> str:
        guid = self.pending(package)
        self.services.droplets.complete(guid, BUILT, BY)
        return guid

    def last(self, guid: str, kind: str = "") -> RecordedEvent:
        """The last event of what has a guid; `kind` tells apart what shares one."""
        events = [entry.event for entry in self.store.log.read(0, 10_000)]
        return [e for e in events if e.guid == guid and e.TOPIC.startswith(kind)][-1]

    def gone(self, *guids: str) -> bool:
        return all(self.last(guid).TOPIC.endswith(".deleted") for guid in guids)

    def causes(self, *guids: str) -> list[tuple[str, str, str | None]]:
        """Who caused each one's last event, in which request, and what had led to it."""
        events = [self.last(guid) for guid in guids]
        return [(event.actor, event.request_id, event.caused_by) for event in events]


@pytest.fixture
def bench(any_store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(follower_module, "PATIENCE", 0.05)
    monkeypatch.setattr(engine, "PATIENCE", 0.05)
    with ExitStack() as stack:
        bench = Bench(LocalStore.of(any_store), stack)
        bench.store.projector.start()
        stack.callback(bench.store.projector.stop, 10)
        yield bench


@pytest.mark.parametrize("late", [False, True], ids=["at once", "when policies start later"])
def test_an_app_that_is_deleted_takes_all_along(bench: Bench, late: bool) -> None:
    """In any state, by whoever deleted the app, because of that; other apps keep theirs."""
    policies = None if late else bench.run()
    ready = bench.ready()
    guids = [bench.pending(ready), bench.staged(ready), bench.awaiting(), ready]
    other = bench.ready("app-2")
    others = [other, bench.staged(other)]
    if policies:
        bench.settle(policies)
    bench.services.directory.delete_app("app-1", ADMIN)
    bench.settle(policies or bench.run())
    assert bench.gone(*guids)
    deleted = bench.last("app-1").event_id
    assert bench.causes(*guids) == [(ADMIN.actor, ADMIN.request_id, deleted)] * 4
    assert not any(bench.gone(guid) for guid in others)


def test_an_announced_app_is_no_other(bench: Bench) -> None:
    """Its own facts make no difference, and an app without anything can be deleted."""
    policies, directory = bench.run(), bench.services.directory
    directory.announce_app("app-1", "shop", None, None, ADMIN)
    directory.announce_app("app-2", "empty", None, None, ADMIN)
    guid = bench.ready()
    bench.settle(policies)
    directory.delete_app("app-1", ADMIN)
    directory.delete_app("app-2", ADMIN)
    bench.settle(policies)
    assert bench.gone(guid, "app-1", "app-2")
    assert bench.causes(guid) == [(ADMIN.actor, ADMIN.request_id, "app-1/2")]


def test_an_apps_environment_is_forgotten(bench: Bench) -> None:
    """It may hold secrets; that of another app stays."""
    environments = bench.services.environments
    for app in ("app-1", "app-2"):
        environments.keep(f"app:{app}", {"SECRET": app})
    bench.services.directory.delete_app("app-1", ADMIN)
    bench.settle(bench.run())
    assert environments.find("app:app-1") is None
    assert environments.find("app:app-2") == {"SECRET": "app-2"}


def test_what_comes_after_its_app_is_deleted(bench: Bench) -> None:
    """It was asked for when the app was still there, and recorded when it no longer was."""
    policies, journal = bench.run(), bench.store.store.journal
    source = bench.ready("app-2")
    bench.services.directory.delete_app("app-1", ADMIN)
    with pytest.raises(AppNotFound):
        bench.awaiting()
    bench.settle(policies)
    journal.save(Package.create("late-1", "app-1", PackageType.BITS, None, BY))
    journal.save(Package.copy(bench.services.packages.get(source), "late-2", "app-1", BY))
    request = StageRequest(1024, 4096, "", None)
    journal.save(Droplet.create("late-3", source, "app-1", request, BY))
    bench.settle(policies)
    assert bench.gone("late-1", "late-2", "late-3")
    causes = bench.causes("late-1", "late-2", "late-3")
    assert causes == [("admin-1", "request-9", "app-1/2")] * 3  # who deleted the app
    assert not bench.gone(source)


def test_a_space_that_is_deleted_takes_its_apps_along(bench: Bench) -> None:
    """And they their packages and droplets; the trail leads back, event by event."""
    policies, directory = bench.run(), bench.services.directory
    directory.announce_space("space-1", "one", None, ADMIN)
    for app, space in (("app-1", "space-1"), ("app-2", "space-1"), ("app-3", "space-2")):
        directory.announce_app(app, app, space, None, ADMIN)
    packages = [bench.ready(app) for app in ("app-1", "app-2", "app-3", "app-4")]
    droplet = bench.staged(packages[0])
    bench.settle(policies)
    directory.delete_space("space-1", Cause("admin-2", "request-10"))
    bench.settle(policies)
    assert bench.gone("app-1", "app-2", packages[0], packages[1], droplet)
    assert not any(bench.gone(guid) for guid in ("app-3", *packages[2:]))
    assert bench.causes("app-1", packages[0], droplet) == [
        ("admin-2", "request-10", "space-1/2"),
        ("admin-2", "request-10", "app-1/2"),
        ("admin-2", "request-10", "app-1/2"),
    ]


def test_an_organization_that_is_deleted_takes_its_spaces_along(bench: Bench) -> None:
    """And so their apps, with all they have; other organizations' stay."""
    policies, directory = bench.run(), bench.services.directory
    for number in ("1", "2"):
        directory.announce_organization(f"org-{number}", number, ADMIN)
        directory.announce_space(f"space-{number}", number, f"org-{number}", ADMIN)
        directory.announce_app(f"app-{number}", number, f"space-{number}", None, ADMIN)
    ours, theirs = bench.ready("app-1"), bench.ready("app-2")
    bench.settle(policies)
    directory.delete_organization("org-1", Cause("admin-2", "request-10"))
    bench.settle(policies)
    assert bench.gone("space-1", "app-1", ours)
    assert not any(bench.gone(guid) for guid in ("org-2", "space-2", "app-2", theirs))
    assert [caused_by for _, _, caused_by in bench.causes("space-1", "app-1", ours)] == [
        "org-1/2", "space-1/2", "app-1/2",
    ]  # fmt: skip
    assert {actor for actor, _, _ in bench.causes("space-1", "app-1", ours)} == {"admin-2"}


def test_what_no_builder_makes_in_time_fails(bench: Bench) -> None:
    """Begun or not; the sentence tells the time. What still has time, or is made, stays."""
    policies, droplets = bench.make(), bench.services.droplets
    package = bench.ready()
    pending, begun, staged = (bench.pending(package) for _ in range(3))
    droplets.start_staging(begun, BY)
    droplets.complete(staged, BUILT, BY)
    eventually(lambda: bench.store.projector.position == bench.store.log.head())
    bench.clock.ahead = TIMEOUT - 60
    policies.give_up_late_droplets()
    assert [droplets.get(guid).state for guid in (pending, begun)] == ["PENDING", "STAGING"]
    bench.clock.ahead = TIMEOUT + 1
    policies.give_up_late_droplets()
    for guid in (pending, begun):
        droplet = droplets.get(guid)
        assert droplet.state is DropletState.FAILED
        assert droplet.error == "Staging timed out: no builder made the droplet in 900 seconds"
        ((actor, _, caused_by),) = bench.causes(guid)
        assert (actor, caused_by) == (STAGING_TIMEOUT, f"{guid}/1")
    assert droplets.get(staged).state is DropletState.STAGED
    head = bench.store.log.head()
    policies.give_up_late_droplets()  # the read models may not know of it yet
    assert bench.store.log.head() == head


def test_late_droplets_are_looked_for_by_itself(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing happens in the log meanwhile; a package that was in use for it is free then."""
    monkeypatch.setattr(policies_module, "LOOK", 0.02)
    policies = bench.run(PolicyRules(1, None, TIMEOUT))
    old = bench.ready()
    droplet, new = bench.pending(old), bench.ready()
    bench.settle(policies)
    packages = bench.services.packages
    assert packages.get(old).state is PackageState.READY
    bench.clock.ahead = TIMEOUT + 1
    eventually(lambda: bench.services.droplets.get(droplet).state is DropletState.FAILED)
    bench.settle(policies)
    assert packages.get(old).state is PackageState.EXPIRED
    assert packages.get(new).state is PackageState.READY


def much(bench: Bench) -> None:
    """Something of everything that policies react to."""
    directory, services = bench.services.directory, bench.services
    directory.announce_organization("org-1", "one", ADMIN)
    directory.announce_space("space-1", "one", "org-1", ADMIN)
    directory.announce_app("app-1", "one", "space-1", None, ADMIN)
    for app in ("app-1", "app-2", "app-3"):
        for _ in range(3):
            newest = bench.ready(app)  # older ones may expire as soon as it is there
            bench.staged(newest)
        bench.pending(newest)
    copy = services.packages.copy(newest, "app-4", BY).aggregate.guid
    services.packages.record_copied(copy, STORED, DIGESTS, BY)
    services.environments.keep("app:app-2", {"A": "b"})
    directory.delete_app("app-2", ADMIN)
    directory.delete_organization("org-1", ADMIN)


def test_handling_everything_again_changes_nothing(bench: Bench) -> None:
    """After a crash, or with a log that was restored, events come again."""
    first = bench.run(FEW)
    much(bench)
    head = bench.settle(first)
    first.stop(10)
    assert bench.kept.load().position == head
    bench.kept.forget()
    assert bench.settle(bench.run(FEW)) == head


def test_an_app_of_a_deleted_space_fares_the_same_the_second_time(bench: Bench) -> None:
    """It was told of late, and is deleted; nothing more is done when events come again."""
    directory, first = bench.services.directory, bench.run()
    directory.announce_space("space-1", "one", None, ADMIN)
    directory.delete_space("space-1", ADMIN)
    bench.settle(first)
    with pytest.raises(InvalidRequest, match="Space 'space-1' was deleted"):
        directory.announce_app("app-1", "late", "space-1", None, ADMIN)
    bench.store.store.journal.save(App.create("app-1", "late", "space-1", None, BY))
    with suppress(AppNotFound, PackageNotFound):  # it may be deleted at any time
        bench.ready("app-1")
    head = bench.settle(first)
    assert bench.gone("app-1")
    first.stop(10)
    bench.kept.forget()
    assert bench.settle(bench.run()) == head


@pytest.mark.slow
def test_a_rebuild_of_the_read_models_changes_nothing(bench: Bench) -> None:
    """Policies run meanwhile, and go on deciding afterwards."""
    policies = bench.run(FEW)
    much(bench)
    head = bench.settle(policies)
    for _ in range(3):
        bench.store.rebuild()
    bench.kept.forget()
    again = bench.run(FEW)
    bench.store.rebuild()
    assert bench.settle(again) == bench.settle(policies) == head
    again.stop(10)
    old, new = bench.ready("app-5"), bench.ready("app-5")
    bench.settle(policies)
    assert bench.services.packages.get(old).state is PackageState.EXPIRED
    assert bench.services.packages.get(new).state is PackageState.READY
