"""Reads an export, and verifies every line of it as it comes."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import zstandard

from adapters.event_store.chain import GENESIS, Record, link
from adapters.event_store.transcoding import EventMapper
from adapters.exports.lines import MAX_LINE, End, FollowerAt, Header, event_or_end
from adapters.proof.decoding import required
from domain.errors import NewerData

_BROKEN = (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError)
_COMPRESSED = {b"\x1f\x8b": "gzip, and its name must end with .gz",
               b"\x28\xb5\x2f\xfd": "zstd, and its name must end with .zst"}  # fmt: skip


class UnusableExport(Exception):
    """What is wrong with an export: in which line, and at which position of the log."""


class Export:
    """An export whose header is read. What `records` has given is right up to there."""

    def __init__(self, file: BinaryIO) -> None:
        """Raises `UnusableExport`."""
        self._file = file
        self._mapper = EventMapper()
        self.number = 0  # of the line that was read last
        self.events = 0  # that were read
        self.position = 0  # of the event that was read last
        first = self._next()
        for magic, what in _COMPRESSED.items():
            if first.startswith(magic):
                raise self.unusable(f"it is {what}")
        if not first:
            raise UnusableExport("it is empty, or cut off before its first line")
        try:
            self.header = Header.of(first)
        except ValueError as error:
            raise self.unusable(str(error)) from None
        self._expected: dict[int, list[FollowerAt]] = {}
        for follower in self.header.followers:
            if follower.position:
                self._expected.setdefault(follower.position, []).append(follower)

    def records(self) -> Iterator[Record]:
        """All events, each when it was found to be the one that belongs there.

        Raises `UnusableExport`, also at the end, for what is not there.
        """
        appended_at, previous = 0, GENESIS
        while line := self._next():
            try:
                found = event_or_end(line)
            except ValueError as error:
                if not line.endswith(b"\n"):
                    raise self.unusable("the file is cut off in it") from None
                raise self.unusable(str(error)) from None
            if isinstance(found, End):
                self._check_end(found, self._end(previous))
                return
            self._check_order(found, appended_at)
            if link(previous, *found[:-1]) != found.hash:
                raise self.unusable(
                    "the chain is broken: something in this event was changed, or an event "
                    "before it was removed, added or moved",
                    found.position,
                )
            self._check_known(found)
            self._check_followers(found)
            self.events += 1
            self.position, appended_at, previous = found.position, found.appended_at, found.hash
            yield found
        raise UnusableExport(
            f"it is cut off: it ends after line {self.number} (position {self.position}), without "
            "the line that ends an export"
        )

    def _end(self, last_hash: bytes) -> End:
        """What the last line must say."""
        return End(self.header.identity, self.events, self.position, last_hash)

    def unusable(self, what: str, position: int | None = None) -> UnusableExport:
        """An error in the line that was read last."""
        after = f", after position {self.position}" if self.position else ""
        where = after if position is None else f", position {position}"
        return UnusableExport(f"line {self.number}{where}: {what}")

    def _next(self) -> bytes:
        """The next line; b"" at the end."""
        try:
            line = self._file.readline(MAX_LINE + 1)
        except _BROKEN as error:
            self.number += 1
            raise self.unusable(f"the compressed file is damaged or cut off: {error}") from None
        if line:
            self.number += 1
        if len(line) > MAX_LINE:
            raise self.unusable(f"it has more than {MAX_LINE} bytes: no event has so many")
        return line

    def _check_order(self, found: Record, appended_at: int) -> None:
        if found.position <= self.position:
            raise self.unusable(
                f"it comes after position {self.position}: events are twice there, or out of order",
                found.position,
            )
        if found.appended_at < appended_at:
            raise self.unusable(
                f"appended_at is {found.appended_at}, and that of the event before it is later: "
                f"{appended_at}",
                found.position,
            )

    def _check_known(self, found: Record) -> None:
        """A log that this program could not go on with is not taken in."""
        try:
            event = self._mapper.event_of(
                found.originator_id, found.originator_version, found.topic, found.state
            )
        except NewerData as error:
            raise self.unusable(str(error), found.position) from None
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            what = f"{type(error).__name__}: {error}"
            raise self.unusable(
                f"its state is none of {found.topic}: {what}", found.position
            ) from None
        missing = required(type(event)) - event.__dict__.keys()
        if missing:
            raise self.unusable(
                f"its state is none of {found.topic}: {', '.join(sorted(missing))} missing",
                found.position,
            )

    def _check_followers(self, found: Record) -> None:
        for follower in self._expected.pop(found.position, ()):
            event_id = f"{found.originator_id.partition(':')[2]}/{found.originator_version}"
            if event_id != follower.event_id:
                raise self.unusable(
                    f"{_placed(follower)}, and the event there is {event_id}: the first line is "
                    "of another log",
                    found.position,
                )

    def _check_end(self, found: End, read: End) -> None:
        if found.identity != read.identity:
            raise self.unusable(
                f"it ends the log {found.identity}, and the first line begins {read.identity}: the "
                "file is put together of two"
            )
        if found != read:
            raise self.unusable(
                f"it says {found.events} events up to position {found.position}, and "
                f"{read.events} up to {read.position} are there, or their hash is another"
            )
        for followers in self._expected.values():
            follower = followers[0]
            raise self.unusable(f"{_placed(follower)}, and there is no such event")
        if self._next():
            raise self.unusable("something follows the line that ends an export")


def _placed(follower: FollowerAt) -> str:
    return (
        f"by the first line {follower.name!r} stands at position {follower.position} with event "
        f"{follower.event_id}"
    )
