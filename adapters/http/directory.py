"""The directory's resources: an app, a space, an organization, as others have told us of them."""

from __future__ import annotations

from typing import Any

import falcon

from adapters.fields import faults_of_names
from adapters.http.exchange import (
    Commands,
    Queries,
    ReadModels,
    answer_json,
    caller_of,
    cause_of,
)
from adapters.tokens import Scope
from domain.directory import App
from domain.errors import InvalidRequest, OrganizationNotFound, SpaceNotFound
from projections.directory import AppEntry, DirectoryEntry
from projections.representation import segment, timestamp


class OneApp:
    """`/v3/apps/:guid`: the link `app` of a package."""

    scopes = {"GET": Scope.READ}

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    def on_get(self, req: falcon.Request, resp: falcon.Response, guid: str) -> None:
        app = self._queries.app(guid, caller_of(req))
        _answer_app(resp, self._queries.ask(), app)


class CurrentDroplet:
    """`/v3/apps/:guid/current_droplet`: the link `assign_current_droplet` of a droplet."""

    scopes = {"PUT": Scope.WRITE}

    def __init__(self, commands: Commands, queries: Queries) -> None:
        self._commands = commands
        self._queries = queries

    def on_put(self, req: falcon.Request, resp: falcon.Response, guid: str) -> None:
        fields = self._commands.fields_of(req)
        faults = faults_of_names(fields, ("droplet_guid",))
        droplet_guid = fields.get("droplet_guid")
        if not isinstance(droplet_guid, str):
            raise InvalidRequest([*faults, "Droplet guid must be a string"])
        if faults:
            raise InvalidRequest(faults)
        guard = self._commands.guard
        guard.change_app(caller_of(req), guid)
        self._commands.directory.app(guid)
        droplet = self._commands.droplets.get(droplet_guid)
        guard.see_droplet(caller_of(req), droplet_guid, droplet.app_guid)
        committed = self._commands.directory.assign_droplet(guid, droplet, cause_of(req))
        self._commands.settle(committed)
        # it is done, whatever the read models have: they only tell what else is known
        shown = self._queries.shown_app(committed.aggregate)
        _answer_app(resp, self._queries.read_models, shown)


def _answer_app(resp: falcon.Response, asked: ReadModels, app: AppEntry) -> None:
    guid = app.guid
    itself = f"/v3/apps/{segment(guid)}"
    links = {"self": {"href": itself}}
    if app.parent is not None and asked.directory.space(app.parent) is not None:
        links["space"] = {"href": f"/v3/spaces/{segment(app.parent)}"}
    links["packages"] = {"href": f"{itself}/packages"}
    links["droplets"] = {"href": f"{itself}/droplets"}
    if app.current_droplet is not None and asked.droplets.find(app.current_droplet) is not None:
        links["droplet"] = {"href": f"/v3/droplets/{segment(app.current_droplet)}"}
    kept = asked.environments.find(App.ID_PREFIX + guid)
    answer_json(
        resp,
        {
            "guid": app.guid,
            "name": app.name,
            # what runs is not ours to know: these say that nothing does here
            "desired_state": "STOPPED",
            "total_desired_instances": 0,
            "buildpack": app.buildpack,
            **_times(app),
            "environment_variables": kept or {},
            "links": links,
        },
    )


class OneSpace:
    """`/v3/spaces/:guid`"""

    scopes = {"GET": Scope.READ}

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    def on_get(self, req: falcon.Request, resp: falcon.Response, guid: str) -> None:
        directory = self._queries.ask().directory
        space = directory.space(guid)
        if space is None or not self._queries.guard.sees_space(caller_of(req), guid):
            raise SpaceNotFound(guid)
        links = {"self": {"href": f"/v3/spaces/{segment(guid)}"}}
        if space.parent is not None and directory.organization(space.parent) is not None:
            links["organization"] = {"href": f"/v3/organizations/{segment(space.parent)}"}
        answer_json(resp, {"guid": guid, "name": space.name, **_times(space), "links": links})


class OneOrganization:
    """`/v3/organizations/:guid`"""

    scopes = {"GET": Scope.READ}

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    def on_get(self, req: falcon.Request, resp: falcon.Response, guid: str) -> None:
        found = self._queries.ask().directory.organization(guid)
        if found is None or not self._queries.guard.sees_organization(caller_of(req), guid):
            raise OrganizationNotFound(guid)
        links = {"self": {"href": f"/v3/organizations/{segment(guid)}"}}
        answer_json(resp, {"guid": guid, "name": found.name, **_times(found), "links": links})


def _times(entry: DirectoryEntry) -> dict[str, Any]:
    return {
        "created_at": timestamp(entry.created_at),
        "updated_at": timestamp(entry.updated_at) if entry.updated_at else None,
    }
