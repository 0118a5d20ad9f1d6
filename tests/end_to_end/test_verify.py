"""`packtrail verify` and `packtrail checkpoint`, beside a service that goes on working."""

from __future__ import annotations

import contextlib
import os
import pty
import sqlite3
import subprocess
import sys
import termios
import threading
from pathlib import Path

import pytest

from adapters.store import open_sqlite
from tests.support.proof import desk_of
from tests.support.service import ROOT, Service
from tests.support.zips import random_zip


def packtrail(service: Service, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "entrypoints", *arguments],
        cwd=ROOT, env=service.environment(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip


@pytest.mark.slow
def test_everything_is_verified_beside_a_busy_service(own_service: Service, tmp_path: Path) -> None:
    """While packages come and go nothing is wrong; what somebody breaks then is named."""
    kept = tmp_path / "checkpoints.jsonl"
    with own_service as service:
        client = service.client()
        packages = [client.push(random_zip(3000, seed)) for seed in range(5)]
        kept.write_text(packtrail(service, "checkpoint").stdout)
        done = threading.Event()

        def keep_busy() -> None:
            busy = service.client()
            while not done.is_set():
                guid = busy.push(random_zip(500))["guid"]
                busy.http.delete(f"/v3/packages/{guid}")

        thread = threading.Thread(target=keep_busy)
        thread.start()
        everything = ("verify", "--bits", "--read-models", "--checkpoint", str(kept))
        try:
            runs = [packtrail(service, *everything) for _ in range(3)]
        finally:
            done.set()
            thread.join()
        assert [(run.returncode, run.stdout) for run in runs] == [(0, "")] * 3, runs
        broken = packages[2]["guid"]
        (blob,) = [path for path in service.blobs() if path.name == broken]
        blob.unlink()
        with contextlib.closing(
            sqlite3.connect(service.data_dir / "packtrail.db", isolation_level=None)
        ) as connection:
            connection.execute("UPDATE events SET hash = zeroblob(32) WHERE rowid = 3")
        found = packtrail(service, *everything)
        assert found.returncode == 1
        first, second = found.stdout.splitlines()
        assert first.startswith("chain: position 3, event ")
        assert second.startswith(f"bits: package:{broken}") and "not there" in second
        assert client.http.get("/readyz").status_code == 200


@pytest.mark.slow
def test_progress_is_shown_on_a_terminal_alone(own_service: Service) -> None:
    """Where stderr is a file it has no bars."""
    own_service.data_dir.mkdir()
    with contextlib.closing(open_sqlite(own_service.data_dir / "packtrail.db")) as store:
        store.migrate()
        desk_of(store, own_service.data_dir).fill(2)
    assert "chain" not in packtrail(own_service, "verify").stderr
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    done = subprocess.run(
        [sys.executable, "-m", "entrypoints", "verify"],
        cwd=ROOT, env=own_service.environment(), stdout=subprocess.PIPE, stderr=theirs, timeout=60,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # the end, on Linux
        while piece := os.read(ours, 65536):
            shown += piece
    os.close(ours)
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"chain: 100%" in shown and b"8.00/8.00" in shown
