"""`packtrail diff`: what differs of a package between two moments, and what happened between."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from adapters.differences import Change, NoPackage, Shown, changes, shown_at
from adapters.event_store.chain import Record
from adapters.history import NoSuchPast, position_told
from adapters.http.answers import pretty_json
from adapters.trail import Trail, Wanted
from entrypoints.event_lines import EventLines, is_coloured, printed_json, shown_plainly
from entrypoints.log import prepare_stdout
from entrypoints.opened import opened
from entrypoints.settings import Settings


def add_diff(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "diff",
        help="show what differs of a package between two moments",
        description="Prints the fields of GET /v3/packages/:guid that differ between two moments, "
        "old -> new, and the events in between. A time (RFC 3339, such as 2026-11-26T09:30:00Z) "
        "means the last position that was appended before it; position 0 is before everything. "
        "Exits with 0 whether something differs or not, and with 1 if there never was such a "
        "package.",
    )
    parser.add_argument("guid", metavar="GUID")
    parser.add_argument("a", metavar="A", help="a TIME or POSITION")
    parser.add_argument("b", metavar="B", help="another, which may be the earlier one")
    parser.add_argument(
        "--json", action="store_true",
        help="one object: guid; from and to, each with position, package (as it was, or null) and "
        "absence (why there was none, or null); changes, each with field, before and after; "
        "events, as packtrail log --json prints them",
    )  # fmt: skip
    parser.set_defaults(run=_diff)
    return parser


def _diff(settings: Settings, options: argparse.Namespace) -> int:
    guid = options.guid
    with opened(settings) as store:
        try:
            a, b = (position_told(store.log, at) for at in (options.a, options.b))
            before, after = shown_at(store.log, guid, a), shown_at(store.log, guid, b)
        except NoSuchPast as error:
            print(f"packtrail: {error}", file=sys.stderr)
            return 2
        except NoPackage as error:
            print(f"packtrail: {error}", file=sys.stderr)
            return 1
        batches = Trail(store.reader, store.log).batches(Wanted(guid), min(a, b) + 1, max(a, b))
        between = [record for batch in batches for record in batch]
    prepare_stdout()
    lines = EventLines(max(a, b), False, is_coloured(sys.stdout))
    if options.json:
        told = {
            "guid": guid,
            "from": vars(before),
            "to": vars(after),
            "changes": [change._asdict() for change in changes(before, after)],
            "events": [lines.told(record) for record in between],
        }
        print(printed_json(pretty_json(told)))
    else:
        _print(before, after, between, lines)
    return 0


def _print(before: Shown, after: Shown, between: list[Record], lines: EventLines) -> None:
    for sign, shown in (("-", before), ("+", after)):
        absence = "" if shown.absence is None else f": there was none, {shown.absence}"
        print(f"{sign * 3} position {shown.position}{absence}")
    found = changes(before, after)
    for change in found:
        print(_told(change))
    if not found:
        print("nothing differs")
    if between:
        print("\nwhat happened in between:")
    for record in between:
        print(lines.of(record))


def _told(change: Change) -> str:
    before, after = (shown_plainly(value) for value in change[1:])
    return f"{change.field}: {before} -> {after}"
