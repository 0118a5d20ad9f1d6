"""What the chain of hashes costs when an event is appended.

One event after the other is appended to the log, and the same rows to a table of the same shape
without a chain, in the same way and on the same disk; blocks of either take turns.

Run by `make bench`, or `.venv/bin/python -m benchmarks.chain`.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from eventsourcing.persistence import StoredEvent
from psycopg.sql import SQL

from adapters.event_store import postgres, sqlite
from adapters.postgres import EVENTS_CHANNEL, MAINTENANCE_PATIENCE, PROJECTED_CHANNEL, Listener
from adapters.store import Store, open_postgres, open_sqlite
from benchmarks.logs import rows_of_log
from benchmarks.report import Figure, report
from tests.support.postgres import PostgresServer

APPENDS = 2000
BLOCK = 50
ON_SQLITE = (
    "CREATE TABLE plain (position INTEGER PRIMARY KEY, originator_id TEXT NOT NULL, "
    "originator_version INTEGER NOT NULL, topic TEXT NOT NULL, state BLOB NOT NULL, "
    "UNIQUE (originator_id, originator_version))"
)
ON_POSTGRESQL = (
    "CREATE TABLE plain (originator_id text NOT NULL, originator_version bigint NOT NULL, "
    "topic text NOT NULL, state bytea NOT NULL, notification_id bigserial UNIQUE NOT NULL, "
    "PRIMARY KEY (originator_id, originator_version))"
)
INSERT = "INSERT INTO plain (originator_id, originator_version, topic, state) "
Append = Callable[[StoredEvent], Any]


def _chained(store: Store) -> Append:
    insert = store.events.recorder.insert_events
    return lambda event: insert([event])


def _plain_on_sqlite(store: Store) -> Append:
    recorder = store.recorder
    assert isinstance(recorder, sqlite.SQLiteRecorder)

    def append(event: StoredEvent) -> None:
        with recorder.datastore.transaction(commit=True) as cursor:
            cursor.execute(
                INSERT + "VALUES (?, ?, ?, ?)",
                (event.originator_id, event.originator_version, event.topic, event.state),
            )
        recorder.wake()

    return append


def _plain_on_postgres(store: Store) -> Append:
    recorder = store.recorder
    assert isinstance(recorder, postgres.PostgresRecorder)
    insert = SQL(
        INSERT + "SELECT i, v, t, s FROM unnest(%s::text[], %s::bigint[], %s::text[], "
        "%s::bytea[]) AS new (i, v, t, s) RETURNING notification_id"
    )

    def append(event: StoredEvent) -> None:
        columns = [
            [event.originator_id], [event.originator_version], [event.topic], [event.state]
        ]  # fmt: skip
        with recorder.datastore.get_connection() as connection:
            with connection.pipeline() as pipeline, connection.transaction():
                cursor = connection.cursor()
                cursor.execute("LOCK TABLE plain IN EXCLUSIVE MODE")
                cursor.execute(f"NOTIFY {EVENTS_CHANNEL}")
                cursor.execute(insert, columns)
                pipeline.sync()
                cursor.fetchall()

    return append


@contextmanager
def _opened(folder: Path, engine: str) -> Iterator[tuple[Store, Append]]:
    with ExitStack() as stack:
        if engine == "SQLite":
            store = open_sqlite(folder / "packtrail.db")
            stack.callback(store.close)
            store.migrate()
            create, append = ON_SQLITE, _plain_on_sqlite(store)
        else:
            server = PostgresServer(durable=True)
            stack.callback(server.stop)
            server.start()
            url = server.new_database()
            listener = Listener(url, (EVENTS_CHANNEL, PROJECTED_CHANNEL))
            stack.callback(listener.close)
            store = open_postgres(url, listener, MAINTENANCE_PATIENCE, 4)
            stack.callback(store.close)
            store.migrate()
            create, append = ON_POSTGRESQL, _plain_on_postgres(store)
        with store.writing, store.writer.begin() as connection:
            connection.exec_driver_sql(create)
        yield store, append


def _milliseconds(append: Append, events: Sequence[StoredEvent]) -> list[float]:
    times = []
    for event in events:
        start = time.perf_counter()
        append(event)
        times.append((time.perf_counter() - start) * 1000)
    return times


def main() -> None:
    figures = []
    rows = rows_of_log(APPENDS)
    events = [StoredEvent(*row[2:6]) for row in rows]
    for engine in ("SQLite", "PostgreSQL"):
        with (
            tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder,
            _opened(Path(folder), engine) as (store, plain),
        ):
            chained: list[float] = []
            without: list[float] = []
            waiting = iter(events)
            while block := list(islice(waiting, BLOCK)):
                chained += _milliseconds(_chained(store), block)
                without += _milliseconds(plain, block)
            figures.append(
                Figure.of_rounds(
                    f"append on {engine}, median", chained, "without a chain", without, "ms"
                )
            )
    report("chain", figures)


if __name__ == "__main__":
    main()
