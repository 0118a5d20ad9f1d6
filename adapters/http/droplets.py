"""The droplet resources: ask for one, list, show, download and delete."""

from __future__ import annotations

from typing import Any

import falcon

from adapters.fields import wanted_of
from adapters.http.answers import pretty_json
from adapters.http.download import Sender, SentBits
from adapters.http.exchange import (
    Commands,
    Document,
    Queries,
    ReadModels,
    answer_document,
    answer_json,
    caller_of,
    cause_of,
    idempotency_key,
)
from adapters.http.paging import Paging, sign_order
from adapters.tokens import Scope
from domain.download import BitsOf, Downloaded
from domain.droplet import Droplet, DropletState
from domain.errors import DropletNotFound, DropletNotStaged
from projections.droplets import DropletOrder, DropletQuery, DropletRow
from projections.representation import DropletView, represent_droplet, segment, view_of_droplet
from projections.rows import Selection


class DropletsOfPackage:
    """`/v3/packages/:guid/droplets`: the link `stage` of a package."""

    scopes = {"POST": Scope.WRITE}

    def __init__(self, commands: Commands) -> None:
        self._commands = commands

    def on_post(self, req: falcon.Request, resp: falcon.Response, guid: str) -> None:
        wanted = wanted_of(self._commands.fields_of(req))
        self._commands.may_change_package(req, guid)
        droplets = self._commands.droplets
        requested = droplets.stage(guid, wanted, cause_of(req), idempotency_key(req))
        self._commands.settle(requested.committed)
        droplet = requested.committed.aggregate
        answer_json(
            resp,
            represent_droplet(view_of_droplet(droplet), requested.environment),
            falcon.HTTP_201,
        )


class OneDroplet:
    """`/v3/droplets/:guid`"""

    scopes = {"GET": Scope.READ, "DELETE": Scope.WRITE}

    def __init__(self, commands: Commands, queries: Queries) -> None:
        self._commands = commands
        self._queries = queries

    def on_get(self, req: falcon.Request, resp: falcon.Response, guid: str) -> None:
        asked = self._queries.ask()
        row = _find(asked, guid)
        self._queries.guard.see_droplet(caller_of(req), guid, row.view.app_guid)
        shown = _represent_all(asked, [row.view])[0]
        answer_document(req, resp, Document.of(pretty_json(shown)))

    def on_delete(self, req: falcon.Request, resp: falcon.Response, guid: str) -> None:
        self._commands.may_change_droplet(req, guid)
        self._commands.settle(self._commands.droplets.delete(guid, cause_of(req)))
        resp.status = falcon.HTTP_204


class DropletDownload:
    """`/v3/droplets/:guid/download`"""

    scopes = {"GET": Scope.READ}

    def __init__(self, queries: Queries, sender: Sender) -> None:
        self._queries = queries
        self._sender = sender

    def on_get(self, req: falcon.Request, resp: falcon.Response, guid: str) -> None:
        row = _find(self._queries.ask(), guid)
        self._queries.guard.see_droplet(caller_of(req), guid, row.view.app_guid)
        if row.view.state != DropletState.STAGED or row.blob_key is None:
            raise DropletNotStaged(guid, row.view.state)
        self._sender.send(
            req,
            resp,
            Downloaded(BitsOf.DROPLET, guid, row.view.app_guid),
            SentBits(row.blob_key, str(row.sha256), "application/gzip", f"{guid}.tgz"),
        )


class AllDroplets:
    """`/v3/droplets`"""

    scopes = {"GET": Scope.READ}

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        paging = Paging.of_query(req.query_string, ("app_guids", "order_by", "states"), sign_order)
        seen = self._queries.guard.apps_seen(caller_of(req))
        query = _query(paging, paging.values("app_guids"), seen)
        _answer_page(req, resp, self._queries, paging, "/v3/droplets", query)


class DropletsOfApp:
    """`/v3/apps/:guid/droplets`"""

    scopes = {"GET": Scope.READ}

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    def on_get(self, req: falcon.Request, resp: falcon.Response, guid: str) -> None:
        paging = Paging.of_query(req.query_string, ("order_by", "states"), sign_order)
        self._queries.check_app(guid, caller_of(req))
        path = f"/v3/apps/{segment(guid)}/droplets"
        _answer_page(req, resp, self._queries, paging, path, _query(paging, [guid]))


def _query(
    paging: Paging, app_guids: list[str] | None, visible: Selection | None = None
) -> DropletQuery:
    order = paging.filters.get("order_by", "+created_at")
    return DropletQuery(
        app_guids, paging.values("states"), DropletOrder(order[1:]), order.startswith("-"), visible
    )


def _find(asked: ReadModels, guid: str) -> DropletRow:
    row = asked.droplets.find(guid)
    if row is None:
        raise DropletNotFound(guid)
    return row


def _represent_all(asked: ReadModels, views: list[DropletView]) -> list[dict[str, Any]]:
    kept = asked.environments.find_all(Droplet.ID_PREFIX + view.guid for view in views)
    return [represent_droplet(view, kept.get(Droplet.ID_PREFIX + view.guid, {})) for view in views]


def _answer_page(
    req: falcon.Request,
    resp: falcon.Response,
    queries: Queries,
    paging: Paging,
    path: str,
    query: DropletQuery,
) -> None:
    asked = queries.ask()
    found = asked.droplets.page(query, paging.page, paging.per_page)
    resources = _represent_all(asked, [row.view for row in found.droplets])
    page = pretty_json(paging.render(path, found.total, resources))
    answer_document(req, resp, Document.of(page))
