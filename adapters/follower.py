"""Follows the log on a thread, and keeps how far it has come beside it.

The position is written behind what was done with the events: after a crash the last ones
come once more. So whoever follows does what it does at least once, and a second time
must do no harm.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from sqlalchemy import (
    BigInteger,
    Column,
    Engine,
    MetaData,
    Table,
    Text,
    delete,
    insert,
    select,
    update,
)

from domain.ports import EventLog, LoggedEvent
from projections.positions import Position

BATCH = 500
PATIENCE = 1.0  # seconds between looks at the log when nothing wakes the follower
MAX_DELAY = 2.0  # seconds between tries while what it needs is away

metadata = MetaData()
kept_positions = Table(
    "relay_positions",  # the relay was the first to follow
    metadata,
    Column("name", Text, primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("event_id", Text),
)


class KeptPosition:
    """Keeps the position up to which a follower is through."""

    def __init__(
        self,
        engine: Engine,
        writing: AbstractContextManager[object] | None = None,
        name: str = "events",
    ) -> None:
        self.name = name
        self._engine = engine
        self._writing = writing or nullcontext()
        self._ours = kept_positions.c.name == name

    def load(self) -> Position:
        """The position kept; the beginning at the first start."""
        with self._engine.connect() as connection:
            row = connection.execute(select(kept_positions).where(self._ours)).first()
        return Position(row.position, row.event_id) if row else Position()

    def save(self, at: Position) -> None:
        """Keeps a position; one that is behind the kept one is another follower's from before."""
        values = {"position": at.position, "event_id": at.event_id}
        not_behind = kept_positions.c.position <= at.position
        with self._writing, self._engine.begin() as connection:
            known = connection.scalar(select(kept_positions.c.position).where(self._ours))
            if known is None:
                connection.execute(insert(kept_positions).values(name=self.name, **values))
            else:
                connection.execute(
                    update(kept_positions).where(self._ours, not_behind).values(values)
                )

    def forget(self) -> None:
        """Begins at the beginning again: the position was of another history."""
        with self._writing, self._engine.begin() as connection:
            connection.execute(delete(kept_positions).where(self._ours))


class Follower:
    """Hands each batch of events to `_handle`; again and again, for as long as that fails.

    `gathers`: seconds from one batch to the next at least, in which events gather. What comes
    when there was nothing for so long is handled at once.
    """

    gathers = 0.0

    def __init__(
        self, name: str, log: EventLog, kept: KeptPosition, logger: logging.Logger
    ) -> None:
        self._log = log
        self._kept = kept
        self._logger = logger
        self._at = self._saved = self._begin()
        self._saved_at = 0.0
        self._failed = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, name=name, daemon=True)

    @property
    def position(self) -> int:
        return self._at.position

    @property
    def failed(self) -> bool:
        """Whether the last try failed."""
        return self._failed

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float | None = None) -> bool:
        """Ends following; whether the thread has ended within `timeout` seconds."""
        self._stopping.set()
        self._log.wake()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _handle(self, events: Sequence[LoggedEvent]) -> None:
        raise NotImplementedError

    def _idle(self) -> None:
        """Called when there are no more events, and again from time to time."""

    def _follow(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                if not self._step():
                    self._save()
                    self._idle()
                    self._log.wait(self._at.position, PATIENCE)
                elif self.gathers:
                    self._stopping.wait(self.gathers)
                failures, self._failed = 0, False
            except Exception:
                failures, self._failed = failures + 1, True
                delay = min(0.25 * 2.0 ** min(failures - 1, 10), MAX_DELAY)
                self._logger.exception(
                    "events wait behind position %d; trying again in %.1f s",
                    self._at.position,
                    delay,
                )
                self._stopping.wait(delay)
        try:
            self._save(at_once=True)
        except Exception:
            self._logger.exception("the last events will come again at the next start")

    def _step(self) -> bool:
        """Handles the next batch; whether there was one."""
        events = self._log.read(self._at.position, BATCH)
        if not events:
            return False
        self._handle(events)
        self._at = Position.of(events[-1])
        self._save()
        return True

    def _save(self, at_once: bool = False) -> None:
        """Keeps the position, at most once a second: what it is for is to be nearly right."""
        now = time.monotonic()
        if self._saved != self._at and (at_once or now - self._saved_at >= 1.0):
            self._kept.save(self._at)
            self._saved, self._saved_at = self._at, now

    def _begin(self) -> Position:
        """Where to go on: behind what was done, if that is still what the log says."""
        kept = self._kept.load()
        if kept.is_in(self._log):
            return kept
        self._logger.warning(
            "%s stands at position %d of another history than the log's (was the log "
            "restored?): everything in it is handled again",
            self._kept.name,
            kept.position,
        )
        self._kept.forget()
        return Position()
