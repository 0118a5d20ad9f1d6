"""`packtrail apps`: tells of apps, spaces and organizations where nobody sends messages."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from adapters.bus.contract import AppCreated, OrganizationCreated, SpaceCreated
from adapters.http.answers import new_request_id
from adapters.postgres import WORK_PATIENCE
from adapters.store import Services
from domain.aggregate import Cause
from domain.directory import App
from domain.droplet import faults_of_buildpack, faults_of_environment
from domain.errors import InvalidRequest, Refusal
from domain.journal import Committed
from entrypoints.settings import Settings
from entrypoints.wiring import open_work_store

EXAMPLE = """\
the file is JSON, and each part may be left out:
  {"organizations": [{"guid": "…", "name": "retail", "suspended": false}],
   "spaces": [{"guid": "…", "name": "production", "organization_guid": "…"}],
   "apps": [{"guid": "…", "name": "shop", "space_guid": "…", "buildpack": "procfile",
             "environment_variables": {"LANG": "C.UTF-8"}}]}
What is known already changes nothing; what is not in the file stays as it is.
"""


class UnusableFile(Exception):
    """What is wrong with the file, one fault a line."""


@dataclass
class Announced:
    """What a file tells of; all of it is right."""

    organizations: list[OrganizationCreated] = field(default_factory=list)
    spaces: list[SpaceCreated] = field(default_factory=list)
    apps: list[tuple[AppCreated, Mapping[str, Any] | None]] = field(default_factory=list)

    @classmethod
    def of(cls, content: bytes) -> Announced:
        """Raises `UnusableFile`, with all that is wrong."""
        announced = cls()
        entries_of(
            content,
            {
                "organizations": lambda entry: announced.organizations.append(
                    OrganizationCreated.of(entry)
                ),
                "spaces": lambda entry: announced.spaces.append(SpaceCreated.of(entry)),
                "apps": lambda entry: announced.apps.append(_app(entry)),
            },
        )
        return announced


def entries_of(content: bytes, takers: Mapping[str, Callable[[Mapping[str, Any]], None]]) -> None:
    """Lets each part of a file's content be taken, entry by entry.

    Raises `UnusableFile`, with all that is wrong.
    """
    try:
        parts = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise UnusableFile(f"it is not JSON: {error}") from None
    if not isinstance(parts, dict):
        raise UnusableFile("it is not a JSON object")
    *most, last = takers
    known = f"{', '.join(most)} and {last}" if most else last
    faults = [f"there is no part {name!r}, only {known}" for name in parts if name not in takers]
    for name, take in takers.items():
        faults += _each(name, parts.get(name, []), take)
    if faults:
        raise UnusableFile("\n".join(faults))


def add_actor(parser: argparse.ArgumentParser) -> None:
    """Adds the option that tells who does it."""
    parser.add_argument(
        "--as", dest="actor", default="operator", metavar="ACTOR", type=_actor,
        help="who does it, for the log: a guid or a role, never an address (operator)",
    )  # fmt: skip


def _actor(text: str) -> str:
    """Who does it. The log keeps it for ever."""
    if not text or "@" in text:
        raise argparse.ArgumentTypeError(f"{text!r} is no guid or role: the log keeps it for ever")
    return text


def _each(name: str, entries: Any, take: Callable[[Mapping[str, Any]], None]) -> list[str]:
    """What is wrong with a part's entries; [] if nothing is."""
    if not isinstance(entries, list):
        return [f"{name} is not a list"]
    faults = []
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            faults.append(f"{name}[{number}] is not an object")
            continue
        try:
            take(entry)
        except InvalidRequest as refusal:
            faults.append(f"{name}[{number}]: {refusal}")
    return faults


def _app(entry: Mapping[str, Any]) -> tuple[AppCreated, Mapping[str, Any] | None]:
    fields = dict(entry)
    variables = fields.pop("environment_variables", None)
    app = AppCreated.of(fields)
    faults = faults_of_environment(variables) + faults_of_buildpack(app.buildpack, frozenset())
    if faults:
        raise InvalidRequest(faults)
    return app, variables


def add_apps(commands: Any) -> list[argparse.ArgumentParser]:
    """Adds the command; its subcommands' parsers."""
    apps = commands.add_parser(
        "apps", help="import a directory of apps, spaces and organizations, or delete an app"
    )
    actions = apps.add_subparsers(required=True, metavar="import|delete")
    importing = actions.add_parser(
        "import",
        help="take in what a file tells of",
        description="Takes in apps, spaces and organizations that a file tells of, beside a "
        "running service or without one. Nothing is taken in if something in it is wrong.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    importing.add_argument("file", metavar="FILE", help="- reads from stdin")
    importing.set_defaults(run=_import)
    deleting = actions.add_parser(
        "delete",
        help="delete apps; the service deletes their packages and droplets",
        description="Deletes apps, announced or not. A running service deletes their packages and "
        "droplets at once, another one when it is started.",
    )
    deleting.add_argument("guid", nargs="+")
    deleting.set_defaults(run=_delete)
    for parser in (importing, deleting):
        add_actor(parser)
    return [importing, deleting]


def _delete(settings: Settings, options: argparse.Namespace) -> int:
    by = Cause(options.actor, new_request_id(None, None))
    store = open_work_store(settings, WORK_PATIENCE)
    code = 0
    try:
        store.migrate()
        for guid in options.guid:
            try:
                committed = store.services.directory.delete_app(guid, by)
            except Refusal as refusal:
                print(f"packtrail: app {guid!r} is not deleted: {refusal}", file=sys.stderr)
                code = 1
                continue
            done = "deleted" if committed.position is not None else "was deleted before:"
            print(f"{done} {guid} (request {by.request_id})")
    finally:
        store.close()
    return code


def _import(settings: Settings, options: argparse.Namespace) -> int:
    content = sys.stdin.buffer.read() if options.file == "-" else Path(options.file).read_bytes()
    try:
        announced = Announced.of(content)
    except UnusableFile as faults:
        for fault in str(faults).splitlines():
            print(f"packtrail: {options.file}: {fault}", file=sys.stderr)
        return 1
    by = Cause(options.actor, new_request_id(None, None))
    store = open_work_store(settings, WORK_PATIENCE)
    try:
        store.migrate()
        return _take_in(store.services, announced, by)
    finally:
        store.close()


def _take_in(services: Services, announced: Announced, by: Cause) -> int:
    """Announces everything; 1 if something was refused, such as an app that was deleted."""
    directory, news, code = services.directory, 0, 0

    def announce(act: Callable[[], Committed[Any]]) -> bool:
        nonlocal news, code
        try:
            news += act().position is not None
        except Refusal as refusal:
            print(f"packtrail: {refusal}", file=sys.stderr)
            code = 1
            return False
        return True

    for organization in announced.organizations:
        announce(
            lambda o=organization: directory.announce_organization(o.guid, o.name, by, o.suspended)  # type: ignore[misc]
        )
    for space in announced.spaces:
        announce(
            lambda s=space: directory.announce_space(s.guid, s.name, s.organization_guid, by)  # type: ignore[misc]
        )
    for app, variables in announced.apps:
        accepted = announce(
            lambda a=app: directory.announce_app(a.guid, a.name, a.space_guid, a.buildpack, by)  # type: ignore[misc]
        )
        if accepted and variables is not None:
            services.environments.keep(App.ID_PREFIX + app.guid, variables)
    print(
        f"imported {len(announced.organizations)} organizations, {len(announced.spaces)} spaces "
        f"and {len(announced.apps)} apps, {news} of them new or changed (request {by.request_id})"
    )
    return code
