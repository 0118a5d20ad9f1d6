"""The Falcon application: its routes, and what holds for every request."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import falcon

from adapters import context
from adapters.authorization import Guard
from adapters.claims import Claims
from adapters.history import History
from adapters.http.admission import UploadRules, segment_of
from adapters.http.answers import (
    JSON_TYPE,
    REQUEST_ID_HEADER,
    UNKNOWN_ERROR,
    UNKNOWN_REQUEST,
    answer_to,
    is_ours,
    new_request_id,
    unparsable,
)
from adapters.http.audit import AuditEvents, OneAuditEvent
from adapters.http.authentication import Authenticator, require_scope
from adapters.http.directory import CurrentDroplet, OneApp, OneOrganization, OneSpace
from adapters.http.docs import page_files
from adapters.http.download import Blobs, Download, Sender
from adapters.http.droplets import (
    AllDroplets,
    DropletDownload,
    DropletsOfApp,
    DropletsOfPackage,
    OneDroplet,
)
from adapters.http.exchange import Commands, Queries, ReadModels
from adapters.http.faults import UnknownRequest
from adapters.http.freshness import Freshness
from adapters.http.health import Alive, MetricsPage, Part, Ready, Root
from adapters.http.openapi import OpenApiDocument
from adapters.http.packages import AllPackages, OnePackage, PackagesOfApp
from adapters.http.throttle import RequestRate
from adapters.http.trail import EventsOfPackage
from adapters.http.upload import Upload
from adapters.metrics import Metrics
from adapters.people import AddressBook
from adapters.staging.intake import Intake
from adapters.store import Services
from adapters.tokens import Caller, Scope
from adapters.tracing import Tracing

logger = logging.getLogger("packtrail.http")

METHODS = frozenset(falcon.HTTP_METHODS)
UNKNOWN_METHOD = "UNKNOWN"


class Application(falcon.App[falcon.Request, falcon.Response]):
    """Knows the methods of RFC 9110, and takes all others for one.

    There is no end of others, so none may become a metric's label or a span's name. Falcon's own
    WEBSOCKET would be refused before the middleware has seen the request.
    """

    def __call__(self, env: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if env["REQUEST_METHOD"] not in METHODS:
            env["REQUEST_METHOD"] = UNKNOWN_METHOD
        return super().__call__(env, start_response)


class RequestMiddleware:
    """Gives each request its id, lets it in by its token, and logs how it went."""

    def __init__(
        self,
        authenticator: Authenticator,
        rate: RequestRate,
        people: AddressBook,
        metrics: Metrics,
        tracing: Tracing,
    ) -> None:
        self._rate = rate
        self._authenticator = authenticator
        self._people = people
        self._tracing = tracing
        self._metrics = metrics

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        req.context.started = time.monotonic()
        # Routes are matched before the path is decoded: a guid may hold an encoded slash.
        req.path = req.env.get("packtrail.raw_path", req.path)
        req.context.request_id = req.env.get("packtrail.request_id") or new_request_id(
            req.get_header(REQUEST_ID_HEADER), req.get_header("X-Request-ID")
        )
        context.request_id.set(req.context.request_id)
        span = self._tracing.span(req.method, req.context.request_id, **{"http.target": req.path})
        span.__enter__()
        req.context.span = span
        resp.set_header(REQUEST_ID_HEADER, req.context.request_id)
        if req.path.startswith("//"):  # the router would take it for one slash
            raise UnknownRequest

    def process_resource(
        self, req: falcon.Request, resp: falcon.Response, resource: Any, params: dict[str, Any]
    ) -> None:
        if not hasattr(resource, f"on_{req.method.lower()}") or "" in params.values():
            raise UnknownRequest  # the contract knows no 405, and no OPTIONS
        for name, value in params.items():
            params[name] = segment_of(value)
        scopes = getattr(resource, "scopes", None)
        if scopes is not None:
            caller = self._authenticator.identify(req.get_header("Authorization"))
            req.context.caller = caller
            counted = "packtrail.counted" in req.env
            standing = self._rate.standing(caller) if counted else self._rate.count(caller)
            if standing is not None:
                resp.set_headers(standing.headers())
            require_scope(caller, scopes[req.method])

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, resource: Any, succeeded: bool
    ) -> None:
        req.context.span.__exit__(None, None, None)
        caller: Caller | None = getattr(req.context, "caller", None)
        if caller and resp.status_code < 400 and resource.scopes[req.method] is Scope.WRITE:
            self._people.note(caller)
        seconds = time.monotonic() - req.context.started
        route = req.uri_template or "none"
        method = req.method if req.uri_template else "any"
        self._metrics.count_request(method, route, resp.status_code, seconds)
        logger.info(
            "request",
            extra={
                "method": req.method,
                "path": req.path,
                "status": resp.status_code,
                "ms": round(seconds * 1000, 1),
                "user": caller.guid if caller else None,
            },
        )


def create_app(
    *,
    authenticator: Authenticator,
    guard: Guard,
    rate: RequestRate,
    services: Services,
    read_models: ReadModels,
    history: History,
    freshness: Freshness,
    registered_apps: bool,
    intake: Intake,
    blobs: Blobs,
    claims: Claims,
    rules: UploadRules,
    parts: Mapping[str, Part],
    version: str,
    metrics: Metrics,
    tracing: Tracing,
) -> falcon.App[falcon.Request, falcon.Response]:
    """The application, made of the parts it is given."""
    commands = Commands(services, freshness, guard, rules.limits)
    queries = Queries(read_models, freshness, registered_apps, guard)
    people = AddressBook(services.people)
    sender = Sender(blobs, services.downloads, metrics)
    middleware = RequestMiddleware(authenticator, rate, people, metrics, tracing)
    app = Application(middleware=[middleware])
    app.add_route("/", Root(version))
    app.add_route("/healthz", Alive())
    app.add_route("/readyz", Ready(parts))
    app.add_route("/metrics", MetricsPage(metrics))
    app.add_route("/openapi.json", OpenApiDocument(version))
    for path, file in page_files().items():
        app.add_route(path, file)
    app.add_route("/v3/packages", AllPackages(queries))
    app.add_route("/v3/packages/{guid}", OnePackage(commands, queries, history))
    trail = EventsOfPackage(queries, history, services.people)
    app.add_route("/v3/packages/{guid}/events", trail)
    app.add_route("/v3/packages/{guid}/upload", Upload(commands, intake, claims, rules, metrics))
    app.add_route("/v3/packages/{guid}/download", Download(queries, sender))
    app.add_route("/v3/packages/{guid}/droplets", DropletsOfPackage(commands))
    app.add_route("/v3/droplets", AllDroplets(queries))
    app.add_route("/v3/droplets/{guid}", OneDroplet(commands, queries))
    app.add_route("/v3/droplets/{guid}/download", DropletDownload(queries, sender))
    app.add_route("/v3/audit_events", AuditEvents(queries, services.people))
    app.add_route("/v3/audit_events/{guid}", OneAuditEvent(queries, services.people))
    app.add_route("/v3/apps/{guid}", OneApp(queries))
    app.add_route("/v3/apps/{guid}/packages", PackagesOfApp(commands, queries))
    app.add_route("/v3/apps/{guid}/droplets", DropletsOfApp(queries))
    app.add_route("/v3/apps/{guid}/current_droplet", CurrentDroplet(commands, queries))
    app.add_route("/v3/spaces/{guid}", OneSpace(queries))
    app.add_route("/v3/organizations/{guid}", OneOrganization(queries))
    app.add_error_handler(Exception, _answer_error)
    app.add_error_handler(falcon.HTTPError, _answer_falcon_error)
    return app


def _answer_error(
    req: falcon.Request, resp: falcon.Response, error: Exception, params: dict[str, Any]
) -> None:
    answer = answer_to(error)
    if is_ours(answer):
        is_defect = answer.status == UNKNOWN_ERROR.status
        logger.error("a request failed: %s", error, exc_info=error if is_defect else None)
    _answer(resp, answer)


def _answer_falcon_error(
    req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError, params: dict[str, Any]
) -> None:
    unknown = error.status_code in (404, 405)
    _answer(resp, UNKNOWN_REQUEST if unknown else unparsable(error.title or "bad request"))


def _answer(resp: falcon.Response, answer: Any) -> None:
    resp.status = answer.status
    resp.content_type = JSON_TYPE
    resp.data = answer.body()
    resp.stream = None
    resp.delete_header("ETag")
    resp.delete_header("Accept-Ranges")
    resp.delete_header("Cache-Control")
    for name, value in answer.headers.items():
        resp.set_header(name, value)
