"""`packtrail check`: each weakness is told, and what is strong is not."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from entrypoints.check import Machine, check
from entrypoints.findings import Finding, Level
from entrypoints.guessable import fault_of_secret
from entrypoints.settings import Settings
from tests.support.issuer import pem_of, rsa_key
from tests.support.service import ROOT, SECRET

WEAK, NOTE = Level.WEAK, Level.NOTE
GOOD_SECRET = "R7pXv0mQ3tYk9LzWc2hBn5sJd8gFa1uE6iOqTxVr"
US = os.geteuid() or 1000  # whoever runs the tests, but not root
MACHINE = Machine({"HOME": "/nowhere"}, US, 65_536, dumps_core=False, free=1 << 40)
HARDENED = {
    "AUTHORIZATION": "roles",
    "APPS": "registered",
    "MAX_REQUESTS_PER_MINUTE": "600",
}


def found(
    folder: Path, settings: Mapping[str, str] | None = None, machine: Machine = MACHINE
) -> list[Finding]:
    """What is found of a hardened deployment with some settings of its own."""
    own = {"DATA_DIR": str(folder / "data"), **HARDENED, **(settings or {})}
    ours = {f"PACKTRAIL_{k}": v for k, v in own.items() if not k.startswith(("AWS", "PG"))}
    theirs = {k: v for k, v in own.items() if k.startswith(("AWS", "PG"))}
    machine = replace(machine, environment={**machine.environment, **theirs})
    return check(Settings.from_environment({**ours, **theirs}), machine)


def told(findings: list[Finding], setting: str, fragment: str) -> list[Level]:
    return [f.level for f in findings if f.setting == setting and fragment in f.wrong]


S3 = {"BLOB_STORE": "s3://bucket/prefix"}
PG, AMQP, LISTEN = "PACKTRAIL_EVENT_STORE", "PACKTRAIL_BROKER", "PACKTRAIL_LISTEN"
VERIFIED = "postgresql://trail:R7pXv0mQ3t@db.internal/packtrail?sslmode=verify-full"


def store(url: str, **more: str) -> dict[str, str]:
    return {"EVENT_STORE": f"postgresql://{url}", **more}


CASES: list[tuple[str, Level, str, dict[str, str], dict[str, str]]] = [
    ("PACKTRAIL_JWT_SECRET", WEAK, "example", {"JWT_SECRET": SECRET}, {"JWT_SECRET": GOOD_SECRET}),
    ("PACKTRAIL_JWT_SECRET", NOTE, "environment", {"JWT_SECRET": GOOD_SECRET}, {}),
    ("PACKTRAIL_AUTHORIZATION", WEAK, "every app", {"AUTHORIZATION": "scopes"}, {}),
    ("PACKTRAIL_APPS", NOTE, "any app", {"APPS": "open", "AUTHORIZATION": "scopes"},
     {"APPS": "open"}),
    ("PACKTRAIL_MAX_REQUESTS_PER_MINUTE", NOTE, "without a limit",
     {"MAX_REQUESTS_PER_MINUTE": "off"}, {}),
    ("PACKTRAIL_MIN_UPLOAD_RATE", WEAK, "for ever", {"MIN_UPLOAD_RATE": "0"}, {}),
    (LISTEN, WEAK, "clear text", {"LISTEN": "0.0.0.0:8080"}, {"LISTEN": "127.0.0.1:8080"}),
    (LISTEN, WEAK, "clear text", {"LISTEN": "[::]:8080"}, {"LISTEN": "[::1]:8080"}),
    (LISTEN, WEAK, "clear text", {"LISTEN": "api.internal:80"}, {"LISTEN": "localhost:80"}),
    (LISTEN, NOTE, "front", {}, {"LISTEN": "0.0.0.0:8080"}),
    ("PACKTRAIL_METRICS_LISTEN", WEAK, "everybody", {"METRICS_LISTEN": "0.0.0.0:9000"},
     {"METRICS_LISTEN": "127.0.0.1:9000"}),
    (PG, WEAK, "sslmode=prefer", store("trail:R7pXv0mQ3t@db.internal/p"),
     {"EVENT_STORE": VERIFIED}),
    (PG, WEAK, "sslmode=prefer", store("trail:R7pXv0mQ3t@localhost,db.internal/p"),
     store("trail:R7pXv0mQ3t@localhost,127.0.0.1/p")),
    (PG, WEAK, "sslmode=disable", store("trail:R7pXv0mQ3t@db.internal/p?sslmode=disable"),
     store("trail:R7pXv0mQ3t@db.internal/p", PGSSLMODE="require")),
    (PG, NOTE, "another server", store("trail:R7pXv0mQ3t@db.internal/p?sslmode=require"),
     store("trail:R7pXv0mQ3t@db.internal/p?sslmode=verify-ca")),
    (PG, WEAK, "postgres is the user", store("postgres:R7pXv0mQ3t@localhost/p"),
     store("trail:R7pXv0mQ3t@localhost/p")),
    (PG, WEAK, "well-known", store("trail:change-me@localhost/p"),
     store("trail:R7pXv0mQ3t@localhost/p")),
    (PG, WEAK, "without a password", store("trail@localhost/p"),
     store("trail@localhost/p", PGPASSWORD="R7pXv0mQ3t")),
    (PG, WEAK, "without a password", store("trail@127.0.0.1/p"),
     store("trail@%2Fvar%2Frun%2Fpostgresql/p")),
    (AMQP, WEAK, "clear text", {"BROKER": "amqp://trail:R7pXv0mQ3t@mq.internal//"},
     {"BROKER": "amqps://trail:R7pXv0mQ3t@mq.internal//"}),
    (AMQP, WEAK, "guest", {"BROKER": "amqp://guest:guest@127.0.0.1//"},
     {"BROKER": "amqp://trail:R7pXv0mQ3t@127.0.0.1//"}),
    (AMQP, WEAK, "guest", {"BROKER": "amqp://127.0.0.1//"},
     {"BROKER": "amqp://trail:R7pXv0mQ3t@127.0.0.1//"}),
    (AMQP, WEAK, "well-known", {"BROKER": "amqp://trail:packtrail@localhost//"},
     {"BROKER": "amqp://trail:R7pXv0mQ3t@localhost//"}),
    ("AWS_ENDPOINT_URL", WEAK, "clear text", {**S3, "AWS_ENDPOINT_URL": "http://s3.internal"},
     {**S3, "AWS_ENDPOINT_URL": "https://s3.internal"}),
    ("AWS_ENDPOINT_URL", WEAK, "clear text", {**S3, "AWS_ENDPOINT_URL": "http://10.0.0.7:9000"},
     {**S3, "AWS_ENDPOINT_URL": "http://127.0.0.1:9000"}),
    ("AWS_SECRET_ACCESS_KEY", WEAK, "well-known", {**S3, "AWS_SECRET_ACCESS_KEY": "minioadmin"},
     {**S3, "AWS_SECRET_ACCESS_KEY": "R7pXv0mQ3tYk9LzWc2hB"}),
    ("PACKTRAIL_JWKS_URL", WEAK, "in between", {"JWKS_URL": "http://uaa.internal/token_keys"},
     {"JWKS_URL": "https://uaa.internal/token_keys"}),
    ("PACKTRAIL_CLOUD_CONTROLLER_URL", WEAK, "clear text",
     {"AUTHORIZATION": "cloud_controller", "CLOUD_CONTROLLER_URL": "http://cc.internal"},
     {"AUTHORIZATION": "cloud_controller", "CLOUD_CONTROLLER_URL": "http://localhost:8181"}),
    ("PACKTRAIL_BUILDER_API", WEAK, "clear text", {"BUILDER_API": "http://api.internal"},
     {"BUILDER_API": "http://127.0.0.1:8080"}),
]  # fmt: skip


@pytest.mark.parametrize(
    "case", CASES, ids=[f"{c[0].removeprefix('PACKTRAIL_')}-{i}" for i, c in enumerate(CASES)]
)
def test_a_weak_setting_is_told_and_a_strong_one_is_not(
    case: tuple[str, Level, str, dict[str, str], dict[str, str]], tmp_path: Path
) -> None:
    """By the setting's name, with what is wrong."""
    setting, level, fragment, weak, strong = case
    assert told(found(tmp_path, weak), setting, fragment) == [level]
    assert told(found(tmp_path, strong), setting, fragment) == []


