"""A real RabbitMQ server, on free ports in a temporary folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import amqp
import kombu

from adapters.bus.bus import BINDINGS
from adapters.bus.rabbit import DELAYS, PARKED_QUEUE, delay_queue
from tests.support.programs import Missing, account, free_port
from tests.support.waiting import eventually

HOW = "make services installs RabbitMQ (Debian's package rabbitmq-server)"
START_UP = 60.0  # seconds


class RabbitServer:
    """Started once, killed and started again as a test likes; its ports stay."""

    def __init__(self) -> None:
        program = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
        if not program.exists():
            on_path = shutil.which("rabbitmq-server")
            if on_path is None:
                raise Missing(HOW)
            program = Path(on_path)
        self._program = program
        self._account: dict[str, Any] = account("rabbitmq")
        self.folder = Path(tempfile.mkdtemp(prefix="packtrail-rabbit-"))
        if self._account:
            shutil.chown(self.folder, self._account["user"])
        self.port = free_port()
        self._ports = {"RABBITMQ_DIST_PORT": free_port(), "ERL_EPMD_PORT": free_port()}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "RABBITMQ_NODENAME": f"packtrail-{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            **{name: str(port) for name, port in self._ports.items()},
        }

    def start(self) -> None:
        with (self.folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [self._program], env=self._environment(), cwd=self.folder,
                stdout=output, stderr=output, start_new_session=True, **self._account,
            )  # fmt: skip
        eventually(self.is_up, within=START_UP, every=0.1)

    def is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "output").read_text()[-2000:]
        try:
            with kombu.Connection(self.url, connect_timeout=2) as connection:
                connection.connect()
        except OSError:
            return False
        return True

    def url_with_a_password(self, user: str, password: str) -> str:
        """A URL for a new user who may do everything."""
        name, by = f'<<"{user}">>', '<<"tests">>'
        everything = ", ".join(['<<".*">>'] * 3)
        subprocess.run(
            [
                self._program.with_name("rabbitmqctl"), "eval",
                f'rabbit_auth_backend_internal:add_user({name}, <<"{password}">>, {by}), '
                f'rabbit_auth_backend_internal:set_permissions({name}, <<"/">>, {everything}, '
                f"{by}).",
            ],
            env=self._environment(), cwd=self.folder, check=True, stdout=subprocess.DEVNULL,
            timeout=60, **self._account,
        )  # fmt: skip
        return f"amqp://{user}:{password}@127.0.0.1:{self.port}//"

    def forget_queues(self) -> None:
        """Removes the queues that earlier tests have used."""
        with kombu.Connection(self.url) as connection:
            channel = connection.channel()
            for name in [*BINDINGS, PARKED_QUEUE.name, *(delay_queue(d).name for d in DELAYS)]:
                channel.queue_delete(name)

    def is_consumed(self, queue: str) -> bool:
        """Whether the queue is there, and somebody takes its messages."""
        try:
            with kombu.Connection(self.url) as connection:
                found = connection.channel().queue_declare(queue, passive=True)
        except amqp.NotFound:
            return False
        return int(found.consumer_count) > 0

    def kill(self) -> None:
        """kill -9 of the server with all its processes, but for epmd, which stays."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(30)
        self._process = None

    def stop(self) -> None:
        if self._process is not None:
            self.kill()
        for stray in self._of_this_server():
            with contextlib.suppress(ProcessLookupError):  # it may have ended by itself
                os.kill(stray, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _of_this_server(self) -> list[int]:
        """epmd, which makes itself a daemon: known by the port that only this server has."""
        wanted = f"ERL_EPMD_PORT={self._ports['ERL_EPMD_PORT']}".encode()
        found = []
        for folder in Path("/proc").iterdir():
            try:
                if folder.name.isdigit() and wanted in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue
        return found
