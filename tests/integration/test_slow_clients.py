"""The server and clients that send slowly, or more than they may, with quick limits."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import select
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from adapters.http.answers import NOT_AUTHENTICATED
from adapters.http.server.body import UploadBody
from adapters.http.server.channel import LINGER_BYTES, Channel
from adapters.http.server.listening import listen
from adapters.http.server.parser import Admitted, Refused, RequestHead
from adapters.limits import Limits
from adapters.staging import local
from adapters.staging.local import LocalStaging
from tests.support.raw_http import answer, connected, is_closed
from tests.support.waiting import eventually

MIB = 1 << 20
QUICK = Limits(min_upload_rate=1000, header_timeout=1)
WINDOW = 0.5  # seconds
UPLOAD = b"POST /upload HTTP/1.1\r\nHost: x\r\n"
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Door:
    """Admits uploads into staging, or refuses all, once the gate is open."""

    def __init__(self, folder: Path) -> None:
        self.staging = LocalStaging(folder / "staging", folder / "uploads")
        self.staging.prepare("a log")
        self.refuses = False
        self.gate = threading.Event()
        self.gate.set()
        self.asked = threading.Event()
        self.writing: Callable[[], None] = lambda: None
        self.removing: Callable[[], None] = lambda: None

    def concerns(self, head: RequestHead) -> bool:
        return head.path == "/upload"

    def decide(self, head: RequestHead) -> Admitted | Refused:
        self.asked.set()
        assert self.gate.wait(30)
        if self.refuses:
            return Refused(NOT_AUTHENTICATED, None)
        body = self.staging.create("guid-1")
        write, abandon = body.write, body.abandon

        def held_up(data: bytes | memoryview) -> None:
            self.writing()
            write(data)

        def removed() -> None:
            self.removing()
            abandon()

        body.write = held_up  # type: ignore[method-assign]
        body.abandon = removed  # type: ignore[method-assign]
        return Admitted(UploadBody(body, 1 << 30, 0), "request-1")

    def staged(self) -> list[Path]:
        return list(self.staging.folder.iterdir())


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(tmp_path)


@contextmanager
def serving(door: Door, limits: Limits = QUICK, window: float = WINDOW) -> Iterator[int]:
    """The port of a server that answers 204 to whatever is whole."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", "0")])
        return []

    server = listen("127.0.0.1:0", app, door, 2, limits, rate_window=window)
    server.open()
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server.port
    finally:
        door.gate.set()
        server.drain(0)
        thread.join()


@pytest.fixture
def port(door: Door) -> Iterator[int]:
    with serving(door) as port:
        yield port


def is_answered(connection: socket.socket, within: float = 0.0) -> bool:
    return bool(select.select([connection], [], [], within)[0])


