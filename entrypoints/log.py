"""`packtrail log`: the trail on a terminal, and as it goes on."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Iterable
from typing import Any

from eventsourcing.persistence import PersistenceError
from sqlalchemy.exc import SQLAlchemyError

from adapters.event_store.chain import Record
from adapters.history import NoSuchPast, position_told
from adapters.store import Store
from adapters.trail import NoSuchType, Trail, Wanted, types_named
from entrypoints.event_lines import EventLines, is_coloured
from entrypoints.opened import opened
from entrypoints.settings import Settings

LOOK = 0.25  # seconds between looks at a log that nobody tells of: an SQLite file
RETRY = 1.0  # seconds between tries while the database is away
BATCH = 500

EPILOG = """\
TIME is RFC 3339, such as 2026-11-26T09:30:00Z, and counts when an event was appended. --since is
inclusive: the event at that position, or what was appended at that time or later. --until is what
"--at" means elsewhere: up to and with that position, or what was appended before that time.

With --json each line is an object: position; id (<guid>/<version>); type; guid; version; created_at
(of the event) and appended_at (to the log), in UTC; actor (its guid, and its type: user, or system
for a part of the service); request_id; caused_by (the id of the event that led to it, or null);
data (the event's own fields). Users are named by guid alone, never by address.
"""


def add_log(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "log",
        help="show the trail: all events, or those of something",
        description="Prints events, one a line, in the order in which they were appended: "
        "position, time, type, guid/version, actor, what the event says, the request, and the "
        "event because of which it happened.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "guid", nargs="?", metavar="GUID",
        help="of a package, droplet, app, space, organization, role, download or command; of a "
        "package or droplet its downloads are shown, too",
    )  # fmt: skip
    parser.add_argument(
        "--type", action="append", default=[], metavar="T",
        help="only events of this type, such as package.created or package.*; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--actor", action="append", default=[], metavar="A",
        help="only what this user's guid or part of the service did; may be repeated",
    )  # fmt: skip
    parser.add_argument("--since", metavar="TIME|POSITION", help="from there on")
    parser.add_argument("--until", metavar="TIME|POSITION", help="up to there")
    parser.add_argument("-n", "--newest", type=_count, metavar="N", help="only the last N of them")
    parser.add_argument("--follow", action="store_true", help="go on until Ctrl-C")
    parser.add_argument("--json", action="store_true", help="a JSON object a line")
    parser.set_defaults(run=_log)
    return parser


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def _log(settings: Settings, options: argparse.Namespace) -> int:
    with opened(settings) as store:
        try:
            wanted = Wanted(
                options.guid, types_named(options.type), frozenset(options.actor) or None
            )
            head = store.log.head()
            first = first_position(store, options.since)
            last = head if options.until is None else position_told(store.log, options.until)
        except (NoSuchPast, NoSuchType) as error:
            print(f"packtrail: {error}", file=sys.stderr)
            return 2
        if options.follow and options.until is not None:
            print("packtrail: --follow goes on, and --until ends: not both", file=sys.stderr)
            return 2
        prepare_stdout()
        lines = EventLines(head, options.json, is_coloured(sys.stdout))
        trail = Trail(store.reader, store.log)
        try:
            if options.newest is None:
                for batch in trail.batches(wanted, first, last):
                    _print(lines, batch)
            else:
                _print(lines, trail.newest(wanted, first, last, options.newest))
            if options.follow:
                _follow(store, wanted, lines, max(head, first - 1))
        except KeyboardInterrupt:
            if not options.follow:
                raise
    return 0


def first_position(store: Store, since: str | None) -> int:
    """The position from which on events count. Raises `NoSuchPast`."""
    if since is None:
        return 1
    before = position_told(store.log, since)
    return max(1, before) if since.isdigit() else before + 1


def _print(lines: EventLines, records: Iterable[Record]) -> None:
    for record in records:
        print(lines.of(record))
    sys.stdout.flush()


def _follow(store: Store, wanted: Wanted, lines: EventLines, after: int) -> None:
    """Prints what is appended behind a position, until it is interrupted."""
    away = False
    while True:
        try:
            records = store.log.records(after, BATCH)
            if not records:
                store.log.wait(after, LOOK)
        except (PersistenceError, SQLAlchemyError) as error:
            if not away:
                what = " ".join(str(error).split())
                print(f"packtrail: the log is away, and looked for: {what}", file=sys.stderr)
            away = True
            time.sleep(RETRY)
            continue
        away = False
        for record in records:
            after = record.position
        _print(lines, filter(wanted.is_wanted, records))


def prepare_stdout() -> None:
    """Whoever reads may have enough; what it can't show is escaped."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
