"""The settings: environment variables, checked once, at the start."""

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

from adapters.limits import Limits
from domain.droplet import MIN_DISK, MIN_MEMORY

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


@dataclass(frozen=True)
class Listen:
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.url_host}:{self.port}"

    @property
    def url_host(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host


@dataclass(frozen=True)
class Settings:
    """What the processes are told. Sizes are in bytes, times in seconds."""

    data_dir: Path
    listen: Listen
    event_store: str  # a URL: sqlite:///… or postgresql://…
    broker: str  # a URL: memory:// or amqp://…
    blob_store: str  # a URL: file:///… or s3://…
    upload_dir: Path
    max_package_size: int
    limits: Limits
    jwt_secret: str | None
    jwt_public_key: Path | None  # a PEM file
    jwks_url: str | None
    jwt_audience: str
    authorization: AuthorizationBy
    cloud_controller_url: str
    app_bits_upload: bool
    shutdown_timeout: int
    sweep_grace: int
    metrics_listen: Listen
    tracing: bool
    registered_apps: bool
    stack: str
    buildpacks: frozenset[str]
    max_staging_memory: int  # MiB
    max_staging_disk: int  # MiB
    max_droplet_size: int
    staging_timeout: int
    kept_packages: int | None  # READY ones of an app; None keeps all
    kept_droplets: int | None  # STAGED ones of an app
    builder: bool  # whether serve runs one
    builder_api: str  # a URL; empty in serve, which knows its own
    builder_token: str | None

    @property
    def sqlite_file(self) -> Path | None:
        """The file of the embedded event store; None where it is PostgreSQL."""
        if not self.event_store.startswith(SQLITE):
            return None
        return Path(self.event_store.removeprefix(SQLITE)).absolute()

    def require_shared_engines(self) -> None:
        """Processes beside each other need engines that they can share. Raises `SettingError`."""
        if self.sqlite_file is not None:
            raise SettingError(
                "EVENT_STORE", self.event_store,
                "a PostgreSQL database, which processes of their own need (or use packtrail serve)",
            )  # fmt: skip
        if self.broker == MEMORY:
            raise SettingError(
                "BROKER", self.broker,
                "a RabbitMQ server, which processes of their own need (or use packtrail serve)",
            )  # fmt: skip

    @property
    def blob_dir(self) -> Path | None:
        """The folder of the local blob store; None where it is a bucket."""
        if not self.blob_store.startswith(FILE):
            return None
        return Path(self.blob_store.removeprefix(FILE))

    @property
    def staging_dir(self) -> Path:
        return self.data_dir / "staging"

    @property
    def secret_file(self) -> Path:
        return self.data_dir / "jwt.secret"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Raises `SettingError`."""
        read = _Reader(environment)
        data_dir = read.of("DATA_DIR", "./var", _folder)
        upload_dir = read.of("UPLOAD_DIR", str(data_dir / "uploads"), _folder)
        max_package_size = read.of("MAX_PACKAGE_SIZE", str(1 << 30), _positive)
        settings = cls(
            data_dir=data_dir,
            listen=read.of("LISTEN", "127.0.0.1:8080", _listen),
            event_store=read.of("EVENT_STORE", f"{SQLITE}{data_dir / 'packtrail.db'}", _store),
            broker=read.of("BROKER", MEMORY, _broker),
            blob_store=read.of("BLOB_STORE", f"{FILE}{data_dir / 'blobs'}", _blob_store),
            upload_dir=upload_dir,
            max_package_size=max_package_size,
            limits=_limits(read, max_package_size),
            jwt_secret=read.of("JWT_SECRET", "", _secret),
            jwt_public_key=read.of("JWT_PUBLIC_KEY", "", _file),
            jwks_url=read.of("JWKS_URL", "", _http_url) or None,
            jwt_audience=read.of("JWT_AUDIENCE", "cloud_controller", _text),
            authorization=read.of("AUTHORIZATION", "scopes", _authorization),
            cloud_controller_url=read.of("CLOUD_CONTROLLER_URL", "", _http_url),
            app_bits_upload=read.of("APP_BITS_UPLOAD", "on", _switch),
            shutdown_timeout=read.of("SHUTDOWN_TIMEOUT", "30", _seconds),
            sweep_grace=read.of("SWEEP_GRACE", "3600", _seconds),
            tracing=read.of("TRACING", "off", _switch),
            metrics_listen=read.of("METRICS_LISTEN", "127.0.0.1:0", _listen),
            registered_apps=read.of("APPS", "open", _apps),
            stack=read.of("STACK", "cflinuxfs2", _text),
            buildpacks=read.of("BUILDPACKS", "", _names),
            max_staging_memory=read.of("MAX_STAGING_MEMORY", "8192", _mebibytes(MIN_MEMORY)),
            max_staging_disk=read.of("MAX_STAGING_DISK", "16384", _mebibytes(MIN_DISK)),
            max_droplet_size=read.of("MAX_DROPLET_SIZE", str(2 << 30), _positive),
            staging_timeout=read.of("STAGING_TIMEOUT", "900", _seconds),
            kept_packages=read.of("KEPT_PACKAGES", "5", _kept),
            kept_droplets=read.of("KEPT_DROPLETS", "5", _kept),
            builder=read.of("BUILDER", "on", _switch),
            builder_api=read.of("BUILDER_API", "", _http_url),
            builder_token=read.of("BUILDER_TOKEN", "", _token),
        )
        read.refuse_unknown()
        settings._refuse_uploads_among_our_files(upload_dir)
        settings._refuse_contradictions()
        endpoint = environment.get("AWS_ENDPOINT_URL", "")
        in_bucket = settings.blob_dir is None
        if in_bucket and endpoint and not re.match(r"https?://[^/]", endpoint):
            raise SettingError(
                "BLOB_STORE", settings.blob_store,
                f"to be reached by AWS_ENDPOINT_URL={_without_password(endpoint)!r}: a URL with "
                "http or https",
            )  # fmt: skip
        return settings

    def _refuse_contradictions(self) -> None:
        """Raises `SettingError`."""
        ways = {
            "JWT_SECRET": "(hidden)" if self.jwt_secret else None,
            "JWT_PUBLIC_KEY": self.jwt_public_key,
            "JWKS_URL": self.jwks_url,
        }
        given = [name for name, value in ways.items() if value is not None]
        if len(given) > 1:
            raise SettingError(
                given[1], str(ways[given[1]]),
                f"to be set beside {PREFIX}{given[0]}: tokens are verified in one way",
            )  # fmt: skip
        asks = self.authorization is AuthorizationBy.CLOUD_CONTROLLER
        if asks and not self.cloud_controller_url:
            raise SettingError(
                "CLOUD_CONTROLLER_URL", "", f"where {PREFIX}AUTHORIZATION=cloud_controller asks"
            )

    @property
    def signs_tokens(self) -> bool:
        """Whether the key that tokens are verified with is one that we can sign with."""
        return self.jwt_public_key is None and self.jwks_url is None

    def _refuse_uploads_among_our_files(self, upload_dir: Path) -> None:
        """A file that is uploaded from there is removed then. Raises `SettingError`."""
        uploads = upload_dir.resolve()
        ours = [self.staging_dir, self.blob_dir, self.secret_file, self.sqlite_file]
        for path in [path.resolve() for path in ours if path is not None]:
            if path.is_relative_to(uploads) or uploads.is_relative_to(path):
                raise SettingError(
                    "UPLOAD_DIR", str(upload_dir), f"a folder apart from the service's own {path}"
                )


class _Invalid(Exception):
    """What was expected instead."""


class _Reader:
    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._known: set[str] = set()

    def of(self, name: str, default: str, parse: Callable[[str], T]) -> T:
        self._known.add(PREFIX + name)
        value = self._environment.get(PREFIX + name) or default
        try:
            return parse(value)
        except _Invalid as expected:
            shown = "(hidden)" if "SECRET" in name or "TOKEN" in name else _without_password(value)
            raise SettingError(name, shown, str(expected)) from None

    def refuse_unknown(self) -> None:
        """A misspelt setting would be ignored otherwise. Raises `SettingError`."""
        for name in self._environment:
            if name.startswith(PREFIX) and name not in self._known:
                known = ", ".join(sorted(self._known))
                raise SettingError(
                    name.removeprefix(PREFIX), "(hidden)", f"a setting; there are {known}"
                )


def _limits(read: _Reader, max_package_size: int) -> Limits:
    usual = Limits()

    def of(name: str, least: int, most: int = 1 << 62) -> int:
        default = str(getattr(usual, name.lower()))
        return read.of(name, default, _number(least, most))

    return Limits(
        max_header_size=of("MAX_HEADER_SIZE", 1024, 1 << 20),
        max_body_size=of("MAX_BODY_SIZE", 1024, 1 << 26),
        max_json_depth=of("MAX_JSON_DEPTH", 2, 500),
        max_form_overhead=of("MAX_FORM_OVERHEAD", 1024, 1 << 26),
        max_form_parts=of("MAX_FORM_PARTS", 1, 10_000),
        max_form_fields=of("MAX_FORM_FIELDS", 2, 10_000),
        max_entries=of("MAX_ENTRIES", 1, 10_000_000),
        max_unpacked_size=read.of("MAX_UNPACKED_SIZE", str(max_package_size), _positive),
        max_path_length=of("MAX_PATH_LENGTH", 1, 65_535),
        min_upload_rate=of("MIN_UPLOAD_RATE", 0, 1 << 30),
        header_timeout=of("HEADER_TIMEOUT", 1, 3600),
        max_uploads_per_user=of("MAX_UPLOADS_PER_USER", 1, 1 << 20),
        max_requests_per_minute=read.of("MAX_REQUESTS_PER_MINUTE", "off", _number_or_off),
        max_packages_per_app=read.of("MAX_PACKAGES_PER_APP", "off", _number_or_off),
    )


def _folder(value: str) -> Path:
    path = Path(value).absolute()
    if path.exists() and not path.is_dir():
        raise _Invalid("a folder")
    return path


def _file(value: str) -> Path | None:
    if not value:
        return None
    path = Path(value).absolute()
    if not path.is_file():
        raise _Invalid("a file")
    return path


def _authorization(value: str) -> AuthorizationBy:
    try:
        return AuthorizationBy(value)
    except ValueError:
        raise _Invalid("scopes, roles or cloud_controller") from None


def _listen(value: str) -> Listen:
    host, _, port = value.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not 0 <= _natural(port) <= 65535:
        raise _Invalid("an address and a port, such as 127.0.0.1:8080")
    return Listen(host, int(port))


def _store(value: str) -> str:
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


def _blob_store(value: str) -> str:
    is_bucket = re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9._/-]*)?", value)
    if is_bucket and ".." in value:
        is_bucket = None
    if not value.startswith(f"{FILE}/") and not is_bucket:
        raise _Invalid(
            "a local folder, such as file:///var/lib/packtrail/blobs, or a bucket, such as "
            "s3://bucket/prefix"
        )
    return value


def _broker(value: str) -> str:
    if value != MEMORY and not value.startswith(("amqp://", "amqps://")):
        raise _Invalid("memory://, or a RabbitMQ server, such as amqp://user:password@host//")
    try:
        _ = urlsplit(value).port
    except ValueError:
        raise _Invalid("a URL with a port that is a number, or with none") from None
    return value


def _without_password(value: str) -> str:
    """The value as it may be shown: what may be a password in a URL is left out."""
    shown = re.sub(r"(?is)^((?:[a-z0-9+.-]+://)?).*@", r"\1…@", value)
    return re.sub(r"(?i)(password|secret|token|key)=[^&]*", r"\1=…", shown)


def _positive(value: str) -> int:
    number = _natural(value)
    if not 0 < number < 1 << 62:
        raise _Invalid("a number of bytes above 0")
    return number


def _number(least: int, most: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        number = _natural(value)
        if not least <= number <= most:
            raise _Invalid(f"a number, {least} to {most}")
        return number

    return parse


def _number_or_off(value: str) -> int | None:
    return None if value == "off" else _number(1, 1 << 31)(value) if value else None


def _seconds(value: str) -> int:
    number = _natural(value)
    if not 0 <= number <= 86_400:
        raise _Invalid("a number of seconds, 0 to 86400")
    return number


def _natural(value: str) -> int:
    """The number that decimal digits stand for; -1 if they are none, or too many."""
    return int(value) if re.fullmatch("[0-9]{1,20}", value) else -1


def _secret(value: str) -> str | None:
    if not value:
        return None
    if len(value.encode()) < 32:
        raise _Invalid("a secret of 32 bytes or more")
    return value


def _text(value: str) -> str:
    return value


def _apps(value: str) -> bool:
    """Whether apps must be registered."""
    if value not in ("open", "registered"):
        raise _Invalid("open or registered")
    return value == "registered"


def _names(value: str) -> frozenset[str]:
    names = [name.strip() for name in value.split(",") if name.strip()]
    if not all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}", name) for name in names):
        raise _Invalid("names of letters, digits, dots, hyphens and underscores, with commas")
    return frozenset(names)


def _mebibytes(least: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        number = _natural(value)
        if not least <= number < 1 << 31:
            raise _Invalid(f"a number of MiB, {least} or more")
        return number

    return parse


def _kept(value: str) -> int | None:
    """How many are kept; None for all."""
    if value == "all":
        return None
    number = _natural(value)
    if not 1 <= number < 1 << 31:
        raise _Invalid("a number, 1 or more, or all")
    return number


def _http_url(value: str) -> str:
    if value and not re.fullmatch(r"https?://[^/\s@?#]+(/[^\s?#]*)?", value):
        raise _Invalid("the URL of an API, such as http://127.0.0.1:8080")
    return value.rstrip("/")


def _token(value: str) -> str | None:
    if value and not re.fullmatch(r"[!-~]+", value):
        raise _Invalid("a token")
    return value or None


def _switch(value: str) -> bool:
    if value not in ("on", "off"):
        raise _Invalid("on or off")
    return value == "on"
