"""The fields that commands come with, whether by HTTP or by message: checked, and given types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from adapters.http.faults import UnparsableBody
from adapters.limits import Limits
from domain.droplet import faults_of_stage_request
from domain.droplet_service import Wanted
from domain.errors import InvalidPackage, InvalidRequest
from domain.package import PackageType, faults_of_new_package


def json_object(body: bytes, max_depth: int = Limits.max_json_depth) -> dict[str, Any]:
    """What a body holds, a JSON object.

    Raises `UnparsableBody`, also where objects and arrays lie deeper in each other than
    `max_depth`.
    """
    if not body.strip():
        raise UnparsableBody("invalid request body")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        reason = str(error)
        if "limit" in reason:  # orjson has one of its own, and stops there
            reason = f"it is nested too deep ({reason}); the limit is {max_depth} levels"
        raise UnparsableBody(reason) from None
    if not isinstance(value, dict):
        raise UnparsableBody("invalid request body")
    depth = _depth_of(value)
    if depth > max_depth:
        raise UnparsableBody(f"it is nested {depth} levels deep; the limit is {max_depth}")
    return value


def _depth_of(value: Any) -> int:
    level: list[Any] = [value]
    depth = 0
    while level:
        depth += 1
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
    return depth


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
