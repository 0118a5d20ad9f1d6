"""Downloads as the server sends them: files, of which no byte comes by in Python."""

from __future__ import annotations

import errno
import io
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from adapters.http.server.channel import Channel
from adapters.http.server.listening import listen
from adapters.http.server.parser import Admitted, Refused, RequestHead
from adapters.http.server.sending import SENT_AT_ONCE
from adapters.limits import Limits
from tests.support.raw_http import answer, answers, connected, is_closed
from tests.support.waiting import eventually

SIZE = 64 << 20  # bytes: more than all buffers between server and client hold
THREADS = 2
WHOLE = b"GET /file HTTP/1.1\r\nHost: x\r\n\r\n"
PING = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"


class Unread(io.FileIO):
    """A file that nobody may read from."""

    def read(self, size: int | None = -1, /) -> bytes:
        raise AssertionError("the file was read")

    readall = read

    def readinto(self, buffer: Any, /) -> int:
        raise AssertionError("the file was read")


class Shelf:
    """An application that answers with a file, or a range of it that the query names."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.opened: list[Unread] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/ping":
            start_response("200 OK", [("Content-Length", "4")])
            return [b"pong"]
        start, _, length = environ["QUERY_STRING"].partition("+")
        file = Unread(self.path)
        self.opened.append(file)
        file.seek(int(start or 0))
        count = int(length or SIZE)
        start_response("200 OK", [("Content-Length", str(count))])
        wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](file, 8192)
        return wrapped

    def concerns(self, head: RequestHead) -> bool:
        return False

    def decide(self, head: RequestHead) -> Admitted | Refused:
        raise AssertionError("there are no uploads")

    def all_closed(self) -> bool:
        return all(file.closed for file in self.opened)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in which every position can be told from others nearby."""
    path = tmp_path_factory.mktemp("shelf") / "file"
    with path.open("wb") as file:
        for start in range(0, SIZE, 1 << 20):
            file.write(b"".join(b"%16d" % at for at in range(start, start + (1 << 20), 16)))
    return path


@contextmanager
def serving(shelf: Shelf, drained: Callable[[], float] = lambda: 0) -> Iterator[int]:
    server = listen("127.0.0.1:0", shelf, shelf, THREADS, Limits())
    server.open()
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server.port
    finally:
        server.drain(drained())
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture
def shelf(path: Path) -> Shelf:
    return Shelf(path)


@pytest.fixture
def port(shelf: Shelf) -> Iterator[int]:
    with serving(shelf) as port:
        yield port


def test_a_file_arrives_whole_and_unread(shelf: Shelf, port: int) -> None:
    """Every byte in its place, none by way of Python; then the connection serves the next one."""
    with connected(port) as connection:
        connection.sendall(WHOLE + PING)
        status, headers, body = answer_of(connection, SIZE)
        assert (status, headers["content-length"]) == (200, str(SIZE))
        assert body == shelf.path.read_bytes()
        assert answer(connection)[2] == b"pong"
    eventually(shelf.all_closed)


