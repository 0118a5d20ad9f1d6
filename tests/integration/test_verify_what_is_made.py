"""`packtrail verify --read-models --bits`: what is made from the log is what the log gives."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha1, sha256
from pathlib import Path

import pytest

from adapters.store import Store, open_sqlite
from domain.aggregate import Aggregate
from domain.package import Digests, Package, PackageType, StagedBits, StoredBits
from domain.processing import blob_key
from tests.support.packages import BY
from tests.support.proof import Desk, desk_of
from tests.support.s3 import S3Server


@pytest.fixture
def any_desk(any_store: Store, tmp_path: Path) -> Desk:
    """A log with read models, on either engine."""
    return used(any_store, tmp_path)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """The same in an SQLite file."""
    with closing(open_sqlite(tmp_path / "log.db")) as store:
        yield used(store, tmp_path)


def used(store: Store, folder: Path) -> Desk:
    store.migrate()
    desk = desk_of(store, folder)
    desk.fill(6)
    docker = Package.create("docker", "äpp", PackageType.DOCKER, "an/image", BY)
    store.events.put(docker.collect_events())
    store.packages.delete("guid-3", BY)
    store.projector().catch_up()
    return desk


def test_read_models_that_are_as_the_log_gives_them(any_desk: Desk) -> None:
    """Every row of every table is compared."""
    outcome = any_desk.verify("--read-models")
    assert (outcome.code, outcome.findings) == (0, [])
    assert outcome.summary["checked"]["rows"] >= 6


def test_rows_that_were_changed_are_named_with_their_columns(any_desk: Desk) -> None:
    """One that differs, one that is missing, one too many; and no other."""
    any_desk.execute("UPDATE packages SET state = 'FAILED', error = 'x' WHERE guid = 'guid-1'")
    any_desk.execute("DELETE FROM packages WHERE guid = 'guid-2'")
    any_desk.execute("UPDATE packages SET number = 99 WHERE guid = 'guid-4'")
    any_desk.execute("UPDATE apps SET deleted = (1 = 1) WHERE guid = 'app-1'")
    outcome = any_desk.verify("--read-models")
    assert outcome.code == 1
    assert sorted(outcome.told("read-models")) == [
        "apps, row app-1: deleted is '1', and the log gives '0'",
        "packages, row 17 (guid-4): it is missing",
        "packages, row 2 (guid-1): state is 'FAILED', and the log gives 'READY'; "
        "error is 'x', and the log gives nothing",
        "packages, row 9 (guid-2): it is missing",
        "packages, row 99 (guid-4): it is one too many: the log does not give it",
    ]


def test_read_models_that_are_behind_are_compared_where_they_stand(desk: Desk) -> None:
    """What was appended since does not count."""
    desk.fill(4, "late")
    outcome = desk.verify("--read-models")
    assert (outcome.code, outcome.findings) == (0, [])


def test_read_models_that_can_not_be_compared_are_told(desk: Desk) -> None:
    """Of another version, of another history, not built, and without a table."""
    desk.execute("UPDATE projection_positions SET version = 1 WHERE name = 'packages'")
    desk.execute("UPDATE projection_positions SET event_id = 'other/1' WHERE name = 'work'")
    desk.execute("DELETE FROM projection_positions WHERE name = 'droplets'")
    desk.execute("DROP TABLE roles")
    told = "\n".join(desk.verify("--read-models").told("read-models"))
    assert "read model packages: it was built by version 1 of its projection" in told
    assert "read model work: it stands behind event other/1" in told
    assert "read model droplets: it was not built yet" in told
    assert "read model roles: its table roles is not there" in told


def test_a_read_model_at_what_is_no_position_is_told(tmp_path: Path) -> None:
    """A column of SQLite takes what it is given."""
    store = open_sqlite(tmp_path / "log.db")
    store.migrate()
    desk = desk_of(store, tmp_path)
    desk.fill(2)
    store.projector().catch_up()
    desk.execute("UPDATE projection_positions SET position = 'x' WHERE name = 'packages'")
    outcome = desk.verify("--read-models")
    store.close()
    assert outcome.told("read-models") == [
        "read model packages: it stands at x, which is no position"
    ]


def test_read_models_that_have_stopped_or_are_being_built_are_told(desk: Desk) -> None:
    """What is there of them is compared, where this program has built it."""
    desk.execute(
        "INSERT INTO projection_stops (name, position, event_id, reason) "
        "VALUES ('packages', 3, 'guid-0/2', 'KeyError: x')"
    )
    for name in ("work", "roles"):
        desk.execute(
            "INSERT INTO projection_builds (name, version, token, position) "
            "SELECT name, version, '12345678', 0 FROM projection_positions WHERE name = :name",
            name=name,
        )
    desk.execute("UPDATE projection_positions SET version = 0 WHERE name = 'roles'")
    outcome = desk.verify("--read-models")
    assert outcome.told("read-models") == [
        "read model packages: it stays before event guid-0/2 at position 3: KeyError: x"
    ]
    assert outcome.summary["not_checked"] == ["read models: roles is being built anew"]
    desk.execute("DELETE FROM projection_stops")
    assert desk.verify("--read-models").code == 2


def test_a_read_model_without_a_column_is_told(desk: Desk) -> None:
    """And the others are compared all the same."""
    desk.execute("ALTER TABLE packages DROP COLUMN error")
    desk.execute("UPDATE apps SET name = 'x'")
    told = "\n".join(desk.verify("--read-models").told("read-models"))
    assert "packages: its rows can't be read: no such column" in told
    assert "apps, row app-1: name is 'x', and the log gives nothing" in told


def test_values_of_other_types_in_a_read_model_are_told(desk: Desk) -> None:
    """SQLite takes them, also in keys and as texts that are no UTF-8."""
    desk.execute("UPDATE apps SET guid = CAST(x'ff' AS TEXT) WHERE guid = 'app-1'")
    desk.execute("UPDATE apps SET guid = x'00ff' WHERE guid = 'äpp'")
    desk.execute("UPDATE packages SET created_at = 'soon' WHERE guid = 'guid-4'")
    told = "\n".join(desk.verify("--read-models").told("read-models"))
    assert r"row \xff: it is one too many" in told
    assert r"row \x00\xff: it is one too many" in told
    assert "row app-1: it is missing" in told and "row äpp: it is missing" in told
    assert "row 17 (guid-4): created_at is 'soon', and the log gives '1" in told


def test_an_event_that_no_read_model_digests_is_told_once_a_projection(desk: Desk) -> None:
    """A chain can be right around what can't have happened; the rest is built without it."""
    hashes = desk.records()[6]
    assert hashes.topic == "package.hash_computed"
    desk.set(hashes.position, "originator_id", "package:unknown")
    desk.chain_anew(0)
    outcome = desk.verify("--read-models")
    assert outcome.named("events") == [hashes.position]
    assert "read model packages can't digest it" in outcome.told("events")[0]


