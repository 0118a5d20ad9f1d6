"""What the OpenAPI document's bodies are made of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from domain.droplet import MAX_STACK, MIN_DISK, MIN_MEMORY, DropletState
from domain.package import PackageState, PackageType

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
