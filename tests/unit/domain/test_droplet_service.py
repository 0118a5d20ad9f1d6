"""Staging is asked for: refusals in the contract's order, limits, environment, and keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from adapters.store import Rules, Services, open_sqlite
from domain.aggregate import Cause
from domain.directory import App
from domain.droplet import BuiltDroplet, Droplet, DropletState
from domain.droplet_service import DropletService, StagingRules, Wanted
from domain.errors import (
    AppNotFound,
    DropletNotFound,
    DropletNotWaiting,
    InvalidRequest,
    KeyReused,
    PackageNotFound,
    PackageNotStageable,
    StagingLimitExceeded,
)
from domain.journal import Journal
from domain.package import PackageType
from domain.ports import Environments
from tests.support.packages import BY, DIGESTS, STAGED, STORED, LocalStore

RULES = StagingRules("stack-1", 2048, 8192, frozenset({"ruby", "go"}))
OTHER = Cause("user-2", "request-2")
BUILT = BuiltDroplet(STORED, DIGESTS, {"web": "run"}, "ruby 1.6")


def opened(path: Path, registered: bool = False, rules: StagingRules = RULES) -> LocalStore:
    return LocalStore.of(open_sqlite(path, Rules(registered, staging=rules)), path)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    store = opened(tmp_path / "log.db")
    yield store
    store.close()


@pytest.fixture
def services(store: LocalStore) -> Services:
    return store.store.services


@pytest.fixture
def registered(tmp_path: Path) -> Iterator[LocalStore]:
    """Where only apps that were announced exist."""
    store = opened(tmp_path / "registered.db", registered=True)
    yield store
    store.close()


def awaiting(services: Services) -> str:
    return services.packages.create("app-1", PackageType.BITS, None, BY).aggregate.guid


def docker(services: Services) -> str:
    return services.packages.create("app-1", PackageType.DOCKER, "image:1", BY).aggregate.guid


def ready(services: Services, app: str = "app-1") -> str:
    guid = services.packages.create(app, PackageType.BITS, None, BY).aggregate.guid
    services.packages.start_upload(guid, STAGED, "app.zip", BY)
    services.packages.record_stored(guid, STORED, BY)
    services.packages.record_hashes(guid, DIGESTS, BY)
    return guid


def deleted(services: Services) -> str:
    guid = ready(services)
    services.packages.delete(guid, BY)
    return guid


def stage(services: Services, package: str, key: str | None = None, **wanted: Any) -> Droplet:
    return services.droplets.stage(package, Wanted(**wanted), BY, key).aggregate


def environment(services: Services, droplet: Droplet) -> dict[str, Any]:
    kept = services.environments.find(Droplet.ID_PREFIX + droplet.guid)
    assert kept is not None
    return kept


WRONG: dict[str, Any] = {"buildpack": "java", "memory_limit": 9999, "disk_limit": 9999}
LIMITS: dict[str, Any] = {"memory_limit": 9999, "disk_limit": 9999}


@pytest.mark.parametrize(
    ("package", "wanted", "refusal"),
    [
        (lambda services: "nobody", WRONG, PackageNotFound),
        (deleted, WRONG, PackageNotFound),
        (awaiting, WRONG, InvalidRequest),
        (docker, WRONG, InvalidRequest),
        (ready, WRONG, InvalidRequest),
        (awaiting, LIMITS, PackageNotStageable),
        (docker, LIMITS, PackageNotStageable),
        (ready, LIMITS, StagingLimitExceeded),
    ],
)
def test_the_first_reason_in_the_contracts_order_refuses(
    store: LocalStore,
    services: Services,
    package: Callable[[Services], str],
    wanted: dict[str, Any],
    refusal: type[Exception],
) -> None:
    """Package, buildpack, state, type, limits; nothing is recorded, and no environment kept."""
    guid = package(services)
    before = store.log.head()
    with pytest.raises(refusal):
        stage(services, guid, **wanted)
    assert store.log.head() == before
    assert services.environments.owners(Droplet.ID_PREFIX, 1e12) == []


def test_a_package_that_cant_be_staged_says_what_it_is(services: Services) -> None:
    """Its state comes before its type: a docker package is READY, and has no bits."""
    for guid, found in ((awaiting(services), "AWAITING_UPLOAD"), (docker(services), "docker")):
        with pytest.raises(PackageNotStageable) as refused:
            stage(services, guid)
        assert (refused.value.guid, refused.value.found) == (guid, found)


@pytest.mark.parametrize(
    ("wanted", "what"),
    [
        ({"memory_limit": 2049, "disk_limit": 9999}, "memory"),
        ({"memory_limit": 2049}, "memory"),
        ({"memory_limit": 2048, "disk_limit": 8193}, "disk"),
        ({"memory_limit": 10**30}, "memory"),
    ],
)
def test_limits_are_limited(services: Services, wanted: dict[str, Any], what: str) -> None:
    """Memory is looked at before disk."""
    with pytest.raises(StagingLimitExceeded) as refused:
        stage(services, ready(services), **wanted)
    assert refused.value.what == what


@pytest.mark.parametrize(
    ("memory", "disk", "given"),
    [
        (None, None, (1024, 4096)),
        (1, 4095, (1024, 4096)),
        (0, -5, (1024, 4096)),
        (1025, 4097, (1025, 4097)),
        (2048, 8192, (2048, 8192)),
    ],
)
def test_limits_are_raised_to_the_least(
    services: Services, memory: int | None, disk: int | None, given: tuple[int, int]
) -> None:
    """1024 and 4096 MiB; the maximum itself passes."""
    droplet = stage(services, ready(services), memory_limit=memory, disk_limit=disk)
    assert (droplet.request.memory_limit, droplet.request.disk_limit) == given
    kept = environment(services, droplet)
    assert kept["MEMORY_LIMIT"] == given[0]
    assert kept["VCAP_APPLICATION"]["limits"] == {"mem": given[0], "disk": given[1], "fds": 16384}


def test_what_a_request_says_comes_before_what_is_usual(services: Services) -> None:
    """Stack and buildpack: the request's, else the service's and the app's."""
    services.directory.announce_app("app-1", "one", None, "ruby", BY)
    package = ready(services)
    usual = stage(services, package)
    assert (usual.request.stack, usual.buildpack) == ("stack-1", "ruby")
    said = stage(services, package, stack="stack-2", buildpack="go")
    assert (said.request.stack, said.buildpack) == ("stack-2", "go")
    assert environment(services, said)["CF_STACK"] == "stack-2"


