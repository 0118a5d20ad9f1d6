"""How the text of each kind of setting is read, and what is said of one that is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict

T = TypeVar("T")

PREFIX = "PACKTRAIL_"
SQLITE = "sqlite:///"
MEMORY = "memory://"
FILE = "file://"


class SettingError(Exception):
    """A setting is wrong; the text is one line: the variable, its value, what is expected."""

    def __init__(self, name: str, value: str, expected: str) -> None:
        super().__init__(f"{PREFIX}{name}={value!r} is not {expected}")


class AuthorizationBy(StrEnum):
    """What tells who may do what."""

    SCOPES = "scopes"
    ROLES = "roles"
    CLOUD_CONTROLLER = "cloud_controller"


class Cores(StrEnum):
    """Which cores the threads of `packtrail serve` share."""

    ONE = "one"
    ALL = "all"


@dataclass(frozen=True)
class Listen:
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.url_host}:{self.port}"

    @property
    def url_host(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host


class _Invalid(Exception):
    """What was expected instead."""


class Reader:
    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._known: set[str] = set()

    def of(self, name: str, default: str, parse: Callable[[str], T]) -> T:
        self._known.add(PREFIX + name)
        value = self._environment.get(PREFIX + name) or default
        try:
            return parse(value)
        except _Invalid as expected:
            shown = "(hidden)" if "SECRET" in name or "TOKEN" in name else without_password(value)
            raise SettingError(name, shown, str(expected)) from None

    def refuse_unknown(self) -> None:
        """A misspelt setting would be ignored otherwise. Raises `SettingError`."""
        for name in self._environment:
            if name.startswith(PREFIX) and name not in self._known:
                known = ", ".join(sorted(self._known))
                raise SettingError(
                    name.removeprefix(PREFIX), "(hidden)", f"a setting; there are {known}"
                )


def folder(value: str) -> Path:
    path = Path(value).absolute()
    if path.exists() and not path.is_dir():
        raise _Invalid("a folder")
    return path


def file(value: str) -> Path | None:
    if not value:
        return None
    path = Path(value).absolute()
    if not path.is_file():
        raise _Invalid("a file")
    return path


def file_to_be(value: str) -> Path:
    """A file that is made if it is not there."""
    path = Path(value).absolute()
    if path.exists() and not path.is_file():
        raise _Invalid("a file, or where one is to be")
    return path


def authorization(value: str) -> AuthorizationBy:
    try:
        return AuthorizationBy(value)
    except ValueError:
        raise _Invalid("scopes, roles or cloud_controller") from None


def cores(value: str) -> Cores:
    try:
        return Cores(value)
    except ValueError:
        raise _Invalid("one or all") from None


def listen(value: str) -> Listen:
    host, _, port = value.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not 0 <= _natural(port) <= 65535:
        raise _Invalid("an address and a port, such as 127.0.0.1:8080")
    return Listen(host, int(port))


def store(value: str) -> str:
    is_file = value.startswith(SQLITE) and len(value) > len(SQLITE)
    if not is_file and not value.startswith(("postgresql://", "postgres://")):
        raise _Invalid(
            "an SQLite file, such as sqlite:////var/lib/packtrail/packtrail.db, or a PostgreSQL "
            "database, such as postgresql://user@host/packtrail"
        )
    if not is_file:
        try:
            parts = conninfo_to_dict(value)
        except psycopg.Error:
            raise _Invalid("a URL (special characters of a password are written as %40)") from None
        # else a part of a password is taken for a name, and names are shown in errors
        ports = str(parts.get("port", ""))
        names = f"{parts.get('host', '')} {parts.get('dbname', '')}"
        if "@" in names or not re.fullmatch("[0-9,]*", ports):
            raise _Invalid("a URL (an @ in a password is written as %40, a / as %2F)")
    return value


def blob_store(value: str) -> str:
    is_bucket = re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9._/-]*)?", value)
    if is_bucket and ".." in value:
        is_bucket = None
    if not value.startswith(f"{FILE}/") and not is_bucket:
        raise _Invalid(
            "a local folder, such as file:///var/lib/packtrail/blobs, or a bucket, such as "
            "s3://bucket/prefix"
        )
    return value


def broker(value: str) -> str:
    if value != MEMORY and not value.startswith(("amqp://", "amqps://")):
        raise _Invalid("memory://, or a RabbitMQ server, such as amqp://user:password@host//")
    try:
        _ = urlsplit(value).port
    except ValueError:
        raise _Invalid("a URL with a port that is a number, or with none") from None
    return value


def without_password(value: str) -> str:
    """The value as it may be shown: what may be a password in a URL is left out."""
    shown = re.sub(r"(?is)^((?:[a-z0-9+.-]+://)?).*@", r"\1…@", value)
    return re.sub(r"(?i)(password|secret|token|key)=[^&]*", r"\1=…", shown)


def positive(value: str) -> int:
    number = _natural(value)
    if not 0 < number < 1 << 62:
        raise _Invalid("a number of bytes above 0")
    return number


def number(least: int, most: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        number = _natural(value)
        if not least <= number <= most:
            raise _Invalid(f"a number, {least} to {most}")
        return number

    return parse


def number_or_off(value: str) -> int | None:
    return None if value == "off" else number(1, 1 << 31)(value) if value else None


def seconds(value: str) -> int:
    number = _natural(value)
    if not 0 <= number <= 86_400:
        raise _Invalid("a number of seconds, 0 to 86400")
    return number


def _natural(value: str) -> int:
    """The number that decimal digits stand for; -1 if they are none, or too many."""
    return int(value) if re.fullmatch("[0-9]{1,20}", value) else -1


def secret(value: str) -> str | None:
    if not value:
        return None
    if len(value.encode()) < 32:
        raise _Invalid("a secret of 32 bytes or more")
    return value


def text(value: str) -> str:
    return value


def apps(value: str) -> bool:
    """Whether apps must be registered."""
    if value not in ("open", "registered"):
        raise _Invalid("open or registered")
    return value == "registered"


def names(value: str) -> frozenset[str]:
    names = [name.strip() for name in value.split(",") if name.strip()]
    if not all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}", name) for name in names):
        raise _Invalid("names of letters, digits, dots, hyphens and underscores, with commas")
    return frozenset(names)


def mebibytes(least: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        number = _natural(value)
        if not least <= number < 1 << 31:
            raise _Invalid(f"a number of MiB, {least} or more")
        return number

    return parse


def kept(value: str) -> int | None:
    """How many are kept; None for all."""
    if value == "all":
        return None
    number = _natural(value)
    if not 1 <= number < 1 << 31:
        raise _Invalid("a number, 1 or more, or all")
    return number


def http_url(value: str) -> str:
    if value and not re.fullmatch(r"https?://[^/\s@?#]+(/[^\s?#]*)?", value):
        raise _Invalid("the URL of an API, such as http://127.0.0.1:8080")
    return value.rstrip("/")


def token(value: str) -> str | None:
    if value and not re.fullmatch(r"[!-~]+", value):
        raise _Invalid("a token")
    return value or None


def switch(value: str) -> bool:
    if value not in ("on", "off"):
        raise _Invalid("on or off")
    return value == "on"
