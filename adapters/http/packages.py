"""The package resources: create, copy, list, show and delete."""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import parse_qs

import falcon

from adapters.fields import new_package_of
from adapters.history import History, NoSuchPast, aggregate_at, position_told
from adapters.http.answers import pretty_json
from adapters.http.exchange import (
    Commands,
    Document,
    Queries,
    answer_document,
    answer_json,
    caller_of,
    cause_of,
    idempotency_key,
)
from adapters.http.faults import BadQuery
from adapters.http.paging import Paging
from adapters.tokens import Scope
from domain.errors import PackageNotFound
from domain.package import Package
from projections.packages import REMEMBERED, PackagePage
from projections.representation import PackageView, represent, segment, view_of


class PackagesOfApp:
    """`/v3/apps/:guid/packages`"""

    scopes = {"GET": Scope.READ, "POST": Scope.WRITE}

    def __init__(self, commands: Commands, queries: Queries) -> None:
        self._commands = commands
        self._queries = queries

    def on_get(self, req: falcon.Request, resp: falcon.Response, guid: str) -> None:
        paging = Paging.of_query(req.query_string)
        self._queries.check_app(guid, caller_of(req))
        found = self._queries.ask().packages.page(guid, paging.page, paging.per_page)
        _answer_page(req, resp, paging, f"/v3/apps/{segment(guid)}/packages", found)

    def on_post(self, req: falcon.Request, resp: falcon.Response, guid: str) -> None:
        by = cause_of(req)
        query = parse_qs(req.query_string, keep_blank_values=True)
        if "source_package_guid" in query:
            source = query["source_package_guid"][-1]
            self._commands.guard.change_app(caller_of(req), guid)
            self._commands.may_change_package(req, source)
            committed = self._commands.packages.copy(source, guid, by, idempotency_key(req))
        else:
            type, url = new_package_of(self._commands.fields_of(req), guid)
            self._commands.guard.change_app(caller_of(req), guid)
            key = idempotency_key(req)
            committed = self._commands.packages.create(guid, type, url, by, key)
        self._commands.settle(committed)
        answer_json(resp, represent(view_of(committed.aggregate)), falcon.HTTP_201)


class AllPackages:
    """`/v3/packages`"""

    scopes = {"GET": Scope.READ}

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        paging = Paging.of_query(req.query_string)
        seen = self._queries.guard.apps_seen(caller_of(req))
        packages = self._queries.ask().packages
        if seen is None:
            found = packages.page(None, paging.page, paging.per_page)
        else:
            found = packages.page_of_apps(seen, paging.page, paging.per_page)
        _answer_page(req, resp, paging, "/v3/packages", found)


class OnePackage:
    """`/v3/packages/:guid`"""

    scopes = {"GET": Scope.READ, "DELETE": Scope.WRITE}

    def __init__(self, commands: Commands, queries: Queries, history: History) -> None:
        self._commands = commands
        self._queries = queries
        self._history = history

    def on_get(self, req: falcon.Request, resp: falcon.Response, guid: str) -> None:
        if req.query_string:
            at = parse_qs(req.query_string, keep_blank_values=True).get("at")
            if at is not None:
                self._show_past(req, resp, guid, at[-1])
                return
        row = self._queries.ask().packages.find(guid)
        if row is None:
            raise PackageNotFound(guid)
        self._queries.guard.see_package(caller_of(req), guid, row.view.app_guid)
        answer_document(req, resp, _document(row.view))

    def _show_past(self, req: falcon.Request, resp: falcon.Response, guid: str, at: str) -> None:
        """Today's rendering of a package as it was, also of one that is deleted now."""
        try:
            position = position_told(self._history, at)
        except NoSuchPast as reason:
            raise BadQuery(f"At: {reason}") from None
        package = aggregate_at(self._history, Package, guid, position)
        if package is None or package.deleted:
            raise PackageNotFound(guid)
        self._queries.guard.see_package(caller_of(req), guid, package.app_guid)
        answer_document(req, resp, _document(view_of(package)))

    def on_delete(self, req: falcon.Request, resp: falcon.Response, guid: str) -> None:
        self._commands.may_change_package(req, guid)
        self._commands.settle(self._commands.packages.delete(guid, cause_of(req)))
        resp.status = falcon.HTTP_204


@lru_cache(REMEMBERED)
def _document(view: PackageView) -> Document:
    return Document.of(pretty_json(represent(view)))


def _answer_page(
    req: falcon.Request, resp: falcon.Response, paging: Paging, path: str, found: PackagePage
) -> None:
    documents = (_document(row.view).body for row in found.packages)
    page = paging.render_joined(path, found.total, documents)
    answer_document(req, resp, Document.of(page))
