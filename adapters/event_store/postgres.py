"""The event log in PostgreSQL.

The library's recorder tries every statement ten times and waits without a bound; this one
tries once, and gives up in a bounded time: what is to be done then is decided above it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eventsourcing.persistence import StoredEvent
from eventsourcing.postgres import PostgresApplicationRecorder
from psycopg.rows import tuple_row
from psycopg.sql import SQL

from adapters.event_store.chain import GENESIS, Record
from adapters.event_store.log import Stored
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
# Under the lock the newest event is the one before ours: the chain is made where it is kept,
# so that it costs no round trip. `sha256` is of the bytes that `chain.link` tells.
_INSERT = SQL(
    """
    WITH RECURSIVE last AS (
        SELECT appended_at, hash FROM events ORDER BY notification_id DESC LIMIT 1
    ), new AS (
        SELECT nextval('events_notification_id_seq') AS position, greatest(
            (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
            (SELECT appended_at FROM last)
        ) AS appended_at, i, v, t, s, n
        FROM unnest(%s::text[], %s::bigint[], %s::text[], %s::bytea[])
            WITH ORDINALITY AS given (i, v, t, s, n)
    ), bytes AS (
        SELECT n, int8send(position) || int8send(appended_at) || int8send(v)
            || int4send(octet_length(convert_to(i, 'UTF8')))
            || int4send(octet_length(convert_to(t, 'UTF8')))
            || convert_to(i, 'UTF8') || convert_to(t, 'UTF8') || s AS own
        FROM new
    ), chain AS (
        SELECT n, sha256(coalesce((SELECT hash FROM last), %s::bytea) || own) AS hash
        FROM bytes WHERE n = 1
        UNION ALL
        SELECT bytes.n, sha256(chain.hash || bytes.own)
        FROM chain JOIN bytes ON bytes.n = chain.n + 1
    )
    INSERT INTO events (
        notification_id, appended_at, originator_id, originator_version, topic, state, hash
    )
    SELECT position, appended_at, i, v, t, s, hash FROM new JOIN chain USING (n) ORDER BY n
    RETURNING notification_id
    """
)
_EVENTS = "SELECT notification_id, originator_id, originator_version, topic, state FROM events "
_RECORDS = (
    "SELECT notification_id, appended_at, originator_id, originator_version, topic, state, hash "
    "FROM events "
)
_BEHIND = "WHERE notification_id > %s ORDER BY notification_id LIMIT %s"


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
                    cursor.execute(_INSERT, [*columns, GENESIS])
                    pipeline.sync()
                    positions = [row["notification_id"] for row in cursor.fetchall()]
                except Exception as error:
                    failure = error
                    raise
            if failure is not None:
                raise failure
        return positions

    def records(self, after: int, limit: int) -> list[Record]:
        """Up to `limit` events behind position `after`, in order, with what chains them."""
        return [Record(*row) for row in self._rows(_RECORDS + _BEHIND, after, limit)]

    def events(self, after: int, limit: int) -> list[Stored]:
        """Up to `limit` events behind position `after`, in order."""
        return self._rows(_EVENTS + _BEHIND, after, limit)

    def history(self, originator_id: str, upto: int) -> list[Stored]:
        """The events of one aggregate up to a position, in order."""
        of_one = "WHERE originator_id = %s AND notification_id <= %s ORDER BY originator_version"
        return self._rows(_EVENTS + of_one, originator_id, upto)

    def _rows(self, query: str, *parameters: object) -> list[Any]:
        with self.datastore.get_connection() as connection:
            with connection.cursor(binary=True, row_factory=tuple_row) as cursor:
                return cursor.execute(SQL(query), parameters).fetchall()

    @property
    def appends(self) -> int:
        """How often somebody has appended, as far as this process has heard."""
        return self._listener.count(EVENTS_CHANNEL)

    def wait_for_append(self, appends: int, timeout: float) -> None:
        """Returns when there were more than `appends` appends, or after `timeout` seconds."""
        self._listener.wait(EVENTS_CHANNEL, appends, timeout)

    def wake(self) -> None:
        self._listener.wake(EVENTS_CHANNEL)
