"""Secrets never leave: not by a log line, an event, a message, an error, or a command line.

Whole services are driven with secrets of which each is known by its text, by every route and
through failures; then all that anybody could read is searched for them.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import re
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pika
import psycopg
import pytest

from adapters.token_keys import Secret
from adapters.tokens import Scope, Tokens
from tests.end_to_end.test_by_message import Stranger
from tests.support.canaries import Canaries
from tests.support.cluster import Cluster
from tests.support.postgres import PostgresServer
from tests.support.rabbit import RabbitServer
from tests.support.s3 import S3Server
from tests.support.service import ROOT, Service
from tests.support.waiting import eventually
from tests.support.zips import zip_of

BITS = zip_of({"Procfile": b"web: true\n"})
ENVIRONMENTS = ("an app's variable", "a droplet's variable")
MAY_BE_SHOWN = (*ENVIRONMENTS, "a token")  # by an answer that shows a droplet or an app


class People:
    """The tokens that requests carry: good ones and bad ones, with addresses in them."""

    def __init__(self, canaries: Canaries, secret: str) -> None:
        self._tokens = Tokens(Secret(secret), "cloud_controller")
        self._canaries = canaries
        canaries.watch("an address", "ada@canary-address.example")
        both = (Scope.READ, Scope.WRITE)
        self.good = self._sign("a good token", "ada", both)
        self.admin = self._sign("an admin's token", "grace", (Scope.ADMIN,))
        self.by_message = self._sign("a token by message", "barbara", (*both, Scope.ADMIN))
        self.reader = self._sign("a reader's token", "edsger", (Scope.READ,))
        self.expired = self._sign("an expired token", "ada", both, -10)
        stranger = Tokens(Secret(canaries.new("a stranger's secret")), "cloud_controller")
        self.foreign = canaries.watch_token(
            "a foreign token", stranger.sign("eve", "ada@canary-address.example", both, 600)
        )
        none, claims = (
            base64.urlsafe_b64encode(part.encode()).decode().rstrip("=")
            for part in ('{"alg":"none"}', self._canaries.new("claims without a signature"))
        )
        self.unsigned = canaries.watch_token("an unsigned token", f"{none}.{claims}.")

    def _sign(self, name: str, user: str, scopes: tuple[str, ...], expires_in: int = 3600) -> str:
        token = self._tokens.sign(user, "ada@canary-address.example", scopes, expires_in)
        return self._canaries.watch_token(name, token)


class Visitor:
    """Asks, and searches what it is answered."""

    def __init__(self, url: str, canaries: Canaries, token: str) -> None:
        self.canaries = canaries
        self.http = httpx.Client(base_url=url, timeout=30)
        self.token = token

    def ask(
        self, method: str, path: str, status: int | None = None, **options: Any
    ) -> httpx.Response:
        """A request with the visitor's token, unless it has headers of its own."""
        headers = options.pop("headers", {"Authorization": f"bearer {self.token}"})
        answer = self.http.request(method, path, headers=headers, **options)
        if status is not None:
            assert answer.status_code == status, (method, path, answer.text)
        shown = f"{answer.headers!r} {answer.text}" if answer.status_code != 302 else ""
        may = MAY_BE_SHOWN if answer.status_code < 300 else ()
        self.canaries.look("answers" if may else "errors over HTTP", shown, may)
        return answer

    def settled(self, path: str) -> str:
        def state() -> str | None:
            found = self.ask("GET", path).json().get("state")
            return str(found) if found in ("READY", "FAILED", "STAGED") else None

        return str(eventually(state, within=60, every=0.1))


