"""`packtrail api --workers N`: several processes on one port, started again where they die.

The parent listens and does nothing else; each child accepts from the same socket.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from types import FrameType

from entrypoints.setting_values import Listen, SettingError

logger = logging.getLogger("packtrail.api")

RESTART = 1.0  # seconds until a child that died is started again
BACKLOG = 1024


def listen_on(address: Listen) -> socket.socket:
    """Raises `SettingError` if the address can't be listened on."""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(where)
    except OSError as error:
        raise SettingError(
            "LISTEN", str(address), f"an address that can be listened on: {error}"
        ) from error
    listening.listen(BACKLOG)
    listening.setblocking(False)
    return listening


def stop_with_parent() -> None:
    """Ends this child, as SIGTERM does, when its parent has died."""

    def wait() -> None:
        while os.read(0, 1):
            continue
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="parent", daemon=True).start()


def run_children(listening: socket.socket, count: int, arguments: Sequence[str]) -> int:
    """Runs `packtrail` with the arguments, `count` times, until a signal; the exit code.

    The children get the socket's descriptor as the last argument.
    """
    stopping = threading.Event()
    children: list[subprocess.Popen[bytes]] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if stopping.is_set():
            for child in children:
                child.kill()
            os._exit(1)
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    command = [sys.executable, "-m", "entrypoints", *arguments, str(listening.fileno())]

    def start() -> subprocess.Popen[bytes]:
        # a group of its own: Ctrl-C reaches it through us, once
        return subprocess.Popen(  # noqa: S603 - our own program
            command,
            pass_fds=[listening.fileno()],
            stdin=subprocess.PIPE,  # which ends when we do
            stdout=subprocess.PIPE,
            process_group=0,
            env=environment,
        )

    counters = tempfile.mkdtemp(prefix="packtrail-metrics-")  # the children count together
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": counters}
    children += [start() for _ in range(count)]
    for child in children:
        assert child.stdout is not None
        if not child.stdout.readline():  # it says that it listens, or why not, and ends
            stopping.set()
    if not stopping.is_set():
        host, port = listening.getsockname()[:2]
        print(f"Packtrail listens on http://{host}:{port} with {count} processes", flush=True)
    while not stopping.wait(RESTART):
        for number, child in enumerate(children):
            if child.poll() is not None:
                logger.error("a process ended with %d and is started again", child.returncode)
                children[number] = start()
    listening.close()
    for child in children:
        child.terminate()
    codes = [child.wait() for child in children]
    shutil.rmtree(counters, ignore_errors=True)
    # one that had just been started may not have been able to stop in another way yet
    return max(0 if code == -signal.SIGTERM else abs(code) for code in codes)