def test_the_apps_buildpack_is_checked_too(services: Services) -> None:
    """It may be one that is not known here (any more)."""
    services.directory.announce_app("app-1", "one", None, "java", BY)
    package = ready(services)
    with pytest.raises(InvalidRequest) as refused:
        stage(services, package)
    assert refused.value.faults == [
        "Buildpack must be one of 'go, ruby' or the URL of a git repository"
    ]
    assert stage(services, package, buildpack="ruby").buildpack == "ruby"


def test_of_an_environment_what_comes_later_wins(services: Services) -> None:
    """The app's, the request's, then what the service sets."""
    services.directory.announce_space("space-1", "a space", None, BY)
    services.directory.announce_app("app-1", "one", "space-1", None, BY)
    services.environments.keep(
        App.ID_PREFIX + "app-1", {"A": "app", "B": "app", "MEMORY_LIMIT": "app", "CF_STACK": "app"}
    )
    wanted = {"B": "request", "C": {"nested": [1, None]}, "MEMORY_LIMIT": "request"}
    droplet = stage(services, ready(services), environment=wanted)
    kept = environment(services, droplet)
    application = kept.pop("VCAP_APPLICATION")
    assert kept == {
        "A": "app", "B": "request", "C": {"nested": [1, None]},
        "MEMORY_LIMIT": 1024, "CF_STACK": "stack-1", "VCAP_SERVICES": {},
    }  # fmt: skip
    assert (application["application_id"], application["name"]) == ("app-1", "one")
    assert (application["space_id"], application["space_name"]) == ("space-1", "a space")