MACHINES: list[tuple[str, Level, str, Machine]] = [
    ("user", WEAK, "root", replace(MACHINE, user=0)),
    ("ulimit -Hn", NOTE, "1024 open files", replace(MACHINE, descriptors=1024)),
    ("ulimit -c", NOTE, "crash", replace(MACHINE, dumps_core=True)),
    ("PACKTRAIL_DATA_DIR", WEAK, "full", replace(MACHINE, free=1_000_000)),
    ("PACKTRAIL_MAX_PACKAGE_SIZE", WEAK, "are free", replace(MACHINE, free=1 << 29)),
]


@pytest.mark.parametrize("case", MACHINES, ids=[case[0] for case in MACHINES])
def test_a_weak_machine_is_told_and_a_strong_one_is_not(
    case: tuple[str, Level, str, Machine], tmp_path: Path
) -> None:
    """Whoever runs the check."""
    setting, level, fragment, machine = case
    assert told(found(tmp_path, machine=machine), setting, fragment) == [level]
    assert told(found(tmp_path), setting, fragment) == []


def test_too_few_open_files_are_weak_where_others_can_use_them_up(tmp_path: Path) -> None:
    """On a laptop's loopback they are worth a note."""
    few = replace(MACHINE, descriptors=1024)
    assert told(found(tmp_path, {"LISTEN": "10.0.0.1:80"}, few), "ulimit -Hn", "1024") == [WEAK]
    fewer_uploads = {"LISTEN": "10.0.0.1:80", "MAX_UPLOADS_PER_USER": "100"}
    assert told(found(tmp_path, fewer_uploads, few), "ulimit -Hn", "") == []


