"""The HTTP API as a document: OpenAPI 3.1, made of the routes, refusals and types of the code.

https://spec.openapis.org/oas/v3.1.1.html
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import falcon

from adapters.authorization import AuthorizationAway
from adapters.http import faults
from adapters.http.answers import (
    DATABASE_ERROR,
    JSON_TYPE,
    UNKNOWN_ERROR,
    ErrorAnswer,
    answer_to,
    pretty_json,
    unparsable,
)
from adapters.http.openapi_operations import OPERATIONS, Operation, Refusal
from adapters.http.openapi_parameters import headers, parameters, path_guid
from adapters.http.openapi_schemas import Schema, ref, schemas, whole
from adapters.token_keys import KeysAway
from adapters.tokens import Scope

SCHEME = "token"
RATE_LIMIT_HEADERS = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")

OF_EVERY_REQUEST: tuple[Refusal, ...] = (
    unparsable("the request breaks HTTP"),
    unparsable("the request came too slowly", 408),
    unparsable("the headers are too large", 431),
    UNKNOWN_ERROR,
    unparsable("this transfer coding is not known", 501),
)
OF_EVERY_CALLER: tuple[Refusal, ...] = (
    faults.NotAuthenticated(),
    faults.InvalidToken(),
    faults.NotAuthorized(),
    faults.RateLimited(1, {}),
    DATABASE_ERROR,
    KeysAway(),
    AuthorizationAway(),
)
_DESCRIPTIONS = {
    400: "The request can't be read, or asks for what can't be.",
    401: "There is no token, or none that is accepted.",
    403: "You may not do this.",
    404: "There is no such thing, or none that you may see.",
    408: "The request, or its body, came too slowly.",
    413: "The body is larger than the limit, which is told.",
    416: "The range begins behind the last byte.",
    422: "The request is well-formed, and asks for what can't be; each reason is told.",
    429: "Too many requests, or uploads at once.",
    431: "The request line and headers are too large.",
    500: "A fault of the service; its log tells more, under the request's id.",
    501: "The request needs something of HTTP that the service does not know.",
    503: "The database, or the store of bits, is away or behind; try again.",
    507: "There is no room to store the upload.",
}

_DESCRIPTION = """
    Packtrail takes in application packages, stores and hashes their bits, and serves their state.
    It speaks the Cloud Foundry v3 Packages API, the experimental one of October 2015.

    Every refusal is JSON with `code`, `description` and `error_code`; every answer has the
    request's id in the header `X-VCAP-Request-ID`. A path or method that is not in this document
    is answered with 404, code 10000.
"""
_TOKEN = f"""
    A JSON Web Token with the claims `user_id` or `client_id`, `aud`, `exp` and `scope`.
    `{Scope.READ}` lets its owner read, `{Scope.WRITE}` change things, and `{Scope.ADMIN}` do
    everything. Each operation names the scope that it needs. Where roles count, a role in the
    app's space is needed besides: what you may not see is answered with 404, what you may see
    and not do with 403.
"""
_TAGS = {
    "packages": "Packages: created, uploaded to, downloaded, deleted.",
    "droplets": "Droplets: what builders make of packages.",
    "audit": "Who did what, and all that happened to a package.",
    "directory": "Apps, spaces and organizations, as other systems have told of them.",
    "service": "The service itself; open to everybody.",
}


class OpenApiDocument:
    """`/openapi.json`"""

    def __init__(self, version: str) -> None:
        self._document = pretty_json(document(version))

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.content_type = JSON_TYPE
        resp.data = self._document


_ITSELF = Operation(
    "/openapi.json", "GET", OpenApiDocument, "showDocument", "service",
    "Show this document",
    {
        "200": {
            "description": "An OpenAPI 3.1 document.",
            "content": {JSON_TYPE: {"schema": {"type": "object"}}},
        }
    },
)  # fmt: skip


def operations() -> list[Operation]:
    """Every operation of the API."""
    return [*OPERATIONS, _ITSELF]


def document(version: str) -> dict[str, Any]:
    """The document; `version` is the service's."""
    paths: dict[str, Schema] = defaultdict(dict)
    refused: Schema = {}
    for operation in operations():
        paths[operation.template][operation.method.lower()] = _described(operation, refused)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Packtrail",
            "version": version,
            "description": inspect.cleandoc(_DESCRIPTION),
            "license": {
                "name": "Apache 2.0",
                "url": "https://www.apache.org/licenses/LICENSE-2.0",
            },
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": dict(paths),
        "components": {
            "securitySchemes": {
                SCHEME: {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": inspect.cleandoc(_TOKEN),
                }
            },
            "parameters": parameters(),
            "headers": headers(),
            "responses": dict(sorted(refused.items())),
            "schemas": schemas(),
        },
    }


