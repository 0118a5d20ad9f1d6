"""Reads a request: its head strictly, its body to where the admission says."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import unquote_to_bytes

from waitress.parser import HTTPRequestParser
from waitress.receiver import FixedStreamReceiver

from adapters.http.answers import ErrorAnswer, answer_to, is_ours
from adapters.http.faults import BodyTooLarge
from adapters.http.server.body import SmallBody, UploadBody
from adapters.http.server.chunks import ChunkReceiver
from adapters.http.server.head import BrokenHead, Head, check_bytes, parse_head, too_large
from adapters.limits import Limits

logger = logging.getLogger("packtrail.http")


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
    limits = Limits()
    command = "-"
    path = "-"
    version = "1.1"
    expect_continue: bool
    raw_path = ""  # as it was sent, percent-encoded
    awaits_decision = False
    continue_when_admitted = False
    receives_upload = False
    cut_off_at: int | None = None  # bytes that a body may have which has more: the rest is not read
    request_id: str | None = None

    def __init__(self, adj: Any) -> None:
        super().__init__(adj)
        self._head = bytearray()

    @property
    def ends_connection(self) -> bool:
        """Whether what follows on the connection can't be told apart from this request."""
        return self.error is not None or self.cut_off_at is not None

    def received(self, data: Any) -> int:
        """Takes bytes; how many of them belong to this request."""
        if self.completed:
            return 0
        if self.headers_finished:
            return self._receive_body(data)
        try:
            return self._receive_head(data)
        except BrokenHead as broken:
            self.fail(broken.answer)
            return len(data)

    def _receive_head(self, data: Any) -> int:
        head, limit = self._head, self.limits.max_header_size
        looked_at = max(0, len(head) - 3)
        piece = data[: limit + 1 - len(head)]
        head += piece
        while head.startswith(b"\r\n"):  # empty lines before a request (RFC 9112, section 2.2)
            del head[:2]
            looked_at = 0
        if not head:
            self.empty = self.completed = True
            return len(piece)
        end = head.find(b"\r\n\r\n", looked_at)
        size = len(head) if end < 0 else end + 4
        check_bytes(head, looked_at, size)
        if size > limit:
            self.fail(too_large(bytes(head), limit))
            return len(data)
        if end < 0:
            return len(piece)
        left = len(head) - size
        self._head = bytearray()
        self._begin(parse_head(bytes(head[:size])))
        return len(piece) - left

    def _begin(self, head: Head) -> None:
        """The head is in: the body is awaited, or there is none."""
        self.headers_finished = True
        self.command, self.version, self.headers = head.method, head.version, head.headers
        self.request_uri, self.raw_path, self.query = head.target, head.path, head.query
        self.path = unquote_to_bytes(head.path).decode("latin-1")
        self.url_scheme = self.adj.url_scheme
        self.connection_close = not head.keeps_alive
        self.chunked = head.length is None
        self.content_length = head.length or 0
        # the application gets a body whose length is known
        self.headers.pop("TRANSFER_ENCODING", None)
        if head.length == 0:
            self.completed = True
            return
        expectation = self.headers.get("EXPECT", "").lower()
        self.expect_continue = self.version == "1.1" and expectation == "100-continue"
        most = self.limits.max_body_size
        if self.admission.concerns(self.head()):
            self.awaits_decision = True
            self.continue_when_admitted = self.expect_continue
            self.expect_continue = False
        elif self.content_length > most:
            self._receive_into(SmallBody(0))
            self._cut_off()
        else:
            self._receive_into(SmallBody(most))

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
        self.fail(refused.answer)

    def fail(self, answer: ErrorAnswer) -> None:
        """Ends the request with an answer; nothing more of it is looked at."""
        self.error = answer
        self.completed = True

    def _receive_body(self, data: Any) -> int:
        receiver = self.body_rcv
        try:
            consumed: int = receiver.received(data)
        except BodyTooLarge:
            self._cut_off()
            return len(data)
        except Exception as error:
            self.fail(answer_to(error))
            if is_ours(self.error):
                logger.exception(
                    "an upload could not be received", extra={"request_id": self.request_id}
                )
            return len(data)
        if receiver.error:
            self.fail(receiver.error)
        elif receiver.completed:
            self.completed = True
            if self.chunked:
                self.headers["CONTENT_LENGTH"] = str(len(receiver))
        return consumed

    def _cut_off(self) -> None:
        """The application answers without the body, in the order of its checks."""
        self.cut_off_at = self.limits.max_body_size
        self.headers["CONNECTION"] = "close"
        self.completed = True

    def _receive_into(self, body: UploadBody | SmallBody) -> None:
        self.body_rcv = (
            ChunkReceiver(body) if self.chunked else FixedStreamReceiver(self.content_length, body)
        )
