"""`packtrail replay`: builds read models anew, beside those that are read."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from tqdm import tqdm

from adapters.store import Store
from entrypoints.logs import log_to_stderr
from entrypoints.prefork import stop_with_parent
from entrypoints.settings import Settings
from entrypoints.wiring import open_work_store
from projections.builder import Builder, BuildTaken, Indigestible

logger = logging.getLogger("packtrail.replay")

NICENESS = 10  # requests come first
TAKEN = 75  # the exit code where another process does it: EX_TEMPFAIL


def add_replay(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "replay",
        help="build read models anew from the log, while the service runs",
        description="Builds read models anew from the log, beside those that are read, and "
        "puts them in their place in one transaction. A service that runs meanwhile goes on as "
        "usual. What was interrupted goes on where it was when it is called again.",
    )
    parser.add_argument(
        "projection",
        nargs="*",
        help="packages, work, droplets, directory, roles, audit; all of them if none is named",
    )
    parser.add_argument("--begun", action="store_true", help=argparse.SUPPRESS)  # for a service
    parser.set_defaults(run=_replay)
    return parser


def _replay(settings: Settings, options: argparse.Namespace) -> int:
    if settings.sqlite_file is not None and not settings.sqlite_file.exists():
        print(f"packtrail: there is no log at {settings.sqlite_file}", file=sys.stderr)
        return 1
    if options.begun:
        stop_with_parent()
        log_to_stderr()
    store = open_work_store(settings)
    try:
        store.migrate()
        builder = store.builder()
        known = builder.names
        unknown = [name for name in options.projection if name not in known]
        if unknown:
            print(
                f"packtrail: there is no projection {unknown[0]!r}, only {', '.join(known)}",
                file=sys.stderr,
            )
            return 2
        names = builder.begun() if options.begun else options.projection or known
        if not names:
            return 0
        spend_less()
        position = _build(store, builder, names)
        print(f"rebuilt {', '.join(names)} up to position {position}")
    except (BuildTaken, Indigestible) as error:
        print(f"packtrail: {error}", file=sys.stderr)
        return TAKEN if isinstance(error, BuildTaken) else 1
    finally:
        store.close()
    return 0


def spend_less() -> None:
    """Lets whoever answers requests go first, and leaves alone what was loaded at the start."""
    os.nice(NICENESS)
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _build(store: Store, builder: Builder, names: list[str]) -> int:
    with tqdm(
        total=store.log.head(), unit=" events", unit_scale=True, file=sys.stderr, disable=None
    ) as bar:
        return builder.build(names, _progress_on(bar))


def _progress_on(bar: tqdm[NoReturn]) -> Callable[[int], None]:
    began = False

    def progress(position: int) -> None:
        nonlocal began
        if not began:  # what an earlier run has done says nothing of the rate
            bar.initial = bar.n = position
            began = True
        if bar.total is not None and position > bar.total:
            bar.total = position  # the log has grown meanwhile
        bar.update(position - bar.n)

    return progress