def drive(visitor: Visitor, people: People, canaries: Canaries) -> None:
    """Every route, well and badly."""
    ask, droplet = visitor.ask, canaries.new("a droplet's variable")
    password = canaries.new("a password")
    package = ask("POST", "/v3/apps/shop/packages", 201, json={"type": "bits"}).json()["guid"]
    for name in ("foreign", "expired", "unsigned", "reader"):
        headers = {"Authorization": f"bearer {getattr(people, name)}"}
        for path in (f"/v3/packages/{package}/upload", "/v3/apps/shop/packages"):
            refused = ask("POST", path, headers=headers, files={"bits": ("a", b"-")})
            assert refused.status_code in (401, 403)
    for scheme in ("Basic", "bearer", "Token"):
        headers = {"Authorization": f"{scheme} {password}"}
        ask("GET", "/v3/packages", 401, headers=headers)
    ask("GET", f"/v3/packages?access_token={people.good}", 400)
    ask("GET", f"/v3/packages?page={password}", 400)
    ask("POST", f"/v3/packages/{package}/upload", 200, files={"bits": ("app.zip", BITS)})
    ask("POST", f"/v3/packages/{package}/upload", 400, files={"bits": (password, b"-")})
    form = {"bits_path": f"/{password}", "bits_name": password}
    other = ask("POST", "/v3/apps/shop/packages", 201, json={"type": "bits"}).json()["guid"]
    ask("POST", f"/v3/packages/{other}/upload", 422, data=form)
    broken = {"Content-Type": f"multipart/form-data; boundary={password}"}
    headers = {"Authorization": f"bearer {people.good}", **broken}
    ask("POST", f"/v3/packages/{other}/upload", 422, content=password, headers=headers)
    assert visitor.settled(f"/v3/packages/{package}") == "READY"
    bodies: list[dict[str, Any] | list[str] | str] = [
        {"type": "docker", "url": f"https://ada:{password}@registry.example/image"},
        {"type": "docker", "url": f"ada:{password}@registry.example/image"},
        {"type": "docker", "url": f"registry.example/image?token={password}"},
        {"type": password}, {"type": "bits", "url": password},
        {"type": "bits", "password": password}, [password], password,
    ]  # fmt: skip
    for body in bodies:
        refused = ask("POST", "/v3/apps/shop/packages", json=body)
        assert refused.status_code in (400, 422), refused.text
    ask("POST", "/v3/apps/shop/packages", 400, content=f'{{"type": {password}')
    stage = f"/v3/packages/{package}/droplets"
    for body in (
        {"buildpack": f"https://ada:{password}@git.example/buildpack"},
        {"environment_variables": {"CF_PASSWORD": password}},
        {"environment_variables": password}, {"environment_variables": [password]},
        {"memory_limit": password}, {"stack": [password]},
    ):  # fmt: skip
        ask("POST", stage, 422, json=body)
    ask("POST", stage, 400, content=f'{{"environment_variables": {{"PASSWORD": "{password}"')
    made = ask("POST", stage, 201, json={"environment_variables": {"PASSWORD": droplet}}).json()
    path = f"/v3/droplets/{made['guid']}"
    assert made["environment_variables"]["PASSWORD"] == droplet
    assert visitor.settled(path) == "STAGED"
    ask("PUT", "/v3/apps/shop/current_droplet", 422, json={"droplet_guid": [password]})
    ask("PUT", "/v3/apps/shop/current_droplet", 200, json={"droplet_guid": made["guid"]})
    copy = f"/v3/apps/other/packages?source_package_guid={package}"
    copied = ask("POST", copy, 201).json()["guid"]
    for found in (
        "/", "/healthz", "/readyz", "/metrics", "/v3/packages", f"/v3/packages/{package}",
        f"/v3/packages/{package}/download", path, f"{path}/download", "/v3/droplets",
        "/v3/apps/shop/packages", "/v3/apps/shop/droplets", "/v3/apps/shop",
    ):  # fmt: skip
        assert ask("GET", found).status_code in (200, 302), found
    ask("GET", "/v3/spaces/none", 404)
    ask("GET", "/v3/organizations/none", 404)
    ask("GET", "/openapi.json")
    assert visitor.settled(f"/v3/packages/{copied}") == "READY"
    ask("DELETE", f"/v3/packages/{copied}", 204)
    _send_nonsense(visitor, people)


def _send_nonsense(visitor: Visitor, people: People) -> None:
    """What no HTTP client sends, with a good token in it."""
    url = httpx.URL(visitor.http.base_url)
    for request in (
        f"GET /v3/packages HTTP/1.1\r\nAuthorization bearer {people.good}\r\n\r\n",
        f"GET /v3/packages HTTP/9.9 {people.good}\r\nHost: a\r\n\r\n",
        f"POST /v3/apps/a/packages HTTP/1.1\r\nContent-Length: {people.good}\r\n\r\n",
        f"POST /v3/apps/a/packages HTTP/1.1\r\nTransfer-Encoding: {people.good}\r\n\r\n",
    ):
        with socket.create_connection((url.host, url.port or 80), timeout=10) as connection:
            connection.sendall(request.encode())
            connection.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                while answer := connection.recv(65536):
                    visitor.canaries.look("errors over HTTP", answer)


