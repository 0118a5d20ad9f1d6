"""What resources do with a request and its answer, and what they ask for it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from typing import Any

import falcon

from adapters.authorization import Guard
from adapters.environments import StoredEnvironments
from adapters.fields import json_object
from adapters.http.answers import JSON_TYPE, pretty_json
from adapters.http.faults import BadKey, BodyTooLarge
from adapters.http.freshness import Freshness
from adapters.limits import Limits
from adapters.store import Services
from adapters.tokens import Caller
from domain.aggregate import Cause
from domain.directory import App, faults_of_name
from domain.errors import AppNotFound
from domain.journal import Committed
from projections.audit_list import AuditReadModel
from projections.directory import AppEntry, DirectoryReadModel
from projections.droplets import DropletReadModel
from projections.packages import PackageReadModel

_KEY = re.compile(r"[!-~]{1,255}")


def caller_of(req: falcon.Request) -> Caller:
    caller: Caller = req.context.caller
    return caller


def cause_of(req: falcon.Request) -> Cause:
    """Who and which request causes what a command writes."""
    return Cause(caller_of(req).guid, req.context.request_id)


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


@dataclass(frozen=True)
class Document:
    """JSON as it is answered, and the tag by which a client can tell whether it has it."""

    body: bytes
    etag: str

    @classmethod
    def of(cls, body: bytes) -> Document:
        return cls(body, f'"{hashlib.sha256(body).hexdigest()}"')


def answer_document(req: falcon.Request, resp: falcon.Response, document: Document) -> None:
    """Answers a GET: with nothing but the tag where the client has the document already."""
    resp.set_header("ETag", document.etag)
    resp.set_header("Cache-Control", "private, no-cache")
    if is_held(req, document.etag):
        resp.status = falcon.HTTP_304
    else:
        resp.content_type = JSON_TYPE
        resp.data = document.body


def is_held(req: falcon.Request, etag: str) -> bool:
    """Whether the client says that it has what the tag stands for (RFC 9110, section 13.1.2)."""
    held = req.get_header("If-None-Match")
    if held is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in held.split(",")]
    return etag in tags or "*" in tags


def answer_json(resp: falcon.Response, value: Any, status: str = falcon.HTTP_200) -> None:
    resp.status = status
    resp.content_type = JSON_TYPE
    resp.data = pretty_json(value)


class Commands:
    """What every resource that writes does with a command's outcome."""

    def __init__(
        self, services: Services, freshness: Freshness, guard: Guard, limits: Limits
    ) -> None:
        self.guard = guard
        self.packages = services.packages
        self.droplets = services.droplets
        self.directory = services.directory
        self._freshness = freshness
        self._limits = limits

    def fields_of(self, req: falcon.Request) -> dict[str, Any]:
        """The fields that a command comes with. Raises `BodyTooLarge`, `UnparsableBody`."""
        return json_object(body_of(req), self._limits.max_json_depth)

    def may_change_package(self, req: falcon.Request, guid: str) -> None:
        """Raises `PackageNotFound`, `NotAuthorized`."""
        self.guard.change_package(
            caller_of(req), guid, lambda guid: self.packages.get(guid).app_guid
        )

    def may_change_droplet(self, req: falcon.Request, guid: str) -> None:
        """Raises `DropletNotFound`, `NotAuthorized`."""
        self.guard.change_droplet(
            caller_of(req), guid, lambda guid: self.droplets.get(guid).app_guid
        )

    def settle(self, committed: Committed[Any]) -> None:
        """Waits a little, so that what was written can be read, too."""
        self._freshness.after(committed.position)


@dataclass(frozen=True)
class ReadModels:
    """All there is to read from."""

    packages: PackageReadModel
    droplets: DropletReadModel
    directory: DirectoryReadModel
    audit: AuditReadModel
    environments: StoredEnvironments


class Queries:
    """What every resource that reads asks: read models that are not behind the log."""

    def __init__(
        self, read_models: ReadModels, freshness: Freshness, registered_apps: bool, guard: Guard
    ) -> None:
        self.guard = guard
        self.read_models = read_models  # behind the log, perhaps
        self._freshness = freshness
        self._registered_apps = registered_apps

    def ask(self) -> ReadModels:
        """Raises `ReadModelBehind`."""
        self._freshness.require()
        return self.read_models

    def app(self, guid: str, caller: Caller) -> AppEntry:
        """Raises `AppNotFound`; `ReadModelBehind`."""
        self.guard.see_app(caller, guid)
        entry = self.ask().directory.app(guid)
        if entry is None or (self._registered_apps and not entry.announced):
            raise AppNotFound(guid)
        return entry

    def shown_app(self, app: App) -> AppEntry:
        """An app that a command has just changed, with what the read models know of it besides."""
        entry = self.read_models.directory.app(app.guid)
        if entry is None:
            entry = AppEntry(
                app.guid, app.name, app.space_guid, app.created_on, None, app.buildpack, None,
                app.name is not None,
            )  # fmt: skip
        return replace(entry, current_droplet=app.current_droplet, updated_at=app.modified_on)

    def check_app(self, guid: str, caller: Caller) -> None:
        """Whether an app may be asked about: any may, that was not deleted, if apps are open.

        Raises `AppNotFound`; `ReadModelBehind`.
        """
        if faults_of_name("App guid", guid):
            raise AppNotFound(guid)  # no app can be called so
        self.guard.see_app(caller, guid)
        if self._registered_apps or self.ask().directory.is_deleted(guid):
            self.app(guid, caller)
