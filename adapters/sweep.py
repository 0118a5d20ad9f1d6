"""Removes what no package or droplet names.

It was left by crashes, between a write and the event that it was for.

What is looked at is found with read models that have all of the log as it was after the files
were listed; what is removed, the log itself does not name: a read model may be wrong. Files
younger than the grace period may belong to requests that are still running.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from adapters.staging.local import guid_in
from adapters.store import Services
from domain.directory import App
from domain.droplet import Droplet
from domain.errors import DropletNotFound, PackageNotFound
from domain.package import Package
from domain.ports import EventLog
from domain.processing import blob_key, droplet_of_blob, guid_of_blob
from projections.droplets import DropletReadModel
from projections.packages import PackageReadModel
from projections.progress import Progress
from projections.unfinished import WorkReadModel

logger = logging.getLogger("packtrail.sweep")

MAX_INTERVAL = 600.0  # seconds between sweeps
CATCH_UP = 60.0  # seconds that a sweep waits for the read models
BATCH = 1000


class SweptStaging(Protocol):
    def names(self, older_than: float) -> Iterator[str]: ...

    def name_of(self, uri: str) -> str: ...

    def remove(self, name: str) -> None: ...


class SweptBlobs(Protocol):
    def keys(self, older_than: float) -> Iterator[str]: ...

    def clear_incoming(self, older_than: float) -> None: ...

    def delete(self, key: str) -> None: ...


class Sweep:
    def __init__(
        self,
        staging: SweptStaging,
        blobs: SweptBlobs,
        packages: PackageReadModel,
        droplets: DropletReadModel,
        work: WorkReadModel,
        progress: Progress,
        log: EventLog,
        services: Services,
        grace: float,
        alone: bool,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`grace`: seconds that a file without an owner is left alone.

        `alone`: no process but this one puts files there, so that what is there at the
        start, and is nobody's, was left by one that died.
        """
        self._staging = staging
        self._blobs = blobs
        self._packages = packages
        self._droplets = droplets
        self._work = work
        self._progress = progress
        self._log = log
        self._services = services
        self._grace = grace
        self._alone = alone
        self._clock = clock
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweep", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float | None = None) -> bool:
        """Whether the thread has ended within `timeout` seconds."""
        self._stopping.set()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def sweep_staging(self, grace: float | None = None) -> int:
        """Removes staged files, older than `grace` seconds and unnamed; how many that were.

        With `grace` 0 only while nothing is received or stored.
        """
        before = self._clock() - (self._grace if grace is None else grace)
        names = list(self._staging.names(before))
        self._blobs.clear_incoming(before)
        if not self._level():
            return 0
        named = {self._staging.name_of(uri) for uri in self._work.staged_uris()}
        unnamed = [name for name in names if name not in named and not self._log_names_staged(name)]
        for name in unnamed:
            self._staging.remove(name)
            logger.info("swept", extra={"staged": name})
        return len(unnamed)

    def sweep_blobs(self, grace: float | None = None) -> int:
        """Removes blobs, older than `grace` seconds and unnamed; how many that were."""
        keys = list(self._blobs.keys(self._clock() - (self._grace if grace is None else grace)))
        if not self._level():
            return 0
        being_made = {blob_key(guid) for guid in self._work.guids()}
        waiting = {droplet.guid for droplet in self._droplets.waiting()}
        count = 0
        for start in range(0, len(keys), BATCH):
            some = keys[start : start + BATCH]
            named = self._packages.blobs_named(some) | self._droplets.blobs_named(some)
            named |= being_made
            for key in some:
                if key in named or droplet_of_blob(key) in waiting:
                    continue
                if not self._log_names_blob(key):
                    self._blobs.delete(key)
                    count += 1
                    logger.info("swept", extra={"blob": key})
        return count

    def sweep_environments(self, grace: float | None = None) -> int:
        """Removes environments that no droplet or app has, older than `grace` seconds; how many."""
        environments = self._services.environments
        before = self._clock() - (self._grace if grace is None else grace)
        owners = environments.owners(Droplet.ID_PREFIX, before)
        if not self._level():
            return 0
        named = self._droplets.guids(owner.removeprefix(Droplet.ID_PREFIX) for owner in owners)
        count = 0
        for owner in environments.owners(App.ID_PREFIX, before):
            guid = owner.removeprefix(App.ID_PREFIX)
            if self._services.directory.deletion_of(App, guid) is not None:
                environments.forget(owner)
                count += 1
        for owner in owners:
            guid = owner.removeprefix(Droplet.ID_PREFIX)
            droplet = None if guid in named else self._load_droplet(guid)
            if guid not in named and (droplet is None or droplet.deleted):
                environments.forget(owner)
                count += 1
        return count

    def _log_names_staged(self, name: str) -> bool:
        package = self._load(guid_in(name))
        return (
            package is not None
            and package.staged is not None
            and package.needs_staged_bits
            and self._staging.name_of(package.staged.uri) == name
            and self._warn(name)
        )

    def _log_names_blob(self, key: str) -> bool:
        package = self._load(guid_of_blob(key))
        droplet = self._load_droplet(droplet_of_blob(key))
        needed = (package is not None and package.needs_blob) or (
            droplet is not None
            and droplet.needs_blob
            and (droplet.stored is None or droplet.stored.key == key)
        )
        return needed and self._warn(key)

    def _load(self, guid: str | None) -> Package | None:
        if guid is None:
            return None
        try:
            return self._services.packages.load(guid)
        except PackageNotFound:
            return None

    def _load_droplet(self, guid: str | None) -> Droplet | None:
        if guid is None:
            return None
        try:
            return self._services.droplets.load(guid)
        except DropletNotFound:
            return None

    @staticmethod
    def _warn(what: str) -> bool:
        logger.error("%s is named by the log, and by no read model: replay them", what)
        return True

    def _level(self) -> bool:
        """Waits until the read models have all that the log has now."""
        head, deadline = self._log.head(), time.monotonic() + CATCH_UP
        level = self._progress.wait_for(head, min(1.0, CATCH_UP))
        while not level and not self._stopping.is_set() and time.monotonic() < deadline:
            level = self._progress.wait_for(head, 1.0)
        if not level:
            logger.warning("not swept: the read models are behind the log")
        return level

    def _run(self) -> None:
        # a blob is named by the log before it is made: see `sweep_blobs`
        grace = 0.0 if self._alone else self._grace
        while not self._stopping.is_set():
            try:
                self.sweep_blobs(grace)
                self.sweep_staging()
                self.sweep_environments()
                grace = self._grace
            except Exception:
                logger.exception("not swept")
            self._stopping.wait(min(MAX_INTERVAL, max(1.0, self._grace / 4)))
