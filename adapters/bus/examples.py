"""Examples of all messages: what really happens, as it would be published or sent."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import orjson

from adapters.bus import contract
from adapters.bus.messages import Message, messages_of
from domain.aggregate import Aggregate, Cause, RecordedEvent
from domain.command import Command, Receipt
from domain.directory import App, Organization, Space
from domain.download import BitsOf, Download, Downloaded
from domain.droplet import BuiltDroplet, Droplet, StageRequest
from domain.package import Digests, Fault, Package, PackageType, StagedBits, StoredBits
from domain.ports import LoggedEvent
from domain.role import Grant, Role, RoleType

_BY = Cause("uaa-id-429", "66805566-6b1d-4255-85a7-8d27b6d9374c")
_AT = datetime(2015, 10, 7, 0, 35, 46, tzinfo=UTC)
_APP, _SPACE = "767a1327-02e8-4927-8aa2-5aa958789aa5", "c5a7d7b1-6f1c-4f0c-9c53-6f5bb2c5d6a1"
_PACKAGE, _DROPLET = "ab3a2fc4-5f81-4107-b5d0-2a92afcccf06", "8f7e2c2a-7c1b-4d4e-8c54-2e0d7f5f6f10"
_ORGANIZATION = "f2d6b3c4-0d7d-4d0e-b7c3-1f4f0f6f3d52"
_DOWNLOAD = "c9b0a0de-5c4a-4c4e-9b1a-0d7c6f1f2e3d"


def example_messages() -> list[Message]:
    """A message of each type that is published, as the relay makes them."""
    messages: dict[str, Message] = {}
    for position, event in enumerate(_history(), 1):
        vars(event)["timestamp"] = _AT
        for message in messages_of(LoggedEvent(position, event)):
            messages.setdefault(message.type, message)
    return list(messages.values())


def example_events() -> dict[str, Any]:
    """The body of each of those."""
    return {message.type: orjson.loads(message.body) for message in example_messages()}


def example_commands() -> dict[str, Any]:
    """A command of each type."""
    return {
        name: {
            "specversion": "1.0",
            "id": f"{name}-1",
            "source": "/example",
            "type": name,
            "datacontenttype": "application/json",
            "data": dict(kind.EXAMPLE),
        }
        for name, kind in contract.COMMANDS.items()
    }


def example_replies() -> dict[str, Any]:
    """An answer of each type."""
    accepted = contract.CommandAccepted(
        command_id="package.create-1", command_source="/example", guid=_PACKAGE, position=4711
    )
    refused = contract.CommandRefused(
        command_id="package.delete-1", command_source="/example", status=404, code=10010,
        error_code="CF-ResourceNotFound", description="Package not found",
    )  # fmt: skip
    return {
        reply.TYPE: {
            "specversion": "1.0",
            "id": "0e9a7a2c-6d8b-4f5d-9a63-0f6f3f3e2b11",
            "source": contract.REPLY_SOURCE,
            "type": reply.TYPE,
            "time": "2015-10-07T00:35:46Z",
            "datacontenttype": "application/json",
            "data": reply.model_dump(),
        }
        for reply in (accepted, refused)
    }


def _history() -> Iterator[RecordedEvent]:
    """One of each kind of event."""
    stored, digests = StoredBits(f"ab/cd/{_PACKAGE}", 4096), Digests("a" * 40, "b" * 64)
    package = Package.create(_PACKAGE, _APP, PackageType.BITS, None, _BY)
    package.start_upload(StagedBits("staging:0123", 120, 4096), "app.zip", _BY)
    package.fail("The service could not process it.", Fault.SERVICE, _BY, "RuntimeError: why")
    package.resume(_BY)
    package.record_stored(stored, _BY)
    package.record_hashes(digests, _BY)
    package.request_staging(_DROPLET, _BY)
    copy = Package.copy(package, "5f1d4f4e-2f55-4d0a-8d52-9b4dc5a3b8a7", "another-app", _BY)
    package.expire(_BY)
    package.delete(_BY)
    yield from _events_of(package, copy)
    request = StageRequest(1024, 4096, "cflinuxfs2", None)
    built = BuiltDroplet(StoredBits(f"ef/01/{_DROPLET}", 8192), digests, {"web": "run"}, "procfile")
    made = Droplet.create(_DROPLET, _PACKAGE, _APP, request, _BY)
    made.start_staging(_BY)
    made.complete(built, _BY)
    made.expire(_BY)
    made.delete(_BY)
    failed = Droplet.create(_DROPLET, _PACKAGE, _APP, request, _BY)
    failed.fail("The package has no Procfile", _BY)
    downloaded = Downloaded(BitsOf.PACKAGE, _PACKAGE, _APP, 0, 99)
    yield from _events_of(made, failed, Download.start(_DOWNLOAD, downloaded, _BY))
    app = App.create(_APP, "shop", _SPACE, None, _BY)
    app.announce("store", _SPACE, "procfile", _BY)
    app.assign_droplet(_DROPLET, _BY)
    app.delete(_BY)
    space = Space.create(_SPACE, "production", None, _BY)
    space.announce("prod", _ORGANIZATION, _BY)
    space.delete(_BY)
    organization = Organization.create(_ORGANIZATION, "retail", _BY)
    organization.rename("sales", _BY)
    organization.announce("sales", True, _BY)
    organization.announce("sales", False, _BY)
    organization.delete(_BY)
    receipt = Receipt("/example", "package.create-1", "package.create", "c" * 64, _BY)
    role = Role.assign(Grant("uaa-id-431", RoleType.SPACE_DEVELOPER, _SPACE), _BY)
    role.remove(_BY)
    role.restore(_BY)
    yield from _events_of(app, space, organization, role, Command.execute(receipt, _PACKAGE))


def _events_of(*aggregates: Aggregate) -> Iterator[RecordedEvent]:
    for aggregate in aggregates:
        for event in aggregate.collect_events():
            assert isinstance(event, RecordedEvent)
            yield event
