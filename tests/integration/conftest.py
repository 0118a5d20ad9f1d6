"""An empty store on each engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from adapters.postgres import EVENTS_CHANNEL, PROJECTED_CHANNEL, WORK_PATIENCE, Listener
from adapters.store import Store, open_postgres, open_sqlite
from tests.support.postgres import PostgresServer


@pytest.fixture(params=["sqlite", "postgres"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Not migrated yet."""
    with ExitStack() as stack:
        if request.param == "sqlite":
            store = open_sqlite(tmp_path / "log.db")
        else:
            server: PostgresServer = request.getfixturevalue("postgres")
            url = server.new_database()
            listener = Listener(url, (EVENTS_CHANNEL, PROJECTED_CHANNEL))
            stack.callback(listener.close)
            store = open_postgres(url, listener, WORK_PATIENCE, 8)
        stack.callback(store.close)
        yield store
