"""Two of everything, and one thing after another is killed: nothing that was answered is lost.

Run by `make chaos`; PACKTRAIL_CHAOS_SEED repeats the order of a run.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import kombu
import orjson
import psycopg
import pytest

from adapters.bus.bus import EVENTS
from tests.conftest import found
from tests.support.cluster import Cluster
from tests.support.postgres import PostgresServer
from tests.support.rabbit import RabbitServer
from tests.support.swallowing import SwallowingProxy
from tests.support.waiting import eventually
from tests.support.zips import random_zip, sha1

UPLOADS = 500
CLIENTS = 8
ROUNDS = 3  # how often each thing is killed
PROCESSES = [f"{kind}-{n}" for kind in ("api", "worker", "relay", "projector") for n in (1, 2)]
APIS = ("api-1", "api-2")
PAUSE = 2.0  # seconds between one thing's return and the next one's end
READ_MODELS = ("packages", "unfinished_packages", "dead_letters")


@dataclass
class Subscriber:
    """Another system, with a durable queue of its own, that connects again when it has to."""

    url: str
    heard: list[tuple[str, str]] = field(default_factory=list)  # package, event id
    stopping: threading.Event = field(default_factory=threading.Event)

    QUEUE = kombu.Queue(
        "subscriber", EVENTS, routing_key="package.#", durable=True,
        queue_arguments={"x-queue-type": "quorum"},
    )  # fmt: skip

    def run(self) -> None:
        while not self.stopping.is_set():
            try:
                with kombu.Connection(self.url, connect_timeout=2) as connection:
                    with kombu.Consumer(connection, [self.QUEUE], on_message=self._hear):
                        while not self.stopping.is_set():
                            try:
                                connection.drain_events(timeout=0.2)
                            except TimeoutError:
                                continue
            except Exception:  # noqa: BLE001 - the broker is being killed
                self.stopping.wait(0.3)

    def _hear(self, message: Any) -> None:
        event = orjson.loads(message.body)
        self.heard.append((event["subject"], event["id"]))
        message.ack()


@dataclass
class Pusher:
    """Clients that push packages, each to an app of its own, until every upload is answered."""

    cluster: Cluster
    allowed: int = 0  # uploads that may have begun
    acknowledged: dict[str, str] = field(default_factory=dict)  # package: its bits' sha1
    tries: Counter[str] = field(default_factory=Counter)
    more: threading.Condition = field(default_factory=threading.Condition)
    giving_up: bool = False

    def allow(self, count: int) -> None:
        with self.more:
            self.allowed = count
            self.more.notify_all()

    def push(self, number: int) -> None:
        with self.more:
            assert self.more.wait_for(lambda: self.allowed > number or self.giving_up, 600)
        bits = random_zip(20_000 + number, seed=number)
        clients = [self.cluster.client(name, timeout=15) for name in APIS]
        try:
            guid = self._until(clients, number, lambda client: self._create(client, number))
            self._until(clients, number, lambda client: self._upload(client, guid, bits))
        finally:
            for client in clients:
                client.close()

    def _until(self, clients: list[httpx.Client], number: int, act: Any) -> Any:
        """Asks one API after the other until one has done it."""
        deadline = time.monotonic() + 120
        turn = number
        while True:
            turn += 1
            try:
                done = act(clients[turn % len(clients)])
            except httpx.HTTPError as error:
                self.tries[type(error).__name__] += 1
            else:
                if done:
                    return done
            assert time.monotonic() < deadline and not self.giving_up, "nobody answers any more"
            threading.Event().wait(0.1)  # a client's pause before it tries again

    def _create(self, client: httpx.Client, number: int) -> str | None:
        response = client.post(f"/v3/apps/app-{number}/packages", json={"type": "bits"})
        self.tries[f"create {response.status_code}"] += 1
        assert response.status_code in (201, 503), response.text
        return response.json()["guid"] if response.status_code == 201 else None

    def _upload(self, client: httpx.Client, guid: str, bits: bytes) -> bool:
        response = client.post(f"/v3/packages/{guid}/upload", files={"bits": ("a.zip", bits)})
        self.tries[f"upload {response.status_code}"] += 1
        assert response.status_code in (200, 400, 503), response.text
        if response.status_code == 400:  # a try without an answer was the one
            assert response.json()["error_code"] == "CF-PackageBitsAlreadyUploaded"
        if response.status_code in (200, 400):
            self.acknowledged[guid] = sha1(bits)
            return True
        return False


@dataclass
class World:
    cluster: Cluster
    postgres: PostgresServer
    rabbit: RabbitServer
    proxy: SwallowingProxy
    database: str

    def fault(self, what: str) -> str:
        """Kills something, starts it again, and waits until it is back. What happened."""
        start = time.monotonic()
        if what == "postgres":
            self.postgres.kill()
            self.postgres.start()
        elif what == "rabbit":
            self.rabbit.kill()
            self.rabbit.start()
        elif what == "swallowed commit":
            before = self.proxy.swallowed
            self.proxy.arm(3)
            eventually(lambda: self.proxy.swallowed >= before + 3, within=60)
        else:
            self.cluster.kill(what)
            self.cluster.start(what)
        self.cluster.until_ready(*APIS)
        return f"{what}: back in {time.monotonic() - start:.1f} s"

    def rows(self, table: str, columns: str = "*") -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database) as connection:
            found = connection.execute(f"SELECT {columns} FROM {table}".encode())
            return sorted(found.fetchall(), key=repr)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    postgres, rabbit = found(PostgresServer), found(RabbitServer)
    try:
        postgres.start()
        rabbit.start()
        proxy = SwallowingProxy(postgres.port)
        direct = postgres.new_database()
        through = direct.replace(f":{postgres.port}/", f":{proxy.port}/")
        with Cluster(tmp_path, through, rabbit.url, {"PACKTRAIL_SWEEP_GRACE": "10"}) as cluster:
            cluster.start(*PROCESSES)
            cluster.until_ready(*APIS)
            yield World(cluster, postgres, rabbit, proxy, direct)
    finally:
        rabbit.stop()
        postgres.stop()


def test_nothing_is_lost_whatever_dies(world: World) -> None:
    """500 uploads from 8 clients while processes, broker and database are killed in turn."""
    seed = int(os.environ.get("PACKTRAIL_CHAOS_SEED", random.randrange(1 << 32)))
    kinds = ["api", "worker", "relay", "projector", "postgres", "rabbit", "swallowed commit"]
    dice = random.Random(seed)
    faults = [f"{k}-{dice.choice('12')}" if k in kinds[:4] else k for k in kinds * ROUNDS]
    dice.shuffle(faults)
    print(f"\nPACKTRAIL_CHAOS_SEED={seed}")

    subscriber = Subscriber(world.rabbit.url)
    listening = threading.Thread(target=subscriber.run)
    listening.start()
    pusher = Pusher(world.cluster)
    with ThreadPoolExecutor(CLIENTS) as pool:
        pushes = [pool.submit(pusher.push, number) for number in range(UPLOADS)]
        try:
            for turn, what in enumerate(faults):
                pusher.allow(UPLOADS * (turn + 1) // len(faults))
                told = world.fault(what)
                print(f"  {turn + 1:>2} {told:<40} {len(pusher.acknowledged):>4} acknowledged")
                threading.Event().wait(PAUSE)
            pusher.allow(UPLOADS)
            for push in pushes:
                push.result()
        except BaseException:
            pusher.giving_up = True
            pusher.allow(UPLOADS)
            raise
    print(f"  answers: {dict(pusher.tries)}")
    assert len(pusher.acknowledged) == UPLOADS

    _check_packages(world, pusher)
    _check_log(world)
    _check_subscriber(world, subscriber)
    subscriber.stopping.set()
    listening.join()
    _check_read_models(world)
    eventually(lambda: world.cluster.staged_files() == [], within=60)
    print("  staging: empty")


def _check_packages(world: World, pusher: Pusher) -> None:
    def unfinished() -> int:
        return len(world.rows("unfinished_packages"))

    eventually(lambda: unfinished() == 0, within=180)
    rows = {
        guid: (state, digest) for guid, state, digest in world.rows("packages", "guid,state,sha1")
    }
    for guid, digest in pusher.acknowledged.items():
        assert rows[guid] == ("READY", digest), f"{guid} is {rows[guid]}"
    print(f"  packages: {len(pusher.acknowledged)} acknowledged, all READY with the right SHA-1")


def _check_log(world: World) -> None:
    """No event is there twice: each package has each step once."""
    events = world.rows("events", "originator_id, originator_version, topic")
    steps = Counter((guid, topic) for guid, _, topic in events)
    assert max(steps.values()) == 1, steps.most_common(3)
    assert {topic for _, _, topic in events} == {
        "package.created", "package.upload_started", "package.bits_stored", "package.hash_computed",
    }  # fmt: skip
    print(f"  log: {len(events)} events, none of them twice")


def _check_subscriber(world: World, subscriber: Subscriber) -> None:
    """Every event at least once; of each package, first deliveries in the order of the log."""
    wanted = {
        f"{guid.removeprefix('package:')}/{version}"
        for guid, version in world.rows("events", "originator_id, originator_version")
    }
    eventually(lambda: wanted <= {event for _, event in subscriber.heard}, within=120)
    firsts: dict[str, list[int]] = defaultdict(list)
    seen = set()
    for guid, event in subscriber.heard:
        if event not in seen:
            seen.add(event)
            firsts[guid].append(int(event.rpartition("/")[2]))
    for guid, versions in firsts.items():
        assert versions == sorted(versions), f"{guid} was told in the order {versions}"
    print(f"  subscriber: {len(seen)} events, {len(subscriber.heard) - len(seen)} of them again")


def _check_read_models(world: World) -> None:
    before = {table: world.rows(table) for table in READ_MODELS}
    world.cluster.run("replay")
    assert {table: world.rows(table) for table in READ_MODELS} == before
    print("  read models: equal to a rebuild")