def scope_of(operation: Operation) -> Scope | None:
    """The scope that it needs; None if it is open to everybody."""
    scopes: dict[str, Scope] | None = getattr(operation.resource, "scopes", None)
    return None if scopes is None else scopes[operation.method]


def refusals_of(operation: Operation) -> list[Refusal]:
    """Everything that it may be refused with."""
    found: list[Refusal] = [*OF_EVERY_REQUEST]
    if scope_of(operation) is not None:
        found += OF_EVERY_CALLER
    if operation.guid_of:
        found.append(faults.UnknownRequest())
    return [*found, *operation.refusals]


def _described(operation: Operation, refused: Schema) -> Schema:
    """Puts the answers that refuse it among those that operations share."""
    scope = scope_of(operation)
    needs = f"Needs the scope `{scope}`." if scope is not None else ""
    named = [ref("parameters", name) for name in (*operation.parameters, "X-VCAP-Request-ID")]
    shown: Schema = {
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": " ".join(filter(None, (operation.description, needs)))
        or f"{operation.summary}. Open to everybody.",
        "parameters": [path_guid(operation.guid_of), *named] if operation.guid_of else named,
    }
    if operation.body is not None:
        shown["requestBody"] = operation.body
    shown["responses"] = _responses(operation, refused)
    shown["security"] = [] if scope is None else [{SCHEME: []}]
    return shown


def _responses(operation: Operation, refused: Schema) -> Schema:
    limited = scope_of(operation) is not None
    found: Schema = {}
    for status, response in operation.success.items():
        named = _header_refs(limited) | response.get("headers", {})
        found[status] = response | {"headers": named}
        if operation.links:
            found[status]["links"] = operation.links
    for code, refusals in _by_status(refusals_of(operation)).items():
        if str(code) in found:  # /readyz tells of its parts even when it refuses
            continue
        name = "_".join((str(code), *(name for name, _ in refusals)))
        if not limited:
            name += ".open"  # to everybody: nobody's requests are counted
        refused[name] = _refused(refusals, limited)
        found[str(code)] = ref("responses", name)
    return dict(sorted(found.items()))


def _by_status(refusals: Sequence[Refusal]) -> dict[int, list[tuple[str, ErrorAnswer]]]:
    found: dict[int, list[tuple[str, ErrorAnswer]]] = defaultdict(list)
    for refusal in refusals:
        if isinstance(refusal, ErrorAnswer):
            answer, name = refusal, refusal.error_code.removeprefix("CF-")
        else:
            answer, name = answer_to(refusal), type(refusal).__name__
        if all(answer != other for _, other in found[answer.status]):
            found[answer.status].append((name, answer))
    return found


def _refused(refusals: list[tuple[str, ErrorAnswer]], limited: bool) -> Schema:
    """An answer that is one of these refusals, all of one status."""
    answers = [answer for _, answer in refusals]
    body = whole(
        {
            "code": {"enum": sorted({answer.code for answer in answers})},
            "description": {"type": "string"},
            "error_code": {"enum": sorted({answer.error_code for answer in answers})},
        }
    )
    named = {name for answer in answers for name in answer.headers}
    return {
        "description": _DESCRIPTIONS[answers[0].status],
        "headers": _header_refs(limited, *sorted(named)),
        "content": {
            JSON_TYPE: {
                "schema": body,
                "examples": {answer.description: {"value": answer.shown()} for answer in answers},
            }
        },
    }


def _header_refs(limited: bool, *others: str) -> Schema:
    names = ["X-VCAP-Request-ID", *others, *(RATE_LIMIT_HEADERS if limited else ())]
    return {name: ref("headers", name) for name in names}
