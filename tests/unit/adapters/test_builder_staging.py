"""The builder takes part by what is open to all: it hears, fetches over HTTP, and answers."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import kombu
import pytest

from adapters import builder as builder_module
from adapters.builder import Api, Builder, BuilderConsumer
from adapters.bus import contract
from adapters.bus.bus import COMMANDS, STAGING, Abandoned, BrokerAway
from adapters.bus.commands import Received
from adapters.bus.memory import MemoryBus
from adapters.bus.messages import Message
from adapters.delivery import STALE, FolderDelivery
from adapters.limits import USUAL
from tests.support.waiting import eventually
from tests.support.zips import sha1, zip_of

BITS = zip_of({"Procfile": b"web: run web", "data": b"data" * 5000})
DROPLET, DOWNLOAD = "/v3/droplets/droplet-1", "/v3/packages/package-1/download"
REQUEST = Message(
    "droplet-1/1/staging_requested",
    "droplet.staging_requested",
    json.dumps({"subject": "droplet-1", "data": {}}).encode(),
)


@dataclass(frozen=True)
class Answer:
    """`length` is what the answer declares; fewer bytes than that break off."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None


def shown(state: str = "PENDING", buildpack: str | None = None) -> Answer:
    droplet = {
        "guid": "droplet-1",
        "state": state,
        "buildpack": buildpack,
        "environment_variables": {"VCAP_APPLICATION": {"limits": {"mem": 1024, "disk": 4096}}},
        "links": {"package": {"href": "/v3/packages/package-1"}},
    }
    return Answer(body=json.dumps(droplet).encode())


