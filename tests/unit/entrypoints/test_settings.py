"""The settings: what they are by default, and what is said of a wrong one."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from adapters.limits import Limits
from entrypoints.setting_values import Listen, SettingError
from entrypoints.settings import Settings

SECRET = "a secret that is for tests alone, 32+ bytes"


def settings(**values: str) -> Settings:
    return Settings.from_environment({f"PACKTRAIL_{name}": text for name, text in values.items()})


def test_nothing_needs_to_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything embedded has its place in ./var."""
    monkeypatch.chdir(tmp_path)
    found = settings()
    var = tmp_path / "var"
    assert found.data_dir == var
    assert found.listen == Listen("127.0.0.1", 8080)
    assert (found.sqlite_file, found.blob_dir) == (var / "packtrail.db", var / "blobs")
    assert (found.upload_dir, found.staging_dir) == (var / "uploads", var / "staging")
    assert found.max_package_size == 1073741824
    assert (found.jwt_secret, found.jwt_audience) == (None, "cloud_controller")
    assert found.secret_file == var / "jwt.secret"
    assert found.checkpoint_key == var / "checkpoint.key"
    assert found.app_bits_upload


def test_all_is_kept_in_the_data_folder(tmp_path: Path) -> None:
    """Moving it moves every embedded default."""
    found = settings(DATA_DIR=str(tmp_path))
    for path in (found.sqlite_file, found.blob_dir, found.upload_dir, found.staging_dir):
        assert path is not None and path.is_relative_to(tmp_path)


def test_each_setting_can_be_set(tmp_path: Path) -> None:
    """By its variable."""
    found = settings(
        LISTEN="0.0.0.0:0",
        EVENT_STORE=f"sqlite:///{tmp_path}/log.db",
        BROKER="memory://",
        BLOB_STORE=f"file://{tmp_path}/bits",
        UPLOAD_DIR=f"{tmp_path}/in",
        MAX_PACKAGE_SIZE="1",
        JWT_SECRET=SECRET,
        JWT_AUDIENCE="packtrail",
        APP_BITS_UPLOAD="off",
        SHUTDOWN_TIMEOUT="0",
    )
    assert found.listen == Listen("0.0.0.0", 0)
    assert (found.sqlite_file, found.blob_dir) == (tmp_path / "log.db", tmp_path / "bits")
    assert found.upload_dir == tmp_path / "in"
    assert (found.max_package_size, found.shutdown_timeout) == (1, 0)
    assert (found.jwt_secret, found.jwt_audience) == (SECRET, "packtrail")
    assert not found.app_bits_upload


def test_an_empty_value_is_the_default() -> None:
    """`PACKTRAIL_LISTEN= packtrail serve` is no mistake."""
    assert settings(LISTEN="", JWT_SECRET="", APP_BITS_UPLOAD="") == settings()


def test_other_programs_variables_do_not_matter() -> None:
    """Only those with our prefix are ours."""
    assert Settings.from_environment({"LISTEN": "nonsense", "PATH": "/bin"}) == settings()


@pytest.mark.parametrize(
    ("value", "shown", "host", "port"),
    [
        ("localhost:1", "localhost:1", "localhost", 1),
        ("[::1]:8080", "[::1]:8080", "::1", 8080),
        ("0.0.0.0:65535", "0.0.0.0:65535", "0.0.0.0", 65535),
    ],
)
def test_an_address_is_shown_as_it_was_given(value: str, shown: str, host: str, port: int) -> None:
    """Also an IPv6 one, in its brackets."""
    listen = settings(LISTEN=value).listen
    assert (listen.host, listen.port, str(listen)) == (host, port, shown)


WRONG = [
    ("LISTEN", "8080", "an address and a port, such as 127.0.0.1:8080"),
    ("LISTEN", "127.0.0.1", "an address and a port, such as 127.0.0.1:8080"),
    ("LISTEN", "127.0.0.1:", "an address and a port, such as 127.0.0.1:8080"),
    ("LISTEN", ":8080", "an address and a port, such as 127.0.0.1:8080"),
    ("LISTEN", "127.0.0.1:http", "an address and a port, such as 127.0.0.1:8080"),
    ("LISTEN", "127.0.0.1:65536", "an address and a port, such as 127.0.0.1:8080"),
    ("LISTEN", "127.0.0.1:-1", "an address and a port, such as 127.0.0.1:8080"),
    ("LISTEN", "127.0.0.1:٨٠", "an address and a port, such as 127.0.0.1:8080"),
    ("LISTEN", "127.0.0.1:" + "9" * 5000, "an address and a port, such as 127.0.0.1:8080"),
    ("EVENT_STORE", "mysql://x", "an SQLite file, such as sqlite:///"),
    ("EVENT_STORE", "/var/lib/packtrail.db", "an SQLite file, such as sqlite:///"),
    ("EVENT_STORE", "sqlite:///", "an SQLite file, such as sqlite:///"),
    ("BROKER", "redis://x", "memory://"),
    ("BLOB_STORE", "/var/blobs", "a local folder, such as file:///"),
    ("BLOB_STORE", "file://blobs", "a local folder, such as file:///"),
    ("MAX_PACKAGE_SIZE", "0", "a number of bytes above 0"),
    ("MAX_PACKAGE_SIZE", "-1", "a number of bytes above 0"),
    ("MAX_PACKAGE_SIZE", "1G", "a number of bytes above 0"),
    ("MAX_PACKAGE_SIZE", "1.5", "a number of bytes above 0"),
    ("MAX_PACKAGE_SIZE", "9" * 30, "a number of bytes above 0"),
    ("MAX_PACKAGE_SIZE", "9" * 5000, "a number of bytes above 0"),
    ("APP_BITS_UPLOAD", "yes", "on or off"),
    ("APP_BITS_UPLOAD", "ON", "on or off"),
    ("APP_BITS_UPLOAD", "on\n", "on or off"),
    ("SHUTDOWN_TIMEOUT", "soon", "a number of seconds, 0 to 86400"),
    ("SHUTDOWN_TIMEOUT", "86401", "a number of seconds, 0 to 86400"),
    ("SHUTDOWN_TIMEOUT", "9" * 5000, "a number of seconds, 0 to 86400"),
    ("DATA_DIR", "/dev/null", "a folder"),
    ("UPLOAD_DIR", "/dev/null", "a folder"),
    ("CHECKPOINT_KEY", "/dev", "a file, or where one is to be"),
]


