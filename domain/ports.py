"""What the domain needs of the world; adapters provide it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

from domain.aggregate import RecordedEvent
from domain.package import StagedBits, StoredBits


class Bits(Protocol):
    """A package's bytes, opened for reading. Reads at any place, holds nothing in memory."""

    size: int

    def read_at(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`; fewer at the end."""

    def chunks(self) -> Iterator[memoryview]:
        """All bytes in order. A chunk stays valid while the next one is read."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class Staging(Protocol):
    """Keeps received bits until their package is READY or FAILED."""

    def open(self, staged: StagedBits) -> Bits:
        """Raises `StagedBitsMissing`."""

    def make_private(self, uri: str) -> None:
        """From here on nobody but us can change the bits. Raises `OSError`."""

    def consume(self, uri: str) -> None:
        """Removes the uploaded file that `uri` was taken from: its bits are in staging.

        Changes nothing for bits that came in a body, or where it is gone already.
        """

    def discard(self, uri: str) -> None:
        """Removes what `uri` names, and the uploaded file that it consumed, if they are there."""


class BlobStore(Protocol):
    """Keeps stored bits. A blob appears whole or not at all."""

    def store(self, key: str, staged: StagedBits) -> StoredBits:
        """Makes staged bits a blob, durably, without touching them. Replaces what was there.

        Raises `StagedBitsMissing`.
        """

    def copy(self, source_key: str, key: str) -> StoredBits:
        """Makes another blob of the same bits, durably. Raises `BlobMissing`."""

    def open(self, key: str) -> Bits:
        """Raises `BlobMissing`."""

    def delete(self, key: str) -> None:
        """Removes the blob if it is there."""


class Environments(Protocol):
    """Environment variables of apps and droplets: beside the log, for they may be secrets.

    `owner` is an originator id: a kind's prefix, and a guid.
    """

    def keep(self, owner: str, variables: Mapping[str, Any]) -> None:
        """Replaces what was kept."""

    def keep_once(
        self, owner: str, variables: Mapping[str, Any], request: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Keeps them, and what was asked for, unless something is kept already.

        Returns the request that is kept.
        """

    def find(self, owner: str) -> dict[str, Any] | None:
        """What was kept; None if nothing was."""

    def request(self, owner: str) -> dict[str, Any] | None:
        """The request that is kept; None if none is."""

    def forget(self, owner: str) -> None:
        """Removes it, if it is there."""


class PackageQuota(Protocol):
    """How many packages an app may have."""

    def check(self, app_guid: str) -> None:
        """Whether there is room for one more. Raises `TooManyPackages`."""


class LoggedEvent(NamedTuple):
    """An event and its position in the log (positions grow, and may have gaps)."""

    position: int
    event: RecordedEvent


class EventLog(Protocol):
    """The log as its followers see it."""

    def head(self) -> int:
        """The position of the newest event; 0 while there is none."""

    def read(self, after: int, limit: int) -> Sequence[LoggedEvent]:
        """Up to `limit` events behind position `after`, in order, as far as they can be read.

        Raises `NewerData` or `UnreadableEvent` where that is not even one.
        """

    def history(self, originator_id: str, upto: int | None = None) -> Sequence[LoggedEvent]:
        """The events of one aggregate, up to a position, in order.

        Raises `NewerData`, `UnreadableEvent`.
        """

    def position_at(self, moment: datetime) -> int:
        """The last position that was appended before a moment; 0 if there is none."""

    def wait(self, after: int, timeout: float) -> None:
        """Returns when there may be events behind `after`, or after `timeout` seconds."""

    def wake(self) -> None:
        """Makes those of this process who wait return now."""
