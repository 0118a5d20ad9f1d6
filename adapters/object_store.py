"""A bucket of an S3-compatible object store, through obstore: a prefix of it belongs to one log."""

from __future__ import annotations

import collections
import contextlib
import logging
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Self

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError
from obstore.store import S3Store

from adapters.breaker import Breaker
from adapters.folders import NotOurFolder
from domain.beside import one_ahead
from domain.errors import StoreAway

logger = logging.getLogger("packtrail.bits")

MARK = "packtrail.log"  # the object that names the log that the prefix belongs to
PART = 8 * 1024 * 1024  # bytes of a part of an upload; parts travel side by side
PARTS_AT_ONCE = 4
BLOCK = 1024 * 1024  # bytes fetched at once where bits are read here and there
BLOCKS_KEPT = 8
REQUEST_SECONDS = 60.0  # of one request: a part of 8 MiB, say
COPY_SECONDS = 3600.0  # of a copy inside the store
CHECK_SECONDS = 1.5
MAX_SERVER_COPY = 5 * 1024**3  # bytes that S3 copies in one request


MAX_KEY = 1024  # bytes of an object's whole name, by S3


class ObjectDenied(StoreAway):
    """The object store does not let us at an object, or does not tell that it is not there."""


class ObjectStoreAway(StoreAway):
    """The object store can't be reached, or does not do what it is asked for."""


@contextlib.contextmanager
def errors_as_away() -> Iterator[None]:
    """Whatever the store fails with, but for what is not there, is told as `ObjectStoreAway`."""
    try:
        yield
    except PermissionDeniedError as error:
        raise ObjectDenied(str(error).partition("\n")[0][:200]) from error
    except BaseError as error:
        first_line = str(error).partition("\n")[0][:200]
        raise ObjectStoreAway(f"{type(error).__name__}: {first_line}") from error


class Bucket:
    """`s3://bucket/prefix`, with the usual `AWS_*` variables. Every call may raise `StoreAway`."""

    def __init__(self, url: str) -> None:
        self._url = url
        name, _, prefix = url.removeprefix("s3://").partition("/")
        self._identity: str | None = None
        self._claimed = False
        self._breaker = Breaker(
            (StoreAway,), lambda: ObjectStoreAway("the store did not answer just now")
        )

        def store(seconds: float, retries: int) -> S3Store:
            """A client whose requests take so long at most, from first to last byte."""
            return S3Store(
                name,
                prefix=prefix.strip("/") or None,
                client_options={
                    "connect_timeout": timedelta(seconds=min(2, seconds)),
                    "timeout": timedelta(seconds=seconds),
                    "allow_http": True,
                },
                retry_config={"max_retries": retries, "retry_timeout": timedelta(seconds=5)},
            )

        self._store = store(REQUEST_SECONDS, 2)
        self._copying = store(COPY_SECONDS, 2)
        self._asking = store(CHECK_SECONDS, 0)

    def url_of(self, key: str) -> str:
        return f"{self._url.rstrip('/')}/{key}"

    def key_of(self, url: str) -> str | None:
        """What a URL names inside the prefix; None if it is another's, or no plain name."""
        key = url.removeprefix(self.url_of(""))
        if key == url or not re.fullmatch(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*", key):
            return None
        if len(url.removeprefix("s3://")) > MAX_KEY or {".", ".."} & set(key.split("/")):
            return None
        return key

    def claim(self, identity: str) -> None:
        """Marks the prefix, or finds it marked, as the log's of that identity.

        A store that is away is asked again before anything is listed for a sweep. Raises
        `NotOurFolder` if the prefix is another log's.
        """
        self._identity, self._claimed = identity, False
        try:
            self._require_claimed()
        except StoreAway as error:
            logger.warning("the object store is away: %s", error)

    def _require_claimed(self) -> None:
        identity = self._identity
        if self._claimed or identity is None:
            return
        self.check()  # soon told: a store that hangs would keep a start for minutes
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
        self._claimed = True

    def put(self, key: str, chunks: Iterator[bytes], attributes: dict[str, str]) -> None:
        """Makes an object, whole or not at all, of bytes that come in pieces."""
        with errors_as_away():
            obstore.put(
                self._store, key, chunks, attributes=attributes,
                chunk_size=PART, max_concurrency=PARTS_AT_ONCE,
            )  # fmt: skip

    def copy(self, source: str, key: str, attributes: dict[str, str] | None = None) -> int:
        """Copies an object inside the store; its size. Raises `FileNotFoundError`.

        With other `attributes` than its own it has to pass through here.
        """
        with errors_as_away():
            head = obstore.head(self._store, source)
            size = int(head["size"])
            kept = obstore.get(self._store, source, options={"head": True}).attributes
            wanted = kept if attributes is None else attributes
            if size <= MAX_SERVER_COPY and dict(wanted) == dict(kept):
                obstore.copy(self._copying, source, key)
            else:
                pieces = ObjectBits(self._store, source, size).pieces()
                with ThreadPoolExecutor(1) as fetching:  # a put can't fetch on its own thread
                    elsewhere = iter(lambda: fetching.submit(next, pieces, b"").result(), b"")
                    obstore.put(
                        self._store, key, elsewhere, attributes=wanted,
                        chunk_size=PART, max_concurrency=PARTS_AT_ONCE,
                    )  # fmt: skip
            return size

    def open(self, key: str) -> ObjectBits:
        """Raises `FileNotFoundError`."""
        with errors_as_away():
            return ObjectBits(self._store, key, int(obstore.head(self._store, key)["size"]))

    def delete(self, key: str) -> None:
        with errors_as_away(), contextlib.suppress(FileNotFoundError):
            obstore.delete(self._store, key)

    def list(self, prefix: str, older_than: float) -> Iterator[str]:
        """The keys behind a prefix of objects made before a time (seconds since the epoch)."""
        self._require_claimed()
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
        """Raises `StoreAway`, soon, if the store does not answer."""
        with self._breaker(), errors_as_away(), contextlib.suppress(FileNotFoundError):
            obstore.head(self._asking, MARK)


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
        return map(memoryview, self.pieces())

    def pieces(self) -> Iterator[bytes]:
        """All bytes in order, a request for each piece: each has its own time, and its retries.

        While one is used the next one is on its way.
        """
        fetches = (
            partial(self._fetch, start, min(start + PART, self.size))
            for start in range(0, self.size, PART)
        )
        return one_ahead(fetches, "fetching")

    def _fetch(self, start: int, end: int) -> bytes:
        with errors_as_away():
            found = bytes(obstore.get_range(self._store, self._key, start=start, end=end))
        if len(found) != end - start:
            raise ObjectStoreAway(f"{len(found)} bytes came of {end - start}")
        return found

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            start = number * BLOCK
            self._blocks[number] = self._fetch(start, min(start + BLOCK, self.size))
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