@pytest.mark.parametrize(
    ("name", "value", "expected"), WRONG, ids=[f"{name}={value[:20]!r}" for name, value, _ in WRONG]
)
def test_a_wrong_value_is_told_in_one_line(name: str, value: str, expected: str) -> None:
    """The variable, its value, and what is expected instead."""
    with pytest.raises(SettingError) as error:
        settings(**{name: value})
    text = str(error.value)
    assert text.startswith(f"PACKTRAIL_{name}={value!r} is not ")
    assert expected in text
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize("secret", ["short", "x" * 31])
def test_a_weak_secret_is_refused_and_not_shown(secret: str) -> None:
    """An error message ends up in logs and on screens."""
    with pytest.raises(SettingError) as error:
        settings(JWT_SECRET=secret)
    assert secret not in str(error.value)
    assert str(error.value).startswith("PACKTRAIL_JWT_SECRET=")
    assert "a secret of 32 bytes or more" in str(error.value)


@pytest.mark.parametrize("name", ["LISTENN", "JWT_SECRETS", "listen", ""])
def test_a_misspelt_setting_is_told(name: str) -> None:
    """It would be ignored otherwise; its value may be a secret, and is not shown."""
    with pytest.raises(SettingError) as error:
        settings(**{name: "hunter2"})
    text = str(error.value)
    assert text.startswith(f"PACKTRAIL_{name}=")
    assert "hunter2" not in text
    assert "PACKTRAIL_LISTEN" in text
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EVENT_STORE", "postgresql://u:s3cr%zzet@127.0.0.1/db"),
        ("EVENT_STORE", "postgresql://u:s3c@ret@127.0.0.1/db"),
        ("EVENT_STORE", "mysql://127.0.0.1/db?user=u&password=s3cret"),
        ("EVENT_STORE", "postgresql://u:s3c/ret@127.0.0.1/db"),
        ("EVENT_STORE", "postgresql://u:1/s3cret@127.0.0.1/db"),
        ("EVENT_STORE", "u:s3cret@127.0.0.1/db"),
        ("EVENT_STORE", "mysql://u:s3c\nret@127.0.0.1/db"),
        ("JWKS_URL", "https://u:s3cret@uaa.example/token_keys"),
        ("JWKS_URL", "https://uaa.example/token_keys?token=s3cret"),
        ("BROKER", "amqp://u:s3cret@127.0.0.1:port//"),
        ("BROKER", "redis://u:s3c@ret@127.0.0.1//"),
    ],
)
def test_a_password_is_not_shown(name: str, value: str) -> None:
    """Whatever is wrong with the URL that it is in."""
    with pytest.raises(SettingError) as refused:
        settings(**{name: value})
    assert "s3c" not in str(refused.value) and "ret@" not in str(refused.value)
    assert f"PACKTRAIL_{name}" in str(refused.value)


@pytest.mark.parametrize("url", ["s3://no bucket/x", "s3://bucket/../x", "s3://", "s3://Up/x"])
def test_a_bucket_has_a_name_that_can_be_one(url: str) -> None:
    """Or nothing of what comes later would say what is wrong."""
    with pytest.raises(SettingError, match="s3://bucket/prefix"):
        settings(BLOB_STORE=url)


def test_limits_are_settings(tmp_path: Path) -> None:
    """Each by its own variable; without one it is what the README says."""
    assert settings().limits == Limits()
    found = settings(
        MAX_HEADER_SIZE="2048", MAX_PACKAGE_SIZE="77", MAX_PACKAGES_PER_APP="3", MAX_ENTRIES="9"
    ).limits
    assert (found.max_header_size, found.max_entries, found.max_packages_per_app) == (2048, 9, 3)
    assert found.max_unpacked_size == 77, "as a package's size"
    assert found.max_requests_per_minute is None


@pytest.mark.parametrize("name", [field.name.upper() for field in fields(Limits)])
def test_a_limit_that_is_no_number_is_refused(name: str) -> None:
    """The line names the variable and what is expected."""
    with pytest.raises(SettingError, match=f"PACKTRAIL_{name}='many' is not a number"):
        settings(**{name: "many"})


def test_tokens_are_verified_in_one_way(tmp_path: Path) -> None:
    """Two ways at once are refused."""
    key = tmp_path / "key.pem"
    key.write_text("-")
    with pytest.raises(SettingError, match=r"PACKTRAIL_JWKS_URL=.*beside PACKTRAIL_JWT_PUBLIC_KEY"):
        settings(JWT_PUBLIC_KEY=str(key), JWKS_URL="https://uaa.example/token_keys")


def test_a_cloud_controller_must_be_named_to_be_asked() -> None:
    """And is none that is not http."""
    with pytest.raises(SettingError, match="PACKTRAIL_CLOUD_CONTROLLER_URL"):
        settings(AUTHORIZATION="cloud_controller")
    with pytest.raises(SettingError, match="scopes, roles or cloud_controller"):
        settings(AUTHORIZATION="everybody")
