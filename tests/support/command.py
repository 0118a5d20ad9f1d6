"""The `packtrail` command, run beside whatever else uses a data folder or a database."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support.service import ROOT


class Packtrail:
    """The command with settings: those of a data folder, and others."""

    def __init__(self, data_dir: Path, settings: Mapping[str, str] | None = None) -> None:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("PACKTRAIL_")}
        self.data_dir = data_dir
        self.environment = {**clean, "PACKTRAIL_DATA_DIR": str(data_dir), **(settings or {})}

    def run(self, *arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "entrypoints", *arguments],
            cwd=ROOT, env=self.environment, input=given, capture_output=True, timeout=120,
        )  # fmt: skip
        out, err = done.stdout.decode(), done.stderr.decode()
        assert "Traceback" not in err, err
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    def prints(self, *arguments: str, given: bytes = b"") -> str:
        """What it prints, where it succeeds."""
        done = self.run(*arguments, given=given)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refuses(self, *arguments: str, given: bytes = b"", code: int = 1) -> str:
        """The one line that it says, where it does not."""
        done = self.run(*arguments, given=given)
        assert (done.returncode, done.stdout) == (code, ""), done
        (line,) = done.stderr.splitlines()
        return line

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "entrypoints", *arguments],
            cwd=ROOT, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
