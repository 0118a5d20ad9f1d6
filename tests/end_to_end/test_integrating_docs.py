"""The programs in docs/integrating.md, run as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.postgres import PostgresServer
from tests.support.rabbit import RabbitServer
from tests.support.service import ROOT, token
from tests.support.waiting import eventually
from tests.support.zips import random_zip, sha256

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs" / "integrating.md").read_text()
KOMBU, PIKA, COMMANDS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
MOST_LINES = 20


@pytest.fixture
def cluster(tmp_path: Path, postgres: PostgresServer, rabbit: RabbitServer) -> Iterator[Cluster]:
    rabbit.forget_queues()
    with Cluster(tmp_path, postgres.new_database(), rabbit.url) as cluster:
        cluster.start("api-1", "worker-1", "relay-1", "projector-1")
        cluster.until_ready("api-1")
        yield cluster


def environment(rabbit: RabbitServer, **more: str) -> dict[str, str]:
    """What a program of somebody else has: nothing of ours can be imported in its folder."""
    return {"PATH": os.environ["PATH"], "BROKER": rabbit.url.rstrip("/") + "/%2F", **more}


@contextmanager
def running(program: str, folder: Path, variables: dict[str, str]) -> Iterator[Path]:
    """The program; what it prints is in the file."""
    folder.mkdir()
    printed = folder / "printed"
    with printed.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", program], cwd=folder, env=variables, stdout=out, stderr=out
        )
    try:
        yield printed
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("program", [KOMBU, PIKA], ids=["kombu", "pika"])
def test_a_consumer_takes_some_twenty_lines(program: str) -> None:
    """Without importing anything of ours."""
    lines = [line for line in program.splitlines() if line.strip()]
    assert len(lines) <= MOST_LINES
    imported = re.findall(r"^import (\w+)$", program, re.MULTILINE)
    assert set(imported) <= {"json", "os", "kombu", "pika"}


def test_the_programs_do_what_the_page_says(
    cluster: Cluster, rabbit: RabbitServer, tmp_path: Path
) -> None:
    """Two follow along, while a third creates and uploads a package by command."""
    bits = random_zip(5000)
    uploaded = cluster.data_dir / "uploads" / "theirs.zip"
    uploaded.write_bytes(bits)
    with ExitStack() as stack:
        scanner = stack.enter_context(running(KOMBU, tmp_path / "kombu", environment(rabbit)))
        audit = stack.enter_context(running(PIKA, tmp_path / "pika", environment(rabbit)))
        eventually(lambda: rabbit.is_consumed("my-scanner") and rabbit.is_consumed("my-audit"))
        (tmp_path / "commands").mkdir()
        pushed = subprocess.run(
            [sys.executable, "-c", COMMANDS],
            cwd=tmp_path / "commands",
            env=environment(rabbit, TOKEN=token(), BITS=str(uploaded)),
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert pushed.returncode == 0, pushed.stderr
        guid = pushed.stdout.strip()
        eventually(lambda: f"scan {guid} {sha256(bits)}" in scanner.read_text())
        eventually(lambda: f"package.hash_computed {guid} user-1" in audit.read_text())
        heard = [line.split()[1] for line in audit.read_text().splitlines() if guid in line]
    assert heard == [
        "package.created", "package.upload_started", "package.bits_stored",
        "package.hash_computed",
    ]  # fmt: skip
    assert not uploaded.exists()
    with cluster.client("api-1") as client:
        assert client.get(f"/v3/packages/{guid}").json()["state"] == "READY"


def test_a_command_that_is_refused_says_why(
    cluster: Cluster, rabbit: RabbitServer, tmp_path: Path
) -> None:
    """The program of the page shows the reason."""
    pushed = subprocess.run(
        [sys.executable, "-c", COMMANDS],
        cwd=tmp_path,
        env=environment(rabbit, TOKEN=token(), BITS="/nowhere.zip"),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert pushed.returncode == 1
    assert pushed.stderr.strip() == ("The request is semantically invalid: Bits path is invalid")
