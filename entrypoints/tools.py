"""The tools of the `packtrail` command: what is done once, and printed."""

from __future__ import annotations

import argparse
import sys
from importlib.metadata import version
from typing import Any

import orjson

from adapters.bus import asyncapi
from adapters.http import openapi
from adapters.people import NotErased
from adapters.postgres import WORK_PATIENCE
from adapters.token_keys import Secret, secret_file
from adapters.tokens import Scope, Tokens
from entrypoints.settings import Settings
from entrypoints.wiring import open_work_store


def migrate(settings: Settings, options: argparse.Namespace) -> int:
    store = open_work_store(settings)
    try:
        steps = store.migrate()
    finally:
        store.close()
    print(
        f"the schema is up to date ({steps} steps taken)" if steps else "the schema is up to date"
    )
    return 0


def print_contract(settings: Settings, options: argparse.Namespace) -> int:
    return _print_document(asyncapi.document())


def print_api(settings: Settings, options: argparse.Namespace) -> int:
    return _print_document(openapi.document(version("packtrail")))


def _print_document(document: dict[str, Any]) -> int:
    print(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
    return 0


def print_token(settings: Settings, options: argparse.Namespace) -> int:
    scopes = options.scope or [Scope.READ.value, Scope.WRITE.value]
    if options.admin:
        scopes = [*scopes, Scope.ADMIN.value]
    if not settings.signs_tokens:
        print(
            "packtrail: tokens are verified with the issuer's public keys: it signs them",
            file=sys.stderr,
        )
        return 1
    try:
        given = settings.jwt_secret
        keys = Secret(given) if given else secret_file(settings.secret_file)
    except FileNotFoundError:
        print(
            f"packtrail: there is no secret at {settings.secret_file}: packtrail serve makes it at "
            "its first start (or name its folder with --data-dir)",
            file=sys.stderr,
        )
        return 1
    tokens = Tokens(keys, settings.jwt_audience)
    print(tokens.sign(options.user, options.email, scopes, options.expires_in))
    return 0


def forget(settings: Settings, options: argparse.Namespace) -> int:
    if settings.sqlite_file is not None and not settings.sqlite_file.exists():
        print(f"packtrail: there is no log at {settings.sqlite_file}", file=sys.stderr)
        return 1
    store = open_work_store(settings, WORK_PATIENCE)
    try:
        store.migrate()
        had = store.services.people.forget(options.user)
    except NotErased as error:
        print(f"packtrail: {error}", file=sys.stderr)
        return 1
    finally:
        store.close()
    for user in dict.fromkeys(options.user):
        print(f"forgot the address of {user}" if user in had else f"no address is kept of {user}")
    return 0
