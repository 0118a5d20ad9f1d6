"""The settings: environment variables, checked once, at the start."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from adapters.limits import Limits
from domain.droplet import MIN_DISK, MIN_MEMORY
from entrypoints import setting_values as values
from entrypoints.setting_values import (
    FILE,
    MEMORY,
    PREFIX,
    SQLITE,
    AuthorizationBy,
    Listen,
    SettingError,
)


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
    cores: values.Cores  # that serve's threads share
    builder: bool  # whether serve runs one
    builder_api: str  # a URL; empty in serve, which knows its own
    builder_token: str | None
    checkpoint_key: Path  # a PEM file, made at its first use

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
        read = values.Reader(environment)
        data_dir = read.of("DATA_DIR", "./var", values.folder)
        upload_dir = read.of("UPLOAD_DIR", str(data_dir / "uploads"), values.folder)
        max_package_size = read.of("MAX_PACKAGE_SIZE", str(1 << 30), values.positive)
        settings = cls(
            data_dir=data_dir,
            listen=read.of("LISTEN", "127.0.0.1:8080", values.listen),
            event_store=read.of(
                "EVENT_STORE", f"{SQLITE}{data_dir / 'packtrail.db'}", values.store
            ),
            broker=read.of("BROKER", MEMORY, values.broker),
            blob_store=read.of("BLOB_STORE", f"{FILE}{data_dir / 'blobs'}", values.blob_store),
            upload_dir=upload_dir,
            max_package_size=max_package_size,
            limits=_limits(read, max_package_size),
            jwt_secret=read.of("JWT_SECRET", "", values.secret),
            jwt_public_key=read.of("JWT_PUBLIC_KEY", "", values.file),
            jwks_url=read.of("JWKS_URL", "", values.http_url) or None,
            jwt_audience=read.of("JWT_AUDIENCE", "cloud_controller", values.text),
            authorization=read.of("AUTHORIZATION", "scopes", values.authorization),
            cloud_controller_url=read.of("CLOUD_CONTROLLER_URL", "", values.http_url),
            app_bits_upload=read.of("APP_BITS_UPLOAD", "on", values.switch),
            shutdown_timeout=read.of("SHUTDOWN_TIMEOUT", "30", values.seconds),
            sweep_grace=read.of("SWEEP_GRACE", "3600", values.seconds),
            tracing=read.of("TRACING", "off", values.switch),
            metrics_listen=read.of("METRICS_LISTEN", "127.0.0.1:0", values.listen),
            registered_apps=read.of("APPS", "open", values.apps),
            stack=read.of("STACK", "cflinuxfs2", values.text),
            buildpacks=read.of("BUILDPACKS", "", values.names),
            max_staging_memory=read.of("MAX_STAGING_MEMORY", "8192", values.mebibytes(MIN_MEMORY)),
            max_staging_disk=read.of("MAX_STAGING_DISK", "16384", values.mebibytes(MIN_DISK)),
            max_droplet_size=read.of("MAX_DROPLET_SIZE", str(2 << 30), values.positive),
            staging_timeout=read.of("STAGING_TIMEOUT", "900", values.seconds),
            kept_packages=read.of("KEPT_PACKAGES", "5", values.kept),
            kept_droplets=read.of("KEPT_DROPLETS", "5", values.kept),
            cores=read.of("CORES", "one", values.cores),
            builder=read.of("BUILDER", "on", values.switch),
            builder_api=read.of("BUILDER_API", "", values.http_url),
            builder_token=read.of("BUILDER_TOKEN", "", values.token),
            checkpoint_key=read.of(
                "CHECKPOINT_KEY", str(data_dir / "checkpoint.key"), values.file_to_be
            ),
        )
        read.refuse_unknown()
        settings._refuse_uploads_among_our_files(upload_dir)
        settings._refuse_contradictions()
        endpoint = environment.get("AWS_ENDPOINT_URL", "")
        in_bucket = settings.blob_dir is None
        if in_bucket and endpoint and not re.match(r"https?://[^/]", endpoint):
            raise SettingError(
                "BLOB_STORE", settings.blob_store,
                "to be reached by "
                f"AWS_ENDPOINT_URL={values.without_password(endpoint)!r}: a URL with http or https",
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
        ours = [
            self.staging_dir, self.blob_dir, self.secret_file, self.sqlite_file,
            self.checkpoint_key,
        ]  # fmt: skip
        for path in [path.resolve() for path in ours if path is not None]:
            if path.is_relative_to(uploads) or uploads.is_relative_to(path):
                raise SettingError(
                    "UPLOAD_DIR", str(upload_dir), f"a folder apart from the service's own {path}"
                )


def _limits(read: values.Reader, max_package_size: int) -> Limits:
    usual = Limits()

    def of(name: str, least: int, most: int = 1 << 62) -> int:
        default = str(getattr(usual, name.lower()))
        return read.of(name, default, values.number(least, most))

    return Limits(
        max_header_size=of("MAX_HEADER_SIZE", 1024, 1 << 20),
        max_body_size=of("MAX_BODY_SIZE", 1024, 1 << 26),
        max_json_depth=of("MAX_JSON_DEPTH", 2, 500),
        max_form_overhead=of("MAX_FORM_OVERHEAD", 1024, 1 << 26),
        max_form_parts=of("MAX_FORM_PARTS", 1, 10_000),
        max_form_fields=of("MAX_FORM_FIELDS", 2, 10_000),
        max_entries=of("MAX_ENTRIES", 1, 10_000_000),
        max_unpacked_size=read.of("MAX_UNPACKED_SIZE", str(max_package_size), values.positive),
        max_path_length=of("MAX_PATH_LENGTH", 1, 65_535),
        min_upload_rate=of("MIN_UPLOAD_RATE", 0, 1 << 30),
        header_timeout=of("HEADER_TIMEOUT", 1, 3600),
        max_uploads_per_user=of("MAX_UPLOADS_PER_USER", 1, 1 << 20),
        max_requests_per_minute=read.of("MAX_REQUESTS_PER_MINUTE", "off", values.number_or_off),
        max_packages_per_app=read.of("MAX_PACKAGES_PER_APP", "off", values.number_or_off),
    )