def test_no_value_of_an_environment_is_in_the_log(store: LocalStore, services: Services) -> None:
    """They may be secrets, which no event holds; nor does any hold their names."""
    services.environments.keep(App.ID_PREFIX + "app-1", {"APP_NAME": "app's secret"})
    droplet = stage(services, ready(services), environment={"REQUEST_NAME": "request's secret"})
    kept = environment(services, droplet)
    assert (kept["APP_NAME"], kept["REQUEST_NAME"]) == ("app's secret", "request's secret")
    recorded = store.store.recorder.records(0, 100)
    assert b"stack-1" in b"".join(entry.state for entry in recorded)
    for text in (b"secret", b"APP_NAME", b"REQUEST_NAME"):
        assert not any(text in entry.state for entry in recorded)


def test_a_repeated_request_finds_its_droplet(store: LocalStore, services: Services) -> None:
    """By its key, as it began, whatever happened since; one droplet, with one environment."""
    package = ready(services)
    wanted = Wanted(environment={"A": "1"}, buildpack="ruby", memory_limit=5, stack="s")
    first = services.droplets.stage(package, wanted, BY, "key-1").aggregate
    kept = environment(services, first)
    services.droplets.complete(first.guid, BUILT, BY)
    services.packages.delete(package, BY)
    head = store.log.head()
    again = services.droplets.stage(package, wanted, BY, "key-1")
    assert (again.aggregate.guid, again.aggregate.state) == (first.guid, DropletState.PENDING)
    assert (again.position, store.log.head()) == (None, head)
    assert environment(services, first) == kept


@pytest.mark.parametrize("name", ["A", "MEMORY_LIMIT"])
def test_a_repeated_request_is_the_same_whatever_it_sets(services: Services, name: str) -> None:
    """Also a variable that the service itself sets afterwards."""
    package = ready(services)
    wanted = {"environment": {name: "mine"}}
    first = stage(services, package, "key-1", **wanted)
    assert stage(services, package, "key-1", **wanted).guid == first.guid


def test_a_repeated_request_finds_its_deleted_droplet(services: Services) -> None:
    """Also when its environment is gone, as a deleted droplet's is."""
    package, wanted = ready(services), {"environment": {"A": "1"}}
    first = stage(services, package, "key-1", **wanted)
    services.droplets.delete(first.guid, BY)
    services.environments.forget(first.id)
    assert stage(services, package, "key-1", **wanted).guid == first.guid


SAID: dict[str, Any] = {
    "environment": {"A": "1"}, "buildpack": "ruby", "stack": "s",
    "memory_limit": 1500, "disk_limit": 5000,
}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"environment": {"A": "2"}},
        {"environment": {"A": "1", "B": "1"}},
        {"environment": {}},
        {"buildpack": "go"},
        {"buildpack": None},
        {"stack": "t"},
        {"stack": None},
        {"memory_limit": 1501},
        {"memory_limit": None},
        {"disk_limit": 5001},
        {"disk_limit": None},
    ],
    ids=repr,
)
def test_a_key_is_for_one_request(
    store: LocalStore, services: Services, change: dict[str, Any]
) -> None:
    """Another request with it is refused, and changes nothing: not the environment, either."""
    package = ready(services)
    first = stage(services, package, "key-1", **SAID)
    kept, head = environment(services, first), store.log.head()
    with pytest.raises(KeyReused):
        stage(services, package, "key-1", **(SAID | change))
    assert (environment(services, first), store.log.head()) == (kept, head)


def test_a_key_is_for_one_package_and_one_user(services: Services) -> None:
    """Of another package it is refused; another user's same key is another key."""
    package, other = ready(services), ready(services)
    first = stage(services, package, "key-1")
    with pytest.raises(KeyReused):
        stage(services, other, "key-1")
    theirs = services.droplets.stage(package, Wanted(), OTHER, "key-1").aggregate
    assert theirs.guid != first.guid


