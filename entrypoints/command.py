"""The `packtrail` command."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sqlite3
import sys
import threading
from collections.abc import Sequence
from importlib.metadata import version
from types import FrameType
from typing import Any, NoReturn

import psycopg
from eventsourcing.persistence import PersistenceError
from sqlalchemy.exc import SQLAlchemyError

from adapters.bus.work import WORK
from adapters.cores import stay_on_one
from adapters.data_dir import DataDirInUse
from adapters.folders import NotOurFolder
from adapters.token_keys import UnusableKey
from adapters.tokens import Scope
from adapters.tracing import TracingNotInstalled
from domain.errors import NewerData
from entrypoints.apps import add_apps
from entrypoints.builder import builder_process
from entrypoints.check import add_check
from entrypoints.checkpoint import add_checkpoint
from entrypoints.copy_blobs import add_copy_blobs
from entrypoints.dead import add_dead
from entrypoints.diff import add_diff
from entrypoints.export import add_export
from entrypoints.importing import add_import
from entrypoints.keys import make_keys, make_tokens
from entrypoints.log import add_log
from entrypoints.logs import log_to_stderr
from entrypoints.metrics import serve_metrics
from entrypoints.prefork import listen_on, run_children, stop_with_parent
from entrypoints.process import Process
from entrypoints.replay import add_replay
from entrypoints.roles import add_roles
from entrypoints.setting_values import AuthorizationBy, Cores, SettingError
from entrypoints.settings import Settings
from entrypoints.show import add_show
from entrypoints.tools import (
    forget,
    migrate,
    print_api,
    print_contract,
    print_token,
)
from entrypoints.verify import add_verify
from entrypoints.wiring import Wiring

logger = logging.getLogger("packtrail.serve")
COMMANDS = "commands"  # the work that commands by message are

SETTINGS_HELP = """\
settings (environment variables):
  PACKTRAIL_DATA_DIR          ./var                        holds every default below
  PACKTRAIL_LISTEN            127.0.0.1:8080               address and port
  PACKTRAIL_EVENT_STORE       sqlite:///<data>/packtrail.db  the log; read models live beside it;
                              or postgresql://…
  PACKTRAIL_BROKER            memory://                    inside this process; or amqp://…, amqps://…
  PACKTRAIL_BLOB_STORE        file://<data>/blobs          where stored bits are kept; or
                              s3://bucket/prefix, with the usual AWS_* variables
  PACKTRAIL_UPLOAD_DIR        <data>/uploads               the only place bits_path may point into
  PACKTRAIL_MAX_PACKAGE_SIZE  1073741824                   bytes, uploaded and unpacked
  PACKTRAIL_JWT_SECRET        made at first start, in <data>/jwt.secret
  PACKTRAIL_JWT_PUBLIC_KEY    a PEM file: tokens are RS256, and not signed here
  PACKTRAIL_JWKS_URL          where the keys are: tokens are RS256 or ES256
  PACKTRAIL_JWT_AUDIENCE      cloud_controller             what a token's "aud" must contain
  PACKTRAIL_AUTHORIZATION     scopes                       what tells who may do what: the token's
                              scopes alone, roles, or cloud_controller
  PACKTRAIL_CLOUD_CONTROLLER_URL  where the last one asks
  PACKTRAIL_APP_BITS_UPLOAD   on                           off refuses uploads, except admins'
  PACKTRAIL_SHUTDOWN_TIMEOUT  30                           seconds for running work at SIGTERM
  PACKTRAIL_METRICS_LISTEN    127.0.0.1:0                  where worker, relay and projector
                              serve /metrics (0: a free port, told at the start)
  PACKTRAIL_TRACING           off                          on sends OpenTelemetry traces to where
                              the OTEL_* variables say (needs packtrail[otel])
  PACKTRAIL_APPS              open                         registered: only apps that were
                              announced are known
  PACKTRAIL_KEPT_PACKAGES     5                            the newest READY packages of an app
                              that stay; all keeps all
  PACKTRAIL_KEPT_DROPLETS     5                            the same of STAGED droplets
  PACKTRAIL_STACK             cflinuxfs2                   what a droplet is made for by default
  PACKTRAIL_BUILDPACKS        any name                     names that are accepted, with commas
  PACKTRAIL_MAX_STAGING_MEMORY  8192                       MiB
  PACKTRAIL_MAX_STAGING_DISK  16384                        MiB
  PACKTRAIL_MAX_DROPLET_SIZE  2147483648                   bytes
  PACKTRAIL_STAGING_TIMEOUT   900                          seconds that builders have
  PACKTRAIL_CORES             one                          all: serve's threads use every core
  PACKTRAIL_BUILDER           on                           off: serve runs no builder
  PACKTRAIL_BUILDER_API       http://<listen>              where packtrail builder finds the API
  PACKTRAIL_BUILDER_TOKEN     signed with the secret       what it shows there
  PACKTRAIL_MAX_UPLOADS_PER_USER  1024                     at once
  PACKTRAIL_MAX_REQUESTS_PER_MINUTE  off                   of a user
  PACKTRAIL_MAX_PACKAGES_PER_APP  off
  PACKTRAIL_MIN_UPLOAD_RATE   256                          bytes a second; slower ones are cut off
  PACKTRAIL_HEADER_TIMEOUT    30                           seconds for a request's headers
  PACKTRAIL_MAX_HEADER_SIZE, _MAX_BODY_SIZE, _MAX_FORM_OVERHEAD  65536 bytes each: of headers, of
                              bodies that are no upload, of what a form adds to the bits
  PACKTRAIL_MAX_JSON_DEPTH, _MAX_FORM_PARTS, _MAX_FORM_FIELDS  100 each
  PACKTRAIL_MAX_ENTRIES       250000                       of a zip
  PACKTRAIL_MAX_UNPACKED_SIZE  as MAX_PACKAGE_SIZE         bytes of a zip's entries together
  PACKTRAIL_MAX_PATH_LENGTH   4096                         bytes of an entry's name
  PACKTRAIL_CHECKPOINT_KEY    made at its first use, in <data>/checkpoint.key: a PEM file
  PACKTRAIL_SWEEP_GRACE       3600                         seconds until bits are swept that no
                              package names; more than an upload takes from its last byte on
