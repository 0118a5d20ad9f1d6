"""What the OpenAPI document says of each operation: what it is for, takes, and may answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from adapters.http import faults
from adapters.http.answers import JSON_TYPE, STORE_AWAY, ErrorAnswer
from adapters.http.audit import AuditEvents, OneAuditEvent
from adapters.http.directory import CurrentDroplet, OneApp, OneOrganization, OneSpace
from adapters.http.download import Download
from adapters.http.droplets import (
    AllDroplets,
    DropletDownload,
    DropletsOfApp,
    DropletsOfPackage,
    OneDroplet,
)
from adapters.http.health import Alive, MetricsPage, Ready, Root
from adapters.http.openapi_schemas import Schema, ref
from adapters.http.packages import AllPackages, OnePackage, PackagesOfApp
from adapters.http.trail import EventsOfPackage
from adapters.http.upload import Upload
from adapters.metrics import CONTENT_TYPE
from domain import errors

PAGE = ("page", "per_page")
_HELD = "If-None-Match"
_ID = {"guid": "$response.body#/guid"}
_NO_PACKAGE = errors.PackageNotFound("")
_NO_DROPLET = errors.DropletNotFound("")
_NO_APP = errors.AppNotFound("")
_TOO_LARGE = faults.BodyTooLarge(64 * 1024)
_NO_JSON = faults.UnparsableBody("invalid request body")
_BAD_KEY = faults.BadKey()
_KEY_REUSED = errors.KeyReused()
_UNKNOWN_FIELD = errors.InvalidRequest(["Unknown field(s): 'x'"])
_BAD_PAGE = faults.BadQuery("Per page must be greater than 0")
_TOO_MANY_APPS = faults.TooManyApps(1000)
_NO_RANGE = faults.RangeNotSatisfiable(849)

Refusal = Exception | ErrorAnswer


@dataclass(frozen=True)
class Operation:
    """One method of one route. `guid_of` is what the guid in its path names."""

    template: str
    method: str
    resource: type[Any]
    id: str
    tag: str
    summary: str
    success: Schema  # answers by their status
    description: str = ""
    guid_of: str = ""
    parameters: tuple[str, ...] = ()
    body: Schema | None = None
    refusals: tuple[Refusal, ...] = ()
    links: Schema = field(default_factory=dict)


def _json(status: str, description: str, schema: str) -> Schema:
    content = {JSON_TYPE: {"schema": ref("schemas", schema)}}
    return {status: {"description": description, "content": content}}


def _document(description: str, schema: str) -> Schema:
    answers = _json("200", description, schema)
    answers["200"]["headers"] = _headers("ETag")
    held = {"description": "The client has it already.", "headers": _headers("ETag")}
    return {**answers, "304": held}


def _json_body(
    schema: str, description: str, *examples: tuple[str, Any], required: bool = True
) -> Schema:
    shown = {name: {"value": value} for name, value in examples}
    return {
        "description": description,
        "required": required,
        "content": {"application/json": {"schema": ref("schemas", schema), "examples": shown}},
    }


def _bits(media_type: str) -> Schema:
    content = {media_type: {"schema": {"type": "string", "format": "binary"}}}
    named = ("ETag", "Accept-Ranges", "Content-Disposition")
    return {
        "200": {"description": "The bits.", "content": content, "headers": _headers(*named)},
        "206": {
            "description": "The bytes that were asked for.",
            "content": content,
            "headers": _headers(*named, "Content-Range"),
        },
        "302": {
            "description": "The bits are in an object store.",
            "headers": _headers("ETag", "Location"),
        },
        "304": {
            "description": "The client has them already.",
            "headers": _headers("ETag", "Accept-Ranges"),
        },
    }


def _headers(*names: str) -> Schema:
    return {name: ref("headers", name) for name in names}


def _leads_to(*links: tuple[str, str, Schema]) -> Schema:
    return {
        name: {"operationId": operation, "parameters": parameters}
        for name, operation, parameters in links
    }


_DELETED: Schema = {"204": {"description": "It is gone."}}
_BITS_PARAMETERS = ("Range", "If-Range", _HELD)

OPERATIONS: list[Operation] = [
    Operation(
        "/v3/apps/{guid}/packages", "POST", PackagesOfApp, "createPackage", "packages",
        "Create a package, or copy one",
        _json("201", "The new package.", "Package"),
        "A package of type bits awaits its upload; one of type docker is READY at once. With "
        "source_package_guid the package is a copy of another, and the body is ignored.",
        guid_of="app",
        parameters=("source_package_guid", "Idempotency-Key"),
        body=_json_body(
            "NewPackage",
            "What it is to be. Only a copy needs no body.",
            ("bits", {"type": "bits"}),
            ("docker", {"type": "docker", "url": "registry.example/image:1"}),
            required=False,
        ),
        refusals=(
            _NO_JSON, _NO_APP, _NO_PACKAGE, _TOO_LARGE, _BAD_KEY, _KEY_REUSED, _UNKNOWN_FIELD,
            errors.SourceNotReady("", ""), errors.SourceAppIsDestination(""),
            errors.TooManyPackages("", 1000),
        ),
        links=_leads_to(
            ("show", "showPackage", _ID),
            ("upload", "uploadBits", _ID),
            ("download", "downloadBits", _ID),
            ("stage", "stagePackage", _ID),
            ("delete", "deletePackage", _ID),
            ("packages of the app", "listPackagesOfApp", {"guid": "$request.path.guid"}),
        ),
    ),
    Operation(
        "/v3/apps/{guid}/packages", "GET", PackagesOfApp, "listPackagesOfApp", "packages",
        "List the packages of an app",
        _document("A page, in the order of creation.", "PageOfPackages"),
        guid_of="app",
        parameters=(*PAGE, _HELD),
        refusals=(_BAD_PAGE, _NO_APP),
    ),
    Operation(
        "/v3/packages", "GET", AllPackages, "listPackages", "packages",
        "List all packages that you may see",
        _document("A page, in the order of creation.", "PageOfPackages"),
        parameters=(*PAGE, _HELD),
        refusals=(_BAD_PAGE, _TOO_MANY_APPS),
    ),
    Operation(
        "/v3/packages/{guid}", "GET", OnePackage, "showPackage", "packages",
        "Show a package",
        _document("The package.", "Package"),
        "With `at` it is shown as it was then, also if it is deleted now: not before it was "
        "created, nor after it was deleted.",
        guid_of="package",
        parameters=("at", _HELD),
        refusals=(
            _NO_PACKAGE,
            faults.BadQuery("At: position 12 is beyond the newest event, which is at 11"),
        ),
    ),
    Operation(
        "/v3/packages/{guid}/events", "GET", EventsOfPackage, "listEventsOfPackage", "audit",
        "List what happened to a package",
        _json("200", "A page, in the order of the log.", "PageOfPackageEvents"),
        "From its creation on, also if it is deleted now. Downloads are in the audit events.",
        guid_of="package",
        parameters=PAGE,
        refusals=(_BAD_PAGE, _NO_PACKAGE),
    ),
    Operation(
        "/v3/packages/{guid}", "DELETE", OnePackage, "deletePackage", "packages",
        "Delete a package",
        _DELETED,
        "In any state. Its bits go, too, a little later; its droplets stay.",
        guid_of="package",
        refusals=(_NO_PACKAGE,),
        links=_leads_to(("show", "showPackage", {"guid": "$request.path.guid"})),
    ),
    Operation(
        "/v3/packages/{guid}/upload", "POST", Upload, "uploadBits", "packages",
        "Upload the bits of a package",
        _json("200", "The bits are safe; the package is in PROCESSING_UPLOAD.", "Package"),
        "Once, to a package that awaits it. The package becomes READY when its bits are stored and "
        "hashed, or FAILED if they are no zip that can be used. An upload that can't be taken is "
        "refused at its headers, before its body is sent.",
        guid_of="package",
        body={
            "description": "A zip file, in one of two forms.",
            "required": True,
            "content": {
                "multipart/form-data": {"schema": ref("schemas", "BitsForm")},
                "application/x-www-form-urlencoded": {"schema": ref("schemas", "BitsPathForm")},
            },
        },
        refusals=(
            errors.UploadsDisabled(), errors.NoBitsInForm(),
            errors.FormOverLimit("The form has 101 parts; the limit is 100"),
            errors.FormTooLarge(65_537, 65_536), errors.BitsPathInvalid("", ""),
            _NO_PACKAGE, errors.PackageTypeNotBits("", ""), errors.BitsAlreadyUploaded("", ""),
            errors.UploadTooLarge(1 << 30), _TOO_LARGE, errors.NoRoomForUpload(), STORE_AWAY,
            faults.TooManyUploads(1024, 1),
        ),
        links=_leads_to(
            ("show", "showPackage", _ID),
            ("download", "downloadBits", _ID),
            ("stage", "stagePackage", _ID),
            ("upload again", "uploadBits", _ID),
            ("delete", "deletePackage", _ID),
        ),
    ),
    Operation(
        "/v3/packages/{guid}/download", "GET", Download, "downloadBits", "packages",
        "Download the bits of a package",
        _bits("application/zip"),
        guid_of="package",
        parameters=_BITS_PARAMETERS,
        refusals=(
            _NO_PACKAGE, errors.PackageTypeNotBits("", ""), errors.PackageNotReady("", ""),
            _NO_RANGE, STORE_AWAY,
        ),
    ),
    Operation(
        "/v3/packages/{guid}/droplets", "POST", DropletsOfPackage, "stagePackage", "droplets",
        "Ask for a droplet of a package",
        _json("201", "The droplet, which waits for a builder.", "Droplet"),
        "Of a READY package of type bits. A builder makes it.",
        guid_of="package",
        parameters=("Idempotency-Key",),
        body=_json_body(
            "StageRequest",
            "How; all of it is optional.",
            ("defaults", {}),
            ("with a limit", {"memory_limit": 2048, "environment_variables": {"KEY": "value"}}),
        ),
        refusals=(
            _NO_JSON, _NO_PACKAGE, _TOO_LARGE, _BAD_KEY, _KEY_REUSED, _UNKNOWN_FIELD,
            errors.PackageNotStageable("", ""), errors.StagingLimitExceeded("disk", 1, 1),
        ),
        links=_leads_to(
            ("show", "showDroplet", _ID),
            ("download", "downloadDroplet", _ID),
            ("delete", "deleteDroplet", _ID),
        )
        | {
            "assign": {
                "operationId": "assignCurrentDroplet",
                "description": "To the app that it is of, which is in the droplet's links.",
                "requestBody": {"droplet_guid": "$response.body#/guid"},
            }
        },
    ),
    Operation(
        "/v3/droplets", "GET", AllDroplets, "listDroplets", "droplets",
        "List all droplets that you may see",
        _document("A page.", "PageOfDroplets"),
        parameters=(*PAGE, "order_by", "states", "app_guids", _HELD),
        refusals=(_BAD_PAGE, _TOO_MANY_APPS),
    ),
    Operation(
        "/v3/apps/{guid}/droplets", "GET", DropletsOfApp, "listDropletsOfApp", "droplets",
        "List the droplets of an app",
        _document("A page.", "PageOfDroplets"),
        guid_of="app",
        parameters=(*PAGE, "order_by", "states", _HELD),
        refusals=(_BAD_PAGE, _NO_APP),
    ),
    Operation(
        "/v3/droplets/{guid}", "GET", OneDroplet, "showDroplet", "droplets",
        "Show a droplet",
        _document("The droplet.", "Droplet"),
        guid_of="droplet",
        parameters=(_HELD,),
        refusals=(_NO_DROPLET,),
    ),
    Operation(
        "/v3/droplets/{guid}", "DELETE", OneDroplet, "deleteDroplet", "droplets",
        "Delete a droplet",
        _DELETED,
        guid_of="droplet",
        refusals=(_NO_DROPLET,),
        links=_leads_to(("show", "showDroplet", {"guid": "$request.path.guid"})),
    ),
    Operation(
        "/v3/droplets/{guid}/download", "GET", DropletDownload, "downloadDroplet", "droplets",
        "Download the bits of a droplet",
        _bits("application/gzip"),
        guid_of="droplet",
        parameters=_BITS_PARAMETERS,
        refusals=(_NO_DROPLET, errors.DropletNotStaged("", ""), _NO_RANGE, STORE_AWAY),
    ),
    Operation(
        "/v3/audit_events", "GET", AuditEvents, "listAuditEvents", "audit",
        "List who did what, as far as you may see it",
        _json("200", "A page, in the order of the log.", "PageOfAuditEvents"),
        "What happened to apps that you see, and in spaces in which you have a role.",
        parameters=(
            *PAGE, "order_by", "types", "target_guids", "target_guids.not", "space_guids",
            "organization_guids", "created_ats", "created_ats.gt", "created_ats.gte",
            "created_ats.lt", "created_ats.lte",
        ),
        refusals=(_BAD_PAGE, _TOO_MANY_APPS),
    ),
    Operation(
        "/v3/audit_events/{guid}", "GET", OneAuditEvent, "showAuditEvent", "audit",
        "Show an audit event",
        _json("200", "The event.", "AuditEvent"),
        guid_of="audit event",
        refusals=(faults.AuditEventNotFound(),),
    ),
    Operation(
        "/v3/apps/{guid}", "GET", OneApp, "showApp", "directory",
        "Show an app",
        _json("200", "The app.", "App"),
        guid_of="app",
        refusals=(_NO_APP,),
    ),
    Operation(
        "/v3/apps/{guid}/current_droplet", "PUT", CurrentDroplet, "assignCurrentDroplet",
        "directory",
        "Say which droplet an app is run from",
        _json("200", "The app.", "App"),
        "A STAGED droplet of the app's own. Retention then leaves it.",
        guid_of="app",
        body=_json_body(
            "DropletToRun", "Which droplet.", ("droplet", {"droplet_guid": "a-droplet"})
        ),
        refusals=(
            _NO_JSON, _NO_APP, _NO_DROPLET, _TOO_LARGE, _UNKNOWN_FIELD,
            errors.InvalidRequest(["Droplet must be one of the app's own"]),
        ),
    ),
    Operation(
        "/v3/spaces/{guid}", "GET", OneSpace, "showSpace", "directory",
        "Show a space",
        _json("200", "The space.", "Space"),
        guid_of="space",
        refusals=(errors.SpaceNotFound(""),),
    ),
    Operation(
        "/v3/organizations/{guid}", "GET", OneOrganization, "showOrganization", "directory",
        "Show an organization",
        _json("200", "The organization.", "Organization"),
        guid_of="organization",
        refusals=(errors.OrganizationNotFound(""),),
    ),
    Operation(
        "/", "GET", Root, "showRoot", "service",
        "Show what there is",
        _json("200", "Name, version and links.", "Root"),
    ),
    Operation(
        "/healthz", "GET", Alive, "checkAlive", "service",
        "Ask whether the process is alive",
        _json("200", "It is.", "Health"),
    ),
    Operation(
        "/readyz", "GET", Ready, "checkReady", "service",
        "Ask whether the process can serve",
        {
            **_json("200", "It can; parts of it may be degraded.", "Readiness"),
            "503": {
                **_json("503", "", "Readiness")["503"],
                "description": "It can't, and what of it is wrong.",
                "headers": _headers("Retry-After"),
            },
        },
    ),
    Operation(
        "/metrics", "GET", MetricsPage, "showMetrics", "service",
        "Show metrics, for Prometheus",
        {
            "200": {
                "description": "Prometheus's text format.",
                "content": {CONTENT_TYPE: {"schema": {"type": "string"}}},
            }
        },
    ),
]  # fmt: skip