def test_a_hardened_deployment_has_nothing_weak(tmp_path: Path) -> None:
    """The note that TLS is the front's to do stays."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    secret = data / "jwt.secret"
    secret.write_text(GOOD_SECRET)
    secret.chmod(0o600)
    assert [(f.level, f.setting) for f in found(tmp_path)] == [(NOTE, LISTEN)]


def test_what_is_weak_comes_first(tmp_path: Path) -> None:
    """Notes after it; each is one line without a secret."""
    settings = {
        **store("postgres:hunter2hunter2@db.internal/p"), "LISTEN": "0.0.0.0:80",
        "JWT_SECRET": "hunter2" * 6, "BROKER": "amqp://guest:hunter2@mq.internal//", "APPS": "open",
    }  # fmt: skip
    lines = [str(finding) for finding in found(tmp_path, settings)]
    assert [line[:4] for line in lines] == sorted((line[:4] for line in lines), reverse=True)
    assert not any("hunter2" in line or "\n" in line for line in lines)
    assert all("; right: " in line for line in lines)


@pytest.mark.parametrize(
    "secret",
    [
        "a" * 40, "ab" * 20, "secret" * 8, "changeme" * 5, "secret-password-changeme-jwt-token-key",
        "0123456789" * 4, "abcdefghijklmnopqrstuvwxyz0123456789", "Password1" * 3 + "Passw",
        "correct-horse-secret-" * 2, "my-secret-secret-secret-secret-key",
        "a-string-secret-at-least-256-bits-long",  # what jwt.io signs with
    ],
)  # fmt: skip
def test_a_secret_that_can_be_guessed_is_told(secret: str) -> None:
    """Repeated, well known, or with little in it."""
    assert fault_of_secret(secret) is not None


@pytest.mark.parametrize(
    "secret",
    [
        GOOD_SECRET, "5f4dcc3b5aa765d61d8327deb882cf992b95990a9151374abd8ff8c5a7a0fe08",
        "hK8w2Zq+Jt/0nV5cXyB1mR7sLpD3fGuEoIaT9vQkWjN6bYxC4hMzUrS=",
        "9b2e4c1e-6f0d-4b1a-8f53-0f6f3d2a7c55",
    ],
)  # fmt: skip
def test_a_random_secret_is_none_of_these(secret: str) -> None:
    """In hex, base64, or a UUID."""
    assert fault_of_secret(secret) is None


def test_every_secret_that_we_have_published_is_known() -> None:
    """Those of the examples and of the tests."""
    files = [*ROOT.glob("docs/**/*"), ROOT / "README.md", *ROOT.glob("tests/support/*.py")]
    texts = [path.read_text() for path in files if path.is_file()]
    printed = {s for text in texts for s in re.findall(r"JWT_SECRET(?:=|: )(\S.{31,})", text)}
    assert len(printed) >= 2
    assert all(fault_of_secret(secret) is not None for secret in {*printed, SECRET})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder as the service makes it."""
    data = tmp_path / "data"
    for folder in (data, data / "blobs", data / "staging", data / "uploads"):
        folder.mkdir(mode=0o700)
    for name, content in (
        ("packtrail.db", ""),
        ("jwt.secret", GOOD_SECRET),
        ("checkpoint.key", ""),
    ):
        (data / name).write_text(content)
        (data / name).chmod(0o600)
    return data


def test_what_the_service_makes_is_its_own(data: Path, tmp_path: Path) -> None:
    """Nothing is said of it."""
    assert [f for f in found(tmp_path) if f.level is WEAK] == []


