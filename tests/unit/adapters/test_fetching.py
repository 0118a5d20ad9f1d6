"""Asking another server: it may be hostile, and has its time and size all the same."""

from __future__ import annotations

import contextlib
import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from adapters.fetching import MAX_ANSWER, Fetcher, NoAnswer

TIMEOUT = 0.3  # seconds
HEAD = b"HTTP/1.1 200 OK\r\n"

Talk = Callable[[socket.socket], None]


@contextlib.contextmanager
def server(talk: Talk) -> Iterator[str]:
    """A server that says what it likes to each who connects, until they hang up."""
    ended = threading.Event()

    def run() -> None:
        while not ended.is_set():
            connection, _ = listening.accept()
            with connection, contextlib.suppress(OSError):
                connection.settimeout(10)
                connection.recv(65536)
                talk(connection)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        port = listening.getsockname()[1]
        try:
            yield f"http://127.0.0.1:{port}/"
        finally:
            ended.set()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
                pass
            thread.join(15)


def dripping(start: bytes, drop: bytes) -> Talk:
    """Sends a little, well within the time that a socket waits; without an end."""

    def talk(connection: socket.socket) -> None:
        connection.sendall(start)
        connection.settimeout(TIMEOUT / 10)
        while True:
            connection.sendall(drop)
            with contextlib.suppress(TimeoutError):
                if not connection.recv(1):
                    return

    return talk


@pytest.mark.parametrize(
    ("start", "drop"),
    [
        (HEAD, b"X-A: b\r\n"),
        (HEAD + b"X-A: ", b"b"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (HEAD + b"Content-Length: 1000000\r\n\r\n{", b" "),
        (HEAD + b"\r\n{", b" "),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x"),
    ],
    ids=["headers", "a header", "interim answers", "body", "endless body", "chunks", "a chunk"],
)
def test_an_answer_that_drips_has_no_more_time_than_another(start: bytes, drop: bytes) -> None:
    """Each byte comes in time, and all of them do not: whoever asked waits no longer."""
    with server(dripping(start, drop)) as url:
        began = time.monotonic()
        with pytest.raises(NoAnswer):
            Fetcher(TIMEOUT).get(url)
        assert time.monotonic() - began < TIMEOUT + 1


def test_an_answer_is_never_decompressed() -> None:
    """No coding was asked for: little would become much."""
    packed = gzip.compress(b" " * 64 * MAX_ANSWER, 1)
    assert len(packed) < MAX_ANSWER
    answer = HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    with (
        server(lambda connection: connection.sendall(answer + packed)) as url,
        pytest.raises(NoAnswer, match="not JSON"),
    ):
        Fetcher(10).get(url)


def test_connections_are_kept_between_requests() -> None:
    """Two answers come by one connection, each with the time of its own."""
    answer = HEAD + b"Content-Length: 8\r\n\r\n" + b'{"a": 1}'
    connected = []

    def talk(connection: socket.socket) -> None:
        connected.append(connection)
        connection.sendall(answer)
        while connection.recv(65536):
            connection.sendall(answer)

    with server(talk) as url:
        fetcher = Fetcher(5)
        assert [fetcher.get(url).content for _ in range(3)] == [{"a": 1}] * 3
        del fetcher  # its connections end with it
    assert len(connected) <= 2  # the one behind it is the server's own goodbye
