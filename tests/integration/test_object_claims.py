"""Bits that a command names by URL: taken from the bucket's own folder for them, and no other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from eventsourcing.persistence import OperationalError

from adapters.authorization import ByScopes, Guard
from adapters.blob_store.s3 import S3Blobs
from adapters.bus import work
from adapters.bus.commands import CommandHandler
from adapters.bus.messages import Message
from adapters.claims import Claims
from adapters.delivery import BucketDelivery
from adapters.http.admission import UploadRules
from adapters.http.authentication import Authenticator
from adapters.metrics import Metrics
from adapters.object_store import Bucket
from adapters.staging.s3 import S3Staging
from domain.archive import ArchiveLimits
from domain.droplet_service import Wanted
from domain.package import PackageType
from domain.processing import Processing, blob_key
from tests.support.commands import REPLIES, WRITER, RememberingBus, Reply, Troubles, body_of
from tests.support.packages import BY, DIGESTS, STAGED, STORED, LocalStore, droplet_processing
from tests.support.s3 import S3Server
from tests.support.service import TOKENS
from tests.support.zips import random_zip, sha1

BITS = random_zip(5000)
DROPLET = b"a droplet" * 100
LIMIT = 10_000  # bytes
Claim = dict[str, Any]
BAD = (
    422, 10008, "CF-UnprocessableEntity",
    "The request is semantically invalid: Bits path is invalid",
)  # fmt: skip


@dataclass(frozen=True)
class Counter:
    """A service with a bucket, to which objects are handed in."""

    server: S3Server
    url: str
    bucket: Bucket
    store: LocalStore
    bus: RememberingBus
    handler: CommandHandler
    processing: Processing

    def put(self, key: str, content: bytes = BITS) -> str:
        """As somebody else puts an object there; its URL."""
        self.bucket.put(key, iter([content]), {})
        return f"{self.url}/{key}"

    def objects(self) -> set[str]:
        """All objects behind the prefix, but for the mark."""
        late = time.time() + 60
        return {
            f"{folder}/{key}"
            for folder in ("uploads", "staging", "blobs")
            for key in self.bucket.list(folder, late)
        }

    def send(self, kind: str, data: Claim, id: str | None = None) -> Reply:
        headers = {"authorization": f"bearer {WRITER}"}
        self.handler(Message("m", kind, body_of(kind, data, id), headers, REPLIES))
        return Reply.of(self.bus.sent[-1][1])

    def awaiting(self, type: PackageType = PackageType.BITS) -> str:
        url = None if type is PackageType.BITS else "an/image"
        return self.store.service.create("app-1", type, url, BY).aggregate.guid

    def package(self, url: str) -> Claim:
        return {"guid": self.awaiting(), "bits_url": url, "bits_name": "größe.zip"}

    def droplet(self, url: str, content: bytes = DROPLET) -> Claim:
        guid, packages = self.awaiting(), self.store.service
        packages.start_upload(guid, STAGED, "app.zip", BY)
        packages.record_stored(guid, STORED, BY)
        packages.record_hashes(guid, DIGESTS, BY)
        droplet = self.store.store.services.droplets.stage(guid, Wanted(), BY).aggregate.guid
        return {
            "guid": droplet, "bits_url": url, "sha1": sha1(content),
            "process_types": {"web": "rackup"},
        }  # fmt: skip

    def read(self, key: str) -> bytes:
        with self.bucket.open(key) as bits:
            return bits.read_at(0, bits.size)


@pytest.fixture
def counter(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter]:
    monkeypatch.setattr(work, "FIRST_DELAY", 0.001)
    url = s3.new_bucket()
    bucket = s3.reopen(url)
    store = LocalStore.open(tmp_path / "log.db")
    staging, blobs = S3Staging(bucket, tmp_path / "receiving", tmp_path / "up"), S3Blobs(bucket)
    staging.prepare(store.store.identity)
    blobs.prepare(store.store.identity)
    metrics, bus = Metrics(), RememberingBus()
    claims = Claims(staging, droplet_processing(store, staging, blobs), LIMIT, LIMIT, metrics)
    handler = CommandHandler(
        store.store,
        bus,
        Authenticator(TOKENS),
        claims,
        UploadRules(LIMIT),
        metrics,
        Guard(ByScopes()),
    )
    processing = Processing(store.service, staging, blobs, ArchiveLimits(LIMIT))
    yield Counter(s3, url, bucket, store, bus, handler, processing)
    bus.close()
    store.close()


def test_an_object_becomes_a_packages_bits(counter: Counter) -> None:
    """It is gone from where it was when the answer is there; to the byte, with its name."""
    url = counter.put("uploads/d2015/app-1.zip")
    counter.put("uploads/others.zip")
    data = counter.package(url)
    guid = counter.send("package.upload", data, "command-1").guid
    uploads = {key for key in counter.objects() if key.startswith("uploads/")}
    assert uploads == {"uploads/others.zip"}
    counter.processing.store(guid, BY)
    counter.processing.hash(guid, BY)
    counter.processing.discard(guid)
    package = counter.store.service.get(guid)
    assert package.digests is not None and package.digests.sha1 == sha1(BITS)
    assert package.file_name == "größe.zip"
    assert counter.read(f"blobs/{blob_key(guid)}") == BITS
    assert counter.send("package.upload", data, "command-1").guid == guid
    assert counter.objects() == {"uploads/others.zip", f"blobs/{blob_key(guid)}"}


def test_a_package_keeps_its_name_for_downloads(counter: Counter) -> None:
    """A signed link can't carry it: it is told by the object."""
    guid = counter.send("package.upload", counter.package(counter.put("uploads/app.zip"))).guid
    counter.processing.store(guid, BY)
    answer = httpx.get(counter.bucket.link(f"blobs/{blob_key(guid)}", 60))
    assert answer.content == BITS
    assert "gr%C3%B6%C3%9Fe.zip" in answer.headers.get("Content-Disposition", "")


