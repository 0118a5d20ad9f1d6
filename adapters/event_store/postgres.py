"""The event log in PostgreSQL.

The library's recorder tries every statement ten times and waits without a bound; this one
tries once, and gives up in a bounded time: what is to be done then is decided above it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eventsourcing.persistence import StoredEvent
from eventsourcing.postgres import PostgresApplicationRecorder
from psycopg.sql import SQL

from adapters.postgres import EVENTS_CHANNEL, Listener, PostgresDatabase

CREATE_TABLE = (
    """CREATE TABLE IF NOT EXISTS events (
        originator_id text NOT NULL,
        originator_version bigint NOT NULL,
        topic text NOT NULL,
        state bytea NOT NULL,
        notification_id bigserial NOT NULL,
        PRIMARY KEY (originator_id, originator_version)
    )""",
    "CREATE UNIQUE INDEX IF NOT EXISTS events_in_order ON events (notification_id)",
)

# The lock lets transactions commit in the order in which they got their positions: without
# it a follower could pass over a position that is filled later. Readers don't wait for it.
_LOCK = SQL("LOCK TABLE events IN EXCLUSIVE MODE")
_NOTIFY = SQL(f"NOTIFY {EVENTS_CHANNEL}")
_INSERT = SQL(
    "INSERT INTO events (originator_id, originator_version, topic, state) "
    "SELECT i, v, t, s FROM unnest(%s::text[], %s::bigint[], %s::text[], %s::bytea[]) "
    "WITH ORDINALITY AS new (i, v, t, s, n) ORDER BY n "
    "RETURNING notification_id"
)


class PostgresRecorder(PostgresApplicationRecorder):
    """Reads and writes the table `events`, which `packtrail migrate` makes."""

    def __init__(self, database: PostgresDatabase, listener: Listener) -> None:
        super().__init__(database, events_table_name="events")
        self._listener = listener

    # the library's own, without its ten tries
    select_events = PostgresApplicationRecorder.select_events.__wrapped__
    select_notifications = PostgresApplicationRecorder.select_notifications.__wrapped__
    max_notification_id = PostgresApplicationRecorder.max_notification_id.__wrapped__

    def insert_events(
        self, stored_events: Sequence[StoredEvent], **kwargs: Any
    ) -> Sequence[int] | None:
        """Appends in one transaction, in two round trips. Returns the positions."""
        if not stored_events:
            return []
        rows = [(e.originator_id, e.originator_version, e.topic, e.state) for e in stored_events]
        columns = [list(column) for column in zip(*rows, strict=True)]
        failure: Exception | None = None
        positions: list[int] = []
        with self.datastore.get_connection() as connection:
            with connection.pipeline() as pipeline, connection.transaction():
                cursor = connection.cursor()
                try:
                    cursor.execute(_LOCK)
                    cursor.execute(_NOTIFY)
                    cursor.execute(_INSERT, columns)
                    pipeline.sync()
                    positions = [row["notification_id"] for row in cursor.fetchall()]
                except Exception as error:
                    failure = error
                    raise
            if failure is not None:
                raise failure
        return positions

    @property
    def appends(self) -> int:
        """How often somebody has appended, as far as this process has heard."""
        return self._listener.count(EVENTS_CHANNEL)

    def wait_for_append(self, appends: int, timeout: float) -> None:
        """Returns when there were more than `appends` appends, or after `timeout` seconds."""
        self._listener.wait(EVENTS_CHANNEL, appends, timeout)

    def wake(self) -> None:
        self._listener.wake(EVENTS_CHANNEL)
