"""Read models that are made from the log alone, beside those that are read."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, Select, create_engine, event

from adapters.proof.decoding import Decoder
from adapters.proof.findings import Check, Finding, Tell, shown
from adapters.proof.rows import FIRST, Log, Unreadable
from domain.ports import LoggedEvent
from projections.engine import Projection

_CACHE = 32 * 1024  # KiB


class Reference:
    """The read models of some projections, in an SQLite file that is made here.

    Events that can't be decoded are left out: the check of the chain has told of them.
    """

    def __init__(self, path: Path, projections: Sequence[Projection], tell: Tell) -> None:
        self.path = path
        self._projections = projections
        self._tell = tell
        self._decoder = Decoder()
        self._reached = dict.fromkeys((p.name for p in projections), FIRST)
        self._engine = create_engine(
            "sqlite://", creator=lambda: sqlite3.connect(path, isolation_level=None)
        )

        @event.listens_for(self._engine, "connect")
        def on_connect(connection: Any, entry: object) -> None:
            for setting in ("journal_mode=MEMORY", "synchronous=OFF", f"cache_size=-{_CACHE}"):
                connection.execute(f"PRAGMA {setting}")

        @event.listens_for(self._engine, "begin")
        def on_begin(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN")

        with self._engine.begin() as connection:
            for projection in projections:
                for table in projection.tables:
                    table.create(connection)

    def advance(
        self, log: Log, targets: Mapping[str, int], progress: Callable[[int], object]
    ) -> None:
        """Applies the log to each projection up to its target, if it is not there yet.

        `progress` is told of how many events each step was.
        """
        behind = {
            projection.name: projection
            for projection in self._projections
            if targets.get(projection.name, FIRST) > self._reached[projection.name]
        }
        if not behind:
            return
        start = min(self._reached[name] for name in behind)
        upto = max(targets[name] for name in behind)
        for rows in log.rows(upto, start):
            if isinstance(rows, Unreadable):
                continue
            events = [event for event in map(self._decoder.logged, rows) if event is not None]
            with self._engine.begin() as connection:
                for name, projection in behind.items():
                    first, last = self._reached[name], targets[name]
                    self._apply(
                        connection, projection, [e for e in events if first < e.position <= last]
                    )
            progress(len(rows))
        self._reached |= {name: targets[name] for name in behind}

    def select(self, query: Select[Any]) -> Iterator[Row[Any]]:
        """Rows, a few at a time."""
        with self._engine.connect() as connection:
            yield from connection.execution_options(yield_per=1000).execute(query)

    def close(self) -> None:
        self._engine.dispose()

    def _apply(
        self, connection: Connection, projection: Projection, events: Sequence[LoggedEvent]
    ) -> None:
        """All at once; one by one where one of them can't be digested, which is left out."""
        if not events:
            return
        try:
            with connection.begin_nested():
                projection.apply(connection, events)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            if len(events) == 1:
                logged = events[0]
                what = f"read model {projection.name} can't digest it: {error!r}"
                self._tell(
                    Finding(
                        Check.EVENTS,
                        f"position {logged.position}, event {shown(logged.event.event_id)}",
                        shown(what),
                        logged.position,
                        shown(logged.event.event_id),
                    )
                )
                return
            middle = len(events) // 2
            self._apply(connection, projection, events[:middle])
            self._apply(connection, projection, events[middle:])
