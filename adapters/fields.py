"""The fields that commands come with, whether by HTTP or by message: checked, and given types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from adapters.http.faults import UnparsableBody
from domain.droplet import faults_of_stage_request
from domain.droplet_service import Wanted
from domain.errors import InvalidPackage, InvalidRequest
from domain.package import PackageType, faults_of_new_package

MAX_DEPTH = 100  # of objects and arrays in each other


def json_object(body: bytes) -> dict[str, Any]:
    """What a body holds, a JSON object. Raises `UnparsableBody`."""
    if not body.strip():
        raise UnparsableBody("invalid request body")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise UnparsableBody(str(error)) from None
    if not isinstance(value, dict):
        raise UnparsableBody("invalid request body")
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return value
    raise UnparsableBody(f"it is nested deeper than {MAX_DEPTH} levels")


def faults_of_names(fields: Mapping[str, Any], known: Sequence[str]) -> list[str]:
    """A sentence that names the fields that there are not; [] if all are known."""
    unknown = [name for name in fields if name not in known]
    if not unknown:
        return []
    names = ", ".join(f"'{name}'" for name in unknown)
    return [f"Unknown field(s): {names}"]


def new_package_of(fields: Mapping[str, Any], app_guid: str) -> tuple[PackageType, str | None]:
    """What somebody wants created: `type` and `url`. Raises `InvalidPackage`."""
    faults = faults_of_names(fields, ("type", "url"))
    faults += faults_of_new_package(app_guid, fields.get("type"), fields.get("url"))
    if faults:
        raise InvalidPackage(faults)
    return PackageType(fields["type"]), fields.get("url")


STAGING_FIELDS = ("memory_limit", "disk_limit", "stack", "buildpack", "environment_variables")


def wanted_of(fields: Mapping[str, Any], known: Sequence[str] = STAGING_FIELDS) -> Wanted:
    """What somebody wants staged, and how. Raises `InvalidRequest`."""
    faults = faults_of_names(fields, known) + faults_of_stage_request(fields)
    if faults:
        raise InvalidRequest(faults)
    return Wanted(
        memory_limit=fields.get("memory_limit"),
        disk_limit=fields.get("disk_limit"),
        stack=fields.get("stack"),
        buildpack=fields.get("buildpack"),
        environment=fields.get("environment_variables") or {},
    )
