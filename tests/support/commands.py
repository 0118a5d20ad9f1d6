"""Commands by message for tests: a handler on a real log, and a bus that remembers."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import orjson
import pytest
from eventsourcing.persistence import ApplicationRecorder, StoredEvent

from adapters.authorization import ByScopes, Guard
from adapters.blob_store.local import LocalBlobs
from adapters.bus.bus import Bus
from adapters.bus.commands import CommandHandler
from adapters.bus.memory import MemoryBus
from adapters.bus.messages import Message, message_of
from adapters.claims import Claims
from adapters.http.admission import UploadRules
from adapters.http.authentication import Authenticator
from adapters.metrics import Metrics
from adapters.staging.local import LocalStaging
from adapters.store import Store
from adapters.tokens import Scope
from domain.aggregate import RecordedEvent
from domain.archive import ArchiveLimits
from domain.package import PackageType
from domain.processing import Processing
from tests.support.packages import BY, DIGESTS, STAGED, STORED, LocalStore, droplet_processing
from tests.support.service import TOKENS, token

SOURCE = "/their/system"
REPLIES = "their.replies"
LIMIT = 100_000  # bytes of a package, and of a droplet
WRITER = token("writer")
ADMIN = token("admin", (Scope.ADMIN,))


class RememberingBus(MemoryBus):
    """Keeps what is sent and parked, and fails as often as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[str, Message]] = []
        self.parked: list[Message] = []
        self.errors: list[Exception] = []

    def send(self, queue: str, message: Message) -> None:
        self._try()
        self.sent.append((queue, message))

    def park(self, message: Message) -> None:
        self._try()
        super().park(message)
        self.parked.append(message)

    def _try(self) -> None:
        if self.errors:
            raise self.errors.pop(0)


@dataclass
class Troubles:
    """What goes wrong with the next appends to the log."""

    before: list[Exception] = field(default_factory=list)  # and nothing is appended
    after: list[Exception] = field(default_factory=list)  # what was appended is there
    tries: int = 0

    @classmethod
    def of(cls, store: Store, patch: pytest.MonkeyPatch) -> Troubles:
        troubles, recorder = cls(), cast(ApplicationRecorder, store.recorder)
        insert = recorder.insert_events

        def insert_events(events: Sequence[StoredEvent], **options: Any) -> Sequence[int] | None:
            troubles.tries += 1
            if troubles.after:
                error = troubles.after.pop(0)
                insert(events, **options)
                raise error
            if troubles.before:
                raise troubles.before.pop(0)
            return insert(events, **options)

        patch.setattr(store.recorder, "insert_events", insert_events)
        return troubles


@dataclass(frozen=True)
class Reply:
    """An answer as its reader has it; `correlation_id` is the message's."""

    correlation_id: str | None
    type: str
    subject: str | None
    data: dict[str, Any]

    @classmethod
    def of(cls, message: Message) -> Reply:
        event = orjson.loads(message.body)
        assert (event["id"], event["type"]) == (message.id, message.type)
        return cls(message.correlation_id, event["type"], event.get("subject"), event["data"])

    @property
    def error(self) -> tuple[int, int, str, str]:
        """Status, code, error_code and description of a refusal."""
        assert self.type == "command.refused", self
        data = self.data
        return data["status"], data["code"], data["error_code"], data["description"]

    @property
    def guid(self) -> str:
        """What a command that was accepted was carried out on."""
        assert self.type == "command.accepted", self
        assert self.subject == self.data["guid"]
        guid: str = self.data["guid"]
        return guid


def body_of(
    kind: str, data: object, id: str | None = None, source: str = SOURCE, **more: object
) -> bytes:
    """A command as its sender writes it."""
    event = {"specversion": "1.0", "id": id or str(uuid4()), "source": source, "type": kind}
    return orjson.dumps({**event, "data": data, **more})


