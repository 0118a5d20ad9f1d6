"""A real PostgreSQL server, on a free port in a temporary folder."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import psycopg

from tests.support.programs import Missing, account, free_port
from tests.support.waiting import eventually

HOW = "make services installs PostgreSQL (Debian's package postgresql)"


def _programs() -> Path:
    """The folder of the newest installed version's programs."""
    found = [*Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if found:
        return max(found, key=lambda path: int(path.parent.parent.name)).parent
    on_path = shutil.which("initdb")
    if on_path is None:
        raise Missing(HOW)
    return Path(on_path).resolve().parent


class PostgresServer:
    """Started once, killed and started again as a test likes; its port stays."""

    def __init__(self, durable: bool = False) -> None:
        """Not `durable`, it waits for no disk: the machine itself does not die in tests."""
        self._fsync = "on" if durable else "off"
        self._programs = _programs()
        self._account: dict[str, Any] = account("postgres")
        self.folder = Path(tempfile.mkdtemp(prefix="packtrail-postgres-"))
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        if self._account:
            shutil.chown(self.folder, self._account["user"])
        subprocess.run(
            [
                self._programs / "initdb", "--pgdata", self.folder / "data", "--username=packtrail",
                "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync",
            ],
            check=True, stdout=subprocess.DEVNULL, cwd="/", **self._account,
        )  # fmt: skip

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://packtrail@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """The URL of an empty database."""
        self._databases += 1
        name = f"test_{self._databases}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._programs / "postgres", "-D", self.folder / "data", "-h", "127.0.0.1",
                    "-p", str(self.port), "-k", "", "-c", "max_connections=200",
                    "-c", f"fsync={self._fsync}",
                ],
                stdout=log, stderr=log, cwd="/", process_group=0, **self._account,
            )  # fmt: skip
        eventually(self.is_up, within=30)

    def is_up(self) -> bool:
        try:
            psycopg.connect(self.url(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def kill(self) -> None:
        """kill -9 of the server with all its processes."""
        self._signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait(30)
        self._process = None

    def pause(self) -> None:
        """It hangs: connections stay, new ones are made, and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        if self._process is not None:
            self._signal(signal.SIGCONT)
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(30)
            self._process = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        # its backends have process groups of their own
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        for pid in [self._process.pid, *map(int, children.split())]:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
