"""The log as somebody looks through it: all of it, or what they ask for, in order.

It is read in windows of positions, so that memory does not grow with the log and the first
events are there at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from heapq import merge
from operator import attrgetter

import orjson
from sqlalchemy import ColumnElement, Engine, LargeBinary, column, select, table

from adapters.bus.asyncapi import event_classes
from adapters.event_store.chain import Record
from domain.download import Download
from domain.droplet import Droplet
from domain.package import Package
from domain.ports import EventLog
from projections.audit import AuditProjection, audit
from projections.positions import standings
from projections.rows import LOOKUP

WINDOW = 2000  # positions looked at in one statement
TYPES = sorted(kind.TOPIC for kind in event_classes())
_PREFIXES = sorted({f"{topic.partition('.')[0]}:" for topic in TYPES})  # of originator ids
_DOWNLOADED = (Package.ID_PREFIX, Droplet.ID_PREFIX)
_DOWNLOAD = Download.Started.TOPIC
_position = attrgetter("position")


class NoSuchType(ValueError):
    """A type of event that there is none of."""


def types_named(patterns: Sequence[str]) -> frozenset[str] | None:
    """The types that are meant by names or patterns such as `package.*`; None for all.

    Raises `NoSuchType`.
    """
    found: set[str] = set()
    for pattern in patterns:
        some = [topic for topic in TYPES if fnmatchcase(topic, pattern)]
        if not some:
            raise NoSuchType(
                f"there is no type of event {pattern!r}, only {', '.join(TYPES)}; patterns such as "
                "package.* name several"
            )
        found.update(some)
    return frozenset(found) or None


@dataclass(frozen=True)
class Wanted:
    """Which events are asked for; None filters nothing.

    `guid` is that of anything. Of a package or droplet its downloads are asked for, too.
    """

    guid: str | None = None
    types: frozenset[str] | None = None
    actors: frozenset[str] | None = None

    @cached_property
    def originator_ids(self) -> frozenset[str]:
        """Under which the log may have events of what has the guid."""
        return frozenset(prefix + str(self.guid) for prefix in _PREFIXES)

    def is_wanted(self, record: Record) -> bool:
        if self.types is not None and record.topic not in self.types:
            return False
        if self.guid is not None and not self._is_of_it(record):
            return False
        return self.actors is None or orjson.loads(record.state).get("actor") in self.actors

    def _is_of_it(self, record: Record) -> bool:
        if record.originator_id in self.originator_ids:
            return True
        is_download = record.topic == _DOWNLOAD
        return is_download and orjson.loads(record.state).get("bits_guid") == self.guid


class Trail:
    """Looks through the log of a database, on either engine."""

    def __init__(self, engine: Engine, log: EventLog) -> None:
        self._engine = engine
        self._log = log
        at = "notification_id" if engine.dialect.name == "postgresql" else "rowid"
        events = table(
            "events",
            *map(column, (at, "appended_at", "originator_id", "originator_version", "topic")),
            column("state", LargeBinary),
            column("hash", LargeBinary),
        )
        self._at: ColumnElement[int] = events.c[at]
        self._events = events
        self._all = select(*events.c)

    def batches(self, wanted: Wanted, first: int, last: int) -> Iterator[list[Record]]:
        """What is wanted of the positions from `first` to `last`, in order, piece by piece."""
        if wanted.guid is None:
            for start in range(first, last + 1, WINDOW):
                yield self._window(wanted, start, min(start + WINDOW - 1, last))
            return
        own = self._own(wanted.guid, last)
        begun = [r.position for r in own if r.originator_id.startswith(_DOWNLOADED)]
        downloads: Iterator[Record] = iter(())
        if begun and (wanted.types is None or _DOWNLOAD in wanted.types):
            downloads = self._downloads(wanted.guid, max(first, begun[0]), last)
        for record in merge(own, downloads, key=_position):
            if record.position >= first and wanted.is_wanted(record):
                yield [record]

    def newest(self, wanted: Wanted, first: int, last: int, count: int) -> list[Record]:
        """The last `count` of what is wanted, in order."""
        if wanted.guid is not None:
            found = [r for batch in self.batches(wanted, first, last) for r in batch]
            return found[-count:]
        found = []
        for end in range(last, first - 1, -WINDOW):
            found = self._window(wanted, max(first, end - WINDOW + 1), end) + found
            if len(found) >= count:
                break
        return found[-count:]

    def _own(self, guid: str, last: int) -> list[Record]:
        """The events of what has a guid: found by its id, however long the log is."""
        if "\0" in guid:  # PostgreSQL can't even be asked
            return []
        ids = Wanted(guid).originator_ids
        found = self._records(self._events.c.originator_id.in_(ids), first=1, last=last)
        return sorted(found, key=_position)

    def _downloads(self, guid: str, first: int, last: int) -> Iterator[Record]:
        """Where a read model knows them they are found by it; behind it, by looking at all."""
        reached, known = self._known_downloads(guid, first, last)
        for start in range(0, len(known), LOOKUP):
            some = known[start : start + LOOKUP]
            of_these = (self._at.in_(some), self._events.c.topic == _DOWNLOAD)
            yield from self._records(*of_these, first=some[0], last=some[-1])
        only = Wanted(types=frozenset([_DOWNLOAD]))
        for start in range(max(first, reached + 1), last + 1, WINDOW):
            yield from self._window(only, start, min(start + WINDOW - 1, last))

    def _known_downloads(self, guid: str, first: int, last: int) -> tuple[int, list[int]]:
        """How far the audit read model is, and the positions of downloads that it knows of."""
        with self._engine.connect() as connection:
            standing = standings(connection).get(AuditProjection.name)
            if standing is None or standing.version != AuditProjection.version:
                return 0, []
            reached = standing.at.position
            query = select(audit.c.number).where(
                audit.c.subject_guid == guid, audit.c.number.between(first, min(last, reached))
            )
            found = list(connection.scalars(query.order_by(audit.c.number)))
        return (reached, found) if standing.at.is_in(self._log) else (0, [])

    def _window(self, wanted: Wanted, first: int, last: int) -> list[Record]:
        of_type = [] if wanted.types is None else [self._events.c.topic.in_(wanted.types)]
        found = self._records(*of_type, first=first, last=last)
        return [record for record in found if wanted.is_wanted(record)]

    def _records(self, *which: ColumnElement[bool], first: int, last: int) -> list[Record]:
        query = self._all.where(*which, self._at >= first, self._at <= last).order_by(self._at)
        with self._engine.connect() as connection:
            return [Record(*row) for row in connection.execute(query)]