@dataclass(frozen=True)
class CommandDesk:
    """A log, local bits, and a handler; whoever sends a command gets the answer at once."""

    store: LocalStore
    staging: LocalStaging
    blobs: LocalBlobs
    bus: RememberingBus
    troubles: Troubles
    handler: CommandHandler

    @classmethod
    def open(cls, store: Store, folder: Path, patch: pytest.MonkeyPatch) -> CommandDesk:
        local = LocalStore.of(store)
        staging = LocalStaging(folder / "staging", folder / "uploads")
        staging.prepare(store.identity)
        blobs = LocalBlobs(folder / "blobs", staging)
        blobs.prepare(store.identity)
        bus = RememberingBus()
        bus.declare()
        troubles = Troubles.of(store, patch)
        handler = new_handler(local, staging, blobs, bus)
        return cls(local, staging, blobs, bus, troubles, handler)

    def another_handler(self, enabled: bool = True) -> CommandHandler:
        """As after a restart, or in another process."""
        return new_handler(self.store, self.staging, self.blobs, self.bus, enabled)

    def send(
        self,
        kind: str,
        data: Mapping[str, Any],
        id: str | None = None,
        token: str | None = WRITER,
        handler: CommandHandler | None = None,
        **message: Any,
    ) -> Reply:
        """Has a command carried out, and reads the answer."""
        body = body_of(kind, data, id)
        headers = {"authorization": f"bearer {token}"} if token else {}
        return self.deliver(body, handler, **{"headers": headers, **message})

    def deliver(self, body: bytes, handler: CommandHandler | None = None, **message: Any) -> Reply:
        """Has any message handled that wants an answer, and reads that."""
        before = len(self.bus.sent)
        options = {"reply_to": REPLIES, "correlation_id": "c-1", **message}
        (handler or self.handler)(Message("message-1", "some.type", body, **options))
        ((queue, reply),) = self.bus.sent[before:]
        assert queue == options["reply_to"]
        return Reply.of(reply)

    def events(self, after: int = 0) -> list[RecordedEvent]:
        return [logged.event for logged in self.store.log.read(after, 1000)]

    def topics(self, after: int = 0) -> list[str]:
        return [event.TOPIC for event in self.events(after)]

    def put(self, content: bytes, name: str = "app.zip") -> Path:
        """A file in the upload directory."""
        path = self.staging.upload_folder / name
        path.write_bytes(content)
        return path

    def staged_files(self) -> list[Path]:
        return list(self.staging.folder.iterdir())

    def process(self, guid: str) -> None:
        """Does the work that an upload asks for."""
        limits = ArchiveLimits(LIMIT)
        processing = Processing(self.store.service, self.staging, self.blobs, limits)
        processing.store(guid, BY)
        processing.hash(guid, BY)

    def awaiting(self, type: PackageType = PackageType.BITS) -> str:
        url = "an/image" if type is PackageType.DOCKER else None
        return self.store.service.create("app-1", type, url, BY).aggregate.guid

    def ready(self) -> str:
        guid, packages = self.awaiting(), self.store.service
        packages.start_upload(guid, STAGED, "app.zip", BY)
        packages.record_stored(guid, STORED, BY)
        packages.record_hashes(guid, DIGESTS, BY)
        return guid

    def everything_told(self, log: Sequence[logging.LogRecord]) -> str:
        """All that anybody could read afterwards: log lines, events, answers, what is parked."""
        formatter = logging.Formatter("%(message)s")
        lines = [f"{formatter.format(record)} {vars(record)!r}" for record in log]
        events = [f"{vars(event)!r}" for event in self.events()]
        published = [message_of(logged) for logged in self.store.log.read(0, 1000)]
        replies = [reply for _, reply in self.bus.sent]
        return "\n".join([*lines, *events, *map(repr, [*published, *replies, *self.bus.parked])])


def new_handler(
    store: LocalStore,
    staging: LocalStaging,
    blobs: LocalBlobs,
    bus: Bus,
    enabled: bool = True,
    guard: Guard | None = None,
) -> CommandHandler:
    metrics = Metrics()
    claims = Claims(staging, droplet_processing(store, staging, blobs), LIMIT, LIMIT, metrics)
    return CommandHandler(
        store.store,
        bus,
        Authenticator(TOKENS),
        claims,
        UploadRules(LIMIT, enabled),
        metrics,
        guard or Guard(ByScopes()),
    )
