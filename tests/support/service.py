"""A real `packtrail serve` process, and a client that speaks HTTP to it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from adapters.token_keys import Secret
from adapters.tokens import Scope, Tokens
from tests.support.waiting import eventually

SECRET = "a secret that is for tests alone, 32+ bytes"
TOKENS = Tokens(Secret(SECRET), "cloud_controller")
ROOT = Path(__file__).resolve().parents[2]


def token(
    user: str = "user-1",
    scopes: tuple[str, ...] = (Scope.READ, Scope.WRITE),
    expires_in: int = 3600,
) -> str:
    return TOKENS.sign(user, None, scopes, expires_in)


def bearer(text: str | None = None) -> dict[str, str]:
    return {"Authorization": f"bearer {text or token()}"}


class Service:
    """One process at a time on one data folder; it can be killed and started again.

    Its port is chosen by the system at the first start and kept.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, str] | None = None,
        prefix: tuple[str, ...] = (),
    ) -> None:
        self.data_dir = folder / "data"
        self.upload_dir = self.data_dir / "uploads"
        self.log = folder / "stderr.log"
        self._settings = dict(settings or {})
        self._prefix = prefix
        self._port = 0
        self._process: subprocess.Popen[str] | None = None
        self.said = ""  # at its start

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def port(self) -> int:
        return self._port

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def environment(self) -> dict[str, str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("PACKTRAIL_")}
        return clean | {
            "PACKTRAIL_DATA_DIR": str(self.data_dir),
            "PACKTRAIL_LISTEN": f"127.0.0.1:{self._port}",
            "PACKTRAIL_JWT_SECRET": SECRET,
            "PACKTRAIL_KEPT_PACKAGES": "all",
            **self._settings,
        }

    def start(self, program: Path = ROOT) -> Self:
        """Starts the program in a folder: this one, or what another version of it may be."""
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                [*self._prefix, sys.executable, "-m", "entrypoints", "serve"],
                cwd=program,
                env=self.environment(),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        first = self._process.stdout.readline()
        self.said += first
        found = re.search(r"http://127\.0\.0\.1:(\d+)", first)
        if found is None:
            self.kill()
            raise AssertionError(f"the service did not start: {self.log.read_text()[-4000:]}")
        self._port = int(found[1])
        return self

    def kill(self) -> None:
        """kill -9, and wait until it is dead."""
        self._end(signal.SIGKILL)

    def stop(self, within: float = 40.0) -> int:
        """SIGTERM; the exit code."""
        return self._end(signal.SIGTERM, within)

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, within: float = 40.0) -> int:
        assert self._process is not None
        code = self._process.wait(within)
        self._release()
        return code

    def _end(self, number: int, within: float = 40.0) -> int:
        if self._process is None:
            return 0
        self._process.send_signal(number)
        return self.wait(within)

    def _release(self) -> None:
        if self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()
        self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self.kill()

    def client(self, **options: Any) -> Client:
        return Client(self, **options)

    def staged_files(self) -> list[str]:
        return sorted(path.name for path in (self.data_dir / "staging").iterdir())

    def blobs(self) -> list[Path]:
        return sorted(p for p in (self.data_dir / "blobs").rglob("*") if p.is_file())


class Client:
    """What a user does, in one call each."""

    def __init__(self, service: Service, **options: Any) -> None:
        self._service = service
        self.http = httpx.Client(
            base_url=service.url, headers=bearer(options.pop("token", None)), timeout=30, **options
        )
        self.lock = threading.Lock()

    def create(self, app: str = "app-1") -> str:
        response = self.http.post(f"/v3/apps/{app}/packages", json={"type": "bits"})
        assert response.status_code == 201, response.text
        guid: str = response.json()["guid"]
        return guid

    def upload(self, guid: str, bits: bytes, name: str = "app.zip") -> httpx.Response:
        return self.http.post(f"/v3/packages/{guid}/upload", files={"bits": (name, bits)})

    def show(self, guid: str) -> dict[str, Any]:
        response = self.http.get(f"/v3/packages/{guid}")
        assert response.status_code == 200, response.text
        package: dict[str, Any] = response.json()
        return package

    def settled(self, guid: str, within: float = 30.0) -> dict[str, Any]:
        """The package once it is READY or FAILED."""
        package: dict[str, Any] = {}

        def is_settled() -> bool:
            package.update(self.show(guid))
            return package["state"] in ("READY", "FAILED")

        eventually(is_settled, within)
        return package

    def push(self, bits: bytes, app: str = "app-1") -> dict[str, Any]:
        """Creates a package, uploads to it, and waits until it is settled."""
        guid = self.create(app)
        response = self.upload(guid, bits)
        assert response.status_code == 200, response.text
        return self.settled(guid)

    def close(self) -> None:
        self.http.close()
