"""A laptop's service goes to PostgreSQL, with its folder of blobs or into a bucket."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.support.command import Packtrail
from tests.support.metrics import metrics_at
from tests.support.postgres import PostgresServer
from tests.support.s3 import S3Server
from tests.support.service import Client, Service
from tests.support.waiting import eventually
from tests.support.zips import random_zip

BITS = {"one.zip": random_zip(20_000), "two.zip": random_zip(30_000)}


class Laptop:
    """A service on SQLite that has packages, and was stopped; its log is exported."""

    def __init__(self, service: Service) -> None:
        self.data_dir = service.data_dir
        self.command = Packtrail(service.data_dir)
        self.export = service.data_dir.parent / "log.ndjson.zst"
        with service:
            client = service.client()
            self.packages = {name: self._push(client, name) for name in BITS}
            assert client.http.delete(f"/v3/packages/{client.create()}").status_code == 204
            self.command.prints("export", str(self.export))  # beside the service
            told = self.command.refuses("import", str(self.export))
            assert "is in use by another packtrail serve" in told
            assert service.stop() == 0
        self.command.prints("export", str(self.export), "--force")

    @staticmethod
    def _push(client: Client, name: str) -> dict[str, Any]:
        guid = client.create()
        assert client.upload(guid, BITS[name], name).status_code == 200
        return client.settled(guid)

    def trail(self) -> list[str]:
        return self.command.prints("log", "--json").splitlines()


@pytest.fixture
def laptop(own_service: Service) -> Iterator[Laptop]:
    yield Laptop(own_service)


def serves_the_same(service: Service, laptop: Laptop) -> None:
    """Packages, their bits and file names; and a new package comes behind them."""
    client = service.client()
    for name, package in laptop.packages.items():
        assert client.show(package["guid"]) == package
        bits = client.http.get(package["links"]["download"]["href"])
        if bits.status_code == 302:
            bits = httpx.get(bits.headers["Location"])
        assert bits.content == BITS[name]
        assert name in bits.headers["Content-Disposition"]
    before = laptop.trail()
    assert client.push(BITS["one.zip"])["state"] == "READY"
    trail = Packtrail(service.data_dir, service.environment()).prints("log", "--json").splitlines()
    assert trail[: len(before)] == before
    new = [orjson.loads(line)["type"] for line in trail[len(before) :]]
    assert new[-4:] == [
        "package.created", "package.upload_started", "package.bits_stored", "package.hash_computed",
    ]  # fmt: skip


@pytest.mark.slow
def test_with_the_same_folder_of_blobs(
    tmp_path: Path, laptop: Laptop, postgres: PostgresServer
) -> None:
    """The relay goes on where it was; while a service runs nothing is imported."""
    url = postgres.new_database()
    (tmp_path / "cluster").mkdir()
    cluster = Service(tmp_path / "cluster", {"PACKTRAIL_EVENT_STORE": url})
    importer = Packtrail(cluster.data_dir, {"PACKTRAIL_EVENT_STORE": url})
    shutil.copytree(laptop.data_dir / "blobs", cluster.data_dir / "blobs")
    assert "imported " in importer.prints("import", str(laptop.export))
    assert "has 10 events already" in importer.refuses("import", str(laptop.export))
    with cluster:
        assert "the database: an import needs it alone" in importer.refuses(
            "import", str(laptop.export)
        )
        eventually(lambda: relayed(cluster) >= 10)
        assert "was the log restored" not in cluster.log.read_text()
        serves_the_same(cluster, laptop)


def relayed(service: Service) -> float:
    found = metrics_at(f"{service.url}/metrics")
    return next(v for k, v in found.items() if k[0] == "packtrail_position" and "relay" in k)


@pytest.mark.slow
def test_into_a_bucket(
    tmp_path: Path, laptop: Laptop, postgres: PostgresServer, s3: S3Server
) -> None:
    """Blobs are copied by the command, with the names by which they are downloaded."""
    settings = {
        "PACKTRAIL_EVENT_STORE": postgres.new_database(),
        "PACKTRAIL_BLOB_STORE": s3.new_bucket(),
        **s3.environment,
    }
    (tmp_path / "cluster").mkdir()
    cluster = Service(tmp_path / "cluster", settings)
    command = Packtrail(cluster.data_dir, settings)
    command.prints("import", str(laptop.export))
    blobs = str(laptop.data_dir / "blobs")
    assert command.prints("copy-blobs", blobs) == "copied 2 blobs, 0 were there already\n"
    assert command.prints("copy-blobs", blobs) == "copied 0 blobs, 2 were there already\n"
    with cluster:
        serves_the_same(cluster, laptop)


@pytest.mark.slow
def test_a_blob_that_is_missing_or_not_what_it_was_is_told_of(
    tmp_path: Path, laptop: Laptop, s3: S3Server
) -> None:
    """The others are copied; and a folder is no bucket."""
    one, two = (path for path in (laptop.data_dir / "blobs").rglob("*") if path.is_file())
    one.write_bytes(bytes(one.stat().st_size))
    two.unlink()
    settings = {"PACKTRAIL_BLOB_STORE": s3.new_bucket(), **s3.environment}
    command = Packtrail(laptop.data_dir, settings)
    done = command.run("copy-blobs", str(laptop.data_dir / "blobs"))
    assert (done.returncode, done.stdout) == (1, "copied 1 blobs, 0 were there already\n")
    assert f"{one}, the blob of package" in done.stderr and "has not the SHA-256" in done.stderr
    assert f"there is no {two}, the blob of package" in done.stderr
    assert "there is no folder" in command.refuses("copy-blobs", str(tmp_path / "nowhere"))
    told = laptop.command.refuses("copy-blobs", str(laptop.data_dir / "blobs"), code=2)
    assert "blobs are copied into a bucket" in told


@pytest.mark.slow
def test_through_a_pipe_and_back(tmp_path: Path, laptop: Laptop, postgres: PostgresServer) -> None:
    """From SQLite to PostgreSQL to SQLite: the same export each time, byte for byte.

    A checkpoint that was signed on the laptop holds for the log wherever it is.
    """
    first = laptop.command.prints("export").encode()
    checkpoint, key = tmp_path / "checkpoints.jsonl", tmp_path / "laptop.pem"
    checkpoint.write_text(laptop.command.prints("checkpoint"))
    key.write_text(laptop.command.prints("checkpoint", "--public-key"))
    cluster = Packtrail(tmp_path / "a", {"PACKTRAIL_EVENT_STORE": postgres.new_database()})
    cluster.prints("import", "-", given=first)
    cluster.prints("verify", "--checkpoint", str(checkpoint), "--key", str(key))
    second = cluster.prints("export").encode()
    again = Packtrail(tmp_path / "b")
    again.prints("import", "-", given=second)
    assert again.prints("export").encode() == second == first
    told = Packtrail(tmp_path / "c").refuses("import", "-", given=first[:-200])
    assert told.startswith("packtrail: stdin: ") and "cut off" in told
    told = Packtrail(tmp_path / "c").refuses("import", str(tmp_path / "nowhere.gz"))
    assert "No such file" in told
