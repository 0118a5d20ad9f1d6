"""What is away, or is not ours, costs nobody their bits: it is waited for, told, and left alone."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.service import ROOT, Client, Service
from tests.support.waiting import eventually
from tests.support.zips import random_zip, sha1

BITS = random_zip(20_000)


@contextmanager
def log_locked(service: Service) -> Iterator[None]:
    """Another process keeps the database from being written to."""
    with closing(sqlite3.connect(service.data_dir / "packtrail.db", isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("ROLLBACK")


def upload_file(client: Client, guid: str, path: Path) -> httpx.Response:
    form = {"bits_name": "app.zip", "bits_path": str(path)}
    return client.http.post(f"/v3/packages/{guid}/upload", data=form)


def refused_start(service: Service) -> str:
    """What a start that ends at once says; nothing but one line."""
    done = subprocess.run(
        [sys.executable, "-m", "entrypoints", "serve"],
        cwd=ROOT, env=service.environment(), capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("packtrail: ") and done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.slow
def test_an_upload_that_the_log_could_not_take_can_be_tried_again(own_service: Service) -> None:
    """503 in either form; nothing is left in staging, the file keeps its one name, and then 200."""
    with own_service as service:
        client = service.client()
        first, second = client.create(), client.create()
        path = service.upload_dir / "app.zip"
        path.write_bytes(BITS)
        with log_locked(service):
            assert upload_file(client, first, path).status_code == 503
            assert client.upload(second, BITS).status_code == 503
            assert client.http.get("/readyz").status_code == 503
        assert path.stat().st_nlink == 1
        eventually(lambda: service.staged_files() == [])
        eventually(lambda: upload_file(client, first, path).status_code == 200)
        eventually(lambda: client.upload(second, BITS).status_code == 200)
        for guid in (first, second):
            assert client.settled(guid)["hash"]["value"] == sha1(BITS)
        assert client.http.get("/readyz").status_code == 200


@pytest.mark.slow
def test_reads_come_back_as_soon_as_the_log_does(own_service: Service) -> None:
    """What failed while it was away does not keep them waiting for long."""
    with own_service as service:
        client = service.client()
        with log_locked(service):
            for _ in range(6):
                client.http.post("/v3/apps/app-1/packages", json={"type": "bits"})
        guid = eventually(lambda: created(client))
        eventually(lambda: client.http.get(f"/v3/packages/{guid}").status_code == 200, within=4)


@pytest.mark.slow
def test_a_service_that_nobody_writes_to_becomes_ready_again(own_service: Service) -> None:
    """A load balancer that took it out would wait for ever for a write to succeed."""
    with own_service as service:
        client = service.client()
        with log_locked(service):
            client.http.post("/v3/apps/app-1/packages", json={"type": "bits"})
            assert client.http.get("/readyz").status_code == 503
        eventually(lambda: client.http.get("/readyz").status_code == 200)


def created(client: Client) -> str | None:
    response = client.http.post("/v3/apps/app-1/packages", json={"type": "bits"})
    return response.json()["guid"] if response.status_code == 201 else None


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["staging", pytest.param("blobs", marks=pytest.mark.slow)])
def test_a_folder_that_is_away_is_waited_for(own_service: Service, folder: str) -> None:
    """The package becomes READY when it is back; it is not FAILED for what was down."""
    with own_service as service:
        client = service.client()
        guid = client.create()
        blobs, away = service.data_dir / "blobs", service.data_dir / "away"
        blobs.rename(away)
        assert client.upload(guid, BITS).status_code == 200
        if folder == "staging":
            (service.data_dir / "staging").rename(service.data_dir / "elsewhere")
            away.rename(blobs)
        waits = "work waits: FolderAway"
        eventually(lambda: service.log.read_text().count(waits) >= 4)
        assert client.show(guid)["state"] == "PROCESSING_UPLOAD"
        assert client.http.get("/readyz").status_code == (503 if folder == "staging" else 200)
        if folder == "staging":
            (service.data_dir / "elsewhere").rename(service.data_dir / "staging")
        else:
            away.rename(blobs)
        assert client.settled(guid, within=40)["hash"]["value"] == sha1(BITS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "table",
    [
        "packages",
        pytest.param("unfinished_packages", marks=pytest.mark.slow),
        pytest.param("droplets", marks=pytest.mark.slow),
    ],
)
def test_a_table_that_is_gone_is_built_anew(own_service: Service, table: str) -> None:
    """A start rebuilds the read model before anything is swept: nobody loses bits."""
    with own_service as service:
        client = service.client()
        ready = client.push(BITS)["guid"]
        (service.data_dir / "blobs").rename(service.data_dir / "away")
        waiting = client.create()
        assert client.upload(waiting, BITS).status_code == 200
        service.kill()
        (service.data_dir / "away").rename(service.data_dir / "blobs")
        with closing(sqlite3.connect(service.data_dir / "packtrail.db")) as db:
            db.execute(f"DROP TABLE {table}")
        service.start()
        client = service.client()
        for guid in (ready, waiting):
            assert client.settled(guid)["hash"]["value"] == sha1(BITS)
            assert client.http.get(f"/v3/packages/{guid}/download").content == BITS


@pytest.mark.slow
def test_other_peoples_files_are_left_alone(own_service: Service, tmp_path: Path) -> None:
    """A blob store that holds something else is refused, and so is another log's."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "thesis.txt").write_text("years of work")
    foreign = Service(tmp_path / "second", {"PACKTRAIL_BLOB_STORE": f"file://{theirs}"})
    assert "not ours" in refused_start(foreign)
    assert (theirs / "thesis.txt").exists()
    with own_service as service:
        service.client().push(BITS)
        blobs = service.data_dir / "blobs"
        other = Service(tmp_path / "third", {"PACKTRAIL_BLOB_STORE": f"file://{blobs}"})
        assert "another log" in refused_start(other)
        assert len(service.blobs()) == 1


@pytest.mark.slow
def test_bits_whose_log_is_gone_are_left_alone(own_service: Service) -> None:
    """A start without the database does not take the bits for nobody's; with it, all is there."""
    with own_service as service:
        client = service.client()
        guid = client.push(BITS)["guid"]
        service.stop()
        for name in ("packtrail.db", "packtrail.db-wal", "packtrail.db-shm"):
            path = service.data_dir / name
            if path.exists():
                path.rename(service.data_dir / f"{name}.away")
        assert "restore that log" in refused_start(service)
        for path in service.data_dir.glob("packtrail.db*.away"):
            path.rename(path.with_suffix(""))
        service.start()
        assert service.client().http.get(f"/v3/packages/{guid}/download").content == BITS


def test_uploads_among_the_services_own_files_are_refused(tmp_path: Path) -> None:
    """Or an uploader could have them removed."""
    service = Service(tmp_path, {"PACKTRAIL_UPLOAD_DIR": str(tmp_path)})
    assert "PACKTRAIL_UPLOAD_DIR" in refused_start(service)


@pytest.mark.slow
def test_a_secret_that_is_none_stops_the_start(tmp_path: Path) -> None:
    """Too short, or no text: one line names the file."""
    service = Service(tmp_path, {"PACKTRAIL_JWT_SECRET": ""})
    service.data_dir.mkdir()
    for content in (b"", b"abc\n", b"\xff" * 40):
        (service.data_dir / "jwt.secret").write_bytes(content)
        assert "jwt.secret" in refused_start(service)
