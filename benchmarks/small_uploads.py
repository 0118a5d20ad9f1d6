"""Small uploads: how many a second by eight clients, and how soon one is READY.

Ours are a package that is created and an upload of 64 KiB, counted until all are READY; beside
them docker-registry's pushes of blobs, an upload that is asked for and the bits, of which no two
are the same. Both on this machine's disk, which both sync. The clients are one process that
spends little on a request; what it takes of the processor is told, because there are two cores.

Run by `make bench`, or `.venv/bin/python -m benchmarks.small_uploads [ROUNDS]`.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.client import Connection, head
from benchmarks.contenders import Contest, contest
from benchmarks.conversations import Conversation, hold
from benchmarks.crowd import Crowd
from benchmarks.peers import Registry
from benchmarks.report import Figure, at_least, at_most, report
from benchmarks.targets import BITS, FORM_HEAD, FORM_TAIL, FORM_TYPE, Packtrail, Target, path_of
from tests.support.service import bearer
from tests.support.zips import random_zip

ROUNDS = 5
UPLOADS = 400  # of a round
CLIENTS = 8
ONE_BY_ONE = 100  # of a round, by one client
SIZE = 64 * 1024
SOON = 25.0  # milliseconds
TOKEN = bearer()
LOOK = 0.0005  # seconds between two looks whether a package is READY


def different_bits(count: int) -> list[bytes]:
    """Zips of the same size of which no two are the same: their comments differ."""
    zipped = random_zip(SIZE)[:-2] + b"\x20\x00"  # a comment of 32 bytes
    return [zipped + uuid.uuid4().hex.encode() for _ in range(count)]


def of_ours(bits: bytes) -> Conversation:
    """A package, and its upload; its path."""
    kind = {"Content-Type": "application/json", "Content-Length": "15"}
    create = head("POST", f"/v3/apps/{uuid.uuid4()}/packages", {**TOKEN, **kind})
    created = yield [create, b'{"type":"bits"}']
    assert created.status == 201, created
    path = f"/v3/packages/{json.loads(created.body)['guid']}"
    kind = {
        "Content-Type": FORM_TYPE,
        "Content-Length": str(len(FORM_HEAD) + len(bits) + len(FORM_TAIL)),
    }
    answer = yield [head("POST", f"{path}/upload", {**TOKEN, **kind}), FORM_HEAD, bits, FORM_TAIL]
    assert answer.status == 200, answer
    return path


def of_registry(digest: str, bits: bytes) -> Conversation:
    """An upload, and the bits that end it; their path."""
    opened = yield [head("POST", "/v2/bits/blobs/uploads/", {"Content-Length": "0"})]
    assert opened.status == 202, opened
    where = f"{path_of(opened.headers['location'])}&digest={digest}"
    answer = yield [head("PUT", where, {**BITS, "Content-Length": str(len(bits))}), bits]
    assert answer.status == 201, answer
    return f"/v2/bits/blobs/{digest}"


def conversations(target: Target, count: int) -> list[Conversation]:
    """With all that can be made before made."""
    bits = different_bits(count)
    if isinstance(target, Packtrail):
        return [of_ours(one) for one in bits]
    return [of_registry("sha256:" + hashlib.sha256(one).hexdigest(), one) for one in bits]


@dataclass(frozen=True)
class Pushed:
    """When the last one was answered, and when all were READY, by the clock of all processes."""

    answered: float
    ready: float


def many(target: Target) -> Generator[None, None, Pushed]:
    """The job of the process that is all clients."""
    with Connection(target.port) as connection:
        held = conversations(target, UPLOADS)
        yield
        paths = hold(target.port, CLIENTS, held)
        answered = time.monotonic()
        if isinstance(target, Packtrail):
            for path in paths[-CLIENTS:]:
                until_ready(connection, path)
            while connection.ask("GET", "/v3/packages?per_page=5000", TOKEN).body.count(
                b'"state": "READY"'
            ) < len(paths):
                time.sleep(LOOK)
        return Pushed(answered, time.monotonic())


def until_ready(connection: Connection, path: str) -> None:
    while b'"state": "READY"' not in (answer := connection.ask("GET", path, TOKEN)).body:
        assert b'"state": "PROCESSING_UPLOAD"' in answer.body, answer
        time.sleep(LOOK)


def one_by_one(target: Target) -> Generator[None, None, list[tuple[float, float]]]:
    """The job of a client alone: milliseconds of each upload until its answer, and READY."""
    times = []
    held = conversations(target, ONE_BY_ONE)
    with Connection(target.port) as connection:
        yield
        for conversation in held:
            answer = connection.exchange(next(conversation))
            parts = conversation.send(answer)
            began = time.perf_counter()
            answer = connection.exchange(parts)
            answered = time.perf_counter()
            try:
                conversation.send(answer)
            except StopIteration as end:
                if isinstance(target, Packtrail):
                    until_ready(connection, end.value)
            ready = time.perf_counter()
            times.append(((answered - began) * 1000, (ready - began) * 1000))
    return times


def rates(contest: Contest, crowd: Crowd, rounds: int) -> Iterator[Figure]:
    """Uploads a second of ours until all are READY, beside pushes a second."""
    answered: dict[str, list[float]] = {}
    ready: dict[str, list[float]] = {}
    shares = []
    for number in range(rounds):
        for contender in contest.in_turn(number):
            os.sync()
            (done,) = crowd.run([partial(many, contender.target)])
            pushed: Pushed = done.result
            until_answered, until_all = pushed.answered - done.began, pushed.ready - done.began
            answered.setdefault(contender.name, []).append(UPLOADS / until_answered)
            ready.setdefault(contender.name, []).append(UPLOADS / until_all)
            if isinstance(contender.target, Packtrail):
                shares.append(100 * done.processor / done.seconds)
            contender.clear()
    ours, answers = ready.pop(Packtrail.name), answered[Packtrail.name]
    what = f"64 KiB, {CLIENTS} clients, until all READY"
    for who, theirs in ready.items():
        yield Figure.of_rounds(what, ours, who, theirs, "1/s", at_least(1))
    yield Figure.of_rounds(what, ours, "until the last answer", answers, "1/s")
    yield Figure.of_rounds("the clients' share of a core", shares, "all of it", [100.0], "%")


def latencies(contest: Contest, crowd: Crowd, rounds: int) -> Iterator[Figure]:
    """Milliseconds of one upload after the other, until its answer and until it is READY."""
    answered: dict[str, list[float]] = {}
    ready: dict[str, list[float]] = {}
    for number in range(rounds):
        for contender in contest.in_turn(number):
            os.sync()
            (done,) = crowd.run([partial(one_by_one, contender.target)])
            times: list[tuple[float, float]] = done.result
            answered.setdefault(contender.name, []).extend(answer for answer, _ in times)
            ready.setdefault(contender.name, []).extend(all_of_it for _, all_of_it in times)
            contender.clear()
    ours = ready.pop(Packtrail.name)
    yield Figure.of_rounds("64 KiB, one client, until READY", ours, "our bound", [SOON], "ms",
                           at_most(1))  # fmt: skip
    for who, theirs in ready.items():
        yield Figure.of_rounds(
            "64 KiB, one client, until READY", ours, f"{who}'s answer", theirs, "ms"
        )
    yield Figure.of_rounds("64 KiB, one client, until READY", ours, "until the answer",
                           answered[Packtrail.name], "ms")  # fmt: skip


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    with (
        tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as name,
        Crowd(1) as crowd,
        contest(Path(name), Registry) as everybody,
    ):
        measured = everybody.only("docker-registry")
        figures = [*rates(measured, crowd, rounds), *latencies(measured, crowd, rounds)]
    report("small_uploads", figures, everybody.versions, everybody.missing)


if __name__ == "__main__":
    main()
