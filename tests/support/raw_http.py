"""HTTP over a raw socket: what clients send that no library would, and what they get."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.support.service import bearer


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        yield connection


def head(guid: str, *lines: str, authorization: str | None = None) -> bytes:
    """The head of a multipart upload, with further header lines."""
    all_lines = [
        f"POST /v3/packages/{guid}/upload HTTP/1.1",
        "Host: packtrail",
        f"Authorization: {authorization or bearer()['Authorization']}",
        "Content-Type: multipart/form-data; boundary=edge",
        *lines,
    ]
    return "".join(f"{line}\r\n" for line in [*all_lines, ""]).encode()


def form(bits: bytes) -> bytes:
    part = b'--edge\r\nContent-Disposition: form-data; name="bits"; filename="a.zip"\r\n\r\n'
    return part + bits + b"\r\n--edge--\r\n"


def answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """One response: status, headers by lower-case name, body."""
    data = b""
    while b"\r\n\r\n" not in data:
        received = connection.recv(65536)
        assert received, f"the connection ended after {data!r}"
        data += received
    start, _, rest = data.partition(b"\r\n\r\n")
    status_line, *lines = start.decode().split("\r\n")
    headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
    length = int(headers.get("content-length", "0"))
    while len(rest) < length:
        received = connection.recv(65536)
        assert received, "the body breaks off"
        rest += received
    return int(status_line.split()[1]), headers, rest


def is_closed(connection: socket.socket) -> bool:
    """Whether the server has ended the connection."""
    try:
        return connection.recv(65536) == b""
    except OSError as error:
        return error.errno == errno.ECONNRESET


@dataclass(frozen=True)
class Answer:
    """An answer as it came: header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


def answers(port: int, sent: bytes) -> list[Answer]:
    """Sends all of it, says that nothing follows, and reads what comes until the end."""
    received = b""
    with connected(port) as connection, contextlib.suppress(ConnectionResetError, BrokenPipeError):
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        while piece := connection.recv(65536):
            received += piece
    found = []
    while received:
        start, end, rest = received.partition(b"\r\n\r\n")
        assert end, f"an answer breaks off: {received!r}"
        status_line, *lines = start.decode("latin-1").split("\r\n")
        assert status_line.startswith("HTTP/1."), status_line
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
        length = int(headers.get("content-length", "0"))
        found.append(Answer(int(status_line.split()[1]), headers, rest[:length]))
        received = rest[length:]
    return found
