"""Transactions that take turns with those of others, and are tried again while nothing works."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import ParamSpec, TypeVar

from sqlalchemy import Connection, Engine

from projections.digestion import is_of_the_event, reason_of

PATIENCE = 60.0  # seconds for which it is tried again while the database does not work
MAX_DELAY = 1.0  # seconds between tries
TURN = 0.12  # seconds that others are left an SQLite file at most
P = ParamSpec("P")
T = TypeVar("T")
logger = logging.getLogger("packtrail.replay")


class Turns:
    """Writes to a database in which others write, too. `writing` is as the `Projector` has it."""

    def __init__(
        self, engine: Engine, writing: AbstractContextManager[object] | None = None
    ) -> None:
        self.engine = engine
        self.writing = writing or nullcontext()
        self.on_sqlite = engine.dialect.name == "sqlite"

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        with self.writing, self.engine.begin() as connection:
            yield connection

    def persistently(self, act: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
        """Tries again while the database does not work, for up to `PATIENCE` seconds."""
        began, delay = time.monotonic(), 0.05
        while True:
            try:
                return act(*given, **named)
            except Exception as error:
                if is_of_the_event(error):
                    raise
                if time.monotonic() - began > PATIENCE:
                    raise
                logger.warning("trying again in %.2f s: %s", delay, reason_of(error))
            time.sleep(delay)
            delay = min(delay * 2, MAX_DELAY)

    def let_in(self, seconds: float) -> None:
        """Leaves an SQLite file to others: who waits looks at it every now and then."""
        if self.on_sqlite:
            time.sleep(min(seconds, TURN))
