"""Publishes the log: everything in it at least once, nothing that is not in it.

The log is the outbox. The position up to which it was published is kept beside it, and
written behind the messages: after a crash the last ones are published again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from adapters.bus.bus import Bus
from adapters.bus.messages import Message, messages_of
from adapters.follower import Follower, KeptPosition
from adapters.tracing import NoTracing, Tracing
from domain.package import Package
from domain.ports import EventLog, LoggedEvent

logger = logging.getLogger("packtrail.relay")


class Relay(Follower):
    """Follows the log on a thread and publishes it."""

    def __init__(
        self, log: EventLog, bus: Bus, kept: KeptPosition, tracing: Tracing | None = None
    ) -> None:
        super().__init__("relay", log, kept, logger)
        self._tracing = tracing or NoTracing()
        self._bus = bus

    def _handle(self, events: Sequence[LoggedEvent]) -> None:
        self._bus.publish(self._messages(events))
        for logged in events:
            request_id, event_id = logged.event.request_id, logged.event.event_id
            with self._tracing.span("published", request_id, event=event_id):
                pass  # the batch took its time; what counts in the trace is when
            logger.info(
                "published",
                extra={"id": event_id, "request_id": request_id},
            )

    def _messages(self, events: Sequence[LoggedEvent]) -> list[Message]:
        """Of all that somebody hears.

        Small bits are hashed as they are stored: that they were stored asks for nothing then.
        """
        hashed = {
            event.originator_id for _, event in events if isinstance(event, Package.HashComputed)
        }
        messages = []
        for logged in events:
            event = logged.event
            settled = isinstance(event, Package.BitsStored) and event.originator_id in hashed
            for message in messages_of(logged, partial(self._bus.is_heard, settled=settled)):
                messages.append(replace(message, settled=True) if settled else message)
        return messages
