"""How an answer leaves: the tasks of worker threads, and the header of everything they send."""

from __future__ import annotations

import logging
import sys
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from waitress.proxy_headers import PROXY_HEADERS
from waitress.task import ErrorTask, WSGITask
from waitress.utilities import build_http_date

from adapters.http.answers import (
    JSON_TYPE,
    REQUEST_ID_HEADER,
    UNKNOWN_ERROR,
    ErrorAnswer,
    new_request_id,
)
from adapters.http.server.sending import SentFile

if TYPE_CHECKING:
    from adapters.http.server.parser import RequestParser

logger = logging.getLogger("packtrail.http")

SENT_TOGETHER = 64 * 1024  # bytes of a body up to which it is copied behind its header

# as RFC 9110 has them; Python's table has older ones
_REASONS = {413: "Content Too Large", 422: "Unprocessable Content"}

# on every answer, whatever made it
_SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# on every answer that has none of its own
_DEFAULT_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
_OWN_NAMES = frozenset(("CONTENT_LENGTH", "CONTENT_TYPE"))  # in the environment
_SAME_FOR_ALL: dict[str, Any] = {
    "SCRIPT_NAME": "",
    "wsgi.version": (1, 0),
    "wsgi.multithread": True,
    "wsgi.multiprocess": False,
    "wsgi.run_once": False,
    "wsgi.input_terminated": True,
    "wsgi.file_wrapper": SentFile,
}

# as the contract spells them; the others have a capital at each word
_SPELLED = {"x-vcap-request-id": REQUEST_ID_HEADER, "etag": "ETag"}


class _ResponseHeader:
    """Writes the header of every answer that leaves: none can be without what is added here."""

    request: RequestParser
    version: str
    status: str
    start_time: float
    content_length: int | None
    content_bytes_written: int
    wrote_header: bool
    chunked_response: bool
    close_on_finish: bool
    has_body: bool
    channel: Any
    response_headers: list[tuple[str, str]]

    def write(self, data: bytes) -> None:
        """A body that is not large leaves together with its header."""
        if not (self.wrote_header or not self.has_body or len(data) > SENT_TOGETHER):
            header = self.build_response_header()
            length = self.content_length
            self.wrote_header = True
            if length is not None and len(data) <= length:
                self.content_bytes_written = len(data)
                if len(data) == length:
                    self.channel.write_at_the_end(header + data)
                else:
                    self.channel.write_soon(header + data)
                return
            self.channel.write_soon(header)
        super().write(data)  # type: ignore[misc]

    def build_response_header(self) -> bytes:
        """Raises `ValueError` for a line that would be two."""
        headers = {spelled(name): value for name, value in self.response_headers}
        length = headers.pop("Content-Length", None)
        if self.has_body:
            if length is None and self.content_length is not None:
                length = str(self.content_length)
            if length is not None:
                headers["Content-Length"] = length
        self._frame(headers, length)
        headers.update(_SECURITY_HEADERS)
        for name, value in _DEFAULT_HEADERS.items():
            headers.setdefault(name, value)
        if REQUEST_ID_HEADER not in headers:
            headers[REQUEST_ID_HEADER] = new_request_id(None, None)
        headers["Date"] = _date(int(self.start_time))
        lines = [f"{name}: {headers[name]}" for name in sorted(headers)]
        header = f"HTTP/{self.version} {self.status}\r\n" + "\r\n".join(lines) + "\r\n\r\n"
        if header.count("\n") != len(lines) + 2 or header.count("\r") != len(lines) + 2:
            raise ValueError("a header's value has several lines")
        return header.encode("latin-1")

    def _frame(self, headers: dict[str, str], length: str | None) -> None:
        """Says how the answer ends, and whether the connection goes on behind it."""
        connection = self.request.headers.get("CONNECTION", "").lower()
        if self.version == "1.0":
            if connection == "keep-alive" and length:
                headers["Connection"] = "Keep-Alive"
                return
            self.close_on_finish = True
        elif not length and self.has_body:
            headers["Transfer-Encoding"] = "chunked"
            self.chunked_response = self.close_on_finish = True
        if connection == "close":
            self.close_on_finish = True
        if self.close_on_finish:
            headers.setdefault("Connection", "close")


@lru_cache(256)
def spelled(name: str) -> str:
    """A header's name as it leaves."""
    lower = name.lower()
    return _SPELLED.get(lower) or "-".join(word.capitalize() for word in lower.split("-"))


@lru_cache(2)
def _date(second: int) -> str:
    date: str = build_http_date(second)
    return date


class Task(_ResponseHeader, WSGITask):  # type: ignore[misc]
    """Answers a request through the application."""

    environ: dict[str, Any] | None = None

    def get_environment(self) -> dict[str, Any]:
        if self.environ is None:
            self.environ = self._environment()
        return self.environ

    def _environment(self) -> dict[str, Any]:
        """What PEP 3333 asks for, and what is known of the request besides."""
        channel, request = self.channel, self.request
        host, port = channel.addr[:2]
        path = request.path
        environ = {
            **_SAME_FOR_ALL,
            "REMOTE_ADDR": host,
            "REMOTE_HOST": host,
            "REMOTE_PORT": str(port),
            "REQUEST_METHOD": request.command.upper(),
            "SERVER_PORT": str(channel.server.effective_port),
            "SERVER_NAME": channel.server.server_name,
            "SERVER_PROTOCOL": f"HTTP/{self.version}",
            "PATH_INFO": f"/{path.lstrip('/')}" if path.startswith("/") else path,
            "REQUEST_URI": request.request_uri,
            "QUERY_STRING": request.query,
            "wsgi.url_scheme": request.url_scheme,
            "wsgi.errors": sys.stderr,
            "wsgi.input": request.get_body_stream(),
            "packtrail.request_id": request.request_id,
            "packtrail.cut_off_at": request.cut_off_at,
            "packtrail.raw_path": request.raw_path,
        }
        for name, value in request.headers.items():
            if name in _OWN_NAMES:
                environ[name] = value
            elif name not in PROXY_HEADERS:  # nobody may say who the client is but itself
                environ[f"HTTP_{name}"] = value
        if request.request_id is not None:
            environ["packtrail.counted"] = True  # when it was decided about, at its headers
        if request.receives_upload:
            environ["packtrail.upload"] = request.body_rcv.getbuf()
        return environ


class RefusalTask(_ResponseHeader, ErrorTask):  # type: ignore[misc]
    """Answers a request that the application never sees: the contract's JSON, then the end."""

    def execute(self) -> None:
        error = self.request.error
        # waitress has one error left to it: that the application failed outside its own handlers
        answer = error if isinstance(error, ErrorAnswer) else UNKNOWN_ERROR
        request_id = self.request.request_id or new_request_id(
            self.request.headers.get("X_VCAP_REQUEST_ID"),
            self.request.headers.get("X_REQUEST_ID"),
        )
        body = answer.body()
        reason = _REASONS.get(answer.status) or HTTPStatus(answer.status).phrase
        self.status = f"{answer.status} {reason}"
        self.response_headers += [
            ("Content-Type", JSON_TYPE),
            (REQUEST_ID_HEADER, request_id),
            *answer.headers.items(),
        ]
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(b"" if self.request.command == "HEAD" else body)
        logger.info(
            "refused",
            extra={
                "method": self.request.command,
                "path": self.request.raw_path or "-",
                "status": answer.status,
                "request_id": request_id,
            },
        )
