"""The OpenAPI document: valid, and of the same routes, refusals and bodies as the code."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from falcon.inspect import inspect_routes
from openapi_spec_validator import OpenAPIV31SpecValidator

from adapters.http import answers, faults
from adapters.http.app import create_app
from adapters.http.openapi import document, operations, refusals_of, scope_of
from adapters.http.openapi_operations import Operation
from domain import errors
from domain.package import Package, PackageType
from domain.ports import LoggedEvent
from projections.representation import (
    AuditView,
    DropletView,
    PackageView,
    represent,
    represent_audit_event,
    represent_droplet,
    represent_happened,
)
from tests.support.packages import BY

# The page to try the API is for people: it and what it loads are no part of the API.
NOT_API = {"/docs", "/docs/page.css", "/docs/page.js"}

Document = dict[str, Any]
NOW = datetime(2015, 10, 7, tzinfo=UTC)


@pytest.fixture(scope="module")
def current() -> Document:
    found: Document = orjson.loads(orjson.dumps(document("1.2.3")))
    return found


class Part:
    """Stands for any part of the application: nobody asks it anything here."""

    def __getattr__(self, name: str) -> Part:
        return self


def routes() -> dict[tuple[str, str], str]:
    """What the application answers, by path and method, and the name of the class that does."""
    parts: dict[str, Any] = dict.fromkeys(inspect.signature(create_app).parameters, Part())
    app = create_app(**parts | {"version": "1.2.3"})
    return {
        (route.path, method.method): route.class_name
        for route in inspect_routes(app)
        for method in route.methods
        if not method.internal
    }


def described(current: Document) -> dict[tuple[str, str], Document]:
    return {
        (path, method.upper()): operation
        for path, methods in current["paths"].items()
        for method, operation in methods.items()
    }


def test_the_document_is_valid(current: Document) -> None:
    """By the rules of OpenAPI 3.1, references and examples among them."""
    assert [str(error) for error in OpenAPIV31SpecValidator(current).iter_errors()] == []


def test_its_paths_are_the_routes(current: Document) -> None:
    """Every path and method that is answered is in it, and no other."""
    answered = {route for route in routes() if route[0] not in NOT_API}
    assert set(described(current)) == answered
    assert {path for path, _ in routes()} - {path for path, _ in answered} == NOT_API


def test_it_tells_of_the_resources_that_answer() -> None:
    """A route's scope is that of the resource behind it."""
    answered = routes()
    for operation in operations():
        assert answered[operation.template, operation.method] == operation.resource.__name__


def test_it_has_the_services_version(current: Document) -> None:
    """And is of OpenAPI 3.1."""
    assert (current["openapi"], current["info"]["version"]) == ("3.1.0", "1.2.3")


def test_every_operation_says_what_it_is(current: Document) -> None:
    """A name of its own, a tag that is explained, a summary, a description."""
    found = described(current).values()
    assert len({operation["operationId"] for operation in found}) == len(found)
    tags = {tag["name"] for tag in current["tags"]}
    for operation in found:
        assert operation["summary"] and operation["description"]
        assert set(operation["tags"]) <= tags


def test_a_token_is_asked_for_where_a_scope_is(current: Document) -> None:
    """What is open says so; the scope is told in the description."""
    for operation in operations():
        shown = described(current)[operation.template, operation.method]
        scope = scope_of(operation)
        assert shown["security"] == ([] if scope is None else [{"token": []}])
        assert scope is None or f"`{scope}`" in shown["description"]


def statuses(current: Document, operation: Operation) -> set[str]:
    return set(described(current)[operation.template, operation.method]["responses"])


def test_every_status_is_declared(current: Document) -> None:
    """Whatever refuses an operation; nothing is left to a default."""
    for operation in operations():
        declared = statuses(current, operation)
        assert "default" not in declared
        assert {"400", "408", "431", "500", "501"} <= declared
        if scope_of(operation) is not None:
            assert {"401", "403", "429", "503"} <= declared
        if operation.guid_of:
            assert "404" in declared
        if operation.body is not None:
            assert {"413", "422"} <= declared
    (upload,) = [operation for operation in operations() if operation.id == "uploadBits"]
    assert {"200", "400", "403", "404", "413", "422", "503", "507"} <= statuses(current, upload)


def test_every_refusal_of_the_code_is_declared() -> None:
    """But for those of commands by message."""
    declared = {type(refusal) for operation in operations() for refusal in refusals_of(operation)}
    refusals = {
        kind for kind in answers.KINDS if kind.__module__ in (faults.__name__, errors.__name__)
    }
    of_commands = {errors.CommandIdReused, errors.DropletNotWaiting, errors.RoleNotFound}
    told_as_others = {faults.ReadModelBehind, errors.NewerData, errors.StoreAway}  # 503
    assert refusals - declared == of_commands | told_as_others


def test_a_refusals_body_has_the_codes_of_its_status(current: Document) -> None:
    """Its examples are refusals word for word, and keep to the schema."""
    response = current["components"]["responses"]["404_UnknownRequest_PackageNotFound"]
    body = response["content"]["application/json;charset=utf-8"]
    assert body["schema"]["properties"]["code"] == {"enum": [10000, 10010]}
    assert body["schema"]["properties"]["error_code"]["enum"] == [
        "CF-NotFound",
        "CF-ResourceNotFound",
    ]
    assert body["examples"]["Package not found"]["value"] == {
        "code": 10010, "description": "Package not found", "error_code": "CF-ResourceNotFound",
    }  # fmt: skip


def test_links_lead_to_operations(current: Document) -> None:
    """And name parameters that those have."""
    by_id = {operation["operationId"]: operation for operation in described(current).values()}
    found = 0
    for operation in described(current).values():
        for response in operation["responses"].values():
            for link in response.get("links", {}).values():
                taken = {p.get("name") for p in by_id[link["operationId"]]["parameters"]}
                assert set(link.get("parameters", {})) <= taken
                found += 1
    assert found > 10


def test_bodies_have_the_keys_of_the_contract_in_its_order(current: Document) -> None:
    """What is shown is described as it is represented."""
    package = PackageView("g", "a", PackageType.BITS, None, "READY", None, None, NOW, None)
    droplet = DropletView("g", "p", "a", "STAGED", None, None, None, None, NOW, None)
    done = AuditView("g", 1, "audit.app.create", "u", "app", "a", None, None, None, NOW, {})
    (created,) = Package.create("g", "a", PackageType.BITS, None, BY).collect_events()
    assert isinstance(created, Package.Created)
    for name, shown in (
        ("Package", represent(package)),
        ("Droplet", represent_droplet(droplet, {})),
        ("AuditEvent", represent_audit_event(done, {})),
        ("PackageEvent", represent_happened(LoggedEvent(1, created), {})),
    ):
        schema = current["components"]["schemas"][name]
        assert list(schema["properties"]) == list(shown)
        assert list(schema["properties"]["links"]["properties"]) == list(shown["links"])
