"""Carries out the commands that come by message, in order, each once, and answers them.

The sender's token is in a header. It is looked at here and goes no further: what is logged,
kept or parked is without it. While something is away a command waits in hand, for a queue
for later tries would have to keep the token.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import uuid4

import orjson
from pydantic import BaseModel

from adapters.authorization import Guard
from adapters.bus import contract
from adapters.bus.bus import COMMANDS, Abandoned, BrokerAway, Bus, Consumer, Lane
from adapters.bus.execution import Execution
from adapters.bus.messages import Message
from adapters.bus.work import Failure, classify, delay_before
from adapters.claims import Claims
from adapters.context import request_context
from adapters.fields import json_object
from adapters.http.admission import UploadRules
from adapters.http.answers import UNKNOWN_ERROR, ErrorAnswer, answer_to, new_request_id
from adapters.http.authentication import Authenticator
from adapters.http.faults import UnparsableBody
from adapters.limits import Limits
from adapters.metrics import Metrics
from adapters.people import AddressBook
from adapters.store import Store
from adapters.tokens import Caller, Scope
from domain.aggregate import Cause
from domain.command import Command, Receipt
from domain.errors import AlreadyExecuted, CommandIdReused

logger = logging.getLogger("packtrail.commands")
R = TypeVar("R")

MAX_TRIES = 5  # of a command that fails by a defect
MAX_DELIVERIES = 15  # of a command that nobody has answered: its handler may have died of it
PREFETCH = 20  # commands in hand, of which one is carried out
MAX_WAIT = 10.0  # seconds between tries while something is away


@dataclass(frozen=True)
class Received:
    """A command, as it was sent."""

    id: str
    source: str
    type: str
    data: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """What tells these data from others."""
        canonical = orjson.dumps(dict(self.data), option=orjson.OPT_SORT_KEYS)
        return hashlib.sha256(canonical).hexdigest()

    @classmethod
    def of(cls, message: Message, limits: Limits) -> Received:
        """Raises `UnparsableBody` if it is no CloudEvent in structured JSON."""
        if len(message.body) > limits.max_body_size:
            raise UnparsableBody(
                f"a command has up to {limits.max_body_size} bytes, and not {len(message.body)}"
            )
        event = json_object(message.body, limits.max_json_depth)
        if event.get("specversion") != "1.0":
            raise UnparsableBody("a command is a CloudEvent with specversion '1.0'")
        for name in ("id", "source", "type"):
            value = event.get(name)
            if (
                not isinstance(value, str)
                or not 1 <= len(value) <= contract.MAX_ID
                or "\0" in value
            ):
                raise UnparsableBody(f"{name} must be 1 to {contract.MAX_ID} characters")
        data = event.get("data")
        if not isinstance(data, dict):
            raise UnparsableBody("data must be an object")
        return cls(event["id"], event["source"], event["type"], data)


class CommandHandler:
    """Handles the messages of the queue of commands."""

    def __init__(
        self,
        store: Store,
        bus: Bus,
        authenticator: Authenticator,
        claims: Claims,
        rules: UploadRules,
        metrics: Metrics,
        guard: Guard,
    ) -> None:
        self._execution = Execution(claims, rules, guard)
        self._store = store
        self._bus = bus
        self._authenticator = authenticator
        self._claims = claims
        self._rules = rules
        self._metrics = metrics
        self._people = AddressBook(store.services.people)
        self._stopping = threading.Event()

    def stop(self) -> None:
        """What waits for something that is away waits no longer."""
        self._stopping.set()

    def __call__(self, message: Message) -> None:
        """Raises `Abandoned` if it is to come again."""
        if self._stopping.is_set():
            raise Abandoned  # those behind the one in hand stay behind it
        token = _header(message, contract.AUTHORIZATION)
        message = _without_headers(message)
        try:
            command = Received.of(message, self._rules.limits)
        except UnparsableBody as error:
            self._refuse_unreadable(message, token, error)
            return
        kind = contract.COMMANDS.get(command.type)
        request_id = new_request_id(command.id, None)
        with request_context(request_id):
            if message.deliveries > MAX_DELIVERIES:
                logger.error("command %s was handed out %d times", command.id, MAX_DELIVERIES)
                self._refuse(message, command, UNKNOWN_ERROR)
                self._persist(lambda: self._bus.park(message))
                return
            self._handle(message, command, kind, token, request_id)

    def _refuse_unreadable(
        self, message: Message, token: str | None, error: UnparsableBody
    ) -> None:
        """Parks it, if somebody has sent it who may send commands, and it is not too large."""
        try:
            self._authenticator.authenticate(token, Scope.WRITE)
        except Exception as refusal:  # noqa: BLE001 - whatever it is, it is answered
            logger.warning("a command can't be read, and is of nobody: %s", error)
            self._refuse(message, None, answer_to(refusal))
            return
        logger.error("a command can't be read and is parked: %s", error)
        self._refuse(message, None, answer_to(error))
        if len(message.body) <= self._rules.limits.max_body_size:
            self._persist(lambda: self._bus.park(message))

    def _handle(
        self,
        message: Message,
        command: Received,
        kind: type[contract.CommandData] | None,
        token: str | None,
        request_id: str,
    ) -> None:
        try:
            if kind is None:
                raise UnparsableBody(f"there is no command of type '{command.type}'")
            scope = kind.SCOPE
            caller = self._persist(lambda: self._authenticator.authenticate(token, scope))
            by = Cause(caller.guid, request_id)
            receipt = Receipt(command.source, command.id, command.type, command.digest, by)
            accepted = self._persist(lambda: self._carry_out(command, kind, caller, receipt))
        except Abandoned:
            raise
        except Exception as error:
            answer = answer_to(error)
            self._count(kind, "refused")
            if answer.status >= 500:
                answer = UNKNOWN_ERROR
                logger.exception("command %s failed, and is parked", command.id)
                self._persist(lambda: self._bus.park(message))
            else:
                logger.warning(
                    "command refused: %s",
                    answer.description,
                    extra={"command": command.id, "type": command.type, "status": answer.status},
                )
            self._refuse(message, command, answer)
            return
        self._people.note(caller)
        self._count(kind, "accepted")
        logger.info(
            "command accepted",
            extra={"command": command.id, "type": command.type, "guid": accepted.guid},
        )
        self._reply(message, accepted.TYPE, accepted, accepted.guid)

    def _carry_out(
        self,
        command: Received,
        kind: type[contract.CommandData],
        caller: Caller,
        receipt: Receipt,
    ) -> contract.CommandAccepted:
        """Once: a command that came before is answered as it was then."""
        done = self._store.journal.find(Command, receipt.guid)
        if done is None:
            try:
                services = self._store.services_under(receipt)
                outcome = self._execution.execute(command.data, kind, caller, services, receipt.by)
            except AlreadyExecuted:
                done = self._store.journal.find(Command, receipt.guid)
                assert done is not None, "the log has just told of it"
            else:
                assert outcome.position is not None, "a command's record is always written"
                return _accepted(command, outcome.aggregate.guid, outcome.position)
        if (done.type, done.digest) != (command.type, command.digest):
            raise CommandIdReused(command.id)
        self._claims.settle(done.result)
        return _accepted(command, done.result, self._store.journal.head())

    def _persist(self, act: Callable[[], R]) -> R:
        """Does it; again for as long as something is away, and five times for a defect.

        Raises `Abandoned` when the process is to stop meanwhile.
        """
        attempt = defects = 0
        while True:
            try:
                return act()
            except Exception as error:
                attempt += 1
                away = isinstance(error, BrokerAway) or classify(error) is Failure.ENVIRONMENT
                if not away and answer_to(error).status < 500:
                    raise
                defects += not away
                if defects >= MAX_TRIES:
                    raise
                logger.warning("a command waits: %s: %s", type(error).__name__, error)
                if self._stopping.wait(min(delay_before(attempt), MAX_WAIT)):
                    raise Abandoned from None

    def _refuse(self, message: Message, command: Received | None, answer: ErrorAnswer) -> None:
        refused = contract.CommandRefused(
            command_id=command.id if command else None,
            command_source=command.source if command else None,
            status=answer.status,
            code=answer.code,
            error_code=answer.error_code,
            description=answer.description,
        )
        self._reply(message, refused.TYPE, refused, None)

    def _reply(self, message: Message, kind: str, data: BaseModel, subject: str | None) -> None:
        """Answers who wants an answer. Nobody's queue holds up the commands of others."""
        queue = message.reply_to
        if not queue:
            return
        if queue.startswith("packtrail.") and not queue.startswith("packtrail.builder."):
            logger.warning("no answer is sent to a queue of ours", extra={"reply_to": queue})
            return
        identifier = str(uuid4())
        body: dict[str, Any] = {
            "specversion": "1.0",
            "id": identifier,
            "source": contract.REPLY_SOURCE,
            "type": kind,
            "time": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            "datacontenttype": "application/json",
            "data": data.model_dump(),
        }
        if subject is not None:
            body["subject"] = subject
        command_id = body["data"].get("command_id")
        reply = Message(
            identifier,
            kind,
            orjson.dumps(body),
            correlation_id=message.correlation_id or command_id or message.id or None,
        )
        try:
            self._bus.reply(queue, reply)
        except BrokerAway as error:  # who gets no answer sends the command again
            logger.warning("an answer is lost: %s", error, extra={"reply_to": queue})

    def _count(self, kind: type[contract.CommandData] | None, outcome: str) -> None:
        self._metrics.commands.labels(kind.TYPE if kind else "unknown", outcome).inc()


def _accepted(command: Received, guid: str, position: int) -> contract.CommandAccepted:
    return contract.CommandAccepted(
        command_id=command.id, command_source=command.source, guid=guid, position=position
    )


def _header(message: Message, name: str) -> str | None:
    for key, value in message.headers.items():
        if key.lower() == name:
            return value.decode("latin-1") if isinstance(value, bytes) else str(value)
    return None


def _without_headers(message: Message) -> Message:
    """Without its token, under whatever name; and of the rest nobody needs anything."""
    return Message(
        message.id,
        message.type,
        message.body,
        reply_to=message.reply_to,
        correlation_id=message.correlation_id,
        deliveries=message.deliveries,
    )


class CommandConsumer:
    """Takes commands one by one (a `Part`, see `adapters.leadership`)."""

    def __init__(self, bus: Bus, handler: CommandHandler) -> None:
        self._handler = handler
        self._consumer = Consumer(bus, Lane(COMMANDS, handler, 1, PREFETCH))

    def start(self) -> None:
        self._consumer.start()

    def stop(self, timeout: float | None = None) -> bool:
        self._handler.stop()
        return self._consumer.stop(30.0 if timeout is None else timeout)
