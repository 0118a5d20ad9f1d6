"""How far the read models are: asked by whoever reads them, in whatever process they are fed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Protocol

from sqlalchemy import Engine

from domain.ports import EventLog
from projections.positions import lowest, standings

LOOK = 0.25  # seconds between looks when nobody tells of progress


class Progress(Protocol):
    """How far the read models are that this process reads."""

    @property
    def position(self) -> int:
        """The log's position up to which every read model is there. Raises `NewerData`."""

    def wait_for(self, position: int, timeout: float) -> bool:
        """Whether the read models have `position`, within `timeout` seconds."""

    def seconds_behind(self) -> float:
        """For how long the read models have not been level with the log; 0 if they are."""


class Notices(Protocol):
    """Tells that a projector has made progress."""

    def count(self) -> int: ...

    def wait(self, seen: int, timeout: float) -> bool: ...


class StoredProgress:
    """The `Progress` of a projector in another process: its positions are in the database."""

    def __init__(
        self, engine: Engine, log: EventLog, versions: Mapping[str, int], notices: Notices
    ) -> None:
        self._engine = engine
        self._log = log
        self._versions = versions
        self._notices = notices
        self._behind_since: float | None = None

    @property
    def position(self) -> int:
        with self._engine.connect() as connection:
            return lowest(standings(connection), self._versions)

    def wait_for(self, position: int, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        while True:
            seen = self._notices.count()
            if self.position >= position:
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._notices.wait(seen, min(left, LOOK))

    def seconds_behind(self) -> float:
        if self.position >= self._log.head():
            self._behind_since = None
            return 0.0
        now = time.monotonic()
        if self._behind_since is None:
            self._behind_since = now
        return now - self._behind_since