BODIES = {
    "an upload": UPLOAD + b"Content-Length: 100000\r\n\r\nabc",
    "a chunked upload": UPLOAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab",
    "a small body": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc",
    "a small chunked body": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5",
    "an upload that waited": UPLOAD + b"Content-Length: 100\r\nExpect: 100-continue\r\n\r\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("case", BODIES)
def test_a_body_that_stalls_is_cut_off(door: Door, port: int, case: str) -> None:
    """408 with the rate, in the contract's JSON; the connection ends, and staging is empty."""
    with connected(port) as connection:
        connection.sendall(BODIES[case])
        if b"Expect" in BODIES[case]:
            assert connection.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        status, headers, body = answer(connection)
        assert status == 408
        assert headers["connection"] == "close"
        assert json.loads(body)["code"] == 1001
        assert json.loads(body)["error_code"] == "CF-MessageParseError"
        assert "1000 are the least" in json.loads(body)["description"]
        assert is_closed(connection)
        eventually(lambda: door.staged() == [])


@pytest.mark.slow
def test_a_body_that_drips_fast_enough_goes_on(port: int) -> None:
    """Twice the least rate, for many windows: the upload is taken."""
    with connected(port) as connection:
        connection.sendall(UPLOAD + b"Content-Length: 6000\r\n\r\n")
        for _ in range(60):
            assert not is_answered(connection, within=0.05)
            connection.sendall(bytes(100))
        status, _, _ = answer(connection)
        assert status == 200


def drip(connection: socket.socket, seconds: float) -> int:
    """Sends 10 bytes now and then, and how many they are together."""
    sent = 0
    start = time.monotonic()
    while time.monotonic() - start < seconds:
        assert not is_answered(connection, within=0.05)
        connection.sendall(bytes(10))
        sent += 10
    return sent


@pytest.mark.slow
@pytest.mark.parametrize("end", ["at once", "by and by"])
def test_an_upload_that_dripped_for_long_ends_as_any_other(door: Door, end: str) -> None:
    """However the rest comes, it is taken whole; the connection's next request is ordinary.

    The server looks less often at uploads that drip for some seconds.
    """
    with serving(door, window=20) as port, connected(port) as connection:
        connection.sendall(UPLOAD + b"Content-Length: 5000000\r\n\r\n")
        rest = 5_000_000 - drip(connection, 3.5)
        (staged,) = door.staged()
        if end == "at once":
            connection.sendall(bytes(rest))
        else:
            connection.sendall(bytes(rest - 1000))
            connection.sendall(bytes(1000 - drip(connection, 2.5)))
        assert answer(connection)[0] == 200
        eventually(lambda: not staged.exists())
        connection.sendall(GET)
        assert answer(connection)[0] == 200


@pytest.mark.slow
def test_an_upload_that_dripped_and_breaks_off_leaves_nothing(door: Door) -> None:
    """As any other."""
    with serving(door, window=20) as port:
        with connected(port) as connection:
            connection.sendall(UPLOAD + b"Content-Length: 5000000\r\n\r\n")
            drip(connection, 3.5)
            assert len(door.staged()) == 1
        eventually(lambda: door.staged() == [])


@pytest.mark.slow
def test_a_body_that_drips_too_slowly_is_cut_off(door: Door, port: int) -> None:
    """It does not help to send a byte now and then."""
    with connected(port) as connection:
        connection.sendall(UPLOAD + b"Content-Length: 6000\r\n\r\n")
        start = time.monotonic()
        while not is_answered(connection, within=0.1):
            assert time.monotonic() - start < 10
            connection.sendall(b"x")
        status, _, _ = answer(connection)
        assert status == 408
    eventually(lambda: door.staged() == [])


@pytest.mark.slow
def test_no_rate_cuts_off_nobody(door: Door) -> None:
    """0 bytes a second is no floor."""
    with serving(door, Limits(min_upload_rate=0)) as port, connected(port) as connection:
        connection.sendall(UPLOAD + b"Content-Length: 5\r\n\r\nabc")
        assert not is_answered(connection, within=2.5)
        connection.sendall(b"de")
        assert answer(connection)[0] == 200


@pytest.mark.slow
def test_headers_that_drip_are_cut_off(port: int) -> None:
    """408 once their time from the first byte is over, however steadily they come."""
    with connected(port) as connection:
        start = time.monotonic()
        connection.sendall(b"GET / HTTP/1.1\r\n")
        while not is_answered(connection, within=0.05):
            assert time.monotonic() - start < 10
            connection.sendall(b"A: b\r\n" if time.monotonic() - start < 0.5 else b"A")
        status, headers, body = answer(connection)
        assert (status, headers["connection"]) == (408, "close")
        assert "within 1 seconds" in json.loads(body)["description"]
        assert is_closed(connection)


@pytest.mark.slow
def test_an_idle_connection_is_not_a_slow_one(port: int) -> None:
    """Before the first byte of a request, and between two, nothing is awaited."""
    with connected(port) as connection:
        assert not is_answered(connection, within=2.5)
        connection.sendall(GET)
        assert answer(connection)[0] == 200
        assert not is_answered(connection, within=2.5)
        connection.sendall(b"\r\n" + GET)
        assert answer(connection)[0] == 200


@pytest.mark.slow
def test_a_client_does_not_pay_for_our_decision(door: Door, port: int) -> None:
    """While an upload waits to be let in, its time stands still."""
    door.gate.clear()
    with connected(port) as connection:
        connection.sendall(UPLOAD + b"Content-Length: 5\r\n\r\nabc")
        assert not is_answered(connection, within=3)
        door.gate.set()
        connection.sendall(b"de")
        assert answer(connection)[0] == 200


@pytest.mark.slow
def test_a_client_does_not_pay_for_our_disk(door: Door, port: int) -> None:
    """While the server writes to a slow disk it reads nobody's body: that time is its own."""
    stuck, free = threading.Event(), threading.Event()

    def wait_for_the_disk() -> None:
        stuck.set()
        free.wait(30)

    with connected(port) as one, connected(port) as other:
        other.sendall(UPLOAD + b"Content-Length: 6000\r\n\r\n")
        eventually(lambda: len(door.staged()) == 1)
        one.sendall(UPLOAD + b"Content-Length: 3000\r\n\r\n")
        eventually(lambda: len(door.staged()) == 2)
        door.writing = wait_for_the_disk
        one.sendall(bytes(3000))
        assert stuck.wait(10)
        other.sendall(bytes(3000))
        assert not is_answered(other, within=4)
        free.set()
        other.sendall(bytes(3000))
        assert answer(one)[0] == 200
        assert answer(other)[0] == 200


def test_a_client_that_is_gone_when_it_may_continue_takes_nobody_along(
    door: Door, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It resets the connection between an answer and the next request, which wants a 100."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    proceed = Channel.proceed

    def proceed_too_late(channel: Channel) -> None:
        if channel._held and not channel.requests:
            connection.close()
        proceed(channel)

    monkeypatch.setattr(Channel, "proceed", proceed_too_late)
    wants = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"
    connection.sendall(GET + wants)
    eventually(lambda: connection.fileno() < 0)
    with connected(port) as other:
        other.sendall(GET)
        assert answer(other)[0] == 200


def test_an_upload_that_cannot_be_removed_ends_as_any_other(door: Door, port: int) -> None:
    """On a file system that has become read-only, say: it is answered, and so are others."""

    def fail() -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    door.removing = fail
    with connected(port) as connection:
        for _ in range(2):
            connection.sendall(UPLOAD + b"Content-Length: 5\r\n\r\nabcde")
            assert answer(connection)[0] == 200
    assert len(door.staged()) == 2


def test_what_the_disk_does_to_an_upload_is_told_of_its_request(
    door: Door, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The operator finds by the answer's id what was wrong."""

    def fail() -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    door.writing = fail
    with connected(port) as connection:
        connection.sendall(UPLOAD + b"Content-Length: 5\r\n\r\nabcde")
        status, headers, _ = answer(connection)
    (told,) = [r for r in caplog.records if "could not be received" in r.message]
    assert (status, told.__dict__["request_id"]) == (500, headers["x-vcap-request-id"])


def test_an_upload_that_is_let_in_at_the_very_end_leaves_nothing(door: Door) -> None:
    """The server has cut off who was there, and a worker thread decides only then."""
    door.gate.clear()
    server = listen("127.0.0.1:0", lambda *_: [], door, 2, QUICK)
    server.open()
    thread = threading.Thread(target=server.run)
    thread.start()
    with connected(server.port) as connection:
        connection.sendall(UPLOAD + b"Content-Length: 100000\r\n\r\nabc")
        assert door.asked.wait(10)
        server.drain(0)
        assert is_closed(connection)
        door.gate.set()
        thread.join()
    assert door.staged() == []


def unread_by_the_server(connection: socket.socket) -> int:
    """Bytes of what a connection has sent that are still in the kernel."""
    packed = fcntl.ioctl(connection, termios.TIOCOUTQ, struct.pack("i", 0))
    on_the_way: int = struct.unpack("i", packed)[0]
    ours, theirs = connection.getsockname()[1], connection.getpeername()[1]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        ports = [int(fields[n].split(":")[1], 16) for n in (1, 2)]
        if ports == [theirs, ours]:
            return on_the_way + int(fields[4].split(":")[1], 16)
    raise AssertionError("the server has no such connection")


def test_next_to_nothing_is_read_before_the_decision(door: Door, port: int) -> None:
    """A client that sends what it can has at most 128 KiB read until its refusal leaves."""
    door.refuses = True
    door.gate.clear()
    head = UPLOAD + b"Content-Length: 1073741824\r\n\r\n"
    with connected(port) as connection:
        connection.sendall(head)
        assert door.asked.wait(10)
        connection.setblocking(False)
        sent = len(head)
        while select.select([], [connection], [], 0.2)[1]:
            sent += connection.send(bytes(65536))
        assert sent > 128 * 1024, "the client could send more than is read"
        assert sent - unread_by_the_server(connection) <= 128 * 1024
        assert door.staged() == []
        connection.settimeout(10)
        door.gate.set()
        assert answer(connection)[0] == 401
    assert door.staged() == []


def test_what_a_refused_client_sends_is_thrown_away_up_to_a_bound(door: Door, port: int) -> None:
    """Past it the connection is cut, long before the time is over; nothing was staged."""
    door.refuses = True
    block = bytes(MIB)
    sent = 0
    with connected(port) as connection:
        connection.sendall(UPLOAD + b"Content-Length: 1073741824\r\n\r\n")
        with pytest.raises(OSError, match=r"reset|Broken pipe"):
            while sent < 1024 * MIB:
                connection.sendall(block)
                sent += MIB
    assert sent <= LINGER_BYTES + 32 * MIB  # what the kernel holds comes on top
    assert door.staged() == []


@pytest.mark.slow
def test_a_slow_disk_holds_up_its_upload_and_nobody_else(
    door: Door, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sender waits, for longer than a client may, and its upload is taken then."""
    monkeypatch.setattr(local, "WRITE_BACK", MIB)
    monkeypatch.setattr(local, "MOST_AHEAD", 4 * MIB)
    may_sync = threading.Event()

    def fdatasync(descriptor: int) -> None:
        assert may_sync.wait(30)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    size = 64 * MIB
    with connected(port) as upload, connected(port) as other:
        upload.sendall(UPLOAD + b"Content-Length: %d\r\n\r\n" % size)
        sender = threading.Thread(target=upload.sendall, args=(bytes(size),))
        sender.start()
        eventually(lambda: sum(path.stat().st_size for path in door.staged()) >= 5 * MIB)
        other.sendall(GET)
        assert answer(other)[0] == 200
        assert not is_answered(upload, within=3 * WINDOW)
        assert sum(path.stat().st_size for path in door.staged()) <= 6 * MIB
        may_sync.set()
        assert answer(upload)[0] == 200
        sender.join()


def test_a_connection_that_fails_ends_alone(
    door: Door, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect in what goes on with one connection is not the others'."""
    failures = [RuntimeError("a defect")]
    proceed = Channel.proceed

    def fails_once(channel: Channel) -> None:
        if failures:
            raise failures.pop()
        proceed(channel)

    monkeypatch.setattr(Channel, "proceed", fails_once)
    with connected(port) as one, connected(port) as other:
        one.sendall(GET)
        eventually(lambda: not failures)
        with contextlib.suppress(ConnectionError):  # it may be the one that was closed
            other.sendall(GET)
        assert {is_answered(one, 10), is_answered(other, 10)} == {True}
    with connected(port) as another:
        another.sendall(GET)
        assert answer(another)[0] == 200