"""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    parser = _parser()
    options = parser.parse_args(arguments)
    _require_text(parser, options)
    if options.run is None:
        parser.print_help(sys.stderr)
        sys.exit(2)
    try:
        settings = Settings.from_environment(_environment(options))
        sys.exit(options.run(settings, options))
    except SettingError as error:
        _give_up(options, error)
    except (
        DataDirInUse, NewerData, NotOurFolder, TracingNotInstalled, UnusableKey, OSError,
        PersistenceError, SQLAlchemyError, sqlite3.Error, psycopg.Error,
    ) as error:  # fmt: skip
        _give_up(options, error)
    except KeyboardInterrupt:
        sys.exit(130)


def _give_up(options: argparse.Namespace, error: Exception) -> NoReturn:
    """Ends with 1, or with what the command has for it."""
    print(f"packtrail: {_one_line(error)}", file=sys.stderr)
    sys.exit(getattr(options, "trouble", 1))


def _require_text(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """What is written to the log, or looked for in it, is text; a file's name need not be."""
    for name in ("user", "guid", "actor", "email", "scope"):
        given = getattr(options, name, None)
        for text in given if isinstance(given, list) else [given]:
            try:
                (text or "").encode()
            except UnicodeEncodeError:
                parser.error(f"{text!r} is not UTF-8")


def _one_line(error: Exception) -> str:
    return " ".join(str(getattr(error, "orig", None) or error).split())


