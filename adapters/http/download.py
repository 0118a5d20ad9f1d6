"""Downloads: stored bits, whole or a range of them (RFC 9110)."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Protocol

import falcon

from adapters.bits import FileBits
from adapters.http.disposition import attachment
from adapters.http.exchange import Queries, caller_of, cause_of, is_held
from adapters.http.faults import RangeNotSatisfiable
from adapters.metrics import Metrics
from adapters.tokens import Scope
from domain.download import BitsOf, Downloaded
from domain.download_service import DownloadService
from domain.errors import PackageNotFound, PackageNotReady, PackageTypeNotBits
from domain.package import PackageState, PackageType
from domain.ports import Bits

_RANGE = re.compile(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*", re.ASCII)


class Blobs(Protocol):
    """A blob store: clients download from it where it gives links, and from here else."""

    def link(self, key: str) -> str | None: ...

    def open(self, key: str) -> Bits: ...


@dataclass(frozen=True)
class SentBits:
    """Bits as they are sent: their blob's key, and what their headers say."""

    key: str
    sha256: str
    content_type: str
    file_name: str


class Sender:
    """Answers with blobs, each of which is recorded before a byte of it leaves."""

    def __init__(self, blobs: Blobs, downloads: DownloadService, metrics: Metrics) -> None:
        self._blobs = blobs
        self._downloads = downloads
        self._metrics = metrics

    def send(
        self, req: falcon.Request, resp: falcon.Response, of: Downloaded, sent: SentBits
    ) -> None:
        """Answers with a blob, a range of it, or where it is, and records that.

        What sends nothing is not recorded: that the client has it already, or a refusal. Raises
        `RangeNotSatisfiable`, `BlobMissing`, `StoreAway`, `PersistenceError`.
        """
        etag = f'"{sent.sha256}"'
        resp.set_headers(
            {"ETag": etag, "Accept-Ranges": "bytes", "Cache-Control": "private, no-cache"}
        )
        if is_held(req, etag):
            resp.status = falcon.HTTP_304
            return
        link = self._blobs.link(sent.key)
        if link is not None:
            self._downloads.record(of, cause_of(req))
            resp.status = falcon.HTTP_302
            resp.set_header("Location", link)
            resp.delete_header("Accept-Ranges")
            resp.delete_header("Cache-Control")  # a link is signed for whoever asked
            return
        bits = self._blobs.open(sent.key)
        assert isinstance(bits, FileBits), "blobs without links are files"
        asked = req.get_header("Range")
        if req.get_header("If-Range", default=etag) != etag:
            asked = None
        try:
            span = byte_range(asked, bits.size)
            if span is not None:
                of = replace(of, first_byte=span[0], last_byte=sum(span) - 1)
            self._downloads.record(of, cause_of(req))
        except Exception:
            bits.close()
            raise
        start, length = (0, bits.size) if span is None else span
        if span is not None:
            resp.status = falcon.HTTP_206
            resp.set_header("Content-Range", f"bytes {start}-{start + length - 1}/{bits.size}")
        resp.content_type = sent.content_type
        resp.set_header("Content-Disposition", attachment(sent.file_name))
        resp.set_stream(bits.file_at(start), length)
        self._metrics.sent_bytes.inc(length)


class Download:
    """`/v3/packages/:guid/download`"""

    scopes = {"GET": Scope.READ}

    def __init__(self, queries: Queries, sender: Sender) -> None:
        self._queries = queries
        self._sender = sender

    def on_get(self, req: falcon.Request, resp: falcon.Response, guid: str) -> None:
        row = self._queries.ask().packages.find(guid)
        if row is None:
            raise PackageNotFound(guid)
        self._queries.guard.see_package(caller_of(req), guid, row.view.app_guid)
        if row.view.type != PackageType.BITS:
            raise PackageTypeNotBits(guid, row.view.type)
        if row.view.state != PackageState.READY or row.blob_key is None:
            raise PackageNotReady(guid, row.view.state)
        self._sender.send(
            req,
            resp,
            Downloaded(BitsOf.PACKAGE, guid, row.view.app_guid),
            SentBits(
                row.blob_key, str(row.sha256), "application/zip", row.file_name or f"{guid}.zip"
            ),
        )


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The offset and length that a Range header asks for; None for all of it.

    A header that is malformed or asks for several ranges is ignored, as RFC 9110 allows.
    Raises `RangeNotSatisfiable`.
    """
    match = _RANGE.fullmatch(header or "")
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        start, end = max(0, size - int(last)), size - 1
        if not int(last):
            raise RangeNotSatisfiable(size)
    else:
        start, end = int(first), min(int(last) if last else size - 1, size - 1)
        if last and int(last) < int(first):
            return None
    if start >= size:
        raise RangeNotSatisfiable(size)
    return start, end - start + 1