def test_an_object_becomes_a_droplet(counter: Counter) -> None:
    """Stored with the answer; nothing else of it is left."""
    url = counter.put("uploads/droplet.tgz", DROPLET)
    guid = counter.send("droplet.staged", counter.droplet(url)).guid
    droplet = counter.store.store.services.droplets.get(guid)
    assert droplet.digests is not None and droplet.digests.sha1 == sha1(DROPLET)
    assert droplet.stored is not None
    assert counter.objects() == {f"blobs/{droplet.stored.key}"}
    assert counter.read(f"blobs/{droplet.stored.key}") == DROPLET


def test_as_much_as_the_limit_is_taken(counter: Counter) -> None:
    """And not one byte more; the object stays."""
    guid = counter.send(
        "package.upload", counter.package(counter.put("uploads/full", bytes(LIMIT)))
    ).guid
    assert counter.store.service.get(guid).staged is not None
    for kind, data in (("package.upload", counter.package), ("droplet.staged", counter.droplet)):
        url = counter.put("uploads/more", bytes(LIMIT + 1))
        refused = counter.send(kind, data(url))
        assert refused.error[:3] == (413, 10008, "CF-UnprocessableEntity")
        assert counter.read("uploads/more") == bytes(LIMIT + 1)


@pytest.mark.parametrize("kind", ["package.upload", "droplet.staged"])
def test_nothing_is_taken_from_elsewhere(counter: Counter, kind: str) -> None:
    """However it is written: other buckets, other prefixes, and our own folders are not open."""
    counter.put("uploads/app.zip")
    counter.put("secret.zip")
    counter.put("blobs/ab/cd/somebodys")
    counter.put("staging/" + "0" * 32)
    bucket = counter.url.removesuffix("/pack/trail")
    counter.server.make_bucket("s3://another-bucket/x")
    endpoint = counter.server.environment["AWS_ENDPOINT_URL"]
    before = counter.objects()
    wrong = [
        f"{counter.url}/secret.zip", f"{counter.url}/blobs/ab/cd/somebodys",
        f"{counter.url}/staging/{'0' * 32}", f"{counter.url}/packtrail.log",
        f"{counter.url}/uploads/../secret.zip", f"{counter.url}/uploads/../blobs/ab/cd/somebodys",
        f"{counter.url}/uploads/./app.zip", f"{counter.url}/uploads//app.zip",
        f"{counter.url}/uploads/%2e%2e/secret.zip", f"{counter.url}/uploads/a b",
        f"{counter.url}/uploads/app.zip?x=y", f"{counter.url}/uploads/app.zip#x",
        f"{counter.url}/uploads/app.zip\n", f" {counter.url}/uploads/app.zip",
        f"{counter.url}/uploads", f"{counter.url}/uploads/", f"{counter.url}/uploads2/app.zip",
        f"{counter.url}/uploads/missing.zip", f"{counter.url}", f"{counter.url}/",
        f"{counter.url}2/uploads/app.zip", f"{bucket}/uploads/app.zip",
        f"{bucket}/pack/uploads/app.zip", "s3://another-bucket/pack/trail/uploads/app.zip",
        "uploads/app.zip", "/uploads/app.zip", "file:///etc/passwd", f"{endpoint}/pack/trail/x",
    ]  # fmt: skip
    data = counter.package("") if kind == "package.upload" else counter.droplet("", BITS)
    head = counter.store.log.head()
    for url in wrong:
        assert counter.send(kind, {**data, "bits_url": url}).error == BAD, url
    assert (counter.objects(), counter.store.log.head(), counter.bus.parked) == (before, head, [])