class SmallApi:
    """An HTTP server that gives each path's answers in turn, and the last one ever after."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Answer]] = {DROPLET: [shown()], DOWNLOAD: [Answer(body=BITS)]}
        self.seen: list[tuple[str, str | None]] = []  # paths, and the tokens they came with
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                api.seen.append((self.path, self.headers["Authorization"]))
                answers = api.answers.get(self.path, [Answer(404)])
                answer = answers.pop(0) if len(answers) > 1 else answers[0]
                self.send_response(answer.status)
                length = len(answer.body) if answer.length is None else answer.length
                for name, value in {**answer.headers, "Content-Length": str(length)}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, format: str, *args: Any) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def asked(self, path: str) -> int:
        return [seen for seen, _ in self.seen].count(path)


class UnreliableBus(MemoryBus):
    """A broker that is away as often as it is told."""

    away = 0

    def send(self, queue: str, message: Message) -> None:
        if self.away:
            self.away -= 1
            raise BrokerAway("the broker is away")
        super().send(queue, message)


@dataclass(frozen=True)
class Bench:
    api: SmallApi
    bus: UnreliableBus
    uploads: Path
    builder: Builder

    def told(self) -> list[tuple[str, dict[str, Any]]]:
        """The types and data of all commands that were sent; each is one that is accepted."""
        commands = []
        with self.bus.connect() as connection, connection.channel() as channel:
            while (sent := kombu.Queue(COMMANDS)(channel).get(no_ack=True)) is not None:
                assert sent.headers["authorization"] == "bearer token-1"
                received = Received.of(Message("", "", bytes(sent.body)), USUAL)
                contract.COMMANDS[received.type].of(received.data)
                assert received.id == f"droplet-1/{received.type}"
                commands.append((received.type, dict(received.data)))
        return commands

    def types(self) -> list[str]:
        return [kind for kind, _ in self.told()]

    def error(self) -> str:
        """The sentence that the developer gets."""
        started, failed = self.told()
        assert started == ("droplet.staging_started", {"guid": "droplet-1"})
        assert failed[0] == "droplet.staging_failed"
        return str(failed[1]["error"])


STAGED = ["droplet.staging_started", "droplet.staged"]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(builder_module, "ANSWER_SECONDS", 0.05)  # nobody answers here
    with ExitStack() as stack:
        api = SmallApi()
        stack.callback(api.close)
        bus = UnreliableBus()
        bus.declare()
        stack.callback(bus.close)
        uploads = tmp_path / "uploads"
        builder = Builder(bus, Api(api.url, lambda: "token-1"), FolderDelivery(uploads))
        yield Bench(api, bus, uploads, builder)


def test_a_droplet_is_made_and_told_of(bench: Bench) -> None:
    """It says that it began, and then where the droplet is and how the app is started."""
    bench.builder(REQUEST)
    (started, staged) = bench.told()
    assert started == ("droplet.staging_started", {"guid": "droplet-1"})
    made = bench.uploads / "droplet-droplet-1.tgz"
    assert staged == (
        "droplet.staged",
        {
            "guid": "droplet-1",
            "bits_path": str(made),
            "sha1": sha1(made.read_bytes()),
            "process_types": {"web": "run web"},
            "buildpack": "procfile",
        },
    )
    assert bench.api.seen == [(DROPLET, "bearer token-1"), (DOWNLOAD, "bearer token-1")]


def test_nothing_else_is_left(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the package nor a half-made droplet, whether it was made or not."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    bench.builder(REQUEST)
    bench.api.answers[DOWNLOAD] = [Answer(body=b"no zip")]
    bench.builder(REQUEST)
    assert list((tmp_path / "tmp").iterdir()) == []
    assert [path.name for path in bench.uploads.iterdir()] == ["droplet-droplet-1.tgz"]


def test_a_begun_droplet_is_made_too(bench: Bench) -> None:
    """Whoever began it may have died of it."""
    bench.api.answers[DROPLET] = [shown("STAGING")]
    bench.builder(REQUEST)
    assert bench.types() == STAGED


@pytest.mark.parametrize("answer", [*map(shown, ("STAGED", "FAILED", "EXPIRED")), Answer(404)])
def test_nothing_is_done_for_what_nobody_waits_for(bench: Bench, answer: Answer) -> None:
    """A message may come late, and more than once."""
    bench.api.answers[DROPLET] = [answer]
    bench.builder(REQUEST)
    assert bench.told() == []
    assert bench.api.asked(DOWNLOAD) == 0
    assert not bench.uploads.exists()


@pytest.mark.parametrize(
    ("bits", "wanted", "sentence"),
    [
        (zip_of({"app.py": b""}), None, "needs a Procfile"),
        (zip_of({"Procfile": b"web: x"}), "ruby", "no buildpack 'ruby'"),
        (zip_of({"Procfile": b"web: x", "../x": b""}), None, "outside its folder"),
        (b"no zip", None, "not a readable zip"),
    ],
)
def test_what_can_not_be_built_fails_with_the_reason(
    bench: Bench, bits: bytes, wanted: str | None, sentence: str
) -> None:
    """For the developer to read; nothing is delivered."""
    bench.api.answers = {DROPLET: [shown(buildpack=wanted)], DOWNLOAD: [Answer(body=bits)]}
    bench.builder(REQUEST)
    assert sentence in bench.error()
    assert not bench.uploads.exists()


def test_a_reason_is_never_too_long_to_be_told(bench: Bench) -> None:
    """Else nobody would learn it, and the droplet would wait for its timeout."""
    long = zip_of({"Procfile": b"web: x", "../" + "x" * 4093: b""})
    bench.api.answers[DOWNLOAD] = [Answer(body=long)]
    bench.builder(REQUEST)
    assert "'../xxx" in bench.error()


@pytest.mark.parametrize("status", [404, 422])
def test_a_package_that_is_gone_fails_the_droplet(bench: Bench, status: int) -> None:
    """Deleted, or expired: no waiting brings it back."""
    bench.api.answers[DOWNLOAD] = [Answer(status)]
    bench.builder(REQUEST)
    assert "bits are gone" in bench.error()


def test_a_defect_of_the_builder_fails_the_droplet(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The developer is told so much, and no more."""

    def defect(*arguments: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(FolderDelivery, "deliver", defect)
    bench.builder(REQUEST)
    assert bench.error() == "The builder has failed"


@pytest.mark.parametrize("path", [DROPLET, DOWNLOAD])
@pytest.mark.parametrize("status", [500, 503, 429])
def test_an_api_that_is_away_is_waited_for(bench: Bench, path: str, status: int) -> None:
    """And then it goes on, however far it had come."""
    bench.api.answers[path].insert(0, Answer(status))
    bench.builder(REQUEST)
    assert bench.types()[-2:] == STAGED
    assert bench.api.asked(path) == 2


@pytest.mark.parametrize("path", [DROPLET, DOWNLOAD])
def test_an_answer_that_breaks_off_is_asked_for_again(bench: Bench, path: str) -> None:
    """A connection that was lost is nobody's fault: the droplet is not failed for it."""
    whole = bench.api.answers[path][0]
    broken = Answer(body=whole.body[:-10], length=len(whole.body))
    bench.api.answers[path].insert(0, broken)
    bench.builder(REQUEST)
    assert bench.types()[-2:] == STAGED
    assert bench.api.asked(path) == 2


def test_a_broker_that_is_away_is_waited_for(bench: Bench) -> None:
    """What it could not tell it tells later."""
    bench.bus.away = 1
    bench.builder(REQUEST)
    assert bench.types() == STAGED


@pytest.mark.parametrize("path", [DROPLET, DOWNLOAD])
@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_refused_builder_gives_up(
    bench: Bench, path: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Asking again would not help; it is logged, for the operator, without the token."""
    bench.api.answers[path] = [Answer(status)]
    bench.builder(REQUEST)
    assert bench.api.asked(path) == 1
    assert "droplet.staged" not in bench.types()
    assert f"droplet droplet-1 is left: the API answers HTTP Error {status}" in caplog.text
    assert "token-1" not in caplog.text


def test_the_token_is_not_sent_to_where_it_is_redirected(bench: Bench) -> None:
    """Bits may be in a bucket, which knows by the link who may have them."""
    bucket = SmallApi()
    try:
        bucket.answers = {"/bits?signature=1": [Answer(body=BITS)]}
        location = {"Location": f"{bucket.url}/bits?signature=1"}
        bench.api.answers[DOWNLOAD] = [Answer(302, headers=location)]
        bench.builder(REQUEST)
        assert bucket.seen == [("/bits?signature=1", None)]
    finally:
        bucket.close()
    assert bench.types() == STAGED
    assert dict(bench.api.seen)[DOWNLOAD] == "bearer token-1"


def test_a_builder_that_is_stopped_while_it_waits_leaves_the_message(bench: Bench) -> None:
    """It is to come again, to whoever is there then."""
    bench.api.answers[DROPLET] = [Answer(503)]
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(bench.builder, REQUEST)
        eventually(lambda: bench.api.asked(DROPLET))
        assert not waits.done()
        bench.builder.stop()
        assert isinstance(waits.exception(10), Abandoned)
    assert bench.told() == []


def test_the_consumer_hears_of_droplets(bench: Bench) -> None:
    """On the queue packtrail.staging; what is handled is out of it."""
    consumer = BuilderConsumer(bench.bus, bench.builder)
    consumer.start()
    bench.bus.send(STAGING, REQUEST)
    eventually(lambda: bench.bus.waiting(COMMANDS) == 2)
    assert consumer.stop(10)
    assert bench.bus.waiting(STAGING) == 0
    assert bench.types() == STAGED


def test_a_consumer_is_stopped_while_something_is_away(bench: Bench) -> None:
    """It ends at once, and says nothing of the droplet: its successor makes it."""
    bench.api.answers[DROPLET] = [Answer(503)]
    consumer = BuilderConsumer(bench.bus, bench.builder)
    consumer.start()
    bench.bus.send(STAGING, REQUEST)
    eventually(lambda: bench.api.asked(DROPLET))
    assert consumer.stop(10)
    assert bench.told() == []


# Where droplets are put -----------------------------------------------------------------------


def test_a_droplet_is_moved_into_the_folder(tmp_path: Path) -> None:
    """Whole, and under one name however often it is made; the folder is made if need be."""
    delivery, uploads = FolderDelivery(tmp_path / "a" / "uploads"), tmp_path / "a" / "uploads"
    for content in (b"first", b"second"):
        (tmp_path / "made").write_bytes(content)
        where = delivery.deliver("droplet-1", tmp_path / "made")
        assert not (tmp_path / "made").exists()
    assert where == {"bits_path": str((uploads / "droplet-droplet-1.tgz").resolve())}
    assert [path.read_bytes() for path in uploads.iterdir()] == [b"second"]


def test_droplets_that_nobody_took_are_removed(tmp_path: Path) -> None:
    """After a day, and half-moved ones, too; what others have put there stays."""
    long_ago = time.time() - STALE - 60
    for name in ("droplet-old.tgz", "droplet-half.1.part", "app.zip", "droplet-young.tgz"):
        (tmp_path / name).write_bytes(b"x")
        if name != "droplet-young.tgz":
            os.utime(tmp_path / name, (long_ago, long_ago))
    (tmp_path / "made").write_bytes(b"x")
    FolderDelivery(tmp_path).deliver("new", tmp_path / "made")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"app.zip", "droplet-young.tgz", "droplet-new.tgz"}
