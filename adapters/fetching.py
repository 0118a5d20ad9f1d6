"""Asks another server for a JSON object: bounded in time and size, and without redirects."""

from __future__ import annotations

import http.client
import io
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

MAX_ANSWER = 1 << 20  # bytes
CHUNK = 64 * 1024  # bytes read at a time


class NoAnswer(OSError):
    """The server could not be reached, or said nothing of use; the text is for the log."""


@dataclass(frozen=True)
class Answer:
    """The status of an answer, and its JSON object, {} where it has none."""

    status: int
    content: dict[str, Any]


class _UntilDeadline(io.RawIOBase):
    """Reads from a socket until a deadline, however often something comes.

    A socket's own timeout begins again with each byte: who drips would never meet it.
    """

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._socket = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer took too long")
        self._socket.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _BoundedResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **more: Any) -> None:
        """The socket's timeout is the time that all of the answer has."""
        deadline = time.monotonic() + (sock.gettimeout() or 0.0)
        super().__init__(sock, *args, **more)
        self.fp.close()
        self.fp = io.BufferedReader(_UntilDeadline(sock, deadline))


class _Connection(HTTPConnection):
    response_class = _BoundedResponse


class _TlsConnection(HTTPSConnection):
    response_class = _BoundedResponse


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class Fetcher:
    """Keeps connections open between requests. May be used by several threads."""

    def __init__(self, timeout: float, connections: int = 8) -> None:
        """`timeout`: seconds that a request has in all."""
        self._timeout = timeout
        self._pool = urllib3.PoolManager(maxsize=connections, block=False, retries=False)
        self._pool.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}

    def get(self, url: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Raises `NoAnswer`."""
        deadline = time.monotonic() + self._timeout
        try:
            response = self._pool.request(
                "GET",
                url,
                headers={"Accept": "application/json", **(headers or {})},
                timeout=urllib3.Timeout(total=self._timeout),
                preload_content=False,
                redirect=False,
            )
            try:
                body = self._read(response, deadline)
            except BaseException:
                response.close()  # what is left of the answer can't be told from the next one
                raise
            finally:
                response.release_conn()
        except urllib3.exceptions.HTTPError as error:
            raise NoAnswer(f"{type(error).__name__}: {error}") from error
        return Answer(response.status, _object(body) if response.status == 200 else {})

    def _read(self, response: urllib3.BaseHTTPResponse, deadline: float) -> bytes:
        body = bytearray()
        # as it comes: no coding was asked for, and one could make much of little
        for piece in response.stream(CHUNK, decode_content=False):
            body += piece
            if len(body) > MAX_ANSWER:
                raise NoAnswer(f"the answer has more than {MAX_ANSWER} bytes")
            if time.monotonic() > deadline:
                raise NoAnswer(f"the answer took more than {self._timeout} s")
        return bytes(body)


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise NoAnswer(f"the answer is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise NoAnswer("the answer is not a JSON object")
    return value
