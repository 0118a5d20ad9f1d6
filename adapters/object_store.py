"""A bucket of an S3-compatible object store, through obstore: a prefix of it belongs to one log."""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Iterator
from datetime import timedelta
from types import TracebackType
from typing import Self

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import S3Store

from adapters.folders import NotOurFolder
from domain.errors import StoreAway

MARK = "packtrail.log"  # the object that names the log that the prefix belongs to
PART = 8 * 1024 * 1024  # bytes of a part of an upload; parts travel side by side
PARTS_AT_ONCE = 4
BLOCK = 1024 * 1024  # bytes fetched at once where bits are read here and there
BLOCKS_KEPT = 8
MAX_SERVER_COPY = 5 * 1024**3  # bytes that S3 copies in one request


class ObjectStoreAway(StoreAway):
    """The object store can't be reached, or does not do what it is asked for."""


@contextlib.contextmanager
def errors_as_away() -> Iterator[None]:
    """Whatever the store fails with, but for what is not there, is told as `ObjectStoreAway`."""
    try:
        yield
    except BaseError as error:
        first_line = str(error).partition("\n")[0]
        raise ObjectStoreAway(f"{type(error).__name__}: {first_line}") from error


class Bucket:
    """`s3://bucket/prefix`, with the usual `AWS_*` variables. Every call may raise `StoreAway`."""

    def __init__(self, url: str) -> None:
        self._url = url
        name, _, prefix = url.removeprefix("s3://").partition("/")
        self._store = S3Store(
            name,
            prefix=prefix.strip("/") or None,
            client_options={
                "connect_timeout": timedelta(seconds=2),
                "timeout": timedelta(seconds=60),  # of one request, a part of an upload, say
                "allow_http": True,
            },
            retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=5)},
        )

    def claim(self, identity: str) -> None:
        """Marks the prefix, or finds it marked, as the log's of that identity.

        Raises `NotOurFolder` if it is another log's.
        """
        with errors_as_away():
            try:
                obstore.put(self._store, MARK, identity.encode(), mode="create")
            except AlreadyExistsError:
                found = bytes(obstore.get(self._store, MARK).bytes()).decode()
                if found != identity:
                    raise NotOurFolder(
                        f"{self._url} has the bits of another log ({found}) than this one: "
                        "restore that log, or name another prefix"
                    ) from None

    def put(self, key: str, chunks: Iterator[bytes], attributes: dict[str, str]) -> None:
        """Makes an object, whole or not at all, of bytes that come in pieces."""
        with errors_as_away():
            obstore.put(
                self._store, key, chunks, attributes=attributes,
                chunk_size=PART, max_concurrency=PARTS_AT_ONCE,
            )  # fmt: skip

    def copy(self, source: str, key: str) -> int:
        """Copies an object inside the store; its size. Raises `FileNotFoundError`."""
        with errors_as_away():
            head = obstore.head(self._store, source)
            if head["size"] <= MAX_SERVER_COPY:
                obstore.copy(self._store, source, key)
            else:
                found = obstore.get(self._store, source)
                obstore.put(
                    self._store, key, found.stream(min_chunk_size=PART),
                    attributes=found.attributes, chunk_size=PART, max_concurrency=PARTS_AT_ONCE,
                )  # fmt: skip
            return int(head["size"])

    def open(self, key: str) -> ObjectBits:
        """Raises `FileNotFoundError`."""
        with errors_as_away():
            return ObjectBits(self._store, key, int(obstore.head(self._store, key)["size"]))

    def delete(self, key: str) -> None:
        with errors_as_away(), contextlib.suppress(FileNotFoundError):
            obstore.delete(self._store, key)

    def list(self, prefix: str, older_than: float) -> Iterator[str]:
        """The keys behind a prefix of objects made before a time (seconds since the epoch)."""
        with errors_as_away():
            for batch in obstore.list(self._store, prefix=prefix):
                for found in batch:
                    if found["last_modified"].timestamp() < older_than:
                        yield found["path"].removeprefix(f"{prefix}/")

    def link(self, key: str, seconds: int) -> str:
        """A URL that anybody may read the object from, for so long."""
        with errors_as_away():
            return str(obstore.sign(self._store, "GET", key, timedelta(seconds=seconds)))

    def check(self) -> None:
        """Raises `StoreAway` if the store does not answer."""
        with errors_as_away():
            obstore.head(self._store, MARK)


class ObjectBits:
    """An object's bytes (a `Bits`, see `domain.ports`), fetched in blocks."""

    def __init__(self, store: S3Store, key: str, size: int) -> None:
        self.size = size
        self._store = store
        self._key = key
        self._blocks: collections.OrderedDict[int, bytes] = collections.OrderedDict()

    def read_at(self, offset: int, length: int) -> bytes:
        end = min(offset + length, self.size)
        if offset >= end:
            return b""
        first, last = offset // BLOCK, (end - 1) // BLOCK
        data = b"".join(self._block(number) for number in range(first, last + 1))
        return data[offset - first * BLOCK : end - first * BLOCK]

    def chunks(self) -> Iterator[memoryview]:
        received = 0
        with errors_as_away():
            for chunk in obstore.get(self._store, self._key).stream(min_chunk_size=BLOCK):
                received += len(chunk)
                yield memoryview(bytes(chunk))
        if received != self.size:
            raise ObjectStoreAway(f"{received} bytes came of {self.size}")

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            start = number * BLOCK
            with errors_as_away():
                found = obstore.get_range(
                    self._store, self._key, start=start, end=min(start + BLOCK, self.size)
                )
            self._blocks[number] = bytes(found)
            if len(self._blocks) > BLOCKS_KEPT:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(number)
        return self._blocks[number]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
