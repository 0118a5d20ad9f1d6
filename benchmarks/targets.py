"""Where large bits are sent to and fetched from: ours and the peers, in each one's own way.

A package that is created, and an upload's address that the registry is asked for, come before
the clock for all of them; `push` is from the first byte of the bits to the answer that takes them.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
import zipfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, Self

from benchmarks.client import Connection, FileBody
from tests.support.service import bearer
from tests.support.zips import large_zip

BITS = {"Content-Type": "application/octet-stream"}
# as curl writes a form; browsers' and Go's boundaries are as long
BOUNDARY = "------------------------d74496d66958873e"
FORM_TYPE = f"multipart/form-data; boundary={BOUNDARY}"
_DISPOSITION = 'Content-Disposition: form-data; name="bits"; filename="a.zip"'
FORM_HEAD = f"--{BOUNDARY}\r\n{_DISPOSITION}\r\n\r\n".encode()
FORM_TAIL = f"\r\n--{BOUNDARY}--\r\n".encode()


@dataclass(frozen=True)
class Bits:
    """A zip that is made once and differs in every round, for who knows bits by their digest."""

    path: Path

    @classmethod
    def of(cls, path: Path, size: int) -> Self:
        """With one stored entry of `size` bytes."""
        large_zip(path, size)
        return cls(path)

    def change(self) -> None:
        """Gives the zip another comment: the last bytes of it."""
        with zipfile.ZipFile(self.path, "a") as archive:
            archive.comment = uuid.uuid4().hex.encode()

    def digest(self) -> str:
        with self.path.open("rb") as file:
            return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


class Target(Protocol):
    """One server. Picklable: clients are processes of their own."""

    @property
    def name(self) -> str: ...

    @property
    def port(self) -> int: ...

    def prepare(self, connection: Connection, bits: Bits) -> str:
        """What opens an upload; where the bits go to."""

    def push(self, connection: Connection, where: str, bits: Bits, chunked: bool) -> str:
        """Sends the bits; where they can be fetched."""

    def headers(self) -> dict[str, str]:
        """What a request for bits needs besides."""


@dataclass(frozen=True)
class Packtrail:
    """Multipart, with a token; the answer means that the bits and the event are on the disk."""

    port: int
    name: ClassVar[str] = "packtrail"

    def prepare(self, connection: Connection, bits: Bits) -> str:
        created = connection.ask(
            "POST", f"/v3/apps/{uuid.uuid4()}/packages", self.headers(), b'{"type":"bits"}'
        )
        assert created.status == 201, created
        return f"/v3/packages/{json.loads(created.body)['guid']}"

    def push(self, connection: Connection, where: str, bits: Bits, chunked: bool) -> str:
        body = FileBody(bits.path, FORM_HEAD, FORM_TAIL)
        kind = {"Content-Type": FORM_TYPE}
        answer = connection.send(
            "POST", f"{where}/upload", {**self.headers(), **kind}, body, chunked
        )
        assert answer.status == 200, answer
        return f"{where}/download"

    def headers(self) -> dict[str, str]:
        return bearer()


@dataclass(frozen=True)
class NginxPut:
    """WebDAV PUT of a name that is new."""

    port: int
    name: str = "nginx"
    files: Path | None = None  # where it keeps them, to sync each, which nginx does not

    def prepare(self, connection: Connection, bits: Bits) -> str:
        assert connection.ask("GET", "/nothing").status == 404  # the connection is in use
        return f"/{uuid.uuid4()}"

    def push(self, connection: Connection, where: str, bits: Bits, chunked: bool) -> str:
        answer = connection.send("PUT", where, BITS, FileBody(bits.path), chunked)
        assert answer.status == 201, answer
        if self.files is not None:
            with (self.files / where[1:]).open("rb") as stored:
                os.fsync(stored.fileno())
        return where

    def headers(self) -> dict[str, str]:
        return {}


@dataclass(frozen=True)
class RegistryBlob:
    """A blob, in the request that ends its upload, or in a PATCH before that.

    The digest that it has to have is known to the client before the clock starts.
    """

    port: int
    patch: bool = False

    @property
    def name(self) -> str:
        return "docker-registry" + (" by PATCH" if self.patch else "")

    def prepare(self, connection: Connection, bits: Bits) -> str:
        answer = connection.ask("POST", "/v2/bits/blobs/uploads/")
        assert answer.status == 202, answer
        return f"{path_of(answer.headers['location'])}&digest={bits.digest()}"

    def push(self, connection: Connection, where: str, bits: Bits, chunked: bool) -> str:
        upload, _, digest = where.partition("&digest=")
        body = FileBody(bits.path)
        if self.patch:
            answer = connection.send("PATCH", upload, BITS, body, chunked)
            assert answer.status == 202, answer
            upload = path_of(answer.headers["location"])
            answer = connection.ask("PUT", f"{upload}&digest={digest}")
        else:
            answer = connection.send("PUT", where, BITS, body, chunked)
        assert answer.status == 201, answer
        return f"/v2/bits/blobs/{digest}"

    def headers(self) -> dict[str, str]:
        return {}


def path_of(location: str) -> str:
    """Without scheme and host, which the registry adds."""
    return "/" + location.split("/", 3)[3] if "://" in location else location


def uploading(target: Target, bits: Bits, chunked: bool) -> Generator[None, None, str]:
    """The job of one client."""
    with Connection(target.port) as connection:
        where = target.prepare(connection, bits)
        yield
        return target.push(connection, where, bits, chunked)


def downloading(
    target: Target, path: str, span: tuple[int, int] | None
) -> Generator[None, None, int]:
    """The job of one client: all of it, or from one byte to another, which is the last; bytes."""
    headers = target.headers()
    if span is not None:
        headers["Range"] = f"bytes={span[0]}-{span[1]}"
    with Connection(target.port) as connection:
        yield
        answer = connection.fetch(path, headers)
    assert answer.status == (200 if span is None else 206), answer
    return answer.length
