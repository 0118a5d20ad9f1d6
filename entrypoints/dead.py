"""`packtrail dead`: looks at work that was given up by a defect of ours, resumes it or drops it."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from adapters.http.answers import new_request_id
from adapters.postgres import WORK_PATIENCE
from adapters.store import Store
from domain.aggregate import Cause
from domain.errors import Refusal
from entrypoints.apps import add_actor
from entrypoints.settings import Settings
from entrypoints.wiring import open_work_store
from projections.unfinished import DeadLetter, WorkReadModel


def add_dead(commands: Any) -> list[argparse.ArgumentParser]:
    """Adds the command; its subcommands' parsers."""
    dead = commands.add_parser(
        "dead",
        help="list, show, resume or drop dead letters",
        description="Dead letters are packages that failed by a defect of the service, five times. "
        "Their bits are kept. This works beside a running service, on either bus.",
    )
    actions = dead.add_subparsers(required=True, metavar="list|show|resume|drop")
    listing = actions.add_parser("list", help="list them, the oldest first")
    listing.set_defaults(act=_list)
    show = actions.add_parser("show", help="show all that is known of one")
    show.set_defaults(act=_show)
    resume = actions.add_parser("resume", help="try packages again; the service does it at once")
    resume.set_defaults(act=_resume)
    drop = actions.add_parser("drop", help="delete packages with their bits")
    drop.set_defaults(act=_drop)
    for parser in (show, resume, drop):
        parser.add_argument("guid", nargs="+" if parser is not show else 1)
    for parser in (resume, drop):
        add_actor(parser)
    parsers = [listing, show, resume, drop]
    for parser in parsers:
        parser.set_defaults(run=_run)
    return parsers


def _run(settings: Settings, options: argparse.Namespace) -> int:
    store = open_work_store(settings, WORK_PATIENCE)
    try:
        store.migrate()
        store.projector().catch_up()
        return int(options.act(store, options))
    finally:
        store.close()


def _list(store: Store, options: argparse.Namespace) -> int:
    letters = WorkReadModel(store.reader).dead_letters()
    for letter in letters:
        print(f"{letter.guid}  {letter.failed_at[:19]}Z  {letter.step:<8} {letter.detail or ''}")
    print(f"{len(letters)} dead letters", file=sys.stderr)
    return 0


def _show(store: Store, options: argparse.Namespace) -> int:
    letter = _find(store, options.guid[0])
    if letter is None:
        return 1
    for name, value in vars(letter).items():
        print(f"{name:<12}{value}")
    return 0


def _find(store: Store, guid: str) -> DeadLetter | None:
    for letter in WorkReadModel(store.reader).dead_letters():
        if letter.guid == guid:
            return letter
    print(f"packtrail: {guid} is no dead letter", file=sys.stderr)
    return None


def _resume(store: Store, options: argparse.Namespace) -> int:
    return _each(store, options, "resumed", store.packages.resume)


def _drop(store: Store, options: argparse.Namespace) -> int:
    return _each(store, options, "dropped", store.packages.delete)


def _each(store: Store, options: argparse.Namespace, done: str, act: Any) -> int:
    """Does it to each package; 1 if one of them was refused."""
    code = 0
    for guid in options.guid:
        request_id = new_request_id(None, None)
        if _find(store, guid) is None:
            code = 1
            continue
        try:
            act(guid, Cause(options.actor, request_id))
        except Refusal as refusal:
            print(f"packtrail: {guid} is not {done}: {refusal}", file=sys.stderr)
            code = 1
        else:
            print(f"{done} {guid} (request {request_id})")
    return code
