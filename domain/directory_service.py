"""The commands on the directory: announcements of apps, spaces, organizations and roles."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from eventsourcing.persistence import IntegrityError

from domain.aggregate import Aggregate, Cause
from domain.directory import App, Entry, Organization, Space, faults_of_name
from domain.droplet import Droplet, DropletState, faults_of_buildpack
from domain.errors import AppNotFound, InvalidRequest, RoleNotFound
from domain.journal import Committed, Journal
from domain.role import Grant, Role

A = TypeVar("A", bound=Aggregate)
E = TypeVar("E", bound=Entry)


class DirectoryService:
    """Every method may raise `InvalidRequest`, and the kind's refusal where it is unknown.

    `registered`: only apps that were announced exist. Else any app does that was not deleted.
    """

    def __init__(self, journal: Journal, registered: bool = False) -> None:
        self._journal = journal
        self._registered = registered

    def app(self, guid: str) -> App | None:
        """What is known of an app. Raises `AppNotFound` if there is no such app."""
        app = self._journal.find(App, guid)
        announced = app is not None and app.name is not None
        if (app is not None and app.deleted) or (self._registered and not announced):
            raise AppNotFound(guid)
        return app

    def space(self, guid: str) -> Space | None:
        return self._journal.find(Space, guid)

    def deletion_of(self, kind: type[E], guid: str | None) -> Cause | None:
        """Who deleted an app, space or organization, and by which event; None if nobody did."""
        entry = None if guid is None else self._journal.find(kind, guid)
        return None if entry is None else entry.deletion

    def announce_app(
        self, guid: str, name: str, space_guid: str | None, buildpack: str | None, by: Cause
    ) -> Committed[App]:
        faults = faults_of_name("App guid", guid) + faults_of_name("Name", name)
        if space_guid is not None:
            faults += faults_of_name("Space guid", space_guid)
        faults += faults_of_buildpack(buildpack, frozenset())
        if not faults and self.deletion_of(Space, space_guid) is not None:
            faults.append(f"Space '{space_guid}' was deleted")
        _refuse(faults)
        return self._announce(
            App,
            guid,
            lambda: App.create(guid, name, space_guid, buildpack, by),
            lambda app: app.announce(name, space_guid, buildpack, by),
        )

    def rename_app(self, guid: str, name: str, by: Cause) -> Committed[App]:
        _refuse(faults_of_name("Name", name))
        return self._change(App, guid, lambda app: app.rename(name, by))

    def assign_droplet(self, guid: str, droplet: Droplet, by: Cause) -> Committed[App]:
        """The app is run from a droplet of its own, that is STAGED. Raises `AppNotFound` too."""
        self.app(guid)
        if droplet.app_guid != guid:
            raise InvalidRequest(["Droplet must be one of the app's own"])
        if droplet.state is not DropletState.STAGED:
            raise InvalidRequest([f"Droplet must be STAGED, and is {droplet.state}"])

        def begin() -> App:
            app = App.create(guid, None, None, None, by)
            app.assign_droplet(droplet.guid, by)
            return app

        return self._announce(App, guid, begin, lambda app: app.assign_droplet(droplet.guid, by))

    def delete_app(self, guid: str, by: Cause) -> Committed[App]:
        """Also one that was never announced: it may have packages all the same."""
        _refuse(faults_of_name("App guid", guid))

        def begin() -> App:
            app = App.create(guid, None, None, None, by)
            app.delete(by)
            return app

        return self._announce(App, guid, begin, lambda app: app.delete(by))

    def announce_space(
        self, guid: str, name: str, organization_guid: str | None, by: Cause
    ) -> Committed[Space]:
        faults = faults_of_name("Space guid", guid) + faults_of_name("Name", name)
        if organization_guid is not None:
            faults += faults_of_name("Organization guid", organization_guid)
        if not faults and self.deletion_of(Organization, organization_guid) is not None:
            faults.append(f"Organization '{organization_guid}' was deleted")
        _refuse(faults)
        return self._announce(
            Space,
            guid,
            lambda: Space.create(guid, name, organization_guid, by),
            lambda space: space.announce(name, organization_guid, by),
        )

    def rename_space(self, guid: str, name: str, by: Cause) -> Committed[Space]:
        _refuse(faults_of_name("Name", name))
        return self._change(Space, guid, lambda space: space.rename(name, by))

    def delete_space(self, guid: str, by: Cause) -> Committed[Space]:
        return self._change(Space, guid, lambda space: space.delete(by))

    def announce_organization(
        self, guid: str, name: str, by: Cause, suspended: bool | None = None
    ) -> Committed[Organization]:
        """`suspended`: None leaves it as it is; a new one is not."""
        _refuse(faults_of_name("Organization guid", guid) + faults_of_name("Name", name))

        def begin() -> Organization:
            organization = Organization.create(guid, name, by)
            organization.announce(name, suspended, by)
            return organization

        return self._announce(
            Organization, guid, begin, lambda found: found.announce(name, suspended, by)
        )

    def rename_organization(self, guid: str, name: str, by: Cause) -> Committed[Organization]:
        _refuse(faults_of_name("Name", name))
        return self._change(Organization, guid, lambda found: found.rename(name, by))

    def delete_organization(self, guid: str, by: Cause) -> Committed[Organization]:
        return self._change(Organization, guid, lambda found: found.delete(by))

    def assign_role(self, grant: Grant, by: Cause) -> Committed[Role]:
        """A user has a role, from here on."""
        for kind, guid in ((Space, grant.space_guid), (Organization, grant.organization_guid)):
            if self.deletion_of(kind, guid) is not None:
                raise InvalidRequest([f"{kind.KIND} '{guid}' was deleted"])
        return self._announce(
            Role, grant.guid, lambda: Role.assign(grant, by), lambda role: role.restore(by)
        )

    def remove_role(self, grant: Grant, by: Cause) -> Committed[Role]:
        """A user has a role no more. Raises `RoleNotFound` for one that they never had."""

        def load() -> Role:
            role = self._journal.find(Role, grant.guid)
            if role is None:
                raise RoleNotFound(grant.user_guid, grant.type)
            return role

        return self._journal.change(load, lambda role: role.remove(by))

    def _announce(
        self, kind: type[A], guid: str, begin: Callable[[], A], again: Callable[[A], None]
    ) -> Committed[A]:
        while True:
            entry = self._journal.find(kind, guid)
            if entry is None:
                entry = begin()
            else:
                again(entry)
            try:
                return self._journal.save(entry)
            except IntegrityError:
                continue  # somebody else told of it at the same time

    def _change(self, kind: type[E], guid: str, decide: Callable[[E], None]) -> Committed[E]:
        def load() -> E:
            entry = self._journal.find(kind, guid)
            if entry is None:
                raise kind.NOT_FOUND(guid)
            return entry

        return self._journal.change(load, decide)


def _refuse(faults: list[str]) -> None:
    if faults:
        raise InvalidRequest(faults)
