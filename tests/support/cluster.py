"""Several processes of one service, on real engines: each can be killed and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from tests.support.programs import free_port
from tests.support.service import ROOT, SECRET, bearer
from tests.support.waiting import eventually


class Cluster:
    """Processes by name: `api-1`, `worker-2` and so on; the name's beginning is the command."""

    def __init__(
        self,
        folder: Path,
        event_store: str,
        broker: str,
        settings: Mapping[str, str] | None = None,
        apart: bool = False,
    ) -> None:
        """`apart`: each process has a data folder of its own, as on different machines."""
        self._apart = apart
        self.folder = folder
        self.data_dir = folder / "data"
        self._settings = {
            "PACKTRAIL_DATA_DIR": str(self.data_dir),
            "PACKTRAIL_EVENT_STORE": event_store,
            "PACKTRAIL_BROKER": broker,
            "PACKTRAIL_JWT_SECRET": SECRET,
            "PACKTRAIL_KEPT_PACKAGES": "all",
            **(settings or {}),
        }
        self._ports: dict[str, int] = {}
        self._said: dict[str, str] = {}
        self._processes: dict[str, subprocess.Popen[str]] = {}

    def environment(self, name: str) -> dict[str, str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("PACKTRAIL_")}
        port = self.port(name)
        own = {"PACKTRAIL_DATA_DIR": str(self.folder / name)} if self._apart else {}
        return {**clean, **self._settings, **own, "PACKTRAIL_LISTEN": f"127.0.0.1:{port}"}

    def port(self, name: str) -> int:
        """Where a process listens, or will."""
        return self._ports.setdefault(name, free_port())

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self._ports[name]}"

    def pid(self, name: str) -> int:
        return self._processes[name].pid

    def start(self, *names: str, options: tuple[str, ...] = (), program: Path = ROOT) -> None:
        """Starts processes of the program in a folder, and waits until each says that it runs."""
        for name in names:
            with self.log(name).open("a") as log:
                self._processes[name] = subprocess.Popen(
                    [sys.executable, "-m", "entrypoints", name.partition("-")[0], *options],
                    cwd=program,
                    env=self.environment(name),
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                )
        for name in names:
            output = self._processes[name].stdout
            assert output is not None
            self._said[name] = output.readline()
            assert self.said(name), f"{name} did not start: {self.log(name).read_text()[-2000:]}"

    def said(self, name: str) -> str:
        """What a process has said at its start."""
        return self._said[name]

    def kill(self, name: str) -> None:
        """kill -9, and wait until it is dead."""
        self._end(name, signal.SIGKILL)

    def stop(self, name: str) -> int:
        """SIGTERM; the exit code."""
        return self._end(name, signal.SIGTERM)

    def _end(self, name: str, number: int) -> int:
        process = self._processes.pop(name)
        process.send_signal(number)
        code = process.wait(60)
        if process.stdout is not None:
            process.stdout.close()
        return code

    def run(self, *arguments: str) -> str:
        """Runs a command beside the processes; what it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "entrypoints", *arguments],
            cwd=ROOT, env=self.environment("command"), capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def client(self, name: str, timeout: float = 30) -> httpx.Client:
        return httpx.Client(base_url=self.url(name), headers=bearer(), timeout=timeout)

    def is_ready(self, name: str) -> bool:
        try:
            return httpx.get(f"{self.url(name)}/readyz", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def until_ready(self, *names: str) -> None:
        for name in names:
            eventually(lambda name=name: self.is_ready(name), within=60)  # type: ignore[misc]

    def staged_files(self) -> list[str]:
        return sorted(path.name for path in (self.data_dir / "staging").iterdir())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for name in list(self._processes):
            self.kill(name)
