"""Dead letters, from the command line: looked at, resumed, dropped, beside a running service."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.service import ROOT, Client, Service
from tests.support.waiting import eventually
from tests.support.zips import random_zip, sha1

BITS = random_zip(20_000)


def dead(service: Service, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "entrypoints", "dead", *arguments],
        cwd=ROOT, env=service.environment(), capture_output=True, text=True, timeout=30,
    )  # fmt: skip


@pytest.fixture
def defect(own_service: Service, tmp_path: Path) -> Iterator[tuple[Service, str, Path]]:
    """A package whose staged bits somebody has taken away: they are kept in the file returned."""
    with own_service as service:
        client = service.client()
        guid = client.create()
        blobs = service.data_dir / "blobs"
        blobs.rename(service.data_dir / "away")
        assert client.upload(guid, BITS).status_code == 200
        (name,) = service.staged_files()
        kept = tmp_path / name
        (service.data_dir / "staging" / name).rename(kept)
        (service.data_dir / "away").rename(blobs)
        eventually(lambda: client.show(guid)["state"] == "FAILED", within=30)
        yield service, guid, kept


@pytest.mark.slow
def test_a_dead_letter_is_listed_shown_and_resumed(defect: tuple[Service, str, Path]) -> None:
    """Once what was wrong is mended the package becomes READY; it is a dead letter no more."""
    service, guid, kept = defect
    client: Client = service.client()
    assert "its bits are kept" in client.show(guid)["error"]
    listed = dead(service, "list")
    assert listed.stdout.startswith(guid) and "StagedBitsMissing" in listed.stdout
    shown = dead(service, "show", guid)
    assert "request_id" in shown.stdout and "storage" in shown.stdout
    kept.rename(service.data_dir / "staging" / kept.name)
    resumed = dead(service, "resume", guid, "--as", "operator-7")
    assert resumed.stdout.startswith(f"resumed {guid}"), resumed.stderr
    assert eventually(lambda: client.settled(guid)["state"] == "READY")
    assert client.show(guid)["hash"]["value"] == sha1(BITS)
    assert dead(service, "list").stdout == ""


@pytest.mark.slow
def test_a_dead_letter_is_dropped(defect: tuple[Service, str, Path]) -> None:
    """The package is gone, and what is no dead letter is refused, with exit code 1."""
    service, guid, _ = defect
    client = service.client()
    assert dead(service, "drop", guid).stdout.startswith(f"dropped {guid}")
    eventually(lambda: client.http.get(f"/v3/packages/{guid}").status_code == 404)
    again = dead(service, "drop", guid)
    assert (again.returncode, again.stdout) == (1, "")
    assert "is no dead letter" in again.stderr
    assert dead(service, "list").stdout == ""
