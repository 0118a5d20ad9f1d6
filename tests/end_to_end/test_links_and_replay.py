"""Every link leads somewhere, on the embedded default and on PostgreSQL and RabbitMQ; and a
replay is quiet: it emits no message, and no new event."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import kombu
import psycopg
import pytest

from adapters.bus.bus import EVENTS
from tests.support.cluster import Cluster
from tests.support.postgres import PostgresServer
from tests.support.rabbit import RabbitServer
from tests.support.service import ROOT, Service, bearer
from tests.support.waiting import eventually
from tests.support.zips import random_zip, zip_of

READ_MODELS = (
    "packages", "unfinished_packages", "dead_letters", "droplets", "apps", "spaces",
    "organizations", "projection_positions",
)  # fmt: skip
FEW = {"PACKTRAIL_KEPT_PACKAGES": "5"}
SITE = zip_of({"index.html": b"<h1>hello</h1>", "style.css": b"h1 { color: green }"})


@dataclass
class Running:
    """A service of either kind, as a client and an operator have it."""

    client: httpx.Client
    restart: Any
    log_length: Any
    forget_read_models: Any

    def push(self, bits: bytes, app: str = "app-1") -> dict[str, Any]:
        created = self.client.post(f"/v3/apps/{app}/packages", json={"type": "bits"}).json()
        links = created["links"]
        upload = self.client.post(links["upload"]["href"], files={"bits": ("site.zip", bits)})
        assert upload.status_code == 200, upload.text
        return self.until(links["self"]["href"], "READY")

    def until(self, path: str, state: str) -> dict[str, Any]:
        found: dict[str, Any] = {}

        def is_there() -> bool:
            answer = self.client.get(path)
            if answer.status_code == 200:
                found.update(answer.json())
            return bool(found) and found["state"] == state

        eventually(is_there, within=60)
        return found


@contextlib.contextmanager
def embedded(folder: Path) -> Iterator[Running]:
    with Service(folder, FEW) as service:
        database = service.data_dir / "packtrail.db"

        def ask(*statements: str) -> int:
            with contextlib.closing(sqlite3.connect(database, timeout=20)) as connection:
                for statement in statements:
                    found = connection.execute(statement).fetchone()
                connection.commit()
                return int(found[0]) if found else 0

        def restart(between: Any) -> None:
            service.stop()
            between()
            service.start()

        with httpx.Client(base_url=service.url, headers=bearer(), timeout=30) as client:
            yield Running(
                client,
                restart,
                lambda: ask("SELECT count(*) FROM events"),
                lambda: ask(*(f"DELETE FROM {table}" for table in READ_MODELS)),
            )


@contextlib.contextmanager
def clustered(folder: Path, url: str, broker: str) -> Iterator[Running]:
    with Cluster(folder, url, broker, FEW) as cluster:
        parts = ("api-1", "worker-1", "relay-1", "projector-1")

        def start() -> None:
            cluster.start(*parts)
            cluster.start("builder-1", options=("--api", cluster.url("api-1")))
            cluster.until_ready("api-1")

        def restart(between: Any) -> None:
            for name in (*parts, "builder-1"):
                assert cluster.stop(name) == 0
            between()
            start()

        def ask(*statements: str) -> int:
            with psycopg.connect(url, autocommit=True) as connection:
                for statement in statements:
                    cursor = connection.execute(statement)
                row = cursor.fetchone() if cursor.description else None
                return int(row[0]) if row else 0

        start()
        with cluster.client("api-1") as client:
            yield Running(
                client,
                restart,
                lambda: ask("SELECT count(*) FROM events"),
                lambda: ask(*(f"DELETE FROM {table}" for table in READ_MODELS)),
            )


@pytest.fixture(
    params=["embedded", pytest.param("PostgreSQL and RabbitMQ", marks=pytest.mark.slow)]
)
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Running]:
    if request.param == "embedded":
        with embedded(tmp_path) as found:
            yield found
        return
    postgres: PostgresServer = request.getfixturevalue("postgres")
    rabbit: RabbitServer = request.getfixturevalue("rabbit")
    rabbit.forget_queues()
    with clustered(tmp_path, postgres.new_database(), rabbit.url) as found:
        yield found


def test_every_link_of_a_package_and_of_its_droplet_answers(running: Running) -> None:
    """The bits are staged by the builder; what links lead to is what they say."""
    package = running.push(SITE)
    links = package["links"]
    assert list(links) == ["self", "upload", "download", "stage", "app"]
    assert running.client.get(links["self"]["href"]).json() == package
    assert running.client.get(links["download"]["href"]).content == SITE
    again = running.client.post(links["upload"]["href"], files={"bits": ("a.zip", SITE)})
    assert (again.status_code, again.json()["code"]) == (400, 150004)
    staged = running.client.post(links["stage"]["href"], json={})
    assert staged.status_code == 201
    droplet = running.until(staged.json()["links"]["self"]["href"], "STAGED")
    assert droplet["buildpack"] == "static"
    assert droplet["links"]["package"]["href"] == links["self"]["href"]
    bits = running.client.get(f"{droplet['links']['self']['href']}/download")
    assert bits.headers["Content-Type"] == "application/gzip"
    assign = droplet["links"]["assign_current_droplet"]
    assigned = running.client.request(
        assign["method"], assign["href"], json={"droplet_guid": droplet["guid"]}
    )
    assert assigned.status_code == 200
    app = running.client.get(links["app"]["href"]).json()
    assert app == assigned.json()
    assert app["name"] is None
    assert app["links"]["droplet"]["href"] == droplet["links"]["self"]["href"]
    for link in app["links"].values():
        assert running.client.get(link["href"]).status_code == 200, link


@pytest.mark.slow
def test_read_models_built_anew_lead_to_no_event(running: Running) -> None:
    """With retention and builder running: what was decided once stays as it was."""
    for seed in range(6):
        running.push(random_zip(500, seed))
    droplets = [running.push(SITE, "app-2") for _ in range(2)]
    for package in droplets:
        made = running.client.post(package["links"]["stage"]["href"], json={}).json()
        running.until(made["links"]["self"]["href"], "STAGED")
    eventually(lambda: "EXPIRED" in states(running))

    def shown() -> list[Any]:
        paths = ("/v3/packages", "/v3/droplets", "/v3/apps/app-1", "/v3/apps/app-2")
        return [running.client.get(path).json() for path in paths]

    before, length = shown(), running.log_length()
    running.restart(running.forget_read_models)
    eventually(lambda: running.client.get("/v3/packages").status_code == 200)
    assert shown() == before
    running.push(random_zip(500, 7), "app-3")  # all that follows from events has had its time
    assert running.log_length() == length + 4
    assert states(running)[:8] == [package["state"] for package in before[0]["resources"]]


def states(running: Running) -> list[str]:
    return [p["state"] for p in running.client.get("/v3/packages").json()["resources"]]


@pytest.mark.slow
def test_read_models_built_anew_are_not_published(
    tmp_path: Path, postgres: PostgresServer, rabbit: RabbitServer
) -> None:
    """Whoever follows along hears nothing a second time."""
    rabbit.forget_queues()
    with clustered(tmp_path, postgres.new_database(), rabbit.url) as running:
        package = running.push(SITE)
        made = running.client.post(package["links"]["stage"]["href"], json={}).json()
        running.until(made["links"]["self"]["href"], "STAGED")

        def nothing_is_left() -> bool:
            with kombu.Connection(rabbit.url) as connection:
                return not connection.channel().queue_declare("packtrail.staging", passive=True)[1]

        eventually(nothing_is_left)
        with kombu.Connection(rabbit.url) as connection:
            channel = connection.channel()
            queue = kombu.Queue("heard", EVENTS, routing_key="#", durable=False, exclusive=True)
            theirs = queue(channel)
            theirs.declare()
            running.restart(running.forget_read_models)
            last = running.push(random_zip(500), "app-2")
            heard: list[str] = []

            def until_the_last() -> bool:
                while (delivery := theirs.get(no_ack=True)) is not None:
                    heard.append(delivery.properties["message_id"])
                return f"{last['guid']}/4" in heard

            eventually(until_the_last)
    assert heard == [f"{last['guid']}/{version}" for version in (1, 2, 3, 4)]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_app_with_a_thousand_packages_is_deleted(tmp_path: Path) -> None:
    """No blob, no row that shows, and a log that tells who did it."""
    service = Service(tmp_path, {"PACKTRAIL_APPS": "open"})
    with service:
        local = threading.local()

        def push(seed: int) -> None:
            if not hasattr(local, "client"):
                local.client = service.client()
            guid = local.client.create("doomed")
            assert local.client.upload(guid, random_zip(200, seed)).status_code == 200

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(push, range(1000)))
        client = service.client()
        page = "/v3/apps/doomed/packages?per_page=5000"
        eventually(
            lambda: all(p["state"] == "READY" for p in client.http.get(page).json()["resources"]),
            within=120,
        )
        assert len(service.blobs()) == 1000
        client.push(random_zip(200, 1), "spared")
        delete_app(service, "doomed", "auditor-1")
        eventually(
            lambda: client.http.get("/v3/packages").json()["pagination"]["total_results"] == 1,
            within=120,
        )
        eventually(lambda: len(service.blobs()) == 1, within=60)
        assert client.http.get("/v3/apps/doomed").status_code == 404
    with contextlib.closing(sqlite3.connect(service.data_dir / "packtrail.db")) as connection:
        told = connection.execute(
            "SELECT count(*), count(DISTINCT originator_id) FROM events "
            "WHERE topic = 'package.deleted' AND json_extract(state, '$.actor') = 'auditor-1' "
            "AND json_extract(state, '$.caused_by') = 'doomed/2'"
        ).fetchone()
    assert told == (1000, 1000)


def delete_app(service: Service, guid: str, actor: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "entrypoints", "apps", "delete", guid, "--as", actor],
        cwd=ROOT, env=service.environment(), check=True, timeout=60, capture_output=True,
    )  # fmt: skip