def _environment(options: argparse.Namespace) -> dict[str, str]:
    """The environment, with the command's options winning."""
    environment = dict(os.environ)
    for name in ("data_dir", "listen"):
        if getattr(options, name, None) is not None:
            environment[f"PACKTRAIL_{name.upper()}"] = getattr(options, name)
    if getattr(options, "api", None) is not None:
        environment["PACKTRAIL_BUILDER_API"] = options.api
    return environment


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="packtrail",
        description="An event-sourced package service with the Cloud Foundry v3 Packages API.",
    )
    parser.add_argument("--version", action="version", version=f"packtrail {version('packtrail')}")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(metavar="COMMAND")

    serve = commands.add_parser(
        "serve",
        help="run everything in one process",
        description="Runs the HTTP API, the relay, the consumers and the projector in one "
        "process. SIGTERM or Ctrl-C finishes what is running, then exits with 0; a second "
        "one does not wait. Logs go to stderr, one JSON object a line.",
        epilog=SETTINGS_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_data_dir(serve)
    serve.add_argument("--listen", metavar="HOST:PORT", help="where to listen (127.0.0.1:8080)")
    serve.add_argument(
        "--first-steps",
        action="store_true",
        help="print a token and the curl lines that create, upload and read a package",
    )
    serve.set_defaults(run=_serve)
    _add_processes(commands)
    with_data = (
        *add_dead(commands), *add_apps(commands), *add_roles(commands), add_check(commands),
        add_replay(commands), add_checkpoint(commands), add_verify(commands),
        add_log(commands), add_show(commands), add_diff(commands),
        add_export(commands), add_import(commands), add_copy_blobs(commands),
    )  # fmt: skip
    for parser_of_data in with_data:
        _add_data_dir(parser_of_data)
    asyncapi = commands.add_parser(
        "asyncapi",
        help="print the message contract",
        description="Prints the contract of all messages, an AsyncAPI 3 document in JSON.",
    )
    asyncapi.set_defaults(run=print_contract)
    openapi = commands.add_parser(
        "openapi",
        help="print the HTTP API's document",
        description="Prints what GET /openapi.json answers, an OpenAPI 3.1 document in JSON.",
    )
    openapi.set_defaults(run=print_api)

    token = commands.add_parser(
        "token",
        help="print a signed token for trying things out",
        description="Prints a token signed with the service's secret, to stdout.",
    )
    _add_data_dir(token)
    token.add_argument("--user", default="developer", help="the user's guid (developer)")
    token.add_argument("--email", help="the user's address; it never enters the log")
    token.add_argument(
        "--scope",
        action="append",
        metavar="SCOPE",
        help="may be repeated; cloud_controller.read and cloud_controller.write by default",
    )
    token.add_argument("--admin", action="store_true", help="add cloud_controller.admin")
    token.add_argument(
        "--expires-in", type=int, default=43_200, metavar="SECONDS", help="12 hours by default"
    )
    token.set_defaults(run=print_token)

    forgetting = commands.add_parser(
        "forget",
        help="remove the addresses of people",
        description="Removes the addresses that are kept of users, beside a running service or "
        "without one. The log names users by their guids alone, and stays as it is. An address is "
        "kept again when its user writes again with a token that has it.",
    )
    _add_data_dir(forgetting)
    forgetting.add_argument("user", nargs="+", metavar="USER", help="the user's guid")
    forgetting.set_defaults(run=forget)

    return parser


def _add_processes(commands: Any) -> None:
    """The parts of `serve` as processes of their own, on PostgreSQL and RabbitMQ."""
    api = commands.add_parser("api", help="run the HTTP API alone")
    api.add_argument("--listen", metavar="HOST:PORT", help="where to listen (127.0.0.1:8080)")
    api.add_argument(
        "--workers", type=_count, default=1, metavar="N", help="processes on the one port (1)"
    )
    api.add_argument("--listening", type=int, help=argparse.SUPPRESS)  # a descriptor, for children
    api.set_defaults(run=_api)
    worker = commands.add_parser("worker", help="run consumers alone: storage, hashing, commands")
    worker.add_argument(
        "step", nargs="*", help="storage, hashing, commands (with policies); all if none is named"
    )
    worker.set_defaults(run=_run_part, make=_worker)
    builder = commands.add_parser(
        "builder",
        help="run the builder alone, beside an API",
        description="Makes droplets of packages that need no compiling: those with a Procfile, and "
        "static sites.",
    )
    builder.add_argument("--api", metavar="URL", help="PACKTRAIL_BUILDER_API (http://LISTEN)")
    builder.set_defaults(run=_builder)
    relay = commands.add_parser("relay", help="run the relay; a second one stands by")
    relay.set_defaults(run=_run_part, make=lambda wiring, options: wiring.relay())
    projector = commands.add_parser("projector", help="run the projector; a second one stands by")
    projector.set_defaults(run=_run_part, make=lambda wiring, options: wiring.projector())
    migrating = commands.add_parser(
        "migrate", help="make the database's schema, or bring it up to date"
    )
    migrating.set_defaults(run=migrate)
    for parser in (api, worker, builder, relay, projector, migrating):
        _add_data_dir(parser)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 1000")
    return int(text)


def _api(settings: Settings, options: argparse.Namespace) -> int:
    settings.require_shared_engines()
    _stop_at_once_while_starting()
    log_to_stderr()
    if options.workers > 1:
        given = []
        for name in ("data_dir", "listen"):
            if getattr(options, name) is not None:
                given += [f"--{name.replace('_', '-')}", getattr(options, name)]
        make_keys(settings)  # one secret for all
        return run_children(
            listen_on(settings.listen), options.workers, ["api", *given, "--listening"]
        )
    listening = None
    if options.listening is not None:
        listening = socket.socket(fileno=options.listening)
        stop_with_parent()
    return _run(settings, Wiring(settings).api(listening))


def _worker(wiring: Wiring, options: argparse.Namespace) -> Process:
    """The consumers that are named, or all."""
    known = (*WORK, COMMANDS)
    unknown = [name for name in options.step if name not in known]
    if unknown:
        raise SystemExit(f"packtrail: there is no work {unknown[0]!r}, only {', '.join(known)}")
    wanted = options.step or known
    return wiring.worker(tuple(step for step in WORK if step in wanted), COMMANDS in wanted)


def _add_data_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-dir", metavar="FOLDER", help="PACKTRAIL_DATA_DIR (./var)")


def _serve(settings: Settings, options: argparse.Namespace) -> int:
    _stop_at_once_while_starting()
    log_to_stderr()
    if settings.cores is Cores.ONE:
        stay_on_one()
    return _run(settings, Wiring(settings).serve(), first_steps=options.first_steps)


def _run_part(settings: Settings, options: argparse.Namespace) -> int:
    settings.require_shared_engines()
    _stop_at_once_while_starting()
    log_to_stderr()
    wiring = Wiring(settings)
    process = options.make(wiring, options)
    where = serve_metrics(settings.metrics_listen, wiring.metrics)
    return _run(settings, process, f"Packtrail runs, with metrics at {where}")


def _builder(settings: Settings, options: argparse.Namespace) -> int:
    _stop_at_once_while_starting()
    log_to_stderr()
    return _run(settings, builder_process(settings), "Packtrail's builder runs")


def _stop_at_once_while_starting() -> None:
    """Nothing runs yet that would have to come to its end."""

    def stop(number: int, frame: FrameType | None) -> None:
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)


