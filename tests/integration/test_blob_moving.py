"""Blobs of packages and droplets go from a folder into a bucket."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from adapters.blob_moving import NamedBlob, blobs_named, copy_blobs
from adapters.blob_store.s3 import S3Blobs
from adapters.store import Store, open_sqlite
from tests.support.eventful import Told, live
from tests.support.s3 import S3Server


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_sqlite(tmp_path / "log.db")
    store.migrate()
    yield store
    store.close()


@pytest.fixture
def told(store: Store) -> Told:
    told = live(store)
    store.projector().catch_up()
    return told


def test_what_packages_and_droplets_name_is_copied(
    store: Store, told: Told, s3: S3Server, tmp_path: Path
) -> None:
    """Under its key, and with the file name by which it is downloaded; once."""
    named = {blob.of: blob for blob in blobs_named(store.reader)}
    ready = named[f"package {told.ready}"]
    (droplet,) = (blob for of, blob in named.items() if of.startswith("droplet "))
    assert f"package {told.expired}" not in named and f"package {told.deleted}" not in named
    for blob in (ready, droplet):
        (tmp_path / blob.key).parent.mkdir(parents=True)
        (tmp_path / blob.key).write_bytes(blob.of.encode())
    bucket = s3.bucket()
    outcome = copy_blobs(tmp_path, bucket, iter([ready, droplet]))
    assert (outcome.copied, outcome.there) == (2, 0)
    for blob, name in ((ready, "shop-1.zip"), (droplet, f"{droplet.of.split()[1]}.tgz")):
        link = S3Blobs(bucket).link(blob.key)
        assert link is not None
        response = httpx.get(link)
        assert response.content == blob.of.encode()
        assert name in response.headers["Content-Disposition"]
        digest = hashlib.sha256(response.content).hexdigest()
        assert any(digest in fault and blob.of in fault for fault in outcome.faults)
    again = copy_blobs(tmp_path, bucket, blobs_named(store.reader))
    assert (again.copied, again.there) == (0, 2)
    assert len(again.faults) == len(named) - 2


def test_nothing_outside_of_the_folder_is_copied(s3: S3Server, tmp_path: Path) -> None:
    """Whatever key somebody has written into the log."""
    (tmp_path / "jwt.secret").write_text("secret")
    keys = ("../jwt.secret", str(tmp_path / "jwt.secret"))
    named = (NamedBlob("package p", key, "p.zip", None) for key in keys)
    outcome = copy_blobs(tmp_path / "blobs", s3.bucket(), named)
    assert (outcome.copied, len(outcome.faults)) == (0, 2)
