"""A build goes on where PostgreSQL's autovacuum has a table that it needs for itself."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event

import psycopg

from adapters.postgres import EVENTS_CHANNEL, PROJECTED_CHANNEL, WORK_PATIENCE, Listener
from adapters.store import open_postgres
from benchmarks.logs import write_log
from projections.packages import PackageReadModel
from tests.support.postgres import PostgresServer
from tests.support.waiting import eventually

WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted"


def holds_the_new_table(url: str, held: Event) -> None:
    """Locks it as autovacuum does, until somebody has waited for it and given up."""
    with psycopg.connect(url) as connection, psycopg.connect(url, autocommit=True) as looking:

        def waiting() -> int:
            row = looking.execute(WAITING).fetchone()
            assert row is not None
            return int(row[0])

        row = connection.execute(
            "SELECT relname FROM pg_class WHERE relname ~ '^packages_[0-9a-f]+$'"
        ).fetchone()
        assert row is not None
        connection.execute(f"LOCK TABLE {row[0]} IN SHARE UPDATE EXCLUSIVE MODE")
        held.set()
        eventually(lambda: waiting() > 0)
        eventually(lambda: waiting() == 0)


def test_a_build_waits_for_autovacuum(postgres: PostgresServer) -> None:
    """For longer than one statement may: it is tried again, and the read model is there."""
    url = postgres.new_database()
    listener = Listener(url, (EVENTS_CHANNEL, PROJECTED_CHANNEL))
    store = open_postgres(url, listener, WORK_PATIENCE, 8)
    write_log(store, 40)
    held = Event()
    holder: Future[None] | None = None
    with ThreadPoolExecutor() as pool:

        def progress(position: int) -> None:
            nonlocal holder
            if holder is None:
                holder = pool.submit(holds_the_new_table, url, held)
                assert held.wait(10)

        store.builder().build(["packages"], progress)
        assert holder is not None
        holder.result()
    assert PackageReadModel(store.reader).page(None, 1, 1).total == 10
    store.close()
    listener.close()
