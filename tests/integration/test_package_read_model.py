"""The read model of packages: a row for each, as its aggregate has it, in creation order."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from adapters.store import Store
from domain.droplet_service import Wanted
from domain.package import Digests, Fault, PackageState, PackageType, StoredBits
from domain.package_service import PackageService
from projections.packages import PackageRow
from projections.representation import view_of
from tests.support.packages import BY, DIGESTS, STAGED, STORED, LocalStore

Command = Callable[[PackageService, str], object]


@pytest.fixture
def store(any_store: Store) -> LocalStore:
    return LocalStore.of(any_store)


def new(store: LocalStore, app: str = "app-1") -> str:
    return store.service.create(app, PackageType.BITS, None, BY).aggregate.guid


def upload(service: PackageService, guid: str) -> None:
    service.start_upload(guid, STAGED, "app.zip", BY)


def record_stored(service: PackageService, guid: str) -> None:
    service.record_stored(guid, STORED, BY)


def record_hashes(service: PackageService, guid: str) -> None:
    service.record_hashes(guid, DIGESTS, BY)


def fail_by_bits(service: PackageService, guid: str) -> None:
    service.fail(guid, "no zip", Fault.BITS, BY)


def fail_by_us(service: PackageService, guid: str) -> None:
    service.fail(guid, "our fault", Fault.SERVICE, BY, "RuntimeError: x")


def resume(service: PackageService, guid: str) -> None:
    service.resume(guid, BY)


def expire(service: PackageService, guid: str) -> None:
    service.expire(guid, BY)


def ready(store: LocalStore, app: str = "app-1") -> str:
    guid = new(store, app)
    for command in (upload, record_stored, record_hashes):
        command(store.service, guid)
    return guid


def row_of(store: LocalStore, guid: str) -> PackageRow:
    store.projector.catch_up()
    row = store.packages.find(guid)
    assert row is not None
    return row


def request_staging(store: LocalStore, guid: str) -> None:
    store.store.services.droplets.stage(guid, Wanted(), BY)


LIVES: dict[str, list[Command]] = {
    "ready and expired": [upload, record_stored, record_hashes, expire],
    "failed by its bits": [upload, fail_by_bits],
    "failed by us, resumed, ready": [upload, fail_by_us, resume, record_stored, record_hashes],
}


@pytest.mark.parametrize("batch", ["one by one", "all at once"])
@pytest.mark.parametrize("life", LIVES)
def test_the_row_says_what_the_aggregate_says(store: LocalStore, life: str, batch: str) -> None:
    """Through a whole life, in one batch or in many, both show the same package."""
    guid = new(store)
    for command in LIVES[life]:
        command(store.service, guid)
        if batch == "one by one":
            assert row_of(store, guid).view == view_of(store.service.load(guid))
    assert row_of(store, guid).view == view_of(store.service.load(guid))


def test_a_package_of_which_a_droplet_was_asked_is_shown_as_before(store: LocalStore) -> None:
    """That is the droplet's matter: also when the package was updated stays what it was."""
    guid = ready(store)
    before = row_of(store, guid).view
    request_staging(store, guid)
    assert row_of(store, guid).view == view_of(store.service.load(guid)) == before


def test_a_new_package_awaits_its_bits(store: LocalStore) -> None:
    """It has no error, no checksum, no blob, and was never updated."""
    row = row_of(store, new(store))
    assert (row.view.state, row.view.error, row.view.sha1, row.view.updated_at) == (
        PackageState.AWAITING_UPLOAD, None, None, None,
    )  # fmt: skip
    assert (row.sha256, row.file_name, row.blob_key, row.size) == (None, None, None, None)


def test_a_ready_package_can_be_downloaded(store: LocalStore) -> None:
    """The row has the blob, its size, the file's name and both checksums."""
    row = row_of(store, ready(store))
    assert (row.view.state, row.view.sha1) == (PackageState.READY, DIGESTS.sha1)
    assert (row.sha256, row.file_name, row.blob_key, row.size) == (
        DIGESTS.sha256, "app.zip", STORED.key, STORED.size,
    )  # fmt: skip


