"""The client of all benchmarks that move large bits: the same code for us and for every peer.

It holds one connection. What it sends of a file goes out by sendfile; what it receives is read
into one buffer, again and again.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

_AT_ONCE = 1 << 20  # bytes of a chunk that is sent, and of the buffer that is received into
_LONGEST_HEADER = 64 * 1024


@dataclass(frozen=True)
class Answer:
    """Header names are in lower case; `length` is the body's, which may not be kept."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    length: int


@dataclass(frozen=True)
class FileBody:
    """A request's body: a file with something around it."""

    path: Path
    head: bytes = b""
    tail: bytes = b""
    size: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", self.path.stat().st_size)

    def __len__(self) -> int:
        return len(self.head) + self.size + len(self.tail)


class Connection:
    """One connection to loopback, kept for all that is asked."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = memoryview(bytearray(_AT_ONCE))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()

    def ask(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Answer:
        length = {} if method == "GET" else {"Content-Length": str(len(body))}
        self._socket.sendall(head(method, path, {**(headers or {}), **length}) + body)
        return self._answer(keep=True)

    def send(
        self, method: str, path: str, headers: Mapping[str, str], body: FileBody, chunked: bool
    ) -> Answer:
        """Sends a file, with its length or in chunks of a MiB; the answer."""
        with body.path.open("rb") as file:
            if chunked:
                self._socket.sendall(
                    head(method, path, {**headers, "Transfer-Encoding": "chunked"})
                )
                self._send_chunks(file.fileno(), body)
            else:
                length = {"Content-Length": str(len(body))}
                self._more(head(method, path, {**headers, **length}) + body.head)
                self._send_part(file.fileno(), 0, body.size)
                if body.tail:
                    self._socket.sendall(body.tail)
        return self._answer(keep=True)

    def exchange(self, parts: Sequence[bytes]) -> Answer:
        """Sends a request that was made before."""
        self._socket.sendall(b"".join(parts))
        return self._answer(keep=True)

    def fetch(self, path: str, headers: Mapping[str, str]) -> Answer:
        """Receives a body of any length, and forgets it."""
        self._socket.sendall(head("GET", path, headers))
        return self._answer(keep=False)

    def _more(self, data: bytes) -> None:
        """Sends what something else follows at once."""
        sent = self._socket.send(data, socket.MSG_MORE)
        assert sent == len(data)

    def _send_part(self, file: int, start: int, end: int) -> None:
        while start < end:
            start += os.sendfile(self._socket.fileno(), file, start, end - start)

    def _send_chunks(self, file: int, body: FileBody) -> None:
        if body.head:
            self._more(b"%x\r\n%s\r\n" % (len(body.head), body.head))
        for start in range(0, body.size, _AT_ONCE):
            end = min(start + _AT_ONCE, body.size)
            self._more(b"%x\r\n" % (end - start))
            self._send_part(file, start, end)
            self._more(b"\r\n")
        tail = b"%x\r\n%s\r\n" % (len(body.tail), body.tail) if body.tail else b""
        self._socket.sendall(tail + b"0\r\n\r\n")

    def _answer(self, keep: bool) -> Answer:
        received, end = 0, -1
        while end < 0:
            assert received < _LONGEST_HEADER, "the answer's header does not end"
            came = self._socket.recv_into(self._buffer[received:])
            assert came, f"the connection ended after {bytes(self._buffer[:received])!r}"
            received += came
            end = bytes(self._buffer[: min(received, _LONGEST_HEADER)]).find(b"\r\n\r\n")
        status, headers = parse_header(bytes(self._buffer[:end]))
        body = bytes(self._buffer[end + 4 : received]) if keep else b""
        length = int(headers.get("content-length", "0"))
        left = length - (received - end - 4)
        while left:
            came = self._socket.recv_into(self._buffer, min(left, _AT_ONCE))
            assert came, f"the body breaks off: {left} bytes are missing"
            left -= came
            if keep:
                body += self._buffer[:came]
        return Answer(status, headers, body, length)


def parse_header(header: bytes) -> tuple[int, dict[str, str]]:
    """An answer's status, and its headers by their names in lower case."""
    status_line, *lines = header.decode("latin-1").split("\r\n")
    headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
    return int(status_line.split()[1]), headers


def head(method: str, path: str, headers: Mapping[str, str]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1")