def _run(settings: Settings, process: Process, told: str = "", first_steps: bool = False) -> int:
    """Runs until a signal comes. The first lets what runs come to its end, the second does not.

    What a second one breaks off is as after a crash: the next start goes on with it.
    """
    stopping = threading.Event()
    server = process.server

    def stop(number: int, frame: FrameType | None) -> None:
        if stopping.is_set():
            logger.warning("stopped without waiting")
            os._exit(1)
        stopping.set()
        if server is not None:
            server.drain(settings.shutdown_timeout)

    process.start()
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    if server is None:
        print(told, flush=True)
        stopping.wait()
    else:
        server.open()
        address = f"http://{settings.listen.url_host}:{server.port}"
        print(f"Packtrail listens on {address}, its data is in {settings.data_dir}", flush=True)
        if first_steps:
            print(_first_steps(settings, address), flush=True)
        logger.info("listening", extra={"address": address})
        server.run()
    finished = process.stop(settings.shutdown_timeout)
    logger.info("stopped", extra={"work_finished": finished})
    return 0


def _first_steps(settings: Settings, address: str) -> str:
    if not settings.signs_tokens:
        return f"""
Tokens are signed by whoever has the private key. With one that has the scopes {Scope.READ} and
{Scope.WRITE}, {address}/v3/packages answers.
"""
    scopes, whose = [Scope.READ, Scope.WRITE], ""
    if settings.authorization is not AuthorizationBy.SCOPES:
        scopes, whose = [*scopes, Scope.ADMIN], "an admin's, who needs no role, and "
    token = make_tokens(settings).sign("developer", None, scopes, 43_200)
    return f"""
Paste this into another shell (the token is {whose}good for 12 hours):

  TOKEN={token}

and then create a package, upload a zip to it, and read it until it is READY:

  GUID=$(curl -s {address}/v3/apps/my-app/packages -H "Authorization: bearer $TOKEN" \
-d '{{"type":"bits"}}' | sed -n 's/^  "guid": "\\(.*\\)",$/\\1/p')
  curl {address}/v3/packages/$GUID/upload -H "Authorization: bearer $TOKEN" -F bits=@app.zip
  curl {address}/v3/packages/$GUID -H "Authorization: bearer $TOKEN"
"""
