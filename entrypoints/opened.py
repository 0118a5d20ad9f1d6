"""The store as tools open it, beside a running service or without one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from adapters.postgres import MAINTENANCE_PATIENCE
from adapters.store import Store
from entrypoints.settings import Settings
from entrypoints.wiring import open_work_store


@contextmanager
def opened(settings: Settings, patience: float = MAINTENANCE_PATIENCE) -> Iterator[Store]:
    """The store that there is, with its schema up to date. Exits with 1 if there is none."""
    if settings.sqlite_file is not None and not settings.sqlite_file.exists():
        sys.exit(f"packtrail: there is no log at {settings.sqlite_file}")
    store = open_work_store(settings, patience)
    try:
        store.migrate()
        yield store
    finally:
        store.close()
