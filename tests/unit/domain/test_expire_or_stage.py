"""Retention, and somebody who wants a droplet, at once: the later one decides anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from domain.droplet_service import Wanted
from domain.errors import PackageNotStageable
from domain.package import PackageState, PackageType
from tests.support.packages import BY, DIGESTS, STAGED, STORED, LocalStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    store = LocalStore.open(tmp_path / "log.db")
    yield store
    store.close()


def ready(store: LocalStore) -> str:
    guid = store.service.create("app-1", PackageType.BITS, None, BY).aggregate.guid
    store.service.start_upload(guid, STAGED, None, BY)
    store.service.record_stored(guid, STORED, BY)
    store.service.record_hashes(guid, DIGESTS, BY)
    return guid


def test_a_package_that_is_asked_for_while_it_is_to_expire_stays(store: LocalStore) -> None:
    """The question whether it is in use is asked again, for the package has changed."""
    guid, droplets, asked = ready(store), store.store.services.droplets, []

    def in_use() -> bool:
        asked.append(guid)
        if len(asked) == 1:
            droplets.stage(guid, Wanted(), BY)
            return False  # as it was when it was looked at
        return True

    assert store.service.expire(guid, BY, in_use).position is None
    assert len(asked) == 2
    assert store.service.get(guid).state is PackageState.READY


def test_a_package_that_expires_while_it_is_asked_for_is_refused(store: LocalStore) -> None:
    """No droplet is recorded, and no environment kept for one."""
    guid, services = ready(store), store.store.services
    keep_once = services.environments.keep_once

    def expire_first(*arguments: object) -> object:
        if store.service.get(guid).state is PackageState.READY:
            store.service.expire(guid, BY)
        return keep_once(*arguments)  # type: ignore[arg-type]

    services.environments.keep_once = expire_first  # type: ignore[method-assign, assignment]
    head = store.log.head()
    with pytest.raises(PackageNotStageable):
        services.droplets.stage(guid, Wanted(environment={"A": "b"}), BY)
    assert store.log.head() == head + 1  # it has expired, and nothing else
    assert services.environments.owners("droplet:", 1e12) == []


def test_asking_for_a_droplet_changes_nothing_that_is_shown(store: LocalStore) -> None:
    """The package was not updated."""
    guid = ready(store)
    store.projector.catch_up()
    before = store.packages.find(guid)
    store.store.services.droplets.stage(guid, Wanted(), BY)
    store.projector.catch_up()
    assert store.packages.find(guid) == before
