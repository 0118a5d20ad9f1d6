"""Reads the log's rows as they are stored, whatever has become of them.

Nothing is taken for granted that somebody with write access can break: texts are read as
bytes, columns may have other types than they were given, and rows may be unreadable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import Table

from adapters.proof.findings import shown

FIRST, LAST = -(1 << 63), (1 << 63) - 1  # of all positions that a column can hold
BATCH = 2000  # rows read at once
_NEAR = 20_000  # unreadable positions that are tried one by one before steps grow

# position, appended_at, originator id, version, topic, state, hash. The position is an
# integer; texts are bytes or bytearrays, as the log says.
Row = tuple[int, Any, Any, Any, Any, Any, Any]
# originator id, version, position
Versioned = tuple[Any, Any, int]


class NothingToCheck(Exception):
    """There is no log, or none that this program can check."""


class UnreadableRows(Exception):
    """The database can't read on in what it has of a table."""


@dataclass(frozen=True)
class Unreadable:
    """Positions at which the database can't read what it has, both ends included."""

    first: int
    last: int
    why: str

    def __str__(self) -> str:
        if self.last == LAST:
            return f"all from position {self.first} on"
        if self.first == self.last:
            return f"position {self.first}"
        return f"positions {max(self.first, 1)} to {self.last}"


class Log(Protocol):
    """A log that is only read, in pieces: nobody waits for it."""

    identity: str
    text: type  # what texts are read as

    def head(self) -> int:
        """The highest position; `LAST` if it can't be told, 0 for an empty log."""

    def count(self, upto: int) -> int:
        """About how many events there are up to a position."""

    def rows(self, upto: int, after: int = FIRST) -> Iterator[Sequence[Row] | Unreadable]:
        """All events up to a position, in order."""

    def at(self, position: int) -> Row | Unreadable | None:
        """The event at a position."""

    def before(self, position: int) -> Row | None:
        """The event before a position, in order."""

    def versions(self, upto: int) -> Iterator[Sequence[Versioned] | Unreadable]:
        """All events up to a position by originator id and version, in that order."""

    def topics_of(self, originator_id: str, after: int) -> set[str]:
        """The topics of an aggregate's events behind a position."""

    def snapshot(self, tables: Sequence[str]) -> AbstractContextManager[Snapshot]:
        """These tables, where they are there, as they are at one moment."""

    def close(self) -> None: ...


class Snapshot(Protocol):
    """The database at one moment."""

    def rows(self, table: Table) -> Iterator[tuple[Any, ...]]:
        """A table's rows in the order of their keys (texts by their bytes).

        Raises `UnreadableRows`.
        """

    def has(self, table: str) -> bool: ...


def walk(
    read: Callable[[int, int, int], Sequence[Row]],
    broken: tuple[type[Exception], ...],
    is_broken: Callable[[Exception], bool],
    upto: int,
    after: int,
) -> Iterator[Sequence[Row] | Unreadable]:
    """All rows by `read(first, last, limit)`, past those at which it fails as `broken` ones do."""
    at, singly = after if after == FIRST else after + 1, 0
    while at <= upto:
        try:
            rows = read(at, upto, 1 if singly else BATCH)
        except broken as error:
            if not is_broken(error):
                raise
            if singly:
                behind = _behind(read, broken, at, upto)
                yield Unreadable(at, behind - 1, shown(str(error)))
                at = behind
            else:
                singly = BATCH
            continue
        singly = max(0, singly - 1)
        if not rows:
            return
        yield rows
        at = max(row[0] for row in rows[-2:]) + 1  # of broken keys some are out of order


def _behind(
    read: Callable[[int, int, int], Sequence[Row]],
    broken: tuple[type[Exception], ...],
    at: int,
    upto: int,
) -> int:
    """The first position behind `at` from which on there is something to read."""
    position, tries = max(at + 1, 1), 0
    while position <= upto:
        try:
            read(position, upto, 1)
            return position
        except broken:
            tries += 1
            position += 1 if tries < _NEAR else 1 << min(tries - _NEAR, 62)
    return upto + 1


def event_id_of(originator_id: Any, version: Any) -> str:
    return f"{shown(originator_id).partition(':')[2] or shown(originator_id)}/{shown(version)}"
