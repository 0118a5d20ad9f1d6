"""The directory's resources: an app, a space, an organization, as others have told us of them."""

from __future__ import annotations

from typing import Any

import falcon

from adapters.http.exchange import Queries, answer_json
from adapters.tokens import Scope
from domain.directory import App
from domain.errors import OrganizationNotFound, SpaceNotFound
from projections.directory import DirectoryEntry
from projections.representation import segment, timestamp


class OneApp:
    """`/v3/apps/:guid`: the link `app` of a package."""

    scopes = {"GET": Scope.READ}

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    def on_get(self, req: falcon.Request, resp: falcon.Response, guid: str) -> None:
        app = self._queries.app(guid)
        itself = f"/v3/apps/{segment(guid)}"
        links = {"self": {"href": itself}}
        if app.parent is not None:
            links["space"] = {"href": f"/v3/spaces/{segment(app.parent)}"}
        links["packages"] = {"href": f"{itself}/packages"}
        links["droplets"] = {"href": f"{itself}/droplets"}
        kept = self._queries.ask().environments.find(App.ID_PREFIX + guid)
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
        space = self._queries.ask().directory.space(guid)
        if space is None:
            raise SpaceNotFound(guid)
        links = {"self": {"href": f"/v3/spaces/{segment(guid)}"}}
        if space.parent is not None:
            links["organization"] = {"href": f"/v3/organizations/{segment(space.parent)}"}
        answer_json(resp, {"guid": guid, "name": space.name, **_times(space), "links": links})


class OneOrganization:
    """`/v3/organizations/:guid`"""

    scopes = {"GET": Scope.READ}

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    def on_get(self, req: falcon.Request, resp: falcon.Response, guid: str) -> None:
        found = self._queries.ask().directory.organization(guid)
        if found is None:
            raise OrganizationNotFound(guid)
        links = {"self": {"href": f"/v3/organizations/{segment(guid)}"}}
        answer_json(resp, {"guid": guid, "name": found.name, **_times(found), "links": links})


def _times(entry: DirectoryEntry) -> dict[str, Any]:
    return {
        "created_at": timestamp(entry.created_at),
        "updated_at": timestamp(entry.updated_at) if entry.updated_at else None,
    }
