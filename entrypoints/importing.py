"""`packtrail import`: restores an export into a database whose log is empty."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from tqdm import tqdm

from adapters.data_dir import DataDirInUse, DataDirLock
from adapters.exports.files import opened
from adapters.exports.reading import Export, UnusableExport
from adapters.exports.restoring import LogNotEmpty, restore
from adapters.postgres import AdvisoryLock
from adapters.store import Store
from entrypoints.settings import Settings
from entrypoints.wiring import LOCKS, open_work_store


def add_import(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "import",
        help="restore an exported log into an empty database",
        description="Restores what packtrail export wrote into a database without events, of "
        "either engine, while no service runs on it. Every line is verified; all of it is taken "
        "in, or nothing. Positions, times, hashes and ids stay what they were, and so does the "
        "log's identity: the bits that belong to it are its own. A service that is started then "
        "builds its read models and goes on where the other one was.",
    )
    parser.add_argument(
        "file", metavar="FILE",
        help=".gz and .zst are decompressed; - reads from stdin, what is not compressed",
    )  # fmt: skip
    parser.set_defaults(run=_import)
    return parser


def _import(settings: Settings, options: argparse.Namespace) -> int:
    name = "stdin" if options.file == "-" else options.file
    try:
        with _source(options.file) as file:
            export = Export(file)
            with _alone(settings) as store:
                with tqdm(unit=" events", file=sys.stderr, disable=None) as bar:
                    events = restore(store, export, lambda taken: _show(bar, taken))
    except UnusableExport as error:
        print(f"packtrail: {name}: {error}", file=sys.stderr)
        return 1
    except LogNotEmpty as error:
        print(f"packtrail: {error}", file=sys.stderr)
        return 1
    print(f"imported {events} events up to position {export.position}")
    return 0


@contextmanager
def _source(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        yield sys.stdin.buffer
        return
    with opened(Path(name)) as file:
        yield file


@contextmanager
def _alone(settings: Settings) -> Iterator[Store]:
    """The store, while no service runs on it, and none is started. Raises `DataDirInUse`."""
    with ExitStack() as stack:
        if settings.sqlite_file is not None:
            stack.callback(DataDirLock(settings.data_dir).release)
        store = open_work_store(settings)
        stack.callback(store.close)
        store.migrate()
        if settings.sqlite_file is None:
            for part, key in LOCKS.items():
                lock = AdvisoryLock(settings.event_store, key, idle_timeout=0)
                stack.callback(lock.release)
                if not lock.acquire():
                    raise DataDirInUse(f"a {part} runs on the database: an import needs it alone")
        yield store


def _show(bar: Any, events: int) -> None:
    bar.update(events - bar.n)
