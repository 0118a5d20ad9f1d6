"""The package resources: create, copy, list, show and delete."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs

import falcon
import orjson

from adapters.http.answers import JSON_TYPE, pretty_json
from adapters.http.faults import BadKey, BodyTooLarge, UnparsableBody
from adapters.http.freshness import Freshness
from adapters.http.paging import Paging
from adapters.tokens import Caller, Scope
from domain.aggregate import Cause
from domain.errors import InvalidPackage, PackageNotFound
from domain.journal import Committed
from domain.package import Package, PackageType, faults_of_new_package
from domain.package_service import PackageService
from projections.packages import PackageReadModel
from projections.representation import represent, segment, view_of

_KEY = re.compile(r"[!-~]{1,255}")


def cause_of(req: falcon.Request) -> Cause:
    """Who and which request causes what a command writes."""
    caller: Caller = req.context.caller
    return Cause(caller.guid, req.context.request_id)


def body_of(req: falcon.Request) -> bytes:
    """The body of a request that is no upload of bits. Raises `BodyTooLarge`."""
    cut_off_at: int | None = req.env.get("packtrail.cut_off_at")
    if cut_off_at is not None:
        raise BodyTooLarge(cut_off_at)
    return bytes(req.bounded_stream.read())


def idempotency_key(req: falcon.Request) -> str | None:
    """The key by which a request can be told from its repetition. Raises `BadKey`."""
    key = req.get_header("Idempotency-Key")
    if key is not None and not _KEY.fullmatch(key):
        raise BadKey
    return key


def answer_json(resp: falcon.Response, value: Any, status: str = falcon.HTTP_200) -> None:
    resp.status = status
    resp.content_type = JSON_TYPE
    resp.data = pretty_json(value)


class Commands:
    """What every resource that writes does with a command's outcome."""

    def __init__(self, packages: PackageService, freshness: Freshness) -> None:
        self.packages = packages
        self._freshness = freshness

    def answer(
        self, resp: falcon.Response, committed: Committed[Package], status: str = falcon.HTTP_200
    ) -> None:
        """The package at the version that the command wrote, once it can be read, too."""
        self._freshness.after(committed.position)
        answer_json(resp, represent(view_of(committed.aggregate)), status)

    def settle(self, committed: Committed[Any]) -> None:
        self._freshness.after(committed.position)


class Queries:
    """What every resource that reads asks: a read model that is not behind the log."""

    def __init__(self, read_model: PackageReadModel, freshness: Freshness) -> None:
        self._read_model = read_model
        self._freshness = freshness

    def packages(self) -> PackageReadModel:
        """Raises `ReadModelBehind`."""
        self._freshness.require()
        return self._read_model

    def answer_page(self, req: falcon.Request, resp: falcon.Response, app_guid: str | None) -> None:
        paging = Paging.of_query(req.query_string)
        found = self.packages().page(app_guid, paging.page, paging.per_page)
        path = "/v3/packages" if app_guid is None else f"/v3/apps/{segment(app_guid)}/packages"
        resources = [represent(row.view) for row in found.packages]
        answer_json(resp, paging.render(path, found.total, resources))


class PackagesOfApp:
    """`/v3/apps/:guid/packages`"""

    scopes = {"GET": Scope.READ, "POST": Scope.WRITE}

    def __init__(self, commands: Commands, queries: Queries) -> None:
        self._commands = commands
        self._queries = queries

    def on_get(self, req: falcon.Request, resp: falcon.Response, guid: str) -> None:
        self._queries.answer_page(req, resp, guid)

    def on_post(self, req: falcon.Request, resp: falcon.Response, guid: str) -> None:
        by = cause_of(req)
        query = parse_qs(req.query_string, keep_blank_values=True)
        if "source_package_guid" in query:
            source = query["source_package_guid"][-1]
            committed = self._commands.packages.copy(source, guid, by, idempotency_key(req))
        else:
            type, url = _new_package(req, guid)
            key = idempotency_key(req)
            committed = self._commands.packages.create(guid, type, url, by, key)
        self._commands.answer(resp, committed, falcon.HTTP_201)


def _new_package(req: falcon.Request, app_guid: str) -> tuple[PackageType, str | None]:
    """What a request wants created. Raises `UnparsableBody`, `InvalidPackage`."""
    fields = _json_object(body_of(req))
    unknown = [name for name in fields if name not in ("type", "url")]
    faults = []
    if unknown:
        names = ", ".join(f"'{name}'" for name in unknown)
        faults.append(f"Unknown field(s): {names}")
    faults += faults_of_new_package(app_guid, fields.get("type"), fields.get("url"))
    if faults:
        raise InvalidPackage(faults)
    return PackageType(fields["type"]), fields.get("url")


def _json_object(body: bytes) -> dict[str, Any]:
    if not body.strip():
        raise UnparsableBody("invalid request body")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise UnparsableBody(str(error)) from None
    if not isinstance(value, dict):
        raise UnparsableBody("invalid request body")
    return value


class AllPackages:
    """`/v3/packages`"""

    scopes = {"GET": Scope.READ}

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        self._queries.answer_page(req, resp, None)


class OnePackage:
    """`/v3/packages/:guid`"""

    scopes = {"GET": Scope.READ, "DELETE": Scope.WRITE}

    def __init__(self, commands: Commands, queries: Queries) -> None:
        self._commands = commands
        self._queries = queries

    def on_get(self, req: falcon.Request, resp: falcon.Response, guid: str) -> None:
        row = self._queries.packages().find(guid)
        if row is None:
            raise PackageNotFound(guid)
        answer_json(resp, represent(row.view))

    def on_delete(self, req: falcon.Request, resp: falcon.Response, guid: str) -> None:
        self._commands.settle(self._commands.packages.delete(guid, cause_of(req)))
        resp.status = falcon.HTTP_204
