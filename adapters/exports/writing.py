"""Writes the log as an export, beside a service that may be running."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Engine, select

from adapters.event_store.chain import GENESIS, link
from adapters.exports.lines import MAX_LINE, End, FollowerAt, Header, event_line
from adapters.follower import kept_positions
from adapters.store import Store

BATCH = 1000  # events read at a time


class BrokenLog(Exception):
    """The log is not what it was when it was written: no import would accept it."""


def export(
    store: Store,
    write: Callable[[bytes], object],
    progress: Callable[[int], None] = lambda events: None,
) -> End:
    """Writes the log up to its head at the start; what its end is. Raises `BrokenLog`.

    Where followers are is read first: nobody is ahead of the log.
    """
    identity = store.identity
    followers = _followers(store.writer)
    head = store.log.head()
    write(Header(identity, followers).line)
    events, position, previous = 0, 0, GENESIS
    while position < head:
        for record in store.log.records(position, BATCH):
            if record.position > head:
                break
            position = record.position
            if link(previous, *record[:-1]) != record.hash:
                raise BrokenLog(
                    f"the chain of the log is broken at position {position}: packtrail verify "
                    "tells all that is wrong"
                )
            line = event_line(record)
            if len(line) > MAX_LINE:
                raise BrokenLog(
                    f"the event at position {position} has {len(record.state)} bytes, and a line "
                    f"may have {MAX_LINE}"
                )
            write(line)
            previous = record.hash
            events += 1
        progress(events)
    end = End(identity, events, position, previous)
    write(end.line)
    return end


def _followers(engine: Engine) -> tuple[FollowerAt, ...]:
    with engine.connect() as connection:
        rows = connection.execute(select(kept_positions).order_by(kept_positions.c.name)).all()
    return tuple(FollowerAt(row.name, row.position, row.event_id) for row in rows)
