"""Reads a request: its headers as waitress does, its body to where the admission says."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import Any, Protocol

from waitress.parser import HTTPRequestParser, ParsingError
from waitress.receiver import FixedStreamReceiver

from adapters.http.answers import ErrorAnswer, answer_to, is_ours
from adapters.http.faults import BodyTooLarge
from adapters.http.server.body import SmallBody, UploadBody
from adapters.http.server.chunks import ChunkReceiver

logger = logging.getLogger("packtrail.http")

# a header's name, and every coding behind its first
_TRANSFER_ENCODINGS = re.compile(rb"(?im)^transfer-encoding[ \t]*:|,[ \t]*chunked[ \t\r]*$")
_ORIGIN = re.compile(r"[^:/?#]+://[^/?#]*")
SMALL_BODY = 64 * 1024  # bytes; what a body that is no upload may have


@dataclass(frozen=True)
class RequestHead:
    """What is known of a request when its headers are in.

    `path` is as it was sent, percent-encoded. `headers` has upper-case names with
    underscores. `declared_length` is in bytes, None where the body is chunked.
    """

    method: str
    path: str
    headers: dict[str, str]
    declared_length: int | None
    expects_continue: bool


@dataclass(frozen=True)
class Admitted:
    """An upload that may send its body, and where that goes."""

    body: UploadBody | SmallBody
    request_id: str


@dataclass(frozen=True)
class Refused:
    """An upload that was decided against at its headers."""

    answer: ErrorAnswer
    request_id: str | None


class Admission(Protocol):
    """Decides about an upload when its headers are in."""

    def concerns(self, head: RequestHead) -> bool:
        """Whether the request is an upload. Called in the I/O thread: may not block."""

    def decide(self, head: RequestHead) -> Admitted | Refused:
        """Called on a worker thread, before any of the body is read."""


class RequestParser(HTTPRequestParser):  # type: ignore[misc]
    """One request on its way in.

    An upload stops behind its headers, with `awaits_decision` set, until `admit` says
    where its body goes or `refuse` ends it. What is wrong with a request is in `error`.
    """

    admission: Admission
    expect_continue: bool
    raw_path = ""  # as it was sent, percent-encoded
    awaits_decision = False
    continue_when_admitted = False
    receives_upload = False
    cut_off_at: int | None = None  # bytes that a body may have which has more: the rest is not read
    request_id: str | None = None

    @property
    def ends_connection(self) -> bool:
        """Whether what follows on the connection can't be told apart from this request."""
        return self.error is not None or self.cut_off_at is not None

    def parse_header(self, header_plus: bytes) -> None:
        if len(_TRANSFER_ENCODINGS.findall(header_plus)) > 1:
            raise ParsingError("Transfer-Encoding is given more than once")
        try:
            super().parse_header(header_plus)
        except ValueError:  # more digits than Python makes a number of
            raise ParsingError("Content-Length is invalid") from None
        self.raw_path = _path_of(self.request_uri)
        headers = self.headers
        if self.chunked and "CONTENT_LENGTH" in headers:
            raise ParsingError("Content-Length and Transfer-Encoding exclude each other")
        if self.version != "1.1" and "TRANSFER_ENCODING" in headers:
            raise ParsingError("Transfer-Encoding needs HTTP/1.1")
        if self.body_rcv is None:
            return
        if self.admission.concerns(self.head()):
            self.awaits_decision = True
            self.continue_when_admitted = self.expect_continue
            self.expect_continue = False
        elif self.content_length > SMALL_BODY:
            self._receive_into(SmallBody(0))
            self._cut_off()
        else:
            self._receive_into(SmallBody(SMALL_BODY))

    def head(self) -> RequestHead:
        return RequestHead(
            self.command,
            self.raw_path,
            self.headers,
            None if self.chunked else self.content_length,
            self.expect_continue or self.continue_when_admitted,
        )

    def admit(self, admitted: Admitted) -> None:
        self.awaits_decision = False
        self.request_id = admitted.request_id
        self.receives_upload = isinstance(admitted.body, UploadBody)
        self.expect_continue = self.continue_when_admitted
        self._receive_into(admitted.body)

    def refuse(self, refused: Refused) -> None:
        self.awaits_decision = False
        self.request_id = refused.request_id
        self.error = refused.answer
        self.completed = True

    def received(self, data: Any) -> int:
        if self.body_rcv is None or not self.headers_finished:
            consumed: int = super().received(data)
            return consumed
        if self.completed:
            return 0
        receiver = self.body_rcv
        try:
            consumed = receiver.received(data)
        except BodyTooLarge:
            self._cut_off()
            return len(data)
        except Exception as error:
            self.error = answer_to(error)
            self.completed = True
            if is_ours(self.error):
                logger.exception("an upload could not be received")
            return len(data)
        if receiver.error:
            self.error = receiver.error
            self.completed = True
        elif receiver.completed:
            self.completed = True
            if self.chunked:
                self.headers["CONTENT_LENGTH"] = str(len(receiver))
        return consumed

    def _cut_off(self) -> None:
        """The application answers without the body, in the order of its checks."""
        self.cut_off_at = SMALL_BODY
        self.headers["CONNECTION"] = "close"
        self.completed = True

    def _receive_into(self, body: UploadBody | SmallBody) -> None:
        self.body_rcv = (
            ChunkReceiver(body) if self.chunked else FixedStreamReceiver(self.content_length, body)
        )


def _path_of(uri: str) -> str:
    """The path of a request's target, which may begin with scheme and host (RFC 9112, 3.2)."""
    origin = _ORIGIN.match(uri)
    path = uri[origin.end() :] if origin else uri
    return re.split(r"[?#]", path, maxsplit=1)[0] or "/"