BITS = b"bits of a package " * 5000


class Shelf:
    """A log whose packages have bits, in the folder of blobs."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.folder = desk.data_dir / "blobs"
        for number in range(5):
            self.put(f"bits-{number}")
        desk.store.packages.delete("bits-4", BY)
        self.path("bits-4").unlink()

    def path(self, guid: str) -> Path:
        return self.folder / blob_key(guid)

    def put(self, guid: str, content: bytes = BITS) -> None:
        self.desk.store.events.put(ready(guid, content).collect_events())
        self.path(guid).parent.mkdir(parents=True, exist_ok=True)
        self.path(guid).write_bytes(content)


def ready(guid: str, content: bytes) -> Aggregate:
    package = Package.create(guid, "app-1", PackageType.BITS, None, BY)
    package.start_upload(StagedBits(f"staging:{guid}", 0, len(content)), "app.zip", BY)
    package.record_stored(StoredBits(blob_key(guid), len(content)), BY)
    digests = Digests(sha1(content, usedforsecurity=False).hexdigest(), sha256(content).hexdigest())
    package.record_hashes(digests, BY)
    return package


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    with closing(open_sqlite(tmp_path / "log.db")) as store:
        store.migrate()
        yield Shelf(desk_of(store, tmp_path))


def test_bits_that_are_those_that_were_recorded(shelf: Shelf) -> None:
    """Read whole; a deleted package has none, and a docker package never had."""
    docker = Package.create("docker", "app-1", PackageType.DOCKER, "an/image", BY)
    shelf.desk.store.events.put(docker.collect_events())
    outcome = shelf.desk.verify("--bits")
    assert (outcome.code, outcome.findings) == (0, [])
    checked = outcome.summary["checked"]
    assert (checked["blobs"], checked["bytes"]) == (4, 4 * len(BITS))


def test_blobs_that_were_replaced_cut_or_removed_are_named(shelf: Shelf) -> None:
    """Whatever the read models say of them: the log tells what they are."""
    shelf.path("bits-0").write_bytes(BITS[:-1] + b"x")
    shelf.path("bits-1").write_bytes(BITS[:-1])
    shelf.path("bits-2").unlink()
    shelf.desk.store.projector().catch_up()
    shelf.desk.execute("UPDATE packages SET sha256 = :sha256, blob_key = 'x'", sha256="f" * 64)
    outcome = shelf.desk.verify("--bits")
    assert outcome.code == 1
    first, second, third = outcome.told("bits")
    assert first.startswith(f"package:bits-0, blob {blob_key('bits-0')}: its SHA-256 is ")
    assert f"it has {len(BITS) - 1} bytes, and the log recorded {len(BITS)}" in second
    assert third.endswith("it is not there")


def test_what_is_no_file_in_a_blobs_place_is_named(shelf: Shelf) -> None:
    """A pipe that nobody writes to, a folder, a link to itself: nothing is waited for."""
    for number in range(3):
        shelf.path(f"bits-{number}").unlink()
    os.mkfifo(shelf.path("bits-0"))
    shelf.path("bits-1").mkdir()
    shelf.path("bits-2").symlink_to(shelf.path("bits-2"))
    outcome = shelf.desk.verify("--bits")
    assert (outcome.code, len(outcome.findings)) == (1, 3)
    assert all("it can't be read" in told for told in outcome.told("bits"))


def test_a_store_of_bits_that_is_away_is_no_finding(shelf: Shelf) -> None:
    """It could not be checked: exit code 2, after all else was."""
    shelf.folder.rename(shelf.folder.with_name("away"))
    code, out, err = shelf.desk.run("verify", "--bits")
    assert (code, out) == (2, "")
    assert f"could not check all bits: {shelf.folder} is not there" in err


def test_bits_in_a_bucket_are_checked(shelf: Shelf, s3: S3Server) -> None:
    """One that was replaced and one that was removed are named."""
    url = s3.new_bucket()
    bucket = s3.reopen(url)
    shelf.desk.settings |= {"PACKTRAIL_BLOB_STORE": url, **s3.environment}
    for number in range(4):
        bucket.put(f"blobs/{blob_key(f'bits-{number}')}", iter([BITS]), {})
    assert shelf.desk.verify("--bits").code == 0
    bucket.put(f"blobs/{blob_key('bits-1')}", iter([BITS[::-1]]), {})
    bucket.delete(f"blobs/{blob_key('bits-3')}")
    first, second = shelf.desk.verify("--bits").told("bits")
    assert first.startswith("package:bits-1") and "its SHA-256 is" in first
    assert second.startswith("package:bits-3") and second.endswith("it is not there")


def test_a_rebuild_leaves_nothing_behind(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is made where TMPDIR says, and is gone afterwards."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    assert desk.verify("--read-models", "--bits").code == 2  # no bits
    assert list(folder.iterdir()) == []
