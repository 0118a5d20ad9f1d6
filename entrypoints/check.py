"""`packtrail check`: tells an operator what is weak in a deployment, by settings and machine."""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import orjson
from psycopg.conninfo import conninfo_to_dict

from adapters.http.server.listening import CONNECTIONS_SPARE
from entrypoints.exposed import files, public_key, secret_file
from entrypoints.findings import Finding, Level, note, weak
from entrypoints.guessable import fault_of_secret, is_well_known
from entrypoints.setting_values import MEMORY, PREFIX, AuthorizationBy
from entrypoints.settings import Settings

FULL = 64 * 1024 * 1024  # bytes: a disk with less has no room to work
VERIFIED = ("verify-full", "verify-ca")


@dataclass(frozen=True)
class Machine:
    """What the process finds around itself."""

    environment: Mapping[str, str]
    user: int  # its id; 0 is root
    descriptors: int  # that a process may have at most
    dumps_core: bool
    free: int | None = None  # bytes on every disk; None asks the disk

    @classmethod
    def here(cls) -> Self:
        return cls(
            os.environ,
            os.geteuid(),
            resource.getrlimit(resource.RLIMIT_NOFILE)[1],
            resource.getrlimit(resource.RLIMIT_CORE)[0] != 0,
        )

    def free_bytes(self, path: Path) -> int:
        """Of the disk that a path is on, or will be."""
        if self.free is not None:
            return self.free
        return shutil.disk_usage(next(p for p in (path, *path.parents) if p.exists())).free


def add_check(commands: Any) -> argparse.ArgumentParser:
    """Adds the command; its parser."""
    check: argparse.ArgumentParser = commands.add_parser(
        "check",
        help="tell what is weak in a deployment",
        description="Looks at the settings and at this machine, whether the service runs or not, "
        "and prints what is weak, one finding a line; notes are worth a thought. Run it as the "
        "user and with the environment that the service has. It exits with 1 if something is weak.",
    )
    check.add_argument("--listen", metavar="HOST:PORT", help="PACKTRAIL_LISTEN (127.0.0.1:8080)")
    check.add_argument("--json", action="store_true", help="print a JSON array of objects")
    check.set_defaults(run=_run)
    return check


def _run(settings: Settings, options: argparse.Namespace) -> int:
    found = check(settings, Machine.here())
    if options.json:
        print(orjson.dumps([asdict(f) for f in found], option=orjson.OPT_INDENT_2).decode())
    else:
        for finding in found:
            print(finding)
    count = sum(finding.level is Level.WEAK for finding in found)
    print(f"{count} weak, {len(found) - count} notes", file=sys.stderr)
    return 1 if count else 0


def check(settings: Settings, machine: Machine) -> list[Finding]:
    """All that is weak, and after that what is worth a note."""
    found = [
        *_tokens(settings, machine),
        *_authorization(settings),
        *_listening(settings),
        *_urls(settings, machine),
        *_postgres(settings, machine),
        *_broker(settings),
        *files(settings, machine.user),
        *_machine(settings, machine),
    ]
    return sorted(found, key=lambda finding: finding.level is Level.NOTE)


def _tokens(settings: Settings, machine: Machine) -> Iterator[Finding]:
    """What tokens are verified with."""
    if settings.jwt_public_key is not None:
        yield from public_key(settings.jwt_public_key, machine.user)
    elif settings.jwt_secret is not None:
        name = f"{PREFIX}JWT_SECRET"
        fault = fault_of_secret(settings.jwt_secret)
        if fault is not None:
            yield weak(name, f"the secret {fault}", "random bytes: openssl rand -base64 48")
        yield note(
            name, "the environment of a process is told to its children and in its crash reports",
            f"the secret in {settings.secret_file} (mode 0600), or {PREFIX}JWT_PUBLIC_KEY",
        )  # fmt: skip
    elif settings.signs_tokens and os.path.lexists(settings.secret_file):
        yield from secret_file(settings.secret_file, machine.user)


def _authorization(settings: Settings) -> Iterator[Finding]:
    if settings.authorization is AuthorizationBy.SCOPES:
        yield weak(
            f"{PREFIX}AUTHORIZATION", "any token with the scope may touch every app",
            "roles or cloud_controller",
        )  # fmt: skip
        if not settings.registered_apps:
            yield note(
                f"{PREFIX}APPS", "packages may be made for any app, one that nobody knows, too",
                "registered",
            )  # fmt: skip
    if settings.limits.max_requests_per_minute is None:
        yield note(
            f"{PREFIX}MAX_REQUESTS_PER_MINUTE", "a user may send requests without a limit",
            "a number, such as 600",
        )  # fmt: skip
    if settings.limits.min_upload_rate == 0:
        yield weak(
            f"{PREFIX}MIN_UPLOAD_RATE", "a client that sends nothing keeps its connection for ever",
            "256 or more bytes a second",
        )  # fmt: skip


def _listening(settings: Settings) -> Iterator[Finding]:
    name = f"{PREFIX}LISTEN"
    if _is_local(settings.listen.host):
        yield note(
            name, "what comes from elsewhere comes through a front", "one that takes TLS alone"
        )
    else:
        yield weak(
            name, f"{settings.listen} is reached without TLS, and tokens travel in clear text",
            "a loopback address, behind a front that takes TLS alone",
        )  # fmt: skip
    if not _is_local(settings.metrics_listen.host):
        yield weak(
            f"{PREFIX}METRICS_LISTEN",
            f"{settings.metrics_listen} tells its metrics to everybody who reaches it",
            "a loopback address, behind what lets the monitoring in alone",
        )


