"""Policies: they read events, and issue the commands that follow from them.

An app that was deleted takes its packages and droplets along; of what an app has, the
newest stay; and a droplet that no builder has made in time is given up. What is to be done
is decided on what the read models say now, so that an event that comes again (after a
crash, or a restored log) leads to nothing that was done already. A refusal says so, too.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import uuid4

from adapters.follower import Follower, KeptPosition
from adapters.store import Services
from domain.aggregate import Cause, RecordedEvent
from domain.directory import App, Organization, Space
from domain.droplet import Droplet
from domain.errors import Refusal
from domain.package import Package
from domain.ports import EventLog, LoggedEvent
from projections.directory import DirectoryReadModel
from projections.droplets import DropletReadModel
from projections.packages import PackageReadModel
from projections.progress import Progress

logger = logging.getLogger("packtrail.policies")

RETENTION = "packtrail.retention"  # who is said to have done it
STAGING_TIMEOUT = "packtrail.staging_timeout"
CATCH_UP = 2.0  # seconds that the read models have to reach what is handled
LOOK = 2.0  # seconds between looks for droplets whose time is up


_DECIDED_BY_READ_MODELS = (
    App.Deleted,
    App.CurrentDropletAssigned,
    Space.Deleted,
    Organization.Deleted,
    Package.HashComputed,
    Package.ProcessingFailed,
    Package.Deleted,
    Droplet.Staged,
    Droplet.StagingFailed,
    Droplet.Deleted,
)


class NotLevel(Exception):
    """The read models are behind the events that are to be handled."""


@dataclass(frozen=True)
class PolicyRules:
    """How much stays of what an app has, None for all; and how long builders have, in seconds."""

    packages: int | None = 5
    droplets: int | None = 5
    staging_timeout: float = 900.0


class Policies(Follower):
    """Follows the log on a thread."""

    gathers = 0.05  # while much is going on, it is about the same apps, and costs once

    def __init__(
        self,
        log: EventLog,
        kept: KeptPosition,
        progress: Progress,
        packages: PackageReadModel,
        droplets: DropletReadModel,
        directory: DirectoryReadModel,
        services: Services,
        rules: PolicyRules,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        super().__init__("policies", log, kept, logger)
        self._progress = progress
        self._packages = packages
        self._droplets = droplets
        self._directory = directory
        self._services = services
        self._rules = rules
        self._clock = clock
        self._looked_at = 0.0
        self._started_at = clock()

    def _handle(self, events: Sequence[LoggedEvent]) -> None:
        if any(isinstance(logged.event, _DECIDED_BY_READ_MODELS) for logged in events):
            self._require_level(events[-1].position)
        directory = self._services.directory
        grown: dict[str, RecordedEvent] = {}  # apps that may have too much now, and why
        for logged in events:
            event = logged.event
            match event:
                case App.Deleted():
                    self._delete_all_of(event)
                case Space.Deleted():
                    for app in self._directory.apps_of_space(event.guid):
                        self._delete_app(app, _because(event))
                case Organization.Deleted():
                    for space in self._directory.spaces_of_organization(event.guid):
                        self._delete_space(space, _because(event))
                # what came to something in the moment in which that was deleted
                case App.Created() | App.Updated():
                    deletion = directory.deletion_of(Space, event.space_guid)
                    if deletion is not None:
                        self._delete_app(event.guid, deletion)
                case Space.Created() | Space.Updated():
                    deletion = directory.deletion_of(Organization, event.organization_guid)
                    if deletion is not None:
                        self._delete_space(event.guid, deletion)
                case Package.Created() | Package.CopyStarted():
                    deletion = directory.deletion_of(App, event.app_guid)
                    if deletion is not None:
                        self._delete_package(event.guid, deletion)
                case Droplet.Created():
                    deletion = directory.deletion_of(App, event.app_guid)
                    if deletion is not None:
                        self._delete_droplet(event.guid, deletion)
                case Package.HashComputed() | Package.ProcessingFailed() | Package.Deleted():
                    # of a copy also its source's app: what was copied is not in use any more
                    for app in self._services.packages.apps_of(event.guid):
                        grown[app] = event
                case Droplet.Staged() | Droplet.StagingFailed() | Droplet.Deleted():
                    app_guid = self._services.droplets.load(event.guid).app_guid
                    grown[app_guid] = event
                    if isinstance(event, Droplet.Deleted):  # also where storage has died of it
                        self._services.environments.forget(Droplet.ID_PREFIX + event.guid)
                case App.CurrentDropletAssigned():
                    grown[event.guid] = event  # the one before is free
        for app, event in grown.items():
            self._retain(app, event)
        self._idle()

    def _idle(self) -> None:
        now = time.monotonic()
        if now - self._looked_at >= LOOK:
            self._looked_at = now
            self.give_up_late_droplets()

    def give_up_late_droplets(self) -> None:
        """Ends what no builder has made in time."""
        seconds = self._rules.staging_timeout
        late = self._clock() - timedelta(seconds=seconds)
        if late < self._started_at:
            return  # builders may have answered while we were away: that time does not count
        for droplet in self._droplets.waiting():
            if droplet.since < late:
                by = Cause(STAGING_TIMEOUT, str(uuid4()), f"{droplet.guid}/1")
                error = f"Staging timed out: no builder made the droplet in {seconds:g} seconds"
                with suppress(Refusal):
                    self._services.droplets.fail(droplet.guid, error, by)

    def _retain(self, app_guid: str, why: RecordedEvent) -> None:
        """Expires what is too much. What is in use stays until it no longer is."""
        by = Cause(RETENTION, why.request_id, why.event_id)
        if self._rules.packages is not None:
            for guid in self._packages.surplus(app_guid, self._rules.packages):
                with suppress(Refusal):
                    self._services.packages.expire(guid, by, partial(self._is_in_use, guid))
        if self._rules.droplets is not None:
            surplus = self._droplets.surplus(app_guid, self._rules.droplets)
            app = self._directory.app(app_guid) if surplus else None
            for guid in surplus:
                if app is not None and guid == app.current_droplet:
                    continue
                with suppress(Refusal):
                    self._services.droplets.expire(guid, by)

    def _is_in_use(self, package_guid: str) -> bool:
        """Whether a droplet or a copy is being made of a package, by all that the log has now."""
        self._require_level(self._log.head())
        return bool(
            self._droplets.packages_being_staged([package_guid])
            or self._packages.being_copied([package_guid])
        )

    def _require_level(self, position: int) -> None:
        """Raises `NotLevel`."""
        if not self._progress.wait_for(position, CATCH_UP):
            raise NotLevel(f"the read models are not at position {position} yet")

    def _delete_all_of(self, event: App.Deleted) -> None:
        for guid in self._droplets.of_app(event.guid):
            self._delete_droplet(guid, _because(event))
        for guid in self._packages.of_app(event.guid):
            self._delete_package(guid, _because(event))
        self._services.environments.forget(App.ID_PREFIX + event.guid)
        logger.info("app deleted", extra={"app": event.guid, "request_id": event.request_id})

    def _delete_app(self, guid: str, by: Cause) -> None:
        with suppress(Refusal):
            self._services.directory.delete_app(guid, by)

    def _delete_space(self, guid: str, by: Cause) -> None:
        with suppress(Refusal):
            self._services.directory.delete_space(guid, by)

    def _delete_package(self, guid: str, by: Cause) -> None:
        with suppress(Refusal):
            self._services.packages.delete(guid, by)

    def _delete_droplet(self, guid: str, by: Cause) -> None:
        with suppress(Refusal):
            self._services.droplets.delete(guid, by)


def _because(event: RecordedEvent) -> Cause:
    """Who caused the event causes what follows from it."""
    return Cause(event.actor, event.request_id, event.event_id)
