"""What our figures stand beside: other servers, started here on loopback, and plain programs.

A peer that is not installed is missing, said loudly, and the benchmark goes on without it;
`make bench-peers` installs all of them.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar, TypeVar

from tests.support.programs import Missing, free_port
from tests.support.service import ROOT
from tests.support.waiting import eventually

_CONFIGS = Path(__file__).with_name("peer_configs")
_WITHIN = 20.0  # seconds in which a peer answers, and ends


def program(name: str) -> str:
    """Where a program is. Raises `Missing`."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise Missing(f"{name} is not installed: make bench-peers installs it")
    return found


class Peer(ABC):
    """A server in a process of its own, on a free port, that keeps everything in one folder."""

    name: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        """Raises `Missing`."""
        self.folder = folder / type(self).__name__.lower()
        self.version = self.tell_version()
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def tell_version(self) -> str:
        """Raises `Missing`."""

    @abstractmethod
    def command(self) -> Sequence[str]:
        """What starts it in the foreground, with its folder made."""

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        self.folder.mkdir()
        log = self.folder / "log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(self.command(), cwd=ROOT, stdout=output, stderr=output)
        try:
            eventually(self._answers, _WITHIN, every=0.02)
        except AssertionError as error:
            self.stop()
            raise AssertionError(f"{self.name} does not answer: {log.read_text()}") from error

    def stop(self) -> None:
        """SIGTERM, and SIGKILL to what does not end by it."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    @abstractmethod
    def clear(self) -> None:
        """Removes what was stored, while it runs and nobody asks for it."""

    def _answers(self) -> bool:
        assert self._process is not None and self._process.poll() is None, "it has ended"
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def _configured(self, file: str, **values: str) -> Path:
        """Its committed configuration with this run's values, its folder and its port."""
        text = (_CONFIGS / file).read_text()
        for name, value in {"folder": self.folder, "port": self.port, **values}.items():
            text = text.replace(f"@{name}@", str(value))
        path = self.folder / file
        path.write_text(text)
        return path


P = TypeVar("P", bound=Peer)


class Nginx(Peer):
    """Takes PUT of any path, and serves what was put."""

    name = "nginx"
    buffer = "512k"

    def tell_version(self) -> str:
        return _first_number(program("nginx"), "-v")

    def command(self) -> Sequence[str]:
        self.files.mkdir()
        user = pwd.getpwuid(os.geteuid()).pw_name
        config = self._configured("nginx.conf", buffer=self.buffer, user=user)
        return [program("nginx"), "-e", "stderr", "-c", str(config)]

    @property
    def files(self) -> Path:
        return self.folder / "files"

    def clear(self) -> None:
        for file in self.files.iterdir():
            file.unlink()


class NginxAsItComes(Nginx):
    """With the size of buffer that nginx has where nobody sets it."""

    name = "nginx (16k buffer)"
    buffer = "16k"


class Registry(Peer):
    """Docker's registry: takes blobs, checks their digest, syncs the file, and serves them."""

    name = "docker-registry"

    def tell_version(self) -> str:
        return _first_number(program("docker-registry"), "--version")

    def command(self) -> Sequence[str]:
        return [program("docker-registry"), "serve", str(self._configured("registry.yml"))]

    def clear(self) -> None:
        shutil.rmtree(self.folder / "registry")


class Hello(Peer):
    """The least that Falcon and waitress can do: the limit for small requests."""

    name = "falcon+waitress"

    def tell_version(self) -> str:
        return f"{version('falcon')}+{version('waitress')}"

    def command(self) -> Sequence[str]:
        return [sys.executable, "-m", "benchmarks.hello", str(self.port)]

    def clear(self) -> None:
        pass  # it stores nothing


class HelloOnOneCore(Hello):
    """On one core, as ours is: what that alone gives."""

    name = "falcon+waitress on one core"

    def command(self) -> Sequence[str]:
        return [*super().command(), "one"]


@dataclass(frozen=True)
class Peers:
    """Those that run, and the names of those that are not installed."""

    running: Sequence[Peer]
    missing: Sequence[str]

    def of(self, kind: type[P]) -> P | None:
        return next((peer for peer in self.running if type(peer) is kind), None)

    @property
    def versions(self) -> dict[str, str]:
        return {peer.name: peer.version for peer in self.running}


@contextmanager
def started(folder: Path, *kinds: type[Peer]) -> Iterator[Peers]:
    """The peers that are installed, running; who is missing is said on stderr."""
    running: list[Peer] = []
    missing = []
    with ExitStack() as stack:
        for kind in kinds:
            try:
                peer = kind(folder)
            except Missing as reason:
                tell_missing(kind.name, reason)
                missing.append(kind.name)
                continue
            stack.callback(peer.stop)
            peer.start()
            running.append(peer)
        yield Peers(running, missing)


def tell_missing(name: str, reason: Missing) -> None:
    """Says that a peer's figures will not be there."""
    print(f"!!! NO FIGURES OF {name}: {reason}", file=sys.stderr)


def openssl_sha256(path: Path) -> float:
    """Seconds in which `openssl dgst -sha256` hashes a file. Raises `Missing`."""
    return _seconds(program("openssl"), "dgst", "-sha256", str(path))


def copy_and_sync(source: Path, target: Path) -> float:
    """Seconds in which `cp` and `sync` make a copy of a file that is on the disk."""
    seconds = _seconds("cp", "--reflink=never", str(source), str(target))
    seconds += _seconds("sync", str(target))
    target.unlink()
    return seconds


def _seconds(*command: str) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def openssl_version() -> str:
    """Raises `Missing`."""
    return _first_number(program("openssl"), "version")


def _first_number(*command: str) -> str:
    """The version in what a program says of itself."""
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = re.search(r"\d+\.\d+[^\s]*", done.stdout + done.stderr)
    assert found is not None, f"{command} tells no version: {done.stdout}{done.stderr}"
    return found[0]
