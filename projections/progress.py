"""How far the read models are: asked by whoever reads them, in whatever process they are fed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from sqlalchemy import Engine

from projections.positions import NOWHERE, lowest, standings, stopped

LOOK = 0.25  # seconds between looks when nobody tells of progress


class Progress(Protocol):
    """How far the read models are that this process reads."""

    @property
    def position(self) -> int:
        """The log's position up to which every read model is there. Raises `NewerData`."""

    def wait_for(self, position: int, timeout: float) -> bool:
        """Whether the read models have `position`, within `timeout` seconds."""


class Notices(Protocol):
    """Tells that a projector has made progress."""

    def count(self) -> int: ...

    def wait(self, seen: int, timeout: float) -> bool: ...


class StoredProgress:
    """The `Progress` of a projector in another process: its positions are in the database."""

    def __init__(self, engine: Engine, versions: Mapping[str, int], notices: Notices) -> None:
        self._engine = engine
        self._versions = versions
        self._notices = notices

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


class WholeProgress:
    """The `Progress` for who decides by some read models, and must not by one that has stopped.

    That lacks what came since; who only shows what there is does not wait for it.
    """

    def __init__(self, progress: Progress, engine: Engine, names: Sequence[str]) -> None:
        self._progress = progress
        self._engine = engine
        self._names = names

    @property
    def position(self) -> int:
        return self._progress.position if self._are_whole() else NOWHERE

    def wait_for(self, position: int, timeout: float) -> bool:
        return self._progress.wait_for(position, timeout) and self._are_whole()

    def _are_whole(self) -> bool:
        with self._engine.connect() as connection:
            return not stopped(connection, self._names)
