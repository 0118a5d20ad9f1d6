"""The `packtrail` command."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sqlite3
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from eventsourcing.persistence import PersistenceError
from sqlalchemy.exc import SQLAlchemyError
from tqdm import tqdm

from adapters.tokens import Scope
from entrypoints.logs import log_to_stderr
from entrypoints.settings import SettingError, Settings
from entrypoints.wiring import DataDirInUse, make_service, make_tokens, open_store

logger = logging.getLogger("packtrail.serve")

SETTINGS_HELP = """\
settings (environment variables):
  PACKTRAIL_DATA_DIR          ./var                        holds every default below
  PACKTRAIL_LISTEN            127.0.0.1:8080               address and port
  PACKTRAIL_EVENT_STORE       sqlite:///<data>/packtrail.db  the log; read models live beside it
  PACKTRAIL_BROKER            memory://                    inside this process
  PACKTRAIL_BLOB_STORE        file://<data>/blobs          where stored bits are kept
  PACKTRAIL_UPLOAD_DIR        <data>/uploads               the only place bits_path may point into
  PACKTRAIL_MAX_PACKAGE_SIZE  1073741824                   bytes, uploaded and unpacked
  PACKTRAIL_JWT_SECRET        made at first start, in <data>/jwt.secret
  PACKTRAIL_JWT_AUDIENCE      cloud_controller             what a token's "aud" must contain
  PACKTRAIL_APP_BITS_UPLOAD   on                           off refuses uploads, except admins'
  PACKTRAIL_SHUTDOWN_TIMEOUT  30                           seconds for running work at SIGTERM
"""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    options = _parser().parse_args(arguments)
    try:
        settings = Settings.from_environment(_environment(options))
        sys.exit(options.run(settings, options))
    except SettingError as error:
        sys.exit(f"packtrail: {error}")
    except (DataDirInUse, OSError, PersistenceError, SQLAlchemyError, sqlite3.Error) as error:
        sys.exit(f"packtrail: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _environment(options: argparse.Namespace) -> dict[str, str]:
    """The environment, with the command's options winning."""
    environment = dict(os.environ)
    for name in ("data_dir", "listen"):
        if getattr(options, name, None) is not None:
            environment[f"PACKTRAIL_{name.upper()}"] = getattr(options, name)
    return environment


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="packtrail",
        description="An event-sourced package service with the Cloud Foundry v3 Packages API.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

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
    token.set_defaults(run=_token)

    replay = commands.add_parser(
        "replay",
        help="drop read models and build them again from the log",
        description="Drops read models and builds them again from the log, in one "
        "transaction: readers see the old rows until the new ones are there. A service that "
        "runs meanwhile answers reads; its writes wait, and are refused (503) if it takes long.",
    )
    _add_data_dir(replay)
    replay.add_argument(
        "projection", nargs="*", help="packages, work; all of them if none is named"
    )
    replay.set_defaults(run=_replay)
    return parser


def _add_data_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-dir", metavar="FOLDER", help="PACKTRAIL_DATA_DIR (./var)")


def _serve(settings: Settings, options: argparse.Namespace) -> int:
    log_to_stderr()
    service = make_service(settings)
    service.start()
    signals = 0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal signals
        signals += 1
        service.server.drain(settings.shutdown_timeout if signals == 1 else 0)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    address = f"http://{settings.listen.url_host}:{service.server.port}"
    print(f"Packtrail listens on {address}, its data is in {settings.data_dir}", flush=True)
    if options.first_steps:
        print(_first_steps(settings, address), flush=True)
    logger.info("listening", extra={"address": address})
    service.server.run()
    finished = service.stop(settings.shutdown_timeout if signals == 1 else 0)
    logger.info("stopped", extra={"work_finished": finished})
    return 0


def _first_steps(settings: Settings, address: str) -> str:
    token = make_tokens(settings).sign("developer", None, [Scope.READ, Scope.WRITE], 43_200)
    return f"""
Paste this into another shell (the token is good for 12 hours):

  TOKEN={token}

and then create a package, upload a zip to it, and read it until it is READY:

  GUID=$(curl -s {address}/v3/apps/my-app/packages -H "Authorization: bearer $TOKEN" \
-d '{{"type":"bits"}}' | sed -n 's/^  "guid": "\\(.*\\)",$/\\1/p')
  curl {address}/v3/packages/$GUID/upload -H "Authorization: bearer $TOKEN" -F bits=@app.zip
  curl {address}/v3/packages/$GUID -H "Authorization: bearer $TOKEN"
"""


def _token(settings: Settings, options: argparse.Namespace) -> int:
    scopes = options.scope or [Scope.READ.value, Scope.WRITE.value]
    if options.admin:
        scopes = [*scopes, Scope.ADMIN.value]
    print(make_tokens(settings).sign(options.user, options.email, scopes, options.expires_in))
    return 0


def _replay(settings: Settings, options: argparse.Namespace) -> int:
    if not settings.database.exists():
        print(f"packtrail: there is no log at {settings.database}", file=sys.stderr)
        return 1
    store = open_store(settings)
    try:
        known = store.projector.names
        unknown = [name for name in options.projection if name not in known]
        if unknown:
            print(
                f"packtrail: there is no projection {unknown[0]!r}, only {', '.join(known)}",
                file=sys.stderr,
            )
            return 2
        names = options.projection or known
        with tqdm(
            total=store.log.head(), unit=" events", file=sys.stderr, disable=None
        ) as progress:
            store.projector.rebuild(names, lambda position: _advance(progress, position))
            events = int(progress.n)
        print(f"rebuilt {', '.join(names)} up to position {events or store.log.head()}")
    finally:
        store.close()
    return 0


def _advance(progress: tqdm[NoReturn], position: int) -> None:
    progress.update(position - progress.n)
