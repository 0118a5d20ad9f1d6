"""A builder that is real and small: it makes droplets of packages that need no compiling.

It is also the worked example of an integration. It takes part by what is open to everybody:
it hears `droplet.staging_requested` on the queue `packtrail.staging`, fetches the droplet
and the package's bits over HTTP with a token, puts what it made where the service may take
it from, and answers on the queue `packtrail.commands`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import kombu

from adapters.bus.bus import COMMANDS, STAGING, Abandoned, Bus, Consumer, Lane
from adapters.bus.messages import Message
from adapters.droplet_archive import CannotBuild, build
from adapters.limits import USUAL, Limits

logger = logging.getLogger("packtrail.builder")

SOURCE = "/packtrail/builder"
CHUNK = 1 << 20  # bytes read at a time
REQUEST_SECONDS = 30.0  # without a byte of an answer
ANSWER_SECONDS = 60.0  # that an answer to a command is waited for
ANSWER_PAUSE = 0.02  # seconds between looks for it
MAX_PAUSE = 10.0  # seconds between tries while something is away
MAX_REASON = 4000  # characters
AWAY = (OSError, HTTPException)  # the API, the broker or the disk
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # nobody in between


class Delivery(Protocol):
    """Where droplets are put for the service to take."""

    def deliver(self, guid: str, droplet: Path) -> dict[str, str]:
        """Moves the file there. Returns the fields that name it in `droplet.staged`."""

    def withdraw(self, guid: str) -> None:
        """Removes it from there, if it is there: the service does not take it."""


@dataclass(frozen=True)
class Api:
    """The service's HTTP API. `token` gives a bearer token that is good now."""

    url: str
    token: Callable[[], str]

    def show(self, path: str) -> dict[str, Any] | None:
        """What a path shows; None if it is not there. Raises `OSError`."""
        try:
            with self.open(path) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except urllib.error.HTTPError as error:
            if error.code == 404:
                error.close()
                return None
            raise

    def open(self, path: str) -> HTTPResponse:
        """Raises `OSError`: `HTTPError` for an answer that is none, `URLError` without one."""
        request = urllib.request.Request(self.url + path)  # noqa: S310 - an operator's URL
        # a bucket that the service redirects to must not see the token
        request.add_unredirected_header("Authorization", f"bearer {self.token()}")
        answer: HTTPResponse = _OPENER.open(request, timeout=REQUEST_SECONDS)
        return answer


