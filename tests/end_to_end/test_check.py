"""`packtrail check` as an operator runs it, on what the service has made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.service import ROOT, Service

ROOT_IS_WEAK = ["user"] if os.geteuid() == 0 else []  # whoever runs the tests
HARDENED = {
    "PACKTRAIL_JWT_SECRET": "",
    "PACKTRAIL_AUTHORIZATION": "roles",
    "PACKTRAIL_APPS": "registered",
    "PACKTRAIL_MAX_REQUESTS_PER_MINUTE": "600",
    "PACKTRAIL_MAX_PACKAGE_SIZE": "1000000",
}


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that has made all its files, with a secret of its own, and was stopped."""
    made = Service(tmp_path_factory.mktemp("used"), {"PACKTRAIL_JWT_SECRET": ""})
    made.start()
    yield made
    made.stop()


def check(
    service: Service, *arguments: str, settings: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    environment = service.environment() | dict(settings or {})
    return subprocess.run(
        [sys.executable, "-m", "entrypoints", "check", *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_a_hardened_deployment_has_nothing_weak(used: Service) -> None:
    """It exits with 0, and the service need not be stopped for it."""
    done = check(used, "--json", settings=HARDENED)
    found = [(f["level"], f["setting"]) for f in json.loads(done.stdout)]
    assert [setting for level, setting in found if level == "weak"] == ROOT_IS_WEAK
    assert done.returncode == len(ROOT_IS_WEAK), done.stdout
    assert ("note", "PACKTRAIL_LISTEN") in found


def test_the_default_on_a_laptop_is_weak_in_one_thing(used: Service) -> None:
    """That a token is good for every app; what the service has made for itself is closed."""
    done = check(used, settings={"PACKTRAIL_MAX_PACKAGE_SIZE": "1000000"})
    weak = [line for line in done.stdout.splitlines() if line.startswith("weak  ")]
    assert [line.split()[1].rstrip(":") for line in weak] == [
        "PACKTRAIL_AUTHORIZATION", *ROOT_IS_WEAK,
    ]  # fmt: skip
    assert all(line.startswith(("weak  ", "note  ")) for line in done.stdout.splitlines())
    assert done.returncode == 1
    assert done.stderr.endswith(" notes\n")


def test_the_examples_settings_are_weak(used: Service, tmp_path: Path) -> None:
    """Whoever begins with docs/deploy/packtrail.env is told what to change."""
    lines = (ROOT / "docs/deploy/packtrail.env").read_text().splitlines()
    example = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    done = check(used, "--data-dir", str(tmp_path / "none"), settings=example)
    weak = {line.split()[1].rstrip(":") for line in done.stdout.splitlines() if line[:4] == "weak"}
    assert weak >= {
        "PACKTRAIL_JWT_SECRET", "PACKTRAIL_LISTEN", "PACKTRAIL_EVENT_STORE", "PACKTRAIL_BROKER",
        "AWS_SECRET_ACCESS_KEY",
    }  # fmt: skip
    assert not (tmp_path / "none").exists()
    assert "change-me@" not in done.stdout


def test_a_wrong_setting_is_told_as_always(used: Service) -> None:
    """With one line, and nothing else is looked at."""
    done = check(used, settings={"PACKTRAIL_AUTHORIZATION": "nobody"})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("packtrail: PACKTRAIL_AUTHORIZATION='nobody' is not")
