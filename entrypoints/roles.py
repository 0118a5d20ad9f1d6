"""`packtrail roles`: tells of users' roles where nobody sends messages, and shows them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from adapters.bus.contract import RoleAssigned
from adapters.http.answers import new_request_id
from adapters.postgres import WORK_PATIENCE
from adapters.store import Services
from domain.aggregate import Cause
from domain.errors import Refusal
from domain.journal import Committed
from domain.role import Grant, Role, RoleType
from entrypoints.apps import UnusableFile, add_actor, entries_of
from entrypoints.settings import Settings
from entrypoints.wiring import open_work_store
from projections.roles import RoleReadModel

EXAMPLE = f"""\
the file is JSON:
  {{"roles": [{{"user_guid": "…", "type": "SpaceDeveloper", "space_guid": "…"}},
             {{"user_guid": "…", "type": "OrgManager", "organization_guid": "…"}}]}}
Types are {", ".join(RoleType)}. A role that is known
already changes nothing; what is not in the file stays as it is.
"""


def add_roles(commands: Any) -> list[argparse.ArgumentParser]:
    """Adds the command; its subcommands' parsers."""
    roles = commands.add_parser("roles", help="import, remove or list what users may do where")
    actions = roles.add_subparsers(required=True, metavar="import|remove|list")
    importing = actions.add_parser(
        "import",
        help="take in the roles that a file tells of",
        description="Takes in roles that a file tells of, beside a running service or without "
        "one. Nothing is taken in if something in it is wrong.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    importing.set_defaults(run=partial(_take, act=_assign))
    removing = actions.add_parser(
        "remove",
        help="take back the roles that a file tells of",
        description="The roles that a file tells of are held no more.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    removing.set_defaults(run=partial(_take, act=_remove))
    for parser in (importing, removing):
        parser.add_argument("file", metavar="FILE", help="- reads from stdin")
        add_actor(parser)
    listing = actions.add_parser(
        "list",
        help="print the roles that are held, as a file for import",
        description="Prints the roles that are held, as a file that import takes.",
    )
    listing.add_argument("--user", metavar="GUID", help="of this user alone")
    listing.set_defaults(run=_list)
    return [importing, removing, listing]


def _assign(services: Services, grant: Grant, by: Cause) -> Committed[Role]:
    return services.directory.assign_role(grant, by)


def _remove(services: Services, grant: Grant, by: Cause) -> Committed[Role]:
    return services.directory.remove_role(grant, by)


def grants_of(content: bytes) -> list[Grant]:
    """The roles that a file tells of. Raises `UnusableFile`, with all that is wrong."""
    found: list[Grant] = []
    entries_of(content, {"roles": lambda entry: found.append(RoleAssigned.of(entry).grant)})
    return found


def _take(
    settings: Settings,
    options: argparse.Namespace,
    act: Callable[[Services, Grant, Cause], Committed[Role]],
) -> int:
    content = sys.stdin.buffer.read() if options.file == "-" else Path(options.file).read_bytes()
    try:
        grants = grants_of(content)
    except UnusableFile as faults:
        for fault in str(faults).splitlines():
            print(f"packtrail: {options.file}: {fault}", file=sys.stderr)
        return 1
    by = Cause(options.actor, new_request_id(None, None))
    store = open_work_store(settings, WORK_PATIENCE)
    changed = code = 0
    try:
        store.migrate()
        for grant in grants:
            try:
                changed += act(store.services, grant, by).position is not None
            except Refusal as refusal:
                print(f"packtrail: {_named(grant)}: {refusal}", file=sys.stderr)
                code = 1
    finally:
        store.close()
    print(f"took in {len(grants)} roles, {changed} of them changed (request {by.request_id})")
    return code


def _named(grant: Grant) -> str:
    place = grant.space_guid or grant.organization_guid
    return f"{grant.type} of {grant.user_guid!r} in {place!r}"


def _list(settings: Settings, options: argparse.Namespace) -> int:
    if settings.sqlite_file is not None and not settings.sqlite_file.exists():
        print(f"packtrail: there is no log at {settings.sqlite_file}", file=sys.stderr)
        return 1
    store = open_work_store(settings, WORK_PATIENCE)
    try:
        store.migrate()
        store.projector().catch_up()  # perhaps nobody else does
        held = RoleReadModel(store.reader).all(options.user)
    finally:
        store.close()
    entries = [
        {name: value for name, value in vars(role).items() if value is not None} for role in held
    ]
    print(orjson.dumps({"roles": entries}, option=orjson.OPT_INDENT_2).decode())
    return 0