def test_a_package_and_a_droplet_of_one_key_are_two(services: Services) -> None:
    """Neither is refused for the other, and their guids differ."""
    created = services.packages.create("app-1", PackageType.BITS, None, BY, "key-1").aggregate
    droplet = stage(services, ready(services), "key-1")
    assert droplet.guid != created.guid
    again = services.packages.create("app-1", PackageType.BITS, None, BY, "key-1").aggregate
    assert again.guid == created.guid


class InterruptedEnvironments:
    """Lets something happen right before the next environment is kept."""

    def __init__(self, kept: Environments, interrupt: Callable[[], object]) -> None:
        self._kept = kept
        self._interrupt: Callable[[], object] | None = interrupt
        self.keep, self.find, self.forget = kept.keep, kept.find, kept.forget
        self.request = kept.request

    def keep_once(
        self, owner: str, variables: Mapping[str, Any], request: Mapping[str, Any]
    ) -> dict[str, Any]:
        interrupt, self._interrupt = self._interrupt, None
        if interrupt is not None:
            interrupt()
        return self._kept.keep_once(owner, variables, request)


def test_of_two_requests_with_one_key_at_once_the_first_stands(
    store: LocalStore, services: Services
) -> None:
    """The other one is refused, and the droplet keeps the environment of its own request."""
    package = ready(services)
    first: list[Droplet] = []

    def interrupt() -> None:
        first.append(stage(services, package, "key-1", environment={"A": "first"}))

    late = DropletService(
        Journal(store.store.events, store.log), services.packages, services.directory,
        InterruptedEnvironments(services.environments, interrupt), RULES,
    )  # fmt: skip
    with pytest.raises(KeyReused):
        late.stage(package, Wanted(environment={"A": "second"}), BY, "key-1")
    assert environment(services, first[0])["A"] == "first"


def test_a_builders_answers_reach_the_droplet(services: Services) -> None:
    """Begun, staged, expired, deleted; what is unknown or deleted is not found."""
    guid = stage(services, ready(services)).guid
    services.droplets.check_waiting(guid)
    assert services.droplets.start_staging(guid, BY).aggregate.state is DropletState.STAGING
    assert services.droplets.start_staging(guid, BY).position is None
    assert services.droplets.complete(guid, BUILT, BY).aggregate.stored == STORED
    with pytest.raises(DropletNotWaiting):
        services.droplets.fail(guid, "too late", BY)
    assert services.droplets.expire(guid, BY).aggregate.state is DropletState.EXPIRED
    services.droplets.delete(guid, BY)
    assert services.droplets.load(guid).deleted
    for unknown in (guid, "nobody"):
        with pytest.raises(DropletNotFound):
            services.droplets.delete(unknown, BY)


def test_a_droplet_outlives_its_package(services: Services) -> None:
    """Its package may be deleted before a builder answers."""
    package = ready(services)
    guid = stage(services, package).guid
    services.packages.delete(package, BY)
    assert services.droplets.complete(guid, BUILT, BY).aggregate.state is DropletState.STAGED


def test_registered_apps_alone_have_packages(registered: LocalStore) -> None:
    """An app that nobody announced is not found, to create for or to copy to."""
    services = registered.store.services
    with pytest.raises(AppNotFound):
        awaiting(services)
    services.directory.announce_app("app-1", "one", None, None, BY)
    source = ready(services)
    with pytest.raises(AppNotFound) as refused:
        services.packages.copy(source, "app-2", BY)
    assert refused.value.guid == "app-2"
    services.directory.announce_app("app-2", "two", None, None, BY)
    assert services.packages.copy(source, "app-2", BY).aggregate.app_guid == "app-2"


def test_a_deleted_app_gets_no_packages(store: LocalStore, services: Services) -> None:
    """Whether it was announced or not; the app comes before the source of a copy."""
    services.directory.announce_app("app-1", "one", None, None, BY)
    for app in ("app-1", "app-2"):
        services.directory.delete_app(app, BY)
        head = store.log.head()
        with pytest.raises(AppNotFound):
            services.packages.create(app, PackageType.BITS, None, BY)
        with pytest.raises(AppNotFound):
            services.packages.copy("nobody", app, BY)
        assert store.log.head() == head
