"""What the OpenAPI document's operations share: schemas, parameters, headers of answers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from adapters.http.audit import MAX_TIMES
from adapters.http.paging import DEFAULT_PER_PAGE, MAX_PER_PAGE, MAX_VALUES
from domain.aggregate import MAX_GUID_LENGTH
from domain.droplet import MAX_STACK, MIN_DISK, MIN_MEMORY, DropletState
from domain.package import PackageState, PackageType
from projections.droplets import DropletOrder

Schema = dict[str, Any]

NO_NUL = r"^[^\u0000]*$"
_TEXT_OR_NULL: Schema = {"type": ["string", "null"]}
_TIME: Schema = {
    "type": "string",
    "format": "date-time",
    "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$",
    "description": "UTC, to the second.",
}
_EXACT_TIME: Schema = {
    "type": "string",
    "format": "date-time",
    "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z$",
    "description": "UTC, to the microsecond.",
}
_TIME_OR_NULL = _TIME | {
    "type": ["string", "null"],
    "description": "UTC, to the second; null until something changed.",
}
_SHA1: Schema = {
    "type": "object",
    "description": "Of the stored bits; the value is null until it is known.",
    "required": ["type", "value"],
    "additionalProperties": False,
    "properties": {
        "type": {"const": "sha1"},
        "value": {"type": ["string", "null"], "pattern": "^[0-9a-f]{40}$"},
    },
}
_MEBIBYTES: Schema = {
    "type": ["integer", "null"],
    "format": "int64",
    "minimum": -(1 << 63),
    "maximum": (1 << 63) - 1,
}
_IMAGE = (
    r"^[^\u0000?@]*[^\s\u0000?@][^\u0000?@]*"
    r"(@sha(256:[0-9a-f]{64}|384:[0-9a-f]{96}|512:[0-9a-f]{128}))?$"
)
_NAME_OF_BUILDPACK = "^[A-Za-z0-9][A-Za-z0-9._-]{0,254}$"
_URL_OF_BUILDPACK = r"^(https?|git)://[A-Za-z0-9][A-Za-z0-9._/-]*$"


def ref(kind: str, name: str) -> Schema:
    return {"$ref": f"#/components/{kind}/{name}"}


def whole(properties: Schema, description: str = "", optional: Iterable[str] = ()) -> Schema:
    """An object that has these properties, in this order, and no others."""
    schema: Schema = {"type": "object"}
    if description:
        schema["description"] = description
    return schema | {
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
        "properties": properties,
    }


def _link(method: str | None = None) -> Schema:
    properties: Schema = {"href": {"type": "string", "format": "uri-reference"}}
    if method is not None:
        properties["method"] = {"const": method}
    return whole(properties)


def guid(description: str, **more: Any) -> Schema:
    return {"type": "string", "minLength": 1, "description": description} | more


def _place(description: str) -> Schema:
    there = whole({"guid": {"type": "string"}}, description)
    return {"anyOf": [there, {"type": "null"}], "description": description}


def _page_of(name: str, what: str = "") -> Schema:
    return whole(
        {
            "pagination": ref("schemas", "Pagination"),
            "resources": {"type": "array", "items": ref("schemas", name)},
        },
        f"A page of a list: {what or f'{name.lower()}s'} in the order asked for.",
    )


def schemas() -> Schema:
    """Everything that bodies are made of."""
    page = {"anyOf": [_link(), {"type": "null"}]}
    return {
        "Package": whole(
            {
                "guid": guid("Its name for ever."),
                "type": {"enum": list(PackageType)},
                "hash": _SHA1,
                "url": _TEXT_OR_NULL | {"description": "The image of a docker package."},
                "state": {"enum": list(PackageState)},
                "error": _TEXT_OR_NULL | {"description": "Why the package FAILED."},
                "created_at": _TIME,
                "updated_at": _TIME_OR_NULL,
                "links": whole(
                    {
                        "self": _link(),
                        "upload": _link("POST"),
                        "download": _link("GET"),
                        "stage": _link("POST"),
                        "app": _link(),
                    },
                    "A docker package has only self and app.",
                    ("upload", "download", "stage"),
                ),
            },
            "An app's package: its bits, or the name of a docker image.",
        ),
        "Droplet": whole(
            {
                "guid": guid("Its name for ever."),
                "state": {"enum": list(DropletState)},
                "hash": _SHA1,
                "buildpack": _TEXT_OR_NULL,
                "error": _TEXT_OR_NULL | {"description": "Why the droplet FAILED."},
                "procfile": _TEXT_OR_NULL,
                "environment_variables": {"type": "object"},
                "created_at": _TIME,
                "updated_at": _TIME_OR_NULL,
                "links": whole(
                    {
                        "self": _link(),
                        "package": _link(),
                        "app": _link(),
                        "assign_current_droplet": _link("PUT"),
                    }
                ),
            },
            "What a builder makes, or was asked to make, of a package.",
        ),
        "App": whole(
            {
                "guid": guid("The app's guid."),
                "name": _TEXT_OR_NULL,
                "desired_state": {"const": "STOPPED"},
                "total_desired_instances": {"const": 0},
                "buildpack": _TEXT_OR_NULL,
                "created_at": _TIME,
                "updated_at": _TIME_OR_NULL,
                "environment_variables": {"type": "object"},
                "links": whole(
                    {
                        "self": _link(),
                        "space": _link(),
                        "packages": _link(),
                        "droplets": _link(),
                        "droplet": _link(),
                    },
                    "space if it is known; droplet if one is assigned.",
                    ("space", "droplet"),
                ),
            },
            "An app, as other systems have told of it. What runs is not known here.",
        ),
        "Space": whole(
            {
                "guid": guid("The space's guid."),
                "name": _TEXT_OR_NULL,
                "created_at": _TIME,
                "updated_at": _TIME_OR_NULL,
                "links": whole({"self": _link(), "organization": _link()}, "", ("organization",)),
            },
            "A space, as other systems have told of it.",
        ),
        "Organization": whole(
            {
                "guid": guid("The organization's guid."),
                "name": _TEXT_OR_NULL,
                "created_at": _TIME,
                "updated_at": _TIME_OR_NULL,
                "links": whole({"self": _link()}),
            },
            "An organization, as other systems have told of it.",
        ),
        "AuditEvent": whole(
            {
                "guid": guid("Its name for ever, also when the list was built anew."),
                "created_at": _TIME,
                "updated_at": _TIME | {"description": "The same: an event does not change."},
                "type": {
                    "type": "string",
                    "description": "What was done.",
                    "examples": ["audit.app.package.upload"],
                },
                "actor": ref("schemas", "Actor"),
                "target": whole(
                    {
                        "guid": guid("Of what it was done to."),
                        "type": {"enum": ["app", "space", "organization", "user"]},
                        "name": {"type": "string", "description": "As it was then, if known."},
                    },
                    "What it was done to: of packages and droplets, their app.",
                ),
                "data": {
                    "type": "object",
                    "description": "What else there is to say: of packages and droplets their "
                    "guid; what was asked for; the request, and the event of the log.",
                    "required": ["event_id", "position", "request_id"],
                    "properties": {
                        "package_guid": {"type": "string"},
                        "droplet_guid": {"type": "string"},
                        "request": {"type": "object"},
                        "role": {"type": "string"},
                        "event_id": {"type": "string"},
                        "position": {"type": "integer", "minimum": 1},
                        "request_id": {"type": "string"},
                    },
                },
                "space": _place("The space in which it happened, as far as that was known."),
                "organization": _place("The organization of that space."),
                "links": whole({"self": _link()}),
            },
            "Who did what, to what, when and where.",
        ),
        "PackageEvent": whole(
            {
                "position": {
                    "type": "integer",
                    "minimum": 1,
                    "description": "Its place in the log.",
                },
                "id": guid("The package's guid, a slash, and the version that it then has."),
                "type": {
                    "type": "string",
                    "description": "What happened.",
                    "examples": ["package.upload_started"],
                },
                "created_at": _EXACT_TIME,
                "actor": ref("schemas", "Actor"),
                "request_id": {"type": "string", "description": "The request that led to it."},
                "caused_by": _TEXT_OR_NULL
                | {"description": "The id of the event that led to it; null if none did."},
                "data": {"type": "object", "description": "The event's own fields."},
                "links": whole(
                    {"package": _link(), "state": _link()},
                    "state: the package as it was then; a deletion leaves none.",
                    ("state",),
                ),
            },
            "What happened to a package.",
        ),
        "Actor": whole(
            {
                "guid": guid("The user's guid, or the name under which the service acts itself."),
                "type": {"enum": ["user", "system"]},
                "name": {"type": "string", "description": "An address, while one is kept."},
            },
            "Who did it.",
        ),
        "Pagination": whole(
            {
                "total_results": {"type": "integer", "minimum": 0},
                "first": _link(),
                "last": _link(),
                "next": page,
                "previous": page,
            },
            "Where in the list the page is. Links keep what was asked for.",
        ),
        "PageOfPackages": _page_of("Package"),
        "PageOfDroplets": _page_of("Droplet"),
        "PageOfAuditEvents": _page_of("AuditEvent", "audit events"),
        "PageOfPackageEvents": _page_of("PackageEvent", "a package's events"),
        "NewPackage": {
            "description": "What a new package is to be.",
            "oneOf": [ref("schemas", "NewBitsPackage"), ref("schemas", "NewDockerPackage")],
        },
        "NewBitsPackage": whole(
            {
                "type": {"const": PackageType.BITS},
                "url": {
                    "type": ["string", "null"],
                    "maxLength": 0,
                    "description": "Has no meaning for bits, and must be blank.",
                },
            },
            "A package whose bits are uploaded later.",
            ("url",),
        ),
        "NewDockerPackage": whole(
            {
                "type": {"const": PackageType.DOCKER},
                "url": {
                    "type": "string",
                    "minLength": 1,
                    "pattern": _IMAGE,
                    "description": "The image, without credentials: an @ is there only before "
                    "its digest.",
                },
            },
            "A package that is an image elsewhere; it is READY at once.",
        ),
        "StageRequest": whole(
            {
                "memory_limit": _MEBIBYTES | {"description": f"MiB; raised to {MIN_MEMORY}."},
                "disk_limit": _MEBIBYTES | {"description": f"MiB; raised to {MIN_DISK}."},
                "stack": {
                    "type": ["string", "null"],
                    "minLength": 1,
                    "maxLength": MAX_STACK,
                    "pattern": NO_NUL,
                },
                "buildpack": {
                    "description": "A name, or the URL of a git repository without credentials; "
                    "null means the app's.",
                    "anyOf": [
                        {"type": "null"},
                        {"type": "string", "pattern": _NAME_OF_BUILDPACK},
                        {"type": "string", "pattern": _URL_OF_BUILDPACK, "maxLength": MAX_STACK},
                    ],
                },
                "environment_variables": {
                    "type": ["object", "null"],
                    "description": "Names may not begin with CF_ or VCAP_, nor be PORT, in "
                    "capital letters or small ones.",
                    "propertyNames": {
                        "pattern": "^(?!([Cc][Ff]|[Vv][Cc][Aa][Pp])_|[Pp][Oo][Rr][Tt]$)"
                    },
                },
            },
            "How a droplet is to be made of a package.",
            ("memory_limit", "disk_limit", "stack", "buildpack", "environment_variables"),
        ),
        "DropletToRun": whole(
            {"droplet_guid": {"type": "string", "description": "A STAGED droplet of the app."}},
            "Which droplet the app is to be run from.",
        ),
        "BitsForm": {
            "type": "object",
            "description": "What people and curl -F bits=@app.zip send.",
            "required": ["bits"],
            "properties": {
                "bits": {
                    "type": "string",
                    "contentMediaType": "application/octet-stream",
                    "format": "binary",
                    "description": "The zip file.",
                }
            },
        },
        "BitsPathForm": {
            "type": "object",
            "description": "What a front server sends that has written the bits to disk.",
            "required": ["bits_path"],
            "properties": {
                "bits_path": {
                    "type": "string",
                    "minLength": 1,
                    "description": "A file in the upload directory; an accepted upload takes it.",
                },
                "bits_name": {"type": "string", "description": "The name that its sender gave."},
            },
        },
        "Root": whole(
            {
                "name": {"const": "packtrail"},
                "version": {"type": "string"},
                "links": {"type": "object", "additionalProperties": _link()},
            },
            "What there is.",
        ),
        "Health": whole({"status": {"const": "ok"}}, "The process is alive."),
        "Readiness": whole(
            {
                "status": {"enum": ["ok", "unavailable"]},
                "parts": {
                    "type": "object",
                    "additionalProperties": whole(
                        {"status": {"enum": ["ok", "degraded"]}, "reason": {"type": "string"}},
                        "",
                        ("reason",),
                    ),
                },
            },
            "Whether the process can serve, and how each part of it is.",
        ),
    }


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
            "ETags of bits that the client has: it gets 304 if they are still the same.",
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
            "description": "The SHA-256 of the bits, in quotes.",
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
