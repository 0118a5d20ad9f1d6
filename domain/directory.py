"""The directory: the apps, spaces and organizations that others tell us of.

What they tell is an event in the log first. Announcements come at least once: what is
known already changes nothing, and what was deleted stays so.
"""

from __future__ import annotations

from typing import ClassVar, TypeVar

from eventsourcing.domain import CanInitAggregate

from domain.aggregate import MAX_GUID_LENGTH, Aggregate, Cause, RecordedEvent
from domain.errors import (
    AppNotFound,
    InvalidRequest,
    OrganizationNotFound,
    Refusal,
    SpaceNotFound,
)

MAX_NAME = 255  # characters
E = TypeVar("E", bound="Entry")


def faults_of_name(label: str, name: object) -> list[str]:
    """What is wrong with a name, or with a guid; [] if nothing is."""
    limit = MAX_GUID_LENGTH if label.lower().endswith("guid") else MAX_NAME
    if not isinstance(name, str) or not 1 <= len(name) <= limit or "\0" in name:
        return [f"{label} must be between 1 and {limit} characters"]
    return []


class Entry(Aggregate):
    """What all three have in common: a name that changes, and an end."""

    KIND: ClassVar[str]
    NOT_FOUND: ClassVar[type[Refusal]]

    def __init__(self) -> None:
        self.name: str | None = None
        self.deletion: Cause | None = None  # who deleted it, and by which event

    @property
    def deleted(self) -> bool:
        return self.deletion is not None

    def must_exist(self) -> None:
        """Raises the kind's refusal if it was deleted."""
        if self.deleted:
            raise self.NOT_FOUND(self.guid)

    def _must_not_be_deleted(self) -> None:
        if self.deleted:
            raise InvalidRequest([f"{self.KIND} '{self.guid}' was deleted"])

    def _rename(self, event_class: type[RecordedEvent], name: str, by: Cause) -> None:
        self.must_exist()
        if name != self.name:
            self._trigger(event_class, by, name=name)

    def _delete(self, event_class: type[RecordedEvent], by: Cause) -> None:
        if not self.deleted:
            self._trigger(event_class, by)


def _renamed(entry: Entry, name: str) -> None:
    entry.name = name


def _deleted(entry: Entry, event: RecordedEvent) -> None:
    entry.deletion = Cause(event.actor, event.request_id, event.event_id)


class App(Entry, created_event_name="Created"):
    """An app. One that nobody announced has no name; it may be deleted all the same."""

    TOPIC = "app"
    ID_PREFIX = "app:"
    KIND = "App"
    NOT_FOUND = AppNotFound

    class Event(RecordedEvent):
        TOPIC = "app.event"

    def __init__(self) -> None:
        super().__init__()
        self.space_guid: str | None = None
        self.buildpack: str | None = None
        self.current_droplet: str | None = None

    @classmethod
    def create(
        cls, guid: str, name: str | None, space_guid: str | None, buildpack: str | None, by: Cause
    ) -> App:
        return cls._begin(
            cls.Created, guid, by, name=name, space_guid=space_guid, buildpack=buildpack
        )

    class Created(Event, CanInitAggregate[str]):
        """An app was announced."""

        TOPIC = "app.created"
        originator_topic: str
        name: str | None
        space_guid: str | None
        buildpack: str | None

        def apply(self, app: App) -> None:
            app.name = self.name
            app.space_guid = self.space_guid
            app.buildpack = self.buildpack

    def announce(self, name: str, space_guid: str | None, buildpack: str | None, by: Cause) -> None:
        """It is told of once more; what is new is recorded. Raises `InvalidRequest`."""
        self._must_not_be_deleted()
        self.rename(name, by)
        if (space_guid, buildpack) != (self.space_guid, self.buildpack):
            self._trigger(self.Updated, by, space_guid=space_guid, buildpack=buildpack)

    class Updated(Event):
        """An app is somewhere else, or built by something else."""

        TOPIC = "app.updated"
        space_guid: str | None
        buildpack: str | None

        def apply(self, app: App) -> None:
            app.space_guid = self.space_guid
            app.buildpack = self.buildpack

    def rename(self, name: str, by: Cause) -> None:
        """Raises `AppNotFound`."""
        self._rename(self.Renamed, name, by)

    class Renamed(Event):
        """An app has another name."""

        TOPIC = "app.renamed"
        name: str

        def apply(self, app: App) -> None:
            _renamed(app, self.name)

    def assign_droplet(self, guid: str, by: Cause) -> None:
        """From here on it is run from this droplet. Raises `AppNotFound`."""
        self.must_exist()
        if guid != self.current_droplet:
            self._trigger(self.CurrentDropletAssigned, by, droplet_guid=guid)

    class CurrentDropletAssigned(Event):
        """An app is run from this droplet; retention leaves it."""

        TOPIC = "app.current_droplet_assigned"
        droplet_guid: str

        def apply(self, app: App) -> None:
            app.current_droplet = self.droplet_guid

    def delete(self, by: Cause) -> None:
        """Changes nothing the second time."""
        self._delete(self.Deleted, by)

    class Deleted(Event):
        """An app is no more."""

        TOPIC = "app.deleted"

        def apply(self, app: App) -> None:
            _deleted(app, self)


