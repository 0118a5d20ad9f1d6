"""Telling an event that a projection can't digest from a database that does not work just now."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import Connection
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, TimeoutError

from domain.ports import LoggedEvent
from projections.positions import Position, Stop

Apply = Callable[[Connection, Sequence[LoggedEvent]], None]


def is_of_the_event(error: Exception) -> bool:
    """Whether the same event would fail again, whatever the database's state."""
    if isinstance(error, DataError | IntegrityError):
        return True
    return not isinstance(error, DBAPIError | TimeoutError | OSError | MemoryError)


def reason_of(error: Exception) -> str:
    """What is wrong, in one line; what was bound to a statement is not in it."""
    told = str(error.orig) if isinstance(error, DBAPIError) else str(error)
    lines = told.splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def apply_one_by_one(
    connection: Connection, apply: Apply, events: Sequence[LoggedEvent]
) -> tuple[int, Stop | None]:
    """Applies events until one can't be digested; how many were, and the one that was not.

    What that one has changed is taken back.
    """
    for count, logged in enumerate(events):
        try:
            with connection.begin_nested():
                apply(connection, [logged])
        except Exception as error:
            if not is_of_the_event(error):
                raise
            return count, Stop(Position.of(logged), reason_of(error))
    return len(events), None
