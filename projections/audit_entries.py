"""Which events are in the list of who did what, and what each entry says.

Types are those of Cloud Foundry's audit events:
https://v3-apidocs.cloudfoundry.org (Audit Events). What only the service itself did to go on
with something (stored, hashed, failed, staged) has no type there, and is in the log alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from domain.aggregate import RecordedEvent
from domain.directory import App, Organization, Space
from domain.download import BitsOf, Download
from domain.droplet import Droplet
from domain.package import Package
from domain.role import Role, RoleType
from projections.rows import Rows

APP, SPACE, ORGANIZATION, USER = "app", "space", "organization", "user"
E = TypeVar("E", bound=RecordedEvent)


@dataclass(frozen=True)
class Entry:
    """What an audit event says, beside who, when and where.

    `place` is where it happened: the key of an app, space or organization. `subject` is the
    guid of the package or droplet that it is about.
    """

    type: str
    target_type: str
    target_guid: str
    place: str | None
    data: dict[str, Any] = field(default_factory=dict)
    subject: str | None = None


def key_of(kind: type[App | Space | Organization], guid: str | None) -> str | None:
    """Under which a place is kept."""
    return None if guid is None else kind.ID_PREFIX + guid


def places_named(event: RecordedEvent) -> list[str]:
    """The keys of what has to be known to tell of an event, as far as it names them itself."""
    named: list[str | None] = [event.originator_id]
    match event:
        case Package.Created() | Package.CopyStarted() | Droplet.Created() | Download.Started():
            named.append(key_of(App, event.app_guid))
        case App.Created() | App.Updated():
            named.append(key_of(Space, event.space_guid))
        case Space.Created() | Space.Updated():
            named.append(key_of(Organization, event.organization_guid))
        case Role.Assigned():
            named += [
                key_of(Space, event.space_guid),
                key_of(Organization, event.organization_guid),
            ]
    return [key for key in named if key is not None]


def entry_of(places: Rows, event: RecordedEvent) -> Entry | None:
    """What is to be told of an event, if anything is; `places` become as they are behind it.

    Raises `LookupError` for an event that precedes what it is about.
    """
    tell = _TOLD.get(type(event))
    return None if tell is None else tell(places, event)


def _place(name: str | None = None, parent: str | None = None, kind: str | None = None) -> Any:
    return {"name": name, "parent": parent, "kind": kind}


def _keep(places: Rows, event: RecordedEvent, place: dict[str, Any]) -> dict[str, Any]:
    kept = {"guid": event.originator_id, **place}
    places[event.originator_id] = kept
    return kept


def _known(places: Rows, event: RecordedEvent) -> dict[str, Any]:
    found = places.get(event.originator_id)
    if found is None:
        raise LookupError(f"event {event.event_id} precedes what it is about")
    return found


def _of_app(type: str, app: str, kind: BitsOf, guid: str, **data: Any) -> Entry:
    """`app` is its key."""
    told = {f"{kind.value}_guid": guid, **data}
    return Entry(type, APP, app.removeprefix(App.ID_PREFIX), app, told, guid)


# Packages, droplets, downloads ------------------------------------------------------------


def _package_created(places: Rows, event: Package.Created) -> Entry:
    app = App.ID_PREFIX + event.app_guid
    _keep(places, event, _place(parent=app))
    asked = {"type": str(event.type)} | ({"url": event.url} if event.url else {})
    return _of_app("audit.app.package.create", app, BitsOf.PACKAGE, event.guid, request=asked)


def _package_copied(places: Rows, event: Package.CopyStarted) -> Entry:
    app = App.ID_PREFIX + event.app_guid
    _keep(places, event, _place(parent=app))
    asked = {"source_package_guid": event.source_guid}
    return _of_app("audit.app.package.create", app, BitsOf.PACKAGE, event.guid, request=asked)


def _package_uploaded(places: Rows, event: Package.UploadStarted) -> Entry:
    return _of_app(
        "audit.app.package.upload",
        _known(places, event)["parent"],
        BitsOf.PACKAGE,
        event.guid,
        request={"file_name": event.file_name, "size": event.staged_length},
    )


def _package_deleted(places: Rows, event: Package.Deleted) -> Entry:
    app = _known(places, event)["parent"]
    del places[event.originator_id]  # nothing more can happen to it
    return _of_app("audit.app.package.delete", app, BitsOf.PACKAGE, event.guid)


def _droplet_created(places: Rows, event: Droplet.Created) -> Entry:
    app = App.ID_PREFIX + event.app_guid
    _keep(places, event, _place(parent=app))
    return _of_app(
        "audit.app.droplet.create",
        app,
        BitsOf.DROPLET,
        event.guid,
        package_guid=event.package_guid,
    )


def _droplet_deleted(places: Rows, event: Droplet.Deleted) -> Entry:
    app = _known(places, event)["parent"]
    del places[event.originator_id]
    return _of_app("audit.app.droplet.delete", app, BitsOf.DROPLET, event.guid)


def _downloaded(places: Rows, event: Download.Started) -> Entry:
    asked = {}
    if event.first_byte is not None:
        asked["request"] = {"first_byte": event.first_byte, "last_byte": event.last_byte}
    kind = BitsOf(event.kind)
    app = App.ID_PREFIX + event.app_guid
    return _of_app(f"audit.app.{kind.value}.download", app, kind, event.bits_guid, **asked)


# Apps, spaces, organizations, roles -------------------------------------------------------


def _app(type: str, event: App.Event, **asked: Any) -> Entry:
    data = {"request": asked} if asked else {}
    return Entry(type, APP, event.guid, event.originator_id, data)


def _app_created(places: Rows, event: App.Created) -> Entry | None:
    _keep(places, event, _place(event.name, key_of(Space, event.space_guid)))
    if event.name is None:
        return None  # nobody has announced it: it is there for what happens to it next
    return _app(
        "audit.app.create",
        event,
        name=event.name,
        space_guid=event.space_guid,
        buildpack=event.buildpack,
    )


def _app_renamed(places: Rows, event: App.Renamed) -> Entry:
    app = _known(places, event)
    type = "audit.app.update" if app["name"] is not None else "audit.app.create"
    app["name"] = event.name
    return _app(type, event, name=event.name)


def _app_updated(places: Rows, event: App.Updated) -> Entry:
    _known(places, event)["parent"] = key_of(Space, event.space_guid)
    return _app("audit.app.update", event, space_guid=event.space_guid, buildpack=event.buildpack)


def _app_assigned(places: Rows, event: App.CurrentDropletAssigned) -> Entry:
    return _of_app(
        "audit.app.droplet.mapped", event.originator_id, BitsOf.DROPLET, event.droplet_guid
    )


def _app_deleted(places: Rows, event: App.Deleted) -> Entry:
    return _app("audit.app.delete-request", event)


def _entry(type: str, kind: str, event: RecordedEvent, **asked: Any) -> Entry:
    data = {"request": asked} if asked else {}
    return Entry(type, kind, event.guid, event.originator_id, data)


def _space_created(places: Rows, event: Space.Created) -> Entry:
    _keep(places, event, _place(event.name, key_of(Organization, event.organization_guid)))
    asked = {"name": event.name, "organization_guid": event.organization_guid}
    return _entry("audit.space.create", SPACE, event, **asked)


def _space_renamed(places: Rows, event: Space.Renamed) -> Entry:
    _known(places, event)["name"] = event.name
    return _entry("audit.space.update", SPACE, event, name=event.name)


def _space_updated(places: Rows, event: Space.Updated) -> Entry:
    _known(places, event)["parent"] = key_of(Organization, event.organization_guid)
    return _entry("audit.space.update", SPACE, event, organization_guid=event.organization_guid)


def _space_deleted(places: Rows, event: Space.Deleted) -> Entry:
    return _entry("audit.space.delete-request", SPACE, event)


def _organization_created(places: Rows, event: Organization.Created) -> Entry:
    _keep(places, event, _place(event.name))
    return _entry("audit.organization.create", ORGANIZATION, event, name=event.name)


def _organization_renamed(places: Rows, event: Organization.Renamed) -> Entry:
    _known(places, event)["name"] = event.name
    return _entry("audit.organization.update", ORGANIZATION, event, name=event.name)


def _organization_suspended(
    places: Rows, event: Organization.Suspended | Organization.Activated
) -> Entry:
    suspended = isinstance(event, Organization.Suspended)
    return _entry("audit.organization.update", ORGANIZATION, event, suspended=suspended)


def _organization_deleted(places: Rows, event: Organization.Deleted) -> Entry:
    return _entry("audit.organization.delete-request", ORGANIZATION, event)


_ROLES = {
    RoleType.SPACE_DEVELOPER: "space_developer",
    RoleType.SPACE_MANAGER: "space_manager",
    RoleType.SPACE_AUDITOR: "space_auditor",
    RoleType.ORG_MANAGER: "organization_manager",
}


def _role_assigned(places: Rows, event: Role.Assigned) -> Entry:
    place = key_of(Space, event.space_guid) or key_of(Organization, event.organization_guid)
    role = _keep(places, event, _place(event.user_guid, place, event.role_type))
    return _role("add", role)


def _role_restored(places: Rows, event: Role.Restored) -> Entry:
    return _role("add", _known(places, event))


def _role_removed(places: Rows, event: Role.Removed) -> Entry:
    return _role("remove", _known(places, event))


def _role(done: str, role: dict[str, Any]) -> Entry:
    type = f"audit.user.{_ROLES[RoleType(role['kind'])]}_{done}"
    return Entry(type, USER, role["name"], role["parent"], {"role": role["kind"]})


_TOLD: dict[type[RecordedEvent], Callable[[Rows, Any], Entry | None]] = {
    Package.Created: _package_created,
    Package.CopyStarted: _package_copied,
    Package.UploadStarted: _package_uploaded,
    Package.Deleted: _package_deleted,
    Droplet.Created: _droplet_created,
    Droplet.Deleted: _droplet_deleted,
    Download.Started: _downloaded,
    App.Created: _app_created,
    App.Renamed: _app_renamed,
    App.Updated: _app_updated,
    App.CurrentDropletAssigned: _app_assigned,
    App.Deleted: _app_deleted,
    Space.Created: _space_created,
    Space.Renamed: _space_renamed,
    Space.Updated: _space_updated,
    Space.Deleted: _space_deleted,
    Organization.Created: _organization_created,
    Organization.Renamed: _organization_renamed,
    Organization.Suspended: _organization_suspended,
    Organization.Activated: _organization_suspended,
    Organization.Deleted: _organization_deleted,
    Role.Assigned: _role_assigned,
    Role.Restored: _role_restored,
    Role.Removed: _role_removed,
}
TOLD = frozenset(_TOLD)
