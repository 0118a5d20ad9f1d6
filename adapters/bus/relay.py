"""Publishes the log: everything in it at least once, nothing that is not in it.

The log is the outbox. The position up to which it was published is kept beside it, and
written behind the messages: after a crash the last ones are published again.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import AbstractContextManager, nullcontext

from sqlalchemy import BigInteger, Column, Engine, MetaData, Table, Text, insert, select, update

from adapters.bus.bus import Bus
from adapters.bus.messages import message_of
from domain.ports import EventLog

logger = logging.getLogger("packtrail.relay")

BATCH = 500
PATIENCE = 1.0  # seconds between looks at the log when nothing wakes the relay

metadata = MetaData()
relay_positions = Table(
    "relay_positions",
    metadata,
    Column("name", Text, primary_key=True),
    Column("position", BigInteger, nullable=False),
)


class RelayPosition:
    """Keeps the position up to which the log was published."""

    def __init__(
        self, engine: Engine, writing: AbstractContextManager[object] | None = None
    ) -> None:
        self._engine = engine
        self._writing = writing or nullcontext()

    def load(self) -> int:
        """The position kept; 0 at the first start."""
        with self._writing, self._engine.begin() as connection:
            metadata.create_all(connection)
            position = connection.scalar(select(relay_positions.c.position))
            if position is None:
                connection.execute(insert(relay_positions).values(name="events", position=0))
        return position or 0

    def save(self, position: int) -> None:
        with self._writing, self._engine.begin() as connection:
            connection.execute(update(relay_positions).values(position=position))


class Relay:
    """Follows the log on a thread and publishes it."""

    def __init__(self, log: EventLog, bus: Bus, position: RelayPosition) -> None:
        self._log = log
        self._bus = bus
        self._kept = position
        self._saved = self._position = position.load()
        self._saved_at = 0.0
        self._failed = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="relay", daemon=True)

    @property
    def position(self) -> int:
        return self._position

    @property
    def failed(self) -> bool:
        """Whether the last try to publish failed."""
        return self._failed

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._log.wake()
        self._thread.join()

    def _follow(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                if not self._step():
                    self._save()
                    self._log.wait(self._position, PATIENCE)
                failures, self._failed = 0, False
            except Exception:
                failures, self._failed = failures + 1, True
                delay = min(2.0 ** (failures - 1), 60.0)
                logger.exception(
                    "events wait behind position %d; trying again in %d s", self._position, delay
                )
                self._stopping.wait(delay)
        try:
            self._save(at_once=True)
        except Exception:
            logger.exception("the last events will be published again at the next start")

    def _step(self) -> bool:
        """Publishes the next batch; whether there was one."""
        events = self._log.read(self._position, BATCH)
        if not events:
            return False
        self._bus.publish([message_of(logged) for logged in events])
        self._position = events[-1].position
        self._save()
        return True

    def _save(self, at_once: bool = False) -> None:
        """Keeps the position, at most once a second: what it is for is to be nearly right."""
        now = time.monotonic()
        if self._saved < self._position and (at_once or now - self._saved_at >= 1.0):
            self._kept.save(self._position)
            self._saved, self._saved_at = self._position, now
