"""What the OpenAPI document says of parameters, and of the headers of answers."""

from __future__ import annotations

from typing import Any

from adapters.http.audit import MAX_TIMES
from adapters.http.openapi_schemas import Schema
from adapters.http.paging import DEFAULT_PER_PAGE, MAX_PER_PAGE, MAX_VALUES
from domain.aggregate import MAX_GUID_LENGTH
from domain.droplet import DropletState
from projections.droplets import DropletOrder


def parameters() -> Schema:
    """Every parameter there is, but for the guids in paths."""
    orders = [sign + order for order in DropletOrder for sign in ("", "+", "-")]
    return {
        "page": _query(
            "page",
            "Which page; they count from 1. Beyond the last one there are no resources.",
            {"type": "integer", "minimum": 1, "default": 1},
        ),
        "per_page": _query(
            "per_page",
            "How many resources a page has.",
            {
                "type": "integer",
                "minimum": 1,
                "maximum": MAX_PER_PAGE,
                "default": DEFAULT_PER_PAGE,
            },
        ),
        "order_by": _query(
            "order_by",
            "What the list is ordered by; with a minus sign, the newest comes first.",
            {"type": "string", "enum": orders, "default": "created_at"},
        ),
        "states": _list(
            "states",
            f"Only droplets in these states, parted by commas: {', '.join(DropletState)}.",
        ),
        "app_guids": _list("app_guids", "Only droplets of these apps, parted by commas."),
        "types": _list("types", "Only audit events of these types, parted by commas."),
        "target_guids": _list(
            "target_guids",
            "Only audit events of these apps, spaces, organizations or users, or about these "
            "packages or droplets, parted by commas.",
        ),
        "target_guids.not": _list("target_guids[not]", "All but those."),
        "space_guids": _list("space_guids", "Only what happened in these spaces."),
        "organization_guids": _list(
            "organization_guids", "Only what happened in these organizations."
        ),
        "created_ats": _list(
            "created_ats",
            "Only what happened at these times. A time of whole seconds is all of its second.",
            MAX_TIMES,
            "date-time",
        ),
        **{
            f"created_ats.{name}": _query(
                f"created_ats[{name}]",
                f"Only what happened {said} this time. A time of whole seconds is all of its "
                "second.",
                {"type": "string", "format": "date-time"},
            )
            for name, said in (
                ("gt", "after"),
                ("gte", "at or after"),
                ("lt", "before"),
                ("lte", "at or before"),
            )
        },
        "at": _query(
            "at",
            "As it was when the log ended with this position, or with the last one that was "
            "appended before this time (RFC 3339). Neither may be yet to come.",
            {
                "anyOf": [
                    {"type": "integer", "minimum": 0},
                    {"type": "string", "format": "date-time"},
                ]
            },
        ),
        "source_package_guid": _query(
            "source_package_guid",
            "The READY package to copy. The request then needs no body, and any it has is ignored.",
            {"type": "string"},
        ),
        "Idempotency-Key": _header(
            "Idempotency-Key",
            "Sent again by the same user, the request makes nothing new and is answered as it was "
            "then; with the key of another request it is refused.",
            {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]{1,255}$"},
        ),
        "Range": _header(
            "Range",
            "Some of the bytes, such as bytes=0-99. What is no range of bytes, or several, is "
            "ignored.",
            {"type": "string", "examples": ["bytes=0-99"]},
        ),
        "If-Range": _header(
            "If-Range", "The range is meant only while the bits have this ETag.", {"type": "string"}
        ),
        "If-None-Match": _header(
            "If-None-Match",
            "ETags of what the client has: it gets 304 if that is still the same.",
            {"type": "string"},
        ),
        "X-VCAP-Request-ID": _header(
            "X-VCAP-Request-ID",
            "The caller's own id of the request. The answer's begins with it, if it is 1 to 200 "
            "characters of A-Z, a-z, 0-9, colon, dot, underscore and hyphen.",
            {"type": "string"},
        ),
    }


def path_guid(what: str) -> Schema:
    return {
        "name": "guid",
        "in": "path",
        "required": True,
        "description": f"The guid of the {what}. It holds no NUL characters.",
        "schema": {"type": "string", "minLength": 1, "maxLength": MAX_GUID_LENGTH},
    }


def _query(name: str, description: str, schema: Schema, **more: Any) -> Schema:
    return {"name": name, "in": "query", "description": description, **more, "schema": schema}


def _list(name: str, description: str, most: int = MAX_VALUES, format: str | None = None) -> Schema:
    items: Schema = {"type": "string"} | ({"format": format} if format else {})
    schema = {"type": "array", "items": items, "maxItems": most}
    return _query(name, description, schema, style="form", explode=False)


def _header(name: str, description: str, schema: Schema) -> Schema:
    return {"name": name, "in": "header", "description": description, "schema": schema}


def headers() -> Schema:
    """Every header of answers that tells a client something."""
    seconds = {"type": "integer", "minimum": 0}
    return {
        "X-VCAP-Request-ID": {
            "description": "The request's id, in every log line about it.",
            "required": True,
            "schema": {"type": "string", "minLength": 36},
        },
        "Retry-After": {
            "description": "Seconds until it is worth another try.",
            "required": True,
            "schema": seconds,
        },
        "X-RateLimit-Limit": {
            "description": "How many requests a user has in a minute, where that is limited.",
            "schema": seconds,
        },
        "X-RateLimit-Remaining": {
            "description": "How many of them are left.",
            "schema": seconds,
        },
        "X-RateLimit-Reset": {
            "description": "When there are more, in seconds since 1970 (UTC).",
            "schema": seconds,
        },
        "ETag": {
            "description": "The SHA-256 of the bits, or of the JSON, in quotes.",
            "required": True,
            "schema": {"type": "string", "pattern": '^"[0-9a-f]{64}"$'},
        },
        "Accept-Ranges": {
            "description": "Some of the bytes can be asked for.",
            "required": True,
            "schema": {"const": "bytes"},
        },
        "Content-Range": {
            "description": "Which bytes these are, and of how many.",
            "required": True,
            "schema": {"type": "string", "pattern": r"^bytes (\d+-\d+|\*)/\d+$"},
        },
        "Content-Disposition": {
            "description": "The file's name.",
            "required": True,
            "schema": {"type": "string"},
        },
        "Location": {
            "description": "Where the bits are: a link that is good for five minutes.",
            "required": True,
            "schema": {"type": "string", "format": "uri"},
        },
    }