def test_an_expired_package_names_no_blob(store: LocalStore) -> None:
    """Its bits may be removed, its checksum is still shown."""
    guid = ready(store)
    store.service.expire(guid, BY)
    row = row_of(store, guid)
    assert (row.view.state, row.blob_key, row.view.sha1) == ("EXPIRED", None, DIGESTS.sha1)
    assert store.packages.blobs_named([STORED.key]) == set()


def test_a_resumed_package_shows_no_error(store: LocalStore) -> None:
    """The old failure is history."""
    guid = new(store)
    upload(store.service, guid)
    fail_by_us(store.service, guid)
    assert row_of(store, guid).view.error == "our fault"
    resume(store.service, guid)
    assert row_of(store, guid).view.error is None


def test_a_copy_has_a_row_of_its_own(store: LocalStore) -> None:
    """COPYING, for the other app, under its source's file name; resumed, it is COPYING again."""
    copy = store.service.copy(ready(store), "app-2", BY).aggregate.guid
    row = row_of(store, copy)
    assert (row.view.state, row.view.app_guid, row.file_name) == ("COPYING", "app-2", "app.zip")
    fail_by_us(store.service, copy)
    resume(store.service, copy)
    assert row_of(store, copy).view == view_of(store.service.load(copy))


@pytest.mark.parametrize("copied", [False, True])
def test_a_docker_package_is_ready_at_once(store: LocalStore, copied: bool) -> None:
    """Created or copied, it shows its image."""
    guid = store.service.create("app-1", PackageType.DOCKER, "image:1", BY).aggregate.guid
    if copied:
        guid = store.service.copy(guid, "app-2", BY).aggregate.guid
    view = row_of(store, guid).view
    assert (view.type, view.url, view.state) == ("docker", "image:1", "READY")


@pytest.mark.parametrize("seen_before", [False, True])
def test_a_deleted_package_has_no_row(store: LocalStore, seen_before: bool) -> None:
    """Whether or not the read model ever had it."""
    guid, other = new(store), new(store)
    if seen_before:
        store.projector.catch_up()
    upload(store.service, guid)
    store.service.delete(guid, BY)
    store.projector.catch_up()
    assert store.packages.find(guid) is None
    assert [row.view.guid for row in store.packages.page(None, 1, 10).packages] == [other]


def test_packages_are_listed_in_creation_order(store: LocalStore) -> None:
    """What happens to a package later does not move it."""
    guids = [new(store) for _ in range(5)]
    upload(store.service, guids[1])
    store.projector.catch_up()
    pages = [store.packages.page(None, number, 2) for number in (1, 2, 3)]
    assert [row.view.guid for page in pages for row in page.packages] == guids
    assert {page.total for page in pages} == {5}


def test_a_list_is_of_one_app_or_of_all(store: LocalStore) -> None:
    """Total and entries are the app's own."""
    of_one = [new(store, "app-1"), new(store, "app-1")]
    new(store, "app-2")
    store.projector.catch_up()
    page = store.packages.page("app-1", 1, 50)
    assert (page.total, [row.view.guid for row in page.packages]) == (2, of_one)
    assert store.packages.page("nobody's", 1, 50).total == 0


@pytest.mark.parametrize("page", [4, 10**18])
def test_a_page_behind_the_last_is_empty(store: LocalStore, page: int) -> None:
    """However far behind; the total is still right."""
    for _ in range(3):
        new(store)
    store.projector.catch_up()
    behind = store.packages.page(None, page, 5000)
    assert (behind.total, behind.packages) == (3, [])


def test_named_blobs_are_found_among_many(store: LocalStore) -> None:
    """More keys than one statement takes; only those that a package names come back."""
    keys = [f"ab/cd/{number}" for number in range(1000)]
    for key in (keys[0], keys[-1]):
        guid = new(store)
        upload(store.service, guid)
        store.service.record_stored(guid, StoredBits(key, 1), BY)
        store.service.record_hashes(guid, Digests("a", "b"), BY)
    store.projector.catch_up()
    assert store.packages.blobs_named(keys) == {keys[0], keys[-1]}


def test_an_unknown_package_is_not_found(store: LocalStore) -> None:
    """None, not an error."""
    assert store.packages.find("nobody") is None
