"""A Cloud Controller that is asked about many apps, and by many at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from adapters import authorization as module
from adapters.authorization import AT_ONCE, Access, AuthorizationAway, ByCloudController
from adapters.http.faults import TooManyApps
from adapters.tokens import Caller
from domain.droplet_service import Wanted
from domain.package import PackageType
from projections.directory import DirectoryReadModel
from tests.support.issuer import JsonServer
from tests.support.packages import BY, DIGESTS, STAGED, STORED, LocalStore
from tests.support.waiting import eventually

CALLER = Caller("user-1", frozenset(), token="a-token")
MAY_WRITE = (200, {"read_basic_data": True, "read_sensitive_data": True})


class CloudController(JsonServer):
    """Lets everybody write to an app, but for what `answers` has."""

    def answer(self, path: str, headers: Mapping[str, str]) -> tuple[int, Any]:
        return self.answers.get(path.split("/")[3], MAY_WRITE)


@pytest.fixture
def controller() -> Iterator[CloudController]:
    with CloudController() as controller:
        yield controller


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    store = LocalStore.open(tmp_path / "packtrail.db")
    yield store
    store.close()


def authorization_by(
    controller: CloudController, store: LocalStore, timeout: float
) -> ByCloudController:
    return ByCloudController(
        controller.url, store.packages, store.droplets, DirectoryReadModel(store.reader), timeout
    )


@pytest.fixture
def authorization(controller: CloudController, store: LocalStore) -> ByCloudController:
    return authorization_by(controller, store, timeout=1.0)


def test_one_that_is_slow_holds_up_only_a_few(
    controller: CloudController, store: LocalStore
) -> None:
    """Threads are left for requests that ask nothing; what is known goes on."""
    authorization = authorization_by(controller, store, timeout=20.0)
    assert authorization.to_app(CALLER, "known") is Access.WRITE
    controller.hold.clear()
    with ThreadPoolExecutor(2 * AT_ONCE) as pool:
        asked = [
            pool.submit(authorization.to_app, CALLER, f"app-{number}")
            for number in range(2 * AT_ONCE)
        ]
        try:
            eventually(lambda: sum(one.done() for one in asked) == AT_ONCE, 3)
            told = [one.exception() for one in asked if one.done()]
            assert all(isinstance(error, AuthorizationAway) for error in told)
            assert authorization.to_app(CALLER, "known") is Access.WRITE
        finally:
            controller.hold.set()
    assert sum(one.exception() is None for one in asked) == AT_ONCE
    assert authorization.to_app(CALLER, "another") is Access.WRITE


def test_an_app_that_has_droplets_alone_is_seen(
    authorization: ByCloudController, store: LocalStore
) -> None:
    """A package that is deleted leaves its droplets."""
    guid = store.service.create("app-1", PackageType.BITS, None, BY).aggregate.guid
    store.service.start_upload(guid, STAGED, "app.zip", BY)
    store.service.record_stored(guid, STORED, BY)
    store.service.record_hashes(guid, DIGESTS, BY)
    store.store.services.droplets.stage(guid, Wanted(), BY)
    store.service.delete(guid, BY)
    store.projector.catch_up()
    assert store.packages.apps(1) == []
    assert authorization.apps_seen(CALLER) == ["app-1"]


def test_more_apps_than_can_be_asked_about_are_refused(
    authorization: ByCloudController, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list that is not whole would be a lie."""
    monkeypatch.setattr(module, "MAX_APPS", 2)
    for app in ("app-1", "app-2"):
        store.service.create(app, PackageType.BITS, None, BY)
    store.projector.catch_up()
    assert authorization.apps_seen(CALLER) == ["app-1", "app-2"]
    store.service.create("app-3", PackageType.BITS, None, BY)
    store.projector.catch_up()
    with pytest.raises(TooManyApps):
        authorization.apps_seen(CALLER)
    assert authorization.apps_seen(CALLER, lambda most: ["app-3", "app-3"]) == ["app-3"]
    with pytest.raises(TooManyApps):
        authorization.apps_seen(CALLER, lambda most: [f"app-{n}" for n in range(most)])


def test_only_so_many_answers_are_kept(
    controller: CloudController,
    authorization: ByCloudController,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The oldest goes first."""
    monkeypatch.setattr(module, "REMEMBERED", 2)
    for app in ("app-1", "app-2", "app-2", "app-3", "app-2", "app-1"):
        authorization.to_app(CALLER, app)
    asked = [path.split("/")[3] for path, _ in controller.asked]
    assert asked == ["app-1", "app-2", "app-3", "app-1"]
