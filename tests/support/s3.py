"""A real HTTP server with the S3 API (moto's), on a free port; it forgets all when it ends."""

from __future__ import annotations

import subprocess
import sys

import httpx
import pytest

from adapters.object_store import Bucket
from tests.support.programs import free_port
from tests.support.waiting import eventually


class S3Server:
    def __init__(self) -> None:
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._buckets = 0

    @property
    def environment(self) -> dict[str, str]:
        """The usual variables, for whoever uses it."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
        }

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        eventually(self.is_up, within=30)

    def is_up(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/").status_code == 200
        except httpx.HTTPError:
            return False

    def bucket(self) -> Bucket:
        """A prefix in an empty bucket, opened."""
        return self.reopen(self.new_bucket())

    def reopen(self, url: str) -> Bucket:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment.items():
                patch.setenv(name, value)
            return Bucket(url)

    def new_bucket(self) -> str:
        """The URL of a prefix in an empty bucket."""
        self._buckets += 1
        url = f"s3://bucket-{self._buckets}/pack/trail"
        self.make_bucket(url)
        return url

    def make_bucket(self, url: str) -> None:
        name = url.split("/")[2]
        assert httpx.put(f"http://127.0.0.1:{self.port}/{name}").status_code == 200

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None