class Collector(ThreadingHTTPServer):
    """What traces are sent to: it keeps all of it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Receive)
        self.received: list[bytes] = []


class _Receive(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        compressed = self.headers.get("Content-Encoding") == "gzip"
        self.server.received.append(gzip.decompress(body) if compressed else body)
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    threading.Thread(target=collector.serve_forever, args=(0.05,), daemon=True).start()
    yield collector
    collector.shutdown()
    collector.server_close()


@pytest.fixture
def canaries() -> Canaries:
    return Canaries()


def tracing_to(collector: Collector) -> dict[str, str]:
    return {
        "PACKTRAIL_TRACING": "on",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
    }


def command(environment: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "entrypoints", *arguments],
        cwd=ROOT, env=dict(environment), capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def directory(folder: Path, canaries: Canaries) -> str:
    """A file with an app that has an environment, for `packtrail apps import`."""
    file = folder / "apps.json"
    variables = {"PASSWORD": canaries.new("an app's variable")}
    app = {"guid": "shop", "name": "shop", "environment_variables": variables}
    file.write_text(json.dumps({"apps": [app]}))
    return str(file)


@pytest.mark.slow
def test_no_secret_leaves_a_service_in_one_process(
    tmp_path: Path, canaries: Canaries, collector: Collector
) -> None:
    """On the embedded default, with its database broken, and with a dead letter."""
    secret = canaries.new("the secret")
    people = People(canaries, secret)
    settings = {"PACKTRAIL_JWT_SECRET": secret, **tracing_to(collector)}
    with Service(tmp_path, settings) as service:
        visitor = Visitor(service.url, canaries, people.good)
        imported = command(service.environment(), "apps", "import", directory(tmp_path, canaries))
        assert imported.returncode == 0, imported.stderr
        canaries.look("commands", imported.stdout + imported.stderr)
        drive(visitor, people, canaries)
        _break_and_mend(service, visitor, canaries)
        letter = _dead_letter(service, visitor)
        for arguments in (("dead", "list"), ("dead", "show", letter), ("check",)):
            told = command(service.environment(), *arguments)
            assert told.stdout
            canaries.look("commands", told.stdout + told.stderr)
        canaries.look_at_processes(service.pid)
        canaries.look("stdout", service.said)
        assert service.stop() == 0
    canaries.look("logs", service.log.read_bytes())
    canaries.look("traces", b"".join(collector.received))
    with sqlite3.connect(service.data_dir / "packtrail.db") as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        for (table,) in names.fetchall():
            rows = repr(connection.execute(f'SELECT * FROM "{table}"').fetchall())
            canaries.look(f"table {table}", rows, _kept_in(table))
    log = service.log.read_text()
    assert "Traceback" in log, "a fault of ours was to be logged"
    assert canaries.leaks == []
    assert {p for p, n in canaries.looked_at.items() if n} >= {
        "logs", "traces", "answers", "errors over HTTP", "table events", "table people", "commands",
        "stdout", "command lines", "table environments",
    }  # fmt: skip


def _kept_in(table: str) -> tuple[str, ...]:
    """Which secrets a table is for."""
    return {"environments": ENVIRONMENTS, "people": ("an address",)}.get(table, ())


def _break_and_mend(service: Service, visitor: Visitor, canaries: Canaries) -> None:
    """The database is locked, then an environment in it is none: 503, and a fault of ours."""
    file = service.data_dir / "packtrail.db"
    stage = {"environment_variables": {"PASSWORD": canaries.new("a variable that is not kept")}}
    droplet = visitor.ask("GET", "/v3/droplets").json()["resources"][0]
    path = f"/v3/packages/{droplet['links']['package']['href'].rpartition('/')[2]}/droplets"
    locked = sqlite3.connect(file, isolation_level=None)
    locked.execute("BEGIN EXCLUSIVE")
    visitor.ask("POST", path, 503, json=stage)
    locked.execute("ROLLBACK")
    eventually(lambda: visitor.ask("GET", "/readyz").status_code == 200)
    owner = f"droplet:{droplet['guid']}"
    row = "SELECT variables FROM environments WHERE owner = ?"
    (kept,) = locked.execute(row, [owner]).fetchone()
    change = "UPDATE environments SET variables = ? WHERE owner = ?"
    locked.execute(change, [canaries.new("a broken variable").encode(), owner])
    visitor.ask("GET", f"/v3/droplets/{droplet['guid']}", 500)
    locked.execute(change, [kept, owner])
    locked.close()


def _dead_letter(service: Service, visitor: Visitor) -> str:
    """A package whose staged bits somebody has taken away."""
    new = visitor.ask("POST", "/v3/apps/shop/packages", 201, json={"type": "bits"})
    guid = str(new.json()["guid"])
    blobs, away = service.data_dir / "blobs", service.data_dir / "away"
    blobs.rename(away)
    visitor.ask("POST", f"/v3/packages/{guid}/upload", 200, files={"bits": ("a.zip", BITS)})
    for name in service.staged_files():
        if guid in name:
            (service.data_dir / "staging" / name).unlink()
    away.rename(blobs)
    assert visitor.settled(f"/v3/packages/{guid}") == "FAILED"
    return guid


@pytest.fixture
def own_s3() -> Iterator[S3Server]:
    server = S3Server()
    server.start()
    yield server
    server.stop()


def database_with_a_password(server: PostgresServer, password: str) -> str:
    """The URL of an empty database whose owner must tell a password."""
    hba = server.folder / "data" / "pg_hba.conf"
    with hba.open("r+") as file:
        before = file.read()
        file.seek(0)
        file.write(f"host all trail 127.0.0.1/32 scram-sha-256\n{before}")
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE ROLE trail LOGIN PASSWORD '{password}'")
        connection.execute("CREATE DATABASE trail OWNER trail")
        connection.execute("SELECT pg_reload_conf()")
    return f"postgresql://trail:{password}@127.0.0.1:{server.port}/trail"


PROCESSES = ("api-1", "worker-1", "relay-1", "projector-1", "builder-1")


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_no_secret_leaves_the_processes_of_a_service(
    tmp_path: Path,
    canaries: Canaries,
    collector: Collector,
    own_postgres: PostgresServer,
    own_rabbit: RabbitServer,
    own_s3: S3Server,
) -> None:
    """On PostgreSQL, RabbitMQ and a bucket, each away for a while, and with wrong passwords."""
    secret = canaries.new("the secret")
    people = People(canaries, secret)
    database = database_with_a_password(own_postgres, canaries.new("the database's password"))
    broker = own_rabbit.url_with_a_password("trail", canaries.new("the broker's password"))
    wrong = canaries.new("a wrong password")
    settings = {
        "PACKTRAIL_JWT_SECRET": secret,
        "PACKTRAIL_BLOB_STORE": own_s3.new_bucket(),
        **own_s3.environment,
        "AWS_SECRET_ACCESS_KEY": canaries.new("the store's key"),
        **tracing_to(collector),
    }
    with Cluster(tmp_path, database, broker, settings) as cluster:
        api = f"http://127.0.0.1:{cluster.port('api-1')}"
        cluster.start("api-1", options=("--workers", "2"))
        cluster.start("worker-1", "relay-1", "projector-1")
        cluster.start("builder-1", options=("--api", api))
        cluster.until_ready("api-1")
        visitor = Visitor(api, canaries, people.good)
        cluster.run("apps", "import", directory(tmp_path, canaries))
        url = broker.rstrip("/") + "/%2F"
        with Stranger(url, people.by_message) as stranger:
            drive(visitor, people, canaries)
            _command(stranger, people, canaries)
            canaries.look("messages", "\n".join(stranger.raw))
        _ask_with_wrong_passwords(cluster, wrong, canaries)
        for server in (own_s3, own_rabbit, own_postgres):
            _away_and_back(server, visitor, cluster)
        canaries.look("parked messages", _parked(url))
        for name in PROCESSES:
            canaries.look_at_processes(cluster.pid(name))
            canaries.look("stdout", cluster.said(name))
            for where in re.findall(r"http://\S+/metrics", cluster.said(name)):
                canaries.look("metrics", httpx.get(where).text)
        told = cluster.run("dead", "list") + cluster.run("forget", "barbara")
        canaries.look("commands", told)
        with psycopg.connect(database) as connection:
            names = connection.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
            ).fetchall()
            for (table,) in names:
                rows = connection.execute(f'SELECT t::text FROM "{table}" t')
                text = "\n".join(str(row[0]) for row in rows)
                canaries.look(f"table {table}", text, _kept_in(table))
                canaries.look(f"table {table}", _unhexed(text), _kept_in(table))
        assert {name: cluster.stop(name) for name in PROCESSES} == dict.fromkeys(PROCESSES, 0)
    for path in tmp_path.glob("*.log"):
        canaries.look(f"log {path.name}", path.read_bytes())
    canaries.look("traces", b"".join(collector.received))
    canaries.look("PostgreSQL's log", (own_postgres.folder / "log").read_bytes())
    assert canaries.leaks == []
    assert {p for p, n in canaries.looked_at.items() if n} >= {
        "traces", "answers", "errors over HTTP", "table events", "table people", "commands",
        "stdout", "command lines", "table environments", "messages", "parked messages", "metrics",
        *(f"log {name}.log" for name in PROCESSES if name != "builder-1"),
    }  # fmt: skip


def _unhexed(text: str) -> bytes:
    """What PostgreSQL shows of bytes, as bytes."""
    return b" ".join(bytes.fromhex(found) for found in re.findall(r"\\x((?:[0-9a-f]{2})+)", text))


def _command(stranger: Stranger, people: People, canaries: Canaries) -> None:
    """Commands by message: a good one, refused ones, one that nobody can read."""
    package = stranger.do("package.create", {"app_guid": "shop", "type": "bits"})
    password = canaries.new("a password by message")
    for kind, data in (
        ("package.stage", {"guid": package, "environment_variables": {"PASSWORD": password}}),
        ("package.create", {"app_guid": "shop", "type": "docker", "url": f"a:{password}@b/c"}),
        ("package.upload", {"guid": package, "bits_path": f"/{password}"}),
        ("package.upload", {"guid": package, "bits_url": f"s3://{password}/x"}),
        ("app.created", {"guid": "a", "name": "a", "buildpack": f"https://{password}@git/b"}),
        ("package.delete", {"guid": package, "password": password}),
        ("package.delete", {"guid": [password]}),
    ):
        assert stranger.command(kind, data)["type"] == "command.refused", kind
    for token in (people.expired, people.foreign, people.unsigned, people.reader):
        stranger.token = token
        answer = stranger.command("package.delete", {"guid": package})
        assert answer["type"] == "command.refused"
    for token in (people.by_message, people.foreign):
        stranger.channel.basic_publish(
            "packtrail.commands", "", b"this is no JSON",
            pika.BasicProperties(
                headers={"authorization": f"bearer {token}", "x-password": password}
            ),
        )  # fmt: skip
    stranger.token = people.by_message
    stranger.do("package.delete", {"guid": package})


def _parked(url: str) -> str:
    """All that is parked, as who looks at it sees it."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    found: list[str] = []
    while True:
        method, properties, body = channel.basic_get("packtrail.parked")
        if method is None:
            connection.close()
            return "\n".join(found)
        found.append(f"{method} {properties} {body!r}")


