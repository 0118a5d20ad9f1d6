"""What clients read: the JSON of the experimental v3 API (October 2015)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from domain.aggregate import ENVELOPE
from domain.droplet import Droplet, DropletState, procfile_of
from domain.package import Package, PackageState, PackageType
from domain.ports import LoggedEvent


@dataclass(frozen=True)
class PackageView:
    """What the representation shows of a package."""

    guid: str
    app_guid: str
    type: str
    url: str | None
    state: str
    error: str | None
    sha1: str | None
    created_at: datetime
    updated_at: datetime | None


@dataclass(frozen=True)
class DropletView:
    """What the representation shows of a droplet, but for its environment."""

    guid: str
    package_guid: str
    app_guid: str
    state: str
    error: str | None
    buildpack: str | None
    procfile: str | None
    sha1: str | None
    created_at: datetime
    updated_at: datetime | None


@dataclass(frozen=True)
class AuditView:
    """What the representation shows of an audit event, but for the names of people."""

    guid: str
    position: int
    type: str
    actor: str
    target_type: str
    target_guid: str
    target_name: str | None
    space_guid: str | None
    organization_guid: str | None
    created_at: datetime
    data: Mapping[str, Any]


def view_of(package: Package) -> PackageView:
    """What to show of an aggregate, at the version it has."""
    return PackageView(
        guid=package.guid,
        app_guid=package.app_guid,
        type=package.type,
        url=package.url,
        state=package.state,
        error=package.error,
        sha1=package.digests.sha1 if package.digests else None,
        created_at=package.created_on,
        updated_at=package.modified_on if package.version > Package.INITIAL_VERSION else None,
    )


def view_of_droplet(droplet: Droplet) -> DropletView:
    """What to show of an aggregate, at the version it has."""
    types = droplet.process_types
    return DropletView(
        guid=droplet.guid,
        package_guid=droplet.package_guid,
        app_guid=droplet.app_guid,
        state=droplet.state,
        error=droplet.error,
        buildpack=droplet.buildpack,
        procfile=None if types is None else procfile_of(types),
        sha1=droplet.digests.sha1 if droplet.digests else None,
        created_at=droplet.created_on,
        updated_at=droplet.modified_on if droplet.version > Droplet.INITIAL_VERSION else None,
    )


def represent(view: PackageView) -> dict[str, Any]:
    """The representation, with its keys in the contract's order."""
    itself = f"/v3/packages/{segment(view.guid)}"
    links: dict[str, dict[str, str]] = {"self": {"href": itself}}
    if view.type == PackageType.BITS:
        links["upload"] = {"href": f"{itself}/upload", "method": "POST"}
        links["download"] = {"href": f"{itself}/download", "method": "GET"}
        links["stage"] = {"href": f"{itself}/droplets", "method": "POST"}
    links["app"] = {"href": f"/v3/apps/{segment(view.app_guid)}"}
    return {
        "guid": view.guid,
        "type": view.type,
        "hash": {"type": "sha1", "value": view.sha1},
        "url": view.url,
        "state": PackageState(view.state),
        "error": view.error,
        "created_at": timestamp(view.created_at),
        "updated_at": timestamp(view.updated_at) if view.updated_at else None,
        "links": links,
    }


def represent_droplet(view: DropletView, environment: Mapping[str, Any]) -> dict[str, Any]:
    """The representation, with its keys in the contract's order."""
    app = f"/v3/apps/{segment(view.app_guid)}"
    return {
        "guid": view.guid,
        "state": DropletState(view.state),
        "hash": {"type": "sha1", "value": view.sha1},
        "buildpack": view.buildpack,
        "error": view.error,
        "procfile": view.procfile,
        "environment_variables": environment,
        "created_at": timestamp(view.created_at),
        "updated_at": timestamp(view.updated_at) if view.updated_at else None,
        "links": {
            "self": {"href": f"/v3/droplets/{segment(view.guid)}"},
            "package": {"href": f"/v3/packages/{segment(view.package_guid)}"},
            "app": {"href": app},
            "assign_current_droplet": {"href": f"{app}/current_droplet", "method": "PUT"},
        },
    }


NOT_SHOWN = frozenset(
    (*ENVELOPE, "actor", "request_id", "caused_by", "detail", "staged_uri")
)  # of an event's fields: those that are shown otherwise, and what is for operators alone
SERVICE = "packtrail."  # how the names begin under which the service itself acts


def represent_audit_event(view: AuditView, people: Mapping[str, str]) -> dict[str, Any]:
    """The representation as Cloud Foundry's v3 API has it. `people` are names of users."""
    target = people.get(view.target_guid) if view.target_type == "user" else view.target_name
    at = timestamp(view.created_at)
    return {
        "guid": view.guid,
        "created_at": at,
        "updated_at": at,
        "type": view.type,
        "actor": _actor(view.actor, people),
        "target": {"guid": view.target_guid, "type": view.target_type, "name": target or ""},
        "data": {**view.data, "position": view.position},
        "space": None if view.space_guid is None else {"guid": view.space_guid},
        "organization": (
            None if view.organization_guid is None else {"guid": view.organization_guid}
        ),
        "links": {"self": {"href": f"/v3/audit_events/{segment(view.guid)}"}},
    }


def represent_happened(logged: LoggedEvent, people: Mapping[str, str]) -> dict[str, Any]:
    """An event of a package as it is in the log, but for what is the service's own matter."""
    event = logged.event
    itself = f"/v3/packages/{segment(event.guid)}"
    links = {"package": {"href": itself}}
    if not isinstance(event, Package.Deleted):
        links["state"] = {"href": f"{itself}?at={logged.position}"}
    return {
        "position": logged.position,
        "id": event.event_id,
        "type": event.TOPIC,
        "created_at": exact_timestamp(event.timestamp),
        "actor": _actor(event.actor, people),
        "request_id": event.request_id,
        "caused_by": event.caused_by,
        "data": {name: value for name, value in vars(event).items() if name not in NOT_SHOWN},
        "links": links,
    }


def _actor(guid: str, people: Mapping[str, str]) -> dict[str, str]:
    kind = "system" if guid.startswith(SERVICE) else "user"
    return {"guid": guid, "type": kind, "name": people.get(guid, guid)}


def segment(guid: str) -> str:
    """A guid as one segment of a path."""
    return quote(guid, safe="")


def exact_timestamp(moment: datetime) -> str:
    """To the microsecond."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def timestamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