def _urls(settings: Settings, machine: Machine) -> Iterator[Finding]:
    """Where tokens, keys or bits go over HTTP."""
    told = {
        "JWKS_URL": (settings.jwks_url, "whoever is in between can say with which keys one signs"),
        "CLOUD_CONTROLLER_URL": (settings.cloud_controller_url, "tokens travel in clear text"),
        "BUILDER_API": (settings.builder_api, "the builder's token travels in clear text"),
    }
    for variable, (url, what) in told.items():
        if url and _is_clear(url):
            yield weak(f"{PREFIX}{variable}", f"{what} to {_host_of(url)}", "an https:// URL")
    if settings.blob_dir is not None:
        return
    endpoint = machine.environment.get("AWS_ENDPOINT_URL", "")
    if _is_clear(endpoint):
        yield weak(
            "AWS_ENDPOINT_URL", f"bits travel in clear text to {_host_of(endpoint)}",
            "an https:// URL",
        )  # fmt: skip
    key = machine.environment.get("AWS_SECRET_ACCESS_KEY")
    if key is not None and is_well_known(key):
        yield weak("AWS_SECRET_ACCESS_KEY", "it is a well-known one", "one that the store made")


def _postgres(settings: Settings, machine: Machine) -> Iterator[Finding]:
    if settings.sqlite_file is not None:
        return
    name, environment = f"{PREFIX}EVENT_STORE", machine.environment

    def told(parameter: str, variable: str) -> str:
        return str(parameters.get(parameter) or environment.get(variable, ""))

    parameters = conninfo_to_dict(settings.event_store)
    hosts = (told("hostaddr", "PGHOSTADDR") or told("host", "PGHOST")).split(",")
    distant = [host for host in hosts if not _is_local(host)]
    mode = told("sslmode", "PGSSLMODE") or "prefer"
    if distant and mode not in (*VERIFIED, "require"):
        yield weak(
            name, f"with sslmode={mode} all that is stored may travel in clear text to "
            f"{distant[0]}", "sslmode=verify-full",
        )  # fmt: skip
    elif distant and mode not in VERIFIED:
        yield note(
            name, f"with sslmode={mode} another server could say that it is {distant[0]}",
            "sslmode=verify-full",
        )  # fmt: skip
    if told("user", "PGUSER") == "postgres":
        yield weak(
            name, "postgres is the user that may do everything to all databases",
            "a role that owns this database alone",
        )  # fmt: skip
    password = told("password", "PGPASSWORD")
    if password and is_well_known(password):
        yield weak(name, "the password is a well-known one", "a random one")
    by_tcp = [host for host in hosts if host and not host.startswith(("/", "@"))]
    if by_tcp and not password and not _has_other_proof(told, environment):
        yield weak(
            name, f"{by_tcp[0]} is asked without a password: others may do that, too",
            "a password (in a file that PGPASSFILE names, or in the URL), or a certificate",
        )  # fmt: skip


def _has_other_proof(told: Any, environment: Mapping[str, str]) -> bool:
    """Whether a file tells PostgreSQL who we are."""
    file = environment.get("PGPASSFILE") or f"{environment.get('HOME', '')}/.pgpass"
    return bool(told("passfile", "") or told("sslcert", "PGSSLCERT")) or Path(file).exists()


def _broker(settings: Settings) -> Iterator[Finding]:
    if settings.broker == MEMORY:
        return
    name, url = f"{PREFIX}BROKER", urlsplit(settings.broker)
    host = url.hostname or "localhost"
    if url.scheme == "amqp" and not _is_local(host):
        yield weak(name, f"tokens and events travel in clear text to {host}", "an amqps:// URL")
    user, password = unquote(url.username or "guest"), unquote(url.password or "guest")
    if user == "guest":
        yield weak(
            name, "guest is the user that everybody knows, and may do everything",
            "a user of its own, as docs/deploy tells",
        )  # fmt: skip
    elif is_well_known(password):
        yield weak(name, "the password is a well-known one", "a random one")


def _machine(settings: Settings, machine: Machine) -> Iterator[Finding]:
    if machine.user == 0:
        yield weak("user", "this runs as root, and so may do everything", "a user of its own")
    needed = CONNECTIONS_SPARE + 2 * settings.limits.max_uploads_per_user
    if machine.descriptors < needed:
        told = note if _is_local(settings.listen.host) else weak
        yield told(
            "ulimit -Hn",
            f"{machine.descriptors} open files are too few for the uploads at once of one user "
            f"({PREFIX}MAX_UPLOADS_PER_USER={settings.limits.max_uploads_per_user})",
            f"{needed} or more, or a lower limit",
        )
    if machine.dumps_core:
        yield note("ulimit -c", "a crash writes memory, secrets and all, to the disk", "0")
    free = machine.free_bytes(settings.data_dir)
    if free < FULL:
        yield weak(f"{PREFIX}DATA_DIR", f"its disk is full: {free} bytes are free", "a larger disk")
    elif free < settings.max_package_size:
        yield weak(
            f"{PREFIX}MAX_PACKAGE_SIZE",
            f"{settings.max_package_size} bytes are allowed, and {free} are free on the disk of "
            f"{settings.data_dir}",
            "a larger disk, or a lower limit",
        )


def _is_local(host: str) -> bool:
    """Whether a host is this one, by its name alone; a folder of sockets is, and so is none."""
    host = host.strip("[]").lower()
    if not host or host.startswith(("/", "@")) or host == "localhost":
        return True
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host.endswith(".localhost")


def _host_of(url: str) -> str:
    return urlsplit(url).hostname or ""


def _is_clear(url: str) -> bool:
    """Whether what is sent there can be read on its way."""
    return url.lower().startswith("http://") and not _is_local(_host_of(url))
