"""The parts as processes of their own, on PostgreSQL and RabbitMQ, and without these."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from domain.processing import blob_key
from tests.conftest import found
from tests.support.cluster import Cluster
from tests.support.metrics import metrics_at
from tests.support.postgres import PostgresServer
from tests.support.rabbit import RabbitServer
from tests.support.s3 import S3Server
from tests.support.waiting import eventually
from tests.support.zips import random_zip, sha1

BITS = random_zip(30_000)
NOBODY = "amqp://guest:guest@127.0.0.1:1//"


def create(client: httpx.Client) -> str:
    response = client.post("/v3/apps/app-1/packages", json={"type": "bits"})
    assert response.status_code == 201, response.text
    guid: str = response.json()["guid"]
    return guid


def upload(client: httpx.Client, guid: str) -> httpx.Response:
    return client.post(f"/v3/packages/{guid}/upload", files={"bits": ("app.zip", BITS)})


def becomes_ready(client: httpx.Client, guid: str, within: float = 30) -> None:
    def state() -> bool:
        response = client.get(f"/v3/packages/{guid}")
        return response.status_code == 200 and response.json()["state"] == "READY"

    eventually(state, within)
    assert client.get(f"/v3/packages/{guid}").json()["hash"]["value"] == sha1(BITS)


@pytest.mark.slow
def test_the_parts_do_the_job_together(
    tmp_path: Path, postgres: PostgresServer, rabbit: RabbitServer
) -> None:
    """Started in any order, all at once, on an empty database; a stop is clean."""
    rabbit.forget_queues()
    names = ("api-1", "api-2", "worker-1", "worker-2", "relay-1", "projector-1")
    with Cluster(tmp_path, postgres.new_database(), rabbit.url) as cluster:
        cluster.start(*names)
        cluster.until_ready("api-1", "api-2")
        with cluster.client("api-1") as one, cluster.client("api-2") as other:
            guid = create(one)
            assert upload(other, guid).status_code == 200
            assert one.get(f"/v3/packages/{guid}").json()["state"] != "AWAITING_UPLOAD"
            becomes_ready(one, guid)
            assert other.get(f"/v3/packages/{guid}/download").content == BITS
        assert {name: cluster.stop(name) for name in names} == dict.fromkeys(names, 0)


@pytest.mark.slow
def test_several_api_processes_share_a_port(
    tmp_path: Path, postgres: PostgresServer, rabbit: RabbitServer
) -> None:
    """One that dies is started again, the others answer meanwhile; a stop is clean."""
    rabbit.forget_queues()
    with Cluster(tmp_path, postgres.new_database(), rabbit.url) as cluster:
        cluster.start("projector-1", "worker-1", "relay-1")
        cluster.start("api-1", options=("--workers", "2"))
        cluster.until_ready("api-1")
        children = Path(f"/proc/{cluster.pid('api-1')}/task/{cluster.pid('api-1')}/children")
        before = children.read_text().split()
        assert len(before) == 2
        os.kill(int(before[0]), signal.SIGKILL)
        guids = []
        for _ in range(20):
            with cluster.client("api-1") as client:
                guids.append(create(client))
                assert upload(client, guids[-1]).status_code == 200
        with cluster.client("api-1") as client:
            for guid in guids:
                becomes_ready(client, guid)
        route = ("POST", "/v3/packages/{guid}/upload", "200")
        for _ in range(4):  # whichever of the two answers, it tells of both
            counted = metrics_at(f"{cluster.url('api-1')}/metrics")
            assert counted[("packtrail_http_requests_total", *route)] == 20
        worker = metrics_at(cluster.said("worker-1").split()[-1])
        assert worker[("packtrail_time_to_ready_seconds_count",)] == 20
        relay = metrics_at(cluster.said("relay-1").split()[-1])
        assert relay[("packtrail_position", "relay")] > 0
        eventually(lambda: len(set(children.read_text().split()) - {before[0]}) == 2)
        assert cluster.stop("api-1") == 0
        cluster.start("api-1", options=("--workers", "2"))
        orphans = Path(f"/proc/{cluster.pid('api-1')}/task/{cluster.pid('api-1')}/children")
        pids = orphans.read_text().split()
        cluster.kill("api-1")
        eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


@pytest.mark.slow
def test_machines_that_share_a_bucket(
    tmp_path: Path, postgres: PostgresServer, rabbit: RabbitServer, s3: S3Server
) -> None:
    """What one machine has received another one stores and hashes; clients download from it."""
    rabbit.forget_queues()
    names = ("api-1", "api-2", "worker-1", "relay-1", "projector-1")
    settings = {**s3.environment, "PACKTRAIL_BLOB_STORE": s3.new_bucket()}
    settings["PACKTRAIL_SWEEP_GRACE"] = "1"
    with Cluster(tmp_path, postgres.new_database(), rabbit.url, settings, apart=True) as cluster:
        cluster.start(*names)
        cluster.until_ready("api-1", "api-2")
        with cluster.client("api-1") as one, cluster.client("api-2") as other:
            guid, from_file = create(one), create(one)
            assert upload(one, guid).status_code == 200
            path = tmp_path / "api-1" / "uploads" / "app.zip"
            path.write_bytes(BITS)
            form = {"bits_name": "größe.zip", "bits_path": str(path)}
            taken = one.post(f"/v3/packages/{from_file}/upload", data=form)
            assert (taken.status_code, path.exists()) == (200, False)
            bad = create(one)
            no_zip = {"bits": ("a.zip", b"no zip")}
            assert one.post(f"/v3/packages/{bad}/upload", files=no_zip).status_code == 200
            for ready in (guid, from_file):
                becomes_ready(other, ready)
            answer = other.get(f"/v3/packages/{from_file}/download")
            assert answer.status_code == 302
            download = httpx.get(answer.headers["Location"])
            assert download.content == BITS
            assert "gr%C3%B6%C3%9Fe.zip" in download.headers["Content-Disposition"]
            copied = other.post("/v3/apps/b/packages", params={"source_package_guid": guid})
            becomes_ready(one, copied.json()["guid"])
            eventually(lambda: one.get(f"/v3/packages/{bad}").json()["state"] == "FAILED")
            assert other.delete(f"/v3/packages/{guid}").status_code == 204
            bucket = s3.reopen(settings["PACKTRAIL_BLOB_STORE"])
            left = {blob_key(from_file), blob_key(copied.json()["guid"])}
            late = time.time() + 60
            eventually(lambda: set(bucket.list("blobs", late)) == left)
            eventually(lambda: list(bucket.list("staging", late)) == [])


@pytest.mark.slow
def test_who_stands_by_takes_over(
    tmp_path: Path, postgres: PostgresServer, rabbit: RabbitServer
) -> None:
    """Whichever of two relays and projectors dies, the other goes on within seconds."""
    rabbit.forget_queues()
    pairs = ("relay-1", "projector-1", "relay-2", "projector-2")
    with Cluster(tmp_path, postgres.new_database(), rabbit.url) as cluster:
        cluster.start("api-1", "worker-1", *pairs)
        cluster.until_ready("api-1")
        with cluster.client("api-1") as client:
            for dies in pairs:
                guid = create(client)
                cluster.kill(dies)
                assert upload(client, guid).status_code == 200
                becomes_ready(client, guid, within=15)
                cluster.start(dies)


@pytest.mark.slow
@pytest.mark.parametrize("fate", ["killed", "hung"])
def test_a_database_that_is_away_is_told_within_two_seconds(
    tmp_path: Path, own_postgres: PostgresServer, fate: str
) -> None:
    """Everything but /healthz answers 503 with Retry-After; then it is back."""
    ways: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
        "killed": (own_postgres.kill, own_postgres.start),
        "hung": (own_postgres.pause, own_postgres.resume),
    }
    go_away, come_back = ways[fate]
    with Cluster(tmp_path, own_postgres.new_database(), NOBODY) as cluster:
        cluster.start("api-1", "projector-1")
        cluster.until_ready("api-1")
        with cluster.client("api-1") as client:
            guid = create(client)
            go_away()
            for _ in range(2):
                assert client.get("/healthz").status_code == 200
                asked: list[Callable[[], httpx.Response]] = [
                    lambda: client.get(f"/v3/packages/{guid}"),
                    lambda: client.get("/v3/packages"),
                    lambda: client.post("/v3/apps/app-1/packages", json={"type": "bits"}),
                    lambda: upload(client, guid),
                    lambda: client.delete(f"/v3/packages/{guid}"),
                    lambda: client.get("/readyz"),
                ]
                for ask in asked:
                    start = time.monotonic()
                    response = ask()
                    assert time.monotonic() - start < 2.5  # two, and some for a busy machine
                    assert response.status_code == 503, response.text
                    assert response.headers["Retry-After"]
            come_back()
            cluster.until_ready("api-1")
            eventually(lambda: upload(client, guid).status_code in (200, 400), within=20)
            state = client.get(f"/v3/packages/{guid}").json()["state"]
            assert state == "PROCESSING_UPLOAD"


@pytest.mark.slow
def test_uploads_are_accepted_while_the_broker_is_down(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    """And processed when it is there, by themselves."""
    server = found(RabbitServer)
    try:
        with Cluster(tmp_path, postgres.new_database(), server.url) as cluster:
            cluster.start("api-1", "worker-1", "relay-1", "projector-1")
            cluster.until_ready("api-1")
            with cluster.client("api-1") as client:
                guids = [create(client) for _ in range(3)]
                for guid in guids:
                    assert upload(client, guid).status_code == 200
                    assert client.get(f"/v3/packages/{guid}").json()["state"] != "READY"
                server.start()
                for guid in guids:
                    becomes_ready(client, guid, within=40)
    finally:
        server.stop()


@pytest.mark.slow
def test_parts_need_engines_that_they_can_share(tmp_path: Path) -> None:
    """One line says which setting is missing."""
    cluster = Cluster(tmp_path, "sqlite:///x.db", "memory://")
    for setting in ("PACKTRAIL_EVENT_STORE", "PACKTRAIL_BROKER"):
        with pytest.raises(AssertionError, match=setting):
            cluster.run("worker")
        cluster = Cluster(tmp_path, "postgresql://nobody@127.0.0.1:1/x", "memory://")


@pytest.mark.slow
def test_processes_that_could_not_do_each_others_work_are_refused(
    tmp_path: Path, postgres: PostgresServer, rabbit: RabbitServer
) -> None:
    """A second bus in memory, or other folders for bits: one would wait for the other's."""
    rabbit.forget_queues()
    database = postgres.new_database()
    with Cluster(tmp_path / "memory", database, "memory://") as cluster:
        (tmp_path / "memory").mkdir()
        cluster.start("serve-1")
        with pytest.raises(AssertionError, match="need a RabbitMQ server"):
            cluster.run("serve")
    with Cluster(tmp_path / "apart", database, rabbit.url) as cluster:
        (tmp_path / "apart").mkdir()
        with pytest.raises(AssertionError, match="the same data folder"):
            cluster.run("worker")