def test_a_file_arrives_from_where_the_kernel_cant_send_it(
    shelf: Shelf, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems refuse that."""

    def refuse(*_: object) -> int:
        raise OSError(errno.EINVAL, "this file system can't do it")

    monkeypatch.setattr(os, "sendfile", refuse)
    with connected(port) as connection:
        connection.sendall(WHOLE)
        assert answer_of(connection, SIZE)[2] == shelf.path.read_bytes()


@pytest.mark.parametrize(
    ("start", "length"), [(0, 1), (1, 99), (SIZE - 1, 1), (SENT_AT_ONCE - 1, SENT_AT_ONCE + 2)]
)
def test_a_range_is_what_leaves(shelf: Shelf, port: int, start: int, length: int) -> None:
    """From any byte on, also over the bound of what is sent at once."""
    request = f"GET /file?{start}+{length} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    (found,) = answers(port, request)
    with shelf.path.open("rb") as file:
        file.seek(start)
        assert found.body == file.read(length)


def test_slow_readers_hold_no_worker_thread(shelf: Shelf, port: int) -> None:
    """More of them than there are threads, and others are answered; files close when they go."""
    with ExitStack() as stack:
        slow = [stack.enter_context(connected(port)) for _ in range(3 * THREADS)]
        for connection in slow:
            connection.sendall(WHOLE)
        for connection in slow:
            assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
        (pong,) = answers(port, PING)
        assert pong.body == b"pong"
        assert not any(file.closed for file in shelf.opened)
    eventually(shelf.all_closed)


def test_fast_readers_leave_turns_to_others(port: int) -> None:
    """Whoever asks while files are being sent as fast as they are read need not wait for them."""
    ended = threading.Event()

    def read_on() -> None:
        with connected(port) as connection:
            while not ended.is_set():
                connection.sendall(WHOLE)
                answer_of(connection, SIZE)

    readers = [threading.Thread(target=read_on) for _ in range(2 * THREADS)]
    for reader in readers:
        reader.start()
    try:
        with connected(port) as connection:
            for _ in range(20):
                connection.sendall(PING)
                assert answer(connection)[2] == b"pong"
        assert all(reader.is_alive() for reader in readers)
    finally:
        ended.set()
        for reader in readers:
            reader.join()


@pytest.mark.parametrize("cut_at", [0, 1 << 20, SIZE - 1])
def test_a_file_that_became_shorter_ends_the_connection(
    tmp_path: Path, cut_at: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The client sees that bytes are missing, the operator reads it, and others are served."""
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(SIZE)
    shelf = Shelf(path)
    with serving(shelf) as port:
        with connected(port) as connection:
            connection.sendall(WHOLE)
            head = connection.recv(1000)
            os.truncate(path, cut_at)
            came: list[int] = []
            read_rest(connection, head, SIZE, came)
            assert came[0] < SIZE
            assert is_closed(connection)
        eventually(shelf.all_closed)
        assert "a download was cut off" in caplog.text
        assert answers(port, PING)[0].body == b"pong"


def test_an_answer_that_leaves_by_and_by_leaves_once(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The socket takes a part of it, and more while the worker thread still tries to send that."""
    send = Channel.send
    others_turn = threading.Event()
    parts: list[bytes] = []

    def send_by_and_by(channel: Channel, data: bytes, do_close: bool = True) -> int:
        if not threading.current_thread().name.startswith("http-"):
            others_turn.set()
        elif not parts:
            data = data[:9]
        else:
            channel.server.call_soon(channel._look_at)
            others_turn.wait(0.3)
        parts.append(data)
        count: int = send(channel, data, do_close)
        return count

    monkeypatch.setattr(Channel, "send", send_by_and_by)
    (pong,) = answers(port, PING)
    assert pong.body == b"pong"


def test_a_client_that_goes_away_is_forgotten(shelf: Shelf, port: int) -> None:
    """In the middle of a download, by a reset: its file is closed."""
    with connected(port) as connection:
        connection.sendall(WHOLE)
        connection.recv(1000)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    eventually(shelf.all_closed)
    assert answers(port, PING)[0].body == b"pong"


def test_a_download_that_runs_is_finished_before_the_end(shelf: Shelf) -> None:
    """A drain waits for whoever reads, up to its deadline."""
    with ExitStack() as stack:
        with serving(shelf, drained=lambda: 20) as port:
            connection = stack.enter_context(connected(port))
            connection.sendall(WHOLE)
            head = connection.recv(1000)
            reading = threading.Thread(target=lambda: read_rest(connection, head, SIZE, whole))
            whole: list[int] = []
            reading.start()
        reading.join()
        assert whole == [SIZE]
        assert is_closed(connection)


def read_rest(connection: socket.socket, head: bytes, size: int, told: list[int]) -> None:
    received = len(head.partition(b"\r\n\r\n")[2])
    while received < size and (piece := connection.recv(1 << 20)):
        received += len(piece)
    told.append(received)


def answer_of(connection: socket.socket, size: int) -> tuple[int, dict[str, str], bytes]:
    """As `answer`, for what is large."""
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(1)
    status_line, *lines = head.decode().strip().split("\r\n")
    headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
    body = memoryview(bytearray(size))
    at = 0
    while at < size:
        count = connection.recv_into(body[at:])
        assert count, "the body breaks off"
        at += count
    return int(status_line.split()[1]), headers, bytes(body)
