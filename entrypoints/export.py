"""`packtrail export`: writes the log to a file, or to stdout."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from adapters.exports.files import FileExists, written
from adapters.exports.lines import End
from adapters.exports.writing import BrokenLog, export
from adapters.store import Store
from entrypoints.opened import opened
from entrypoints.settings import Settings


def add_export(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "export",
        help="write the log to a file that packtrail import restores",
        description="Writes the log as it is now, beside a running service or without one: a JSON "
        "object a line, with the chain, so that whoever has it can check it. Environment "
        "variables of apps and droplets, and addresses of people, are not in the log and so not "
        "in an export. Bits are not, either: copy them behind it.",
    )
    parser.add_argument(
        "file", nargs="?", metavar="FILE",
        help="what is to be made: .gz and .zst are compressed; stdout, if it is left out",
    )  # fmt: skip
    parser.add_argument("--force", action="store_true", help="replace a file that is there")
    parser.set_defaults(run=_export)
    return parser


def _export(settings: Settings, options: argparse.Namespace) -> int:
    try:
        with opened(settings) as store:
            if options.file is None:
                signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # whoever reads may have enough
                end = _write(store, sys.stdout.buffer.write)
                sys.stdout.buffer.flush()
            else:
                with written(Path(options.file), options.force) as file:
                    end = _write(store, file.write)
    except (FileExists, BrokenLog) as error:
        print(f"packtrail: {error}", file=sys.stderr)
        return 1
    print(
        f"exported {end.events} events up to position {end.position}, with the hash "
        f"{end.hash.hex()}",
        file=sys.stderr,
    )
    return 0


def _write(store: Store, write: Callable[[bytes], object]) -> End:
    with tqdm(unit=" events", file=sys.stderr, disable=None) as bar:
        return export(store, write, lambda events: _show(bar, events))


def _show(bar: Any, events: int) -> None:
    bar.update(events - bar.n)