class Space(Entry, created_event_name="Created"):
    TOPIC = "space"
    ID_PREFIX = "space:"
    KIND = "Space"
    NOT_FOUND = SpaceNotFound

    class Event(RecordedEvent):
        TOPIC = "space.event"

    def __init__(self) -> None:
        super().__init__()
        self.organization_guid: str | None = None

    @classmethod
    def create(cls, guid: str, name: str | None, organization_guid: str | None, by: Cause) -> Space:
        return cls._begin(cls.Created, guid, by, name=name, organization_guid=organization_guid)

    class Created(Event, CanInitAggregate[str]):
        """A space was announced."""

        TOPIC = "space.created"
        originator_topic: str
        name: str | None
        organization_guid: str | None

        def apply(self, space: Space) -> None:
            space.name = self.name
            space.organization_guid = self.organization_guid

    def announce(self, name: str, organization_guid: str | None, by: Cause) -> None:
        """It is told of once more; what is new is recorded. Raises `InvalidRequest`."""
        self._must_not_be_deleted()
        self.rename(name, by)
        if organization_guid != self.organization_guid:
            self._trigger(self.Updated, by, organization_guid=organization_guid)

    class Updated(Event):
        """A space is in another organization."""

        TOPIC = "space.updated"
        organization_guid: str | None

        def apply(self, space: Space) -> None:
            space.organization_guid = self.organization_guid

    def rename(self, name: str, by: Cause) -> None:
        """Raises `SpaceNotFound`."""
        self._rename(self.Renamed, name, by)

    class Renamed(Event):
        """A space has another name."""

        TOPIC = "space.renamed"
        name: str

        def apply(self, space: Space) -> None:
            _renamed(space, self.name)

    def delete(self, by: Cause) -> None:
        """Changes nothing the second time."""
        self._delete(self.Deleted, by)

    class Deleted(Event):
        """A space is no more."""

        TOPIC = "space.deleted"

        def apply(self, space: Space) -> None:
            _deleted(space, self)


class Organization(Entry, created_event_name="Created"):
    TOPIC = "organization"
    ID_PREFIX = "organization:"
    KIND = "Organization"
    NOT_FOUND = OrganizationNotFound

    class Event(RecordedEvent):
        TOPIC = "organization.event"

    def __init__(self) -> None:
        super().__init__()
        self.suspended = False

    @classmethod
    def create(cls, guid: str, name: str | None, by: Cause) -> Organization:
        return cls._begin(cls.Created, guid, by, name=name)

    class Created(Event, CanInitAggregate[str]):
        """An organization was announced."""

        TOPIC = "organization.created"
        originator_topic: str
        name: str | None

        def apply(self, organization: Organization) -> None:
            organization.name = self.name

    def announce(self, name: str, suspended: bool | None, by: Cause) -> None:
        """It is told of once more; None leaves it as suspended as it was.

        Raises `InvalidRequest`.
        """
        self._must_not_be_deleted()
        self.rename(name, by)
        if suspended is not None and suspended != self.suspended:
            self._trigger(self.Suspended if suspended else self.Activated, by)

    class Suspended(Event):
        """An organization is suspended: its members reach nothing in it."""

        TOPIC = "organization.suspended"

        def apply(self, organization: Organization) -> None:
            organization.suspended = True

    class Activated(Event):
        """An organization is suspended no more."""

        TOPIC = "organization.activated"

        def apply(self, organization: Organization) -> None:
            organization.suspended = False

    def rename(self, name: str, by: Cause) -> None:
        """Raises `OrganizationNotFound`."""
        self._rename(self.Renamed, name, by)

    class Renamed(Event):
        """An organization has another name."""

        TOPIC = "organization.renamed"
        name: str

        def apply(self, organization: Organization) -> None:
            _renamed(organization, self.name)

    def delete(self, by: Cause) -> None:
        """Changes nothing the second time."""
        self._delete(self.Deleted, by)

    class Deleted(Event):
        """An organization is no more."""

        TOPIC = "organization.deleted"

        def apply(self, organization: Organization) -> None:
            _deleted(organization, self)
