"""`packtrail show`: a package as it is, or as it was."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from adapters.differences import NoPackage, shown_at
from adapters.history import NoSuchPast, position_told
from adapters.http.answers import pretty_json
from entrypoints.event_lines import printed_json
from entrypoints.log import prepare_stdout
from entrypoints.opened import opened
from entrypoints.settings import Settings


def add_show(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "show",
        help="show a package as it is, or as it was",
        description="Prints what GET /v3/packages/:guid answers, made of the log itself: of a "
        "package as it is now, or as it was. A time (RFC 3339, such as 2026-11-26T09:30:00Z) means "
        "the last position that was appended before it. Exits with 1 where there was no package.",
    )
    parser.add_argument("guid", metavar="GUID")
    parser.add_argument("--at", metavar="TIME|POSITION", help="now, if it is left out")
    parser.set_defaults(run=_show)
    return parser


def _show(settings: Settings, options: argparse.Namespace) -> int:
    with opened(settings) as store:
        try:
            at = options.at
            position = store.log.head() if at is None else position_told(store.log, at)
            shown = shown_at(store.log, options.guid, position)
        except NoSuchPast as error:
            print(f"packtrail: {error}", file=sys.stderr)
            return 2
        except NoPackage as error:
            print(f"packtrail: {error}", file=sys.stderr)
            return 1
    if shown.package is None:
        print(
            f"packtrail: there was no package {options.guid!r} at position {position}: "
            f"{shown.absence}",
            file=sys.stderr,
        )
        return 1
    prepare_stdout()
    print(printed_json(pretty_json(shown.package)))
    return 0