def _ask_with_wrong_passwords(cluster: Cluster, wrong: str, canaries: Canaries) -> None:
    """Of the database, which ends a start, and of the broker, which is asked again and again."""
    right = cluster.environment("worker-9")
    for variable in ("PACKTRAIL_EVENT_STORE", "PACKTRAIL_BROKER"):
        url = re.sub(r"//trail:\w+@", f"//trail:{wrong}@", right[variable])
        assert wrong in url
        environment = {**right, variable: url}
        process = subprocess.Popen(
            [sys.executable, "-m", "entrypoints", "worker"],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        text = ""
        for line in process.stdout:
            text += line
            if "ACCESS_REFUSED" in line or "AccessRefused" in line:
                process.kill()
        process.wait(60)
        process.stdout.close()
        assert "password" in text or "REFUSED" in text.upper(), text
        canaries.look("wrong passwords", text)


def _away_and_back(
    server: S3Server | RabbitServer | PostgresServer, visitor: Visitor, cluster: Cluster
) -> None:
    """Killed, asked for, and started again."""
    before = len(cluster.log("worker-1").read_text())
    server.stop() if isinstance(server, S3Server) else server.kill()
    visitor.ask("GET", "/readyz")
    visitor.ask("POST", "/v3/apps/shop/packages", json={"type": "bits"})
    visitor.ask("GET", "/v3/droplets")
    if isinstance(server, S3Server):
        assert visitor.ask("GET", "/readyz").json()["parts"]["blob_store"]["status"] == "degraded"
    else:
        eventually(lambda: len(cluster.log("worker-1").read_text()) > before, within=30)
    server.start()
    eventually(lambda: visitor.ask("GET", "/readyz").status_code == 200, within=60, every=0.2)
