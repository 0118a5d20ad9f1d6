"""Downloads: stored bits, whole or a range of them (RFC 9110)."""

from __future__ import annotations

import re
from typing import Protocol

import falcon

from adapters.bits import FileBits
from adapters.http.disposition import attachment
from adapters.http.exchange import Queries, caller_of
from adapters.http.faults import RangeNotSatisfiable
from adapters.metrics import Metrics
from adapters.tokens import Scope
from domain.errors import PackageNotFound, PackageNotReady, PackageTypeNotBits
from domain.package import PackageState, PackageType
from domain.ports import Bits

_RANGE = re.compile(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*", re.ASCII)


class Blobs(Protocol):
    """A blob store: clients download from it where it gives links, and from here else."""

    def link(self, key: str) -> str | None: ...

    def open(self, key: str) -> Bits: ...


class Download:
    """`/v3/packages/:guid/download`"""

    scopes = {"GET": Scope.READ}

    def __init__(self, queries: Queries, blobs: Blobs, metrics: Metrics) -> None:
        self._metrics = metrics
        self._queries = queries
        self._blobs = blobs

    def on_get(self, req: falcon.Request, resp: falcon.Response, guid: str) -> None:
        row = self._queries.ask().packages.find(guid)
        if row is None:
            raise PackageNotFound(guid)
        self._queries.guard.see_package(caller_of(req), guid, row.view.app_guid)
        if row.view.type != PackageType.BITS:
            raise PackageTypeNotBits(guid, row.view.type)
        if row.view.state != PackageState.READY or row.blob_key is None:
            raise PackageNotReady(guid, row.view.state)
        name = row.file_name or f"{guid}.zip"
        sent = answer_bits(
            req, resp, self._blobs, row.blob_key, str(row.sha256), "application/zip", name
        )
        self._metrics.sent_bytes.inc(sent)


def answer_bits(
    req: falcon.Request,
    resp: falcon.Response,
    blobs: Blobs,
    key: str,
    sha256: str,
    content_type: str,
    file_name: str,
) -> int:
    """Answers with a blob, a range of it, or where it is; how many bytes leave from here.

    Raises `RangeNotSatisfiable`, `BlobMissing`, `StoreAway`.
    """
    etag = f'"{sha256}"'
    resp.set_headers({"ETag": etag, "Accept-Ranges": "bytes", "Cache-Control": "private, no-cache"})
    if _matches(req.get_header("If-None-Match"), etag):
        resp.status = falcon.HTTP_304
        return 0
    link = blobs.link(key)
    if link is not None:
        resp.status = falcon.HTTP_302
        resp.set_header("Location", link)
        resp.delete_header("Accept-Ranges")
        resp.delete_header("Cache-Control")  # a link is signed for whoever asked
        return 0
    bits = blobs.open(key)
    assert isinstance(bits, FileBits), "blobs without links are files"
    asked = req.get_header("Range")
    if req.get_header("If-Range", default=etag) != etag:
        asked = None
    try:
        span = byte_range(asked, bits.size)
    except RangeNotSatisfiable:
        bits.close()
        raise
    start, length = (0, bits.size) if span is None else span
    if span is not None:
        resp.status = falcon.HTTP_206
        resp.set_header("Content-Range", f"bytes {start}-{start + length - 1}/{bits.size}")
    resp.content_type = content_type
    resp.set_header("Content-Disposition", attachment(file_name))
    resp.set_stream(bits.file_at(start), length)
    return length


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


def _matches(if_none_match: str | None, etag: str) -> bool:
    if if_none_match is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag in tags or "*" in tags
