"""Who writes to an SQLite file gets a turn, however slowly a read model is built beside."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlalchemy import Connection

from adapters.store import open_sqlite, projections
from benchmarks.logs import write_log
from domain.package import PackageType
from domain.ports import LoggedEvent
from projections.engine import Projection
from projections.packages import PackagesProjection
from tests.support.packages import BY


class Slow(PackagesProjection):
    """Takes its time, as on a machine that has other things to do."""

    def apply(self, connection: Connection, events: Sequence[LoggedEvent]) -> None:
        super().apply(connection, events)
        time.sleep(len(events) * 0.0002)


def slow(suffix: str = "") -> list[Projection]:
    return [Slow(suffix) if p.name == "packages" else p for p in projections(suffix)]


@pytest.mark.slow
def test_a_slow_build_keeps_nobody_from_writing(tmp_path: Path) -> None:
    """A service does not fail for want of a turn, from the build's first moment on."""
    store, service = open_sqlite(tmp_path / "log.db"), open_sqlite(tmp_path / "log.db")
    write_log(store, 12_000)
    ended, written = threading.Event(), list[str]()

    def build() -> None:
        try:
            store.builder(slow).build(["packages"])
        finally:
            ended.set()

    building = threading.Thread(target=build)
    building.start()
    while not ended.wait(0.05):
        created = service.packages.create("app-1", PackageType.BITS, None, BY)
        written.append(created.aggregate.guid)
    building.join()
    assert len(written) > 5
    service.close()
    store.close()