def test_a_refused_object_stays(counter: Counter) -> None:
    """Whatever it was refused for, it can be named again."""
    url = counter.put("uploads/app.zip")
    docker = counter.awaiting(PackageType.DOCKER)
    assert counter.send("package.upload", {"guid": "nobody", "bits_url": url}).error[0] == 404
    assert counter.send("package.upload", {"guid": docker, "bits_url": url}).error[0] == 422
    other_sum = {**counter.droplet(url), "sha1": "0" * 40}
    assert counter.send("droplet.staged", other_sum).error[0] == 422
    late = counter.droplet(url, BITS)
    counter.store.store.services.droplets.fail(late["guid"], "too late", BY)
    assert counter.send("droplet.staged", late).error[0] == 422
    assert counter.objects() == {"uploads/app.zip"}
    assert counter.read("uploads/app.zip") == BITS
    assert counter.send("package.upload", counter.package(url)).guid


def test_an_object_whose_answer_was_lost_is_gone_too(
    counter: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bits are the package's: nothing would ever remove it from where it was."""
    troubles = Troubles.of(counter.store.store, monkeypatch)
    data = counter.package(counter.put("uploads/app.zip"))
    troubles.after.append(OperationalError("gone"))
    troubles.before.append(OperationalError("gone"))
    guid = counter.send("package.upload", data).guid
    counter.processing.store(guid, BY)
    counter.processing.hash(guid, BY)
    counter.processing.discard(guid)
    assert counter.objects() == {f"blobs/{blob_key(guid)}"}


def test_a_file_is_taken_too(counter: Counter, tmp_path: Path) -> None:
    """Where the service has a bucket, a file of the upload directory goes into it."""
    path = tmp_path / "up" / "app.zip"
    path.write_bytes(BITS)
    data = {"guid": counter.awaiting(), "bits_path": str(path)}
    guid = counter.send("package.upload", data).guid
    counter.processing.store(guid, BY)
    assert counter.read(f"blobs/{blob_key(guid)}") == BITS
    assert not path.exists()


def test_the_answer_tells_nothing_of_the_bucket(counter: Counter) -> None:
    """Also not whether an object is there that may not be named."""
    counter.put("secret.zip")
    data = counter.package(f"{counter.url}/secret.zip")
    there = counter.send("package.upload", data)
    absent = counter.send("package.upload", {**data, "bits_url": f"{counter.url}/absent.zip"})
    assert there.error == absent.error == BAD
    assert b"s3://" not in orjson.dumps(there.data)


def test_a_builder_delivers_by_way_of_the_bucket(counter: Counter, tmp_path: Path) -> None:
    """What it puts there is taken, served under its name, and gone from there."""
    made = tmp_path / "droplet.tgz"
    made.write_bytes(DROPLET)
    claim = counter.droplet("")
    del claim["bits_url"]
    where = BucketDelivery(counter.bucket).deliver(claim["guid"], made)
    assert counter.send("droplet.staged", {**claim, **where}).guid == claim["guid"]
    droplet = counter.store.store.services.droplets.get(claim["guid"])
    assert droplet.stored is not None
    assert counter.objects() == {f"blobs/{droplet.stored.key}"}
    answer = httpx.get(counter.bucket.link(f"blobs/{droplet.stored.key}", 60))
    assert answer.content == DROPLET
    assert f"{claim['guid']}.tgz" in answer.headers["Content-Disposition"]
    assert answer.headers["Content-Type"] == "application/gzip"


def test_a_builder_withdraws_what_is_not_taken(counter: Counter, tmp_path: Path) -> None:
    """Its own droplet, and nobody else's object."""
    made = tmp_path / "droplet.tgz"
    made.write_bytes(DROPLET)
    counter.put("uploads/theirs.tgz")
    delivery = BucketDelivery(counter.bucket)
    delivery.deliver("guid-1", made)
    assert counter.objects() == {"uploads/theirs.tgz", "uploads/droplet-guid-1.tgz"}
    delivery.withdraw("guid-1")
    assert counter.objects() == {"uploads/theirs.tgz"}
