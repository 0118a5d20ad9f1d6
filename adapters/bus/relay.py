"""Publishes the log: everything in it at least once, nothing that is not in it.

The log is the outbox. The position up to which it was published is kept beside it, and
written behind the messages: after a crash the last ones are published again.
"""

from __future__ import annotations

import logging
import threading
import time
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

from adapters.bus.bus import Bus
from adapters.bus.messages import message_of
from adapters.tracing import NoTracing, Tracing
from domain.ports import EventLog
from projections.positions import Position

logger = logging.getLogger("packtrail.relay")

BATCH = 500
PATIENCE = 1.0  # seconds between looks at the log when nothing wakes the relay
MAX_DELAY = 2.0  # seconds between tries while the broker or the log is away

metadata = MetaData()
relay_positions = Table(
    "relay_positions",
    metadata,
    Column("name", Text, primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("event_id", Text),
)


class RelayPosition:
    """Keeps the position up to which the log was published."""

    def __init__(
        self, engine: Engine, writing: AbstractContextManager[object] | None = None
    ) -> None:
        self._engine = engine
        self._writing = writing or nullcontext()

    def load(self) -> Position:
        """The position kept; the beginning at the first start."""
        with self._engine.connect() as connection:
            row = connection.execute(select(relay_positions)).first()
        return Position(row.position, row.event_id) if row else Position()

    def save(self, at: Position) -> None:
        """Keeps a position; one that is behind the kept one is another relay's from before."""
        values = {"position": at.position, "event_id": at.event_id}
        not_behind = relay_positions.c.position <= at.position
        with self._writing, self._engine.begin() as connection:
            known = connection.execute(select(relay_positions.c.position)).first()
            if known is None:
                connection.execute(insert(relay_positions).values(name="events", **values))
            else:
                connection.execute(update(relay_positions).where(not_behind).values(values))

    def forget(self) -> None:
        """Begins at the beginning again: the position was of another history."""
        with self._writing, self._engine.begin() as connection:
            connection.execute(delete(relay_positions))


class Relay:
    """Follows the log on a thread and publishes it."""

    def __init__(
        self, log: EventLog, bus: Bus, position: RelayPosition, tracing: Tracing | None = None
    ) -> None:
        self._tracing = tracing or NoTracing()
        self._log = log
        self._bus = bus
        self._kept = position
        self._at = self._saved = self._begin()
        self._saved_at = 0.0
        self._failed = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="relay", daemon=True)

    @property
    def position(self) -> int:
        return self._at.position

    @property
    def failed(self) -> bool:
        """Whether the last try to publish failed."""
        return self._failed

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float | None = None) -> bool:
        """Ends following; whether the thread has ended within `timeout` seconds."""
        self._stopping.set()
        self._log.wake()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _follow(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                if not self._step():
                    self._save()
                    self._log.wait(self._at.position, PATIENCE)
                failures, self._failed = 0, False
            except Exception:
                failures, self._failed = failures + 1, True
                delay = min(0.25 * 2.0 ** min(failures - 1, 10), MAX_DELAY)
                logger.exception(
                    "events wait behind position %d; trying again in %.1f s",
                    self._at.position,
                    delay,
                )
                self._stopping.wait(delay)
        try:
            self._save(at_once=True)
        except Exception:
            logger.exception("the last events will be published again at the next start")

    def _step(self) -> bool:
        """Publishes the next batch; whether there was one."""
        events = self._log.read(self._at.position, BATCH)
        if not events:
            return False
        self._bus.publish([message_of(logged) for logged in events])
        for logged in events:
            request_id, event_id = logged.event.request_id, logged.event.event_id
            with self._tracing.span("published", request_id, event=event_id):
                pass  # the batch took its time; what counts in the trace is when
            logger.info(
                "published",
                extra={"id": event_id, "request_id": request_id},
            )
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
        """Where to go on: behind what was published, if that is still what the log says."""
        kept = self._kept.load()
        if kept.is_in(self._log):
            return kept
        logger.warning(
            "the relay stands at position %d of another history than the log's (was the log "
            "restored?): everything in it is published again",
            kept.position,
        )
        self._kept.forget()
        return Position()
