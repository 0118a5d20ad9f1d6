"""Where the builder puts droplets: in the upload directory, or behind `uploads/` of the bucket."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from adapters.bits import sync_folder
from adapters.object_store import PART, Bucket
from adapters.staging.s3 import UPLOADS, attributes_of

PREFIX = "droplet-"
STALE = 86_400.0  # seconds until a droplet that nobody took is removed


class FolderDelivery:
    """A `Delivery` (see `adapters.builder`) by way of a folder that the service shares."""

    def __init__(self, upload_dir: Path) -> None:
        self._folder = upload_dir

    def deliver(self, guid: str, droplet: Path) -> dict[str, str]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._remove_stale()
        target = self._folder / f"{PREFIX}{guid}.tgz"
        arriving = self._folder / f"{PREFIX}{guid}.{os.getpid()}.part"
        try:
            shutil.move(droplet, arriving)
            arriving.rename(target)
        finally:
            arriving.unlink(missing_ok=True)
        sync_folder(self._folder)
        return {"bits_path": str(target.resolve())}

    def withdraw(self, guid: str) -> None:
        (self._folder / f"{PREFIX}{guid}.tgz").unlink(missing_ok=True)

    def _remove_stale(self) -> None:
        before = time.time() - STALE
        for path in self._folder.glob(f"{PREFIX}*"):
            if path.is_file() and path.stat().st_mtime < before:
                path.unlink(missing_ok=True)


class BucketDelivery:
    """A `Delivery` (see `adapters.builder`) by way of the service's bucket."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def deliver(self, guid: str, droplet: Path) -> dict[str, str]:
        name = f"{PREFIX}{guid}.tgz"
        key = f"{UPLOADS}/{name}"
        self._bucket.put(key, _pieces(droplet), attributes_of(f"{guid}.tgz"))
        self._remove_stale()
        return {"bits_url": self._bucket.url_of(key)}

    def withdraw(self, guid: str) -> None:
        self._bucket.delete(f"{UPLOADS}/{PREFIX}{guid}.tgz")

    def _remove_stale(self) -> None:
        for name in self._bucket.list(UPLOADS, time.time() - STALE):
            if name.startswith(PREFIX):
                self._bucket.delete(f"{UPLOADS}/{name}")


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(PART):
            yield piece