@pytest.mark.parametrize(
    ("name", "mode", "setting", "fragment", "level"),
    [
        (".", 0o755, "PACKTRAIL_DATA_DIR", "read", WEAK),
        (".", 0o770, "PACKTRAIL_DATA_DIR", "group", WEAK),
        ("packtrail.db", 0o644, PG, "read", WEAK),
        ("packtrail.db", 0o666, PG, "write", WEAK),
        ("checkpoint.key", 0o644, "PACKTRAIL_CHECKPOINT_KEY", "read", WEAK),
        ("blobs", 0o755, "PACKTRAIL_BLOB_STORE", "read", WEAK),
        ("staging", 0o777, "PACKTRAIL_DATA_DIR", "write", WEAK),
        ("uploads", 0o755, "PACKTRAIL_UPLOAD_DIR", "read", WEAK),
        ("uploads", 0o777, "PACKTRAIL_UPLOAD_DIR", "write", WEAK),
        ("uploads", 0o770, "PACKTRAIL_UPLOAD_DIR", "group", NOTE),
    ],
)
def test_a_place_that_others_get_at_is_told(
    data: Path, tmp_path: Path, name: str, mode: int, setting: str, fragment: str, level: Level
) -> None:
    """If they get through the folders above it."""
    (data / name).chmod(mode)
    if name != ".":
        assert told(found(tmp_path), setting, fragment) == []
        data.chmod(0o711)
    assert told(found(tmp_path), setting, fragment) == [level]


def test_a_secret_that_others_can_read_is_told(data: Path, tmp_path: Path) -> None:
    """By its mode; whatever the folder is: a secret is worth two locks."""
    secret = data / "jwt.secret"
    assert told(found(tmp_path), str(secret), "") == []
    secret.chmod(0o640)
    assert told(found(tmp_path), str(secret), "mode is 0640") == [WEAK]


def test_a_secret_that_is_a_link_is_told(data: Path, tmp_path: Path) -> None:
    """What it leads to may be anybody's."""
    secret = data / "jwt.secret"
    secret.rename(tmp_path / "elsewhere")
    secret.symlink_to(tmp_path / "elsewhere")
    assert told(found(tmp_path), str(secret), "link") == [WEAK]


def test_a_file_of_another_user_is_told(data: Path, tmp_path: Path) -> None:
    """Root's are as good as ours."""
    somebody = replace(MACHINE, user=US + 1)
    secret = str(data / "jwt.secret")
    expected = [WEAK] if os.geteuid() else []
    assert told(found(tmp_path, machine=somebody), secret, "belongs to user") == expected
    assert told(found(tmp_path), secret, "belongs to user") == []


def test_a_secret_file_that_holds_none_or_a_bad_one_is_told(data: Path, tmp_path: Path) -> None:
    """As the environment's is."""
    secret = data / "jwt.secret"
    secret.write_text("changeme" * 5)
    assert told(found(tmp_path), str(secret), "the secret") == [WEAK]
    secret.write_text("short")
    assert told(found(tmp_path), str(secret), "can't be used") == [WEAK]


def test_a_folder_above_that_everybody_can_write_is_told(data: Path, tmp_path: Path) -> None:
    """Unless it has the sticky bit."""
    tmp_path.chmod(0o777)
    assert told(found(tmp_path), str(tmp_path), "in the place of") == [WEAK]
    tmp_path.chmod(0o1777)
    assert told(found(tmp_path), str(tmp_path), "in the place of") == []


def test_a_small_key_is_told(tmp_path: Path) -> None:
    """So is one that others can change, and a file that holds none."""
    name, pem = "PACKTRAIL_JWT_PUBLIC_KEY", tmp_path / "key.pem"
    settings = {"JWT_PUBLIC_KEY": str(pem)}
    pem.write_bytes(pem_of(rsa_key(1024)))
    pem.chmod(0o644)
    assert told(found(tmp_path, settings), name, "1024 bits") == [WEAK]
    pem.write_bytes(pem_of(rsa_key(2048)))
    assert told(found(tmp_path, settings), name, "") == []
    pem.chmod(0o664)
    assert told(found(tmp_path, settings), name, "can sign tokens") == [WEAK]
    pem.write_text("no key")
    assert told(found(tmp_path, settings), name, "no public key") == [WEAK]


def test_a_folder_above_that_is_another_users_is_told(data: Path, tmp_path: Path) -> None:
    """Its owner can put something else there, whatever its mode is; root can anyway."""
    machine = replace(MACHINE, user=US + 1)
    if os.geteuid() == 0:
        os.chown(tmp_path, 1, -1)
        machine = MACHINE
    assert told(found(tmp_path, machine=machine), str(tmp_path), "in the place of") == [WEAK]


def test_folders_above_count_where_a_link_leads_too(data: Path, tmp_path: Path) -> None:
    """The data folder may be a link into a folder that everybody can write."""
    real = tmp_path / "open" / "real"
    data.rename(tmp_path / "made")
    real.parent.mkdir()
    (tmp_path / "made").rename(real)
    real.parent.chmod(0o777)
    data.symlink_to(real)
    assert told(found(tmp_path), str(real.parent), "in the place of") == [WEAK]
