"""A stranger who knows the message contract, and AMQP: no HTTP but for downloads, no part of us."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pika
import pytest

from adapters.tokens import Scope
from tests.support.cluster import Cluster
from tests.support.postgres import PostgresServer
from tests.support.rabbit import RabbitServer
from tests.support.service import token
from tests.support.zips import random_zip, sha1

BITS = random_zip(30_000)
DROPLET = hashlib.sha512(b"any bytes are a droplet").digest() * 500
PROCESSES = ("api-1", "worker-1", "relay-1", "projector-1")
WITHIN = 30.0  # seconds until what was asked for is heard of


@dataclass
class Stranger:
    """What anybody can write who has read the contract: pika and JSON."""

    url: str
    token: str
    source: str = "/elsewhere/stranger"
    events: list[dict[str, Any]] = field(default_factory=list)
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    raw: list[str] = field(default_factory=list)  # all that was heard, as it came

    def __enter__(self) -> Stranger:
        self.connection = pika.BlockingConnection(pika.URLParameters(self.url))
        self.channel = self.connection.channel()
        self.channel.confirm_delivery()
        mine = self.channel.queue_declare("", exclusive=True).method.queue
        self.channel.queue_bind(mine, "packtrail.events", "#")
        self.replies = self.channel.queue_declare("", exclusive=True).method.queue
        self.channel.basic_consume(mine, self._on_event, auto_ack=True)
        self.channel.basic_consume(self.replies, self._on_answer, auto_ack=True)
        return self

    def __exit__(self, *error: object) -> None:
        self.connection.close()

    def _on_event(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        self.raw.append(f"{method} {properties} {body.decode()}")
        self.events.append(json.loads(body))

    def _on_answer(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        self.raw.append(f"{method} {properties} {body.decode()}")
        self.answers[properties.correlation_id] = json.loads(body)

    def command(self, kind: str, data: dict[str, Any], id: str | None = None) -> dict[str, Any]:
        """Sends a command, and waits for its answer."""
        identifier, correlation = id or str(uuid4()), str(uuid4())
        event = {
            "specversion": "1.0", "id": identifier, "source": self.source, "type": kind,
            "datacontenttype": "application/json", "data": data,
        }  # fmt: skip
        self.channel.basic_publish(
            "",
            "packtrail.commands",
            json.dumps(event).encode(),
            pika.BasicProperties(
                content_type="application/cloudevents+json",
                headers={"authorization": f"bearer {self.token}"},
                reply_to=self.replies,
                correlation_id=correlation,
                delivery_mode=2,
            ),
            mandatory=True,
        )
        self.listen(lambda: correlation in self.answers)
        return self.answers[correlation]

    def do(self, kind: str, data: dict[str, Any], id: str | None = None) -> str:
        """A command that is accepted; the guid of what it was carried out on."""
        answer = self.command(kind, data, id)
        assert answer["type"] == "command.accepted", answer
        return str(answer["data"]["guid"])

    def hear(self, kind: str, guid: str) -> dict[str, Any]:
        """The event of a type about something, as soon as it is told."""

        def found() -> list[dict[str, Any]]:
            return [e for e in self.events if (e["type"], e["subject"]) == (kind, guid)]

        self.listen(found)
        return found()[0]

    def told_of(self, guid: str) -> list[str]:
        return [event["type"] for event in self.events if event["subject"] == guid]

    def listen(self, condition: Any) -> None:
        deadline = time.monotonic() + WITHIN
        while not condition():
            assert time.monotonic() < deadline, (self.told(), self.answers)
            self.connection.process_data_events(time_limit=0.05)

    def told(self) -> list[tuple[str, str]]:
        return [(event["type"], event["subject"]) for event in self.events]


@pytest.fixture
def cluster(tmp_path: Path, postgres: PostgresServer, rabbit: RabbitServer) -> Iterator[Cluster]:
    rabbit.forget_queues()
    settings = {"PACKTRAIL_BUILDER": "off", "PACKTRAIL_SWEEP_GRACE": "3600"}
    with Cluster(tmp_path, postgres.new_database(), rabbit.url, settings) as cluster:
        cluster.start(*PROCESSES)
        cluster.until_ready("api-1")
        yield cluster


def put(cluster: Cluster, name: str, content: bytes) -> str:
    path = cluster.data_dir / "uploads" / name
    path.write_bytes(content)
    return str(path)


def blobs(cluster: Cluster) -> list[str]:
    folder = cluster.data_dir / "blobs"
    return [path.name for path in folder.rglob("*/*/*") if path.is_file()]


@pytest.mark.slow
def test_a_stranger_does_it_all_by_message(cluster: Cluster, rabbit: RabbitServer) -> None:
    """From an app's announcement to its deletion; everything is told, and no token anywhere."""
    url = rabbit.url.rstrip("/") + "/%2F"
    secret = token("stranger-1", (Scope.ADMIN,))
    with Stranger(url, secret) as stranger, cluster.client("api-1") as http:
        app = stranger.do("app.created", {"guid": "shop", "name": "Shop"})
        assert stranger.hear("app.created", app)["data"]["actor"] == "stranger-1"

        package = stranger.do("package.create", {"app_guid": app, "type": "bits"})
        bits = {"guid": package, "bits_path": put(cluster, "app.zip", BITS)}
        identifier = str(uuid4())
        bits["bits_name"] = "shop.zip"
        assert stranger.do("package.upload", bits, identifier) == package
        hashed = stranger.hear("package.hash_computed", package)
        assert hashed["data"]["sha1"] == sha1(BITS)
        assert stranger.do("package.upload", bits, identifier) == package
        again = put(cluster, "again.zip", BITS)
        refused = stranger.command("package.upload", {"guid": package, "bits_path": again})
        assert refused["type"] == "command.refused"
        assert (refused["data"]["status"], refused["data"]["code"]) == (400, 150004)
        Path(again).unlink()

        droplet = stranger.do("package.stage", {"guid": package, "memory_limit": 2048})
        asked = stranger.hear("droplet.staging_requested", droplet)
        assert asked["data"]["package_guid"] == package
        stranger.do("droplet.staging_started", {"guid": asked["subject"]})
        report = {
            "guid": droplet, "bits_path": put(cluster, "droplet.tgz", DROPLET),
            "sha1": sha1(DROPLET), "process_types": {"web": "rackup"}, "buildpack": "by hand",
        }  # fmt: skip
        stranger.do("droplet.staged", report)
        assert stranger.hear("droplet.staged", droplet)["data"]["sha1"] == sha1(DROPLET)
        shown = http.get(f"/v3/droplets/{droplet}").json()
        assert (shown["state"], shown["procfile"]) == ("STAGED", "web: rackup")
        assert http.get(f"/v3/droplets/{droplet}/download").content == DROPLET
        assert http.get(f"/v3/packages/{package}/download").content == BITS
        assert len(blobs(cluster)) == 2
        assert list((cluster.data_dir / "uploads").iterdir()) == []

        stranger.do("app.deleted", {"guid": app})
        deleted = stranger.hear("app.deleted", app)
        for kind, guid in (("package.deleted", package), ("droplet.deleted", droplet)):
            because = stranger.hear(kind, guid)["data"]
            assert (because["actor"], because["caused_by"]) == ("stranger-1", deleted["id"])
        stranger.listen(lambda: not blobs(cluster) and not cluster.staged_files())
        assert http.get(f"/v3/droplets/{droplet}").status_code == 404

        assert stranger.told_of(package) == [
            "package.created", "package.upload_started", "package.bits_stored",
            "package.hash_computed", "package.staging_requested", "package.deleted",
        ]  # fmt: skip
        assert stranger.told_of(droplet) == [
            "droplet.created", "droplet.staging_requested", "droplet.staging_started",
            "droplet.staged", "droplet.deleted",
        ]  # fmt: skip
        sequence = [e["sequence"] for e in stranger.events]
        assert sequence == sorted(sequence)
        heard = "\n".join(stranger.raw)
    assert {name: cluster.stop(name) for name in PROCESSES} == dict.fromkeys(PROCESSES, 0)
    logs = {path.name: path.read_text() for path in cluster.folder.rglob("*.log")}
    assert "command accepted" in logs["worker-1.log"]
    _, claims, signature = secret.split(".")
    for name, text in {**logs, "heard": heard}.items():
        assert text
        assert claims not in text and signature not in text, name


@pytest.mark.slow
def test_a_commands_worker_that_dies_loses_no_command(
    cluster: Cluster, rabbit: RabbitServer
) -> None:
    """Killed in the midst of many, another does the rest, each once."""
    url = rabbit.url.rstrip("/") + "/%2F"
    with Stranger(url, token("stranger-1", (Scope.WRITE,))) as stranger:
        first = stranger.do("package.create", {"app_guid": "app-1", "type": "bits"}, "command-0")
        cluster.kill("worker-1")
        cluster.start("worker-2")
        for number in range(5):
            data = {"app_guid": "app-1", "type": "bits"}
            guid = stranger.do("package.create", data, f"command-{number}")
            assert (guid == first) == (number == 0)
            stranger.hear("package.created", guid)
        assert [kind for kind, _ in stranger.told() if kind == "package.created"] == [
            "package.created"
        ] * 5