class Builder:
    """Handles the messages of the queue `packtrail.staging`."""

    def __init__(self, bus: Bus, api: Api, delivery: Delivery, limits: Limits = USUAL) -> None:
        self._bus = bus
        self._api = api
        self._delivery = delivery
        self._limits = limits
        self._stopping = threading.Event()

    def stop(self) -> None:
        """What waits for something that is away waits no longer."""
        self._stopping.set()

    def __call__(self, message: Message) -> None:
        """Raises `Abandoned` if the message is to come again."""
        guid = str(json.loads(message.body)["subject"])
        pause = 0.25
        while True:
            try:
                return self._stage(guid)
            except urllib.error.HTTPError as error:
                error.close()
                if error.code < 500 and error.code != 429:
                    logger.error("droplet %s is left: the API answers %s", guid, error)
                    return None
                logger.warning("droplet %s waits: %s", guid, error)
            except AWAY as error:
                logger.warning("droplet %s waits: %s: %s", guid, type(error).__name__, error)
            if self._stopping.wait(pause):
                raise Abandoned
            pause = min(pause * 2, MAX_PAUSE)

    def _stage(self, guid: str) -> None:
        """Makes a droplet, if it is still waited for. Raises `OSError`."""
        droplet = self._api.show(f"/v3/droplets/{guid}")
        if droplet is None or droplet["state"] not in ("PENDING", "STAGING"):
            return  # deleted, or another builder was faster
        self._tell("droplet.staging_started", guid, {})
        try:
            with tempfile.TemporaryDirectory(prefix="packtrail-builder-") as folder:
                package, made = Path(folder, "package.zip"), Path(folder, "droplet.tgz")
                self._fetch(droplet, package)
                built = build(package, made, droplet, self._limits)
                sha1 = sha1_of(made)
                where = self._delivery.deliver(guid, made)
        except CannotBuild as reason:
            self._tell("droplet.staging_failed", guid, {"error": str(reason)[:MAX_REASON]})
        except AWAY:
            raise
        except Exception:
            logger.exception("droplet %s can't be made", guid)
            self._tell("droplet.staging_failed", guid, {"error": "The builder has failed"})
        else:
            refusal = self._hand_in(
                guid,
                {
                    **where,
                    "sha1": sha1,
                    "process_types": built.process_types,
                    "buildpack": built.buildpack,
                },
            )
            if refusal is None:
                logger.info("droplet made", extra={"droplet": guid, "buildpack": built.buildpack})
            else:
                logger.warning("droplet %s is not taken: %s", guid, refusal)
                self._delivery.withdraw(guid)
                error = f"The service does not take the droplet: {refusal}"
                self._tell("droplet.staging_failed", guid, {"error": error[:MAX_REASON]})

    def _hand_in(self, guid: str, data: Mapping[str, Any]) -> str | None:
        """Tells of a droplet that was made, and waits for the answer. Why it was refused, if so.

        Without an answer it is done: the command waits in its queue.
        """
        with self._bus.connect() as connection, connection.channel() as channel:
            name = f"packtrail.builder.{uuid4()}"
            answers = kombu.Queue(name, durable=False, exclusive=True, auto_delete=True)(channel)
            answers.declare()
            try:
                self._tell("droplet.staged", guid, data, reply_to=name)
                deadline = time.monotonic() + ANSWER_SECONDS
                while time.monotonic() < deadline:
                    answer = answers.get(no_ack=True)
                    if answer is not None:
                        event = json.loads(answer.body)
                        refused = event["type"] == "command.refused"
                        return str(event["data"]["description"]) if refused else None
                    if self._stopping.wait(ANSWER_PAUSE):
                        break
            finally:
                answers.delete()
        return None

    def _fetch(self, droplet: Mapping[str, Any], target: Path) -> None:
        """Downloads the package. Raises `CannotBuild` if it has no bits any more; `OSError`."""
        path = droplet["links"]["package"]["href"]
        try:
            with self._api.open(f"{path}/download") as answer, target.open("wb") as file:
                while chunk := answer.read(CHUNK):
                    file.write(chunk)
                expected = answer.headers.get("Content-Length")
                if expected is not None and file.tell() != int(expected):
                    raise OSError(f"{file.tell()} bytes came of {expected}")
        except urllib.error.HTTPError as error:
            if error.code not in (404, 422):
                raise
            error.close()
            raise CannotBuild("The package's bits are gone: it was deleted, or expired") from None

    def _tell(
        self, kind: str, guid: str, data: Mapping[str, Any], reply_to: str | None = None
    ) -> None:
        """Sends a command. Its id follows from the droplet: told twice, it is done once."""
        identifier = f"{guid}/{kind}"
        event = {
            "specversion": "1.0",
            "id": identifier,
            "source": SOURCE,
            "type": kind,
            "datacontenttype": "application/json",
            "data": {"guid": guid, **data},
        }
        headers = {"authorization": f"bearer {self._api.token()}"}
        body = json.dumps(event).encode()
        self._bus.send(COMMANDS, Message(identifier, kind, body, headers, reply_to))


def sha1_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.sha1(usedforsecurity=False)).hexdigest()


class BuilderConsumer:
    """Takes staging requests (a `Part`, see `adapters.leadership`)."""

    def __init__(self, bus: Bus, builder: Builder, concurrency: int = 1) -> None:
        self._builder = builder
        self._consumer = Consumer(bus, Lane(STAGING, builder, concurrency, computes=True))

    def start(self) -> None:
        self._consumer.start()

    def stop(self, timeout: float | None = None) -> bool:
        self._builder.stop()
        return self._consumer.stop(30.0 if timeout is None else timeout)
