"""Downloads: who fetched the bits of which package or droplet.

Each is an aggregate of its own with one event, so that the history of what is downloaded
does not grow, and nobody who writes to it meets a download.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from eventsourcing.domain import CanInitAggregate

from domain.aggregate import Aggregate, Cause, RecordedEvent


class BitsOf(StrEnum):
    """What bits are of."""

    PACKAGE = "package"
    DROPLET = "droplet"


@dataclass(frozen=True)
class Downloaded:
    """The bits of a package or droplet of an app: its guid, and which of them.

    `first_byte` and `last_byte` (from 0, both included) are those of the range that was asked
    for; None for all of them, or where only a link to them was given.
    """

    kind: BitsOf
    guid: str
    app_guid: str
    first_byte: int | None = None
    last_byte: int | None = None


class Download(Aggregate, created_event_name="Started"):
    """A download: it has begun, and nobody knows whether it came through."""

    TOPIC = "download"
    ID_PREFIX = "download:"

    class Event(RecordedEvent):
        TOPIC = "download.event"

    def __init__(self) -> None:
        self.kind = BitsOf.PACKAGE
        self.bits_guid = ""

    @classmethod
    def start(cls, guid: str, of: Downloaded, by: Cause) -> Download:
        return cls._begin(
            cls.Started,
            guid,
            by,
            kind=of.kind.value,
            bits_guid=of.guid,
            app_guid=of.app_guid,
            first_byte=of.first_byte,
            last_byte=of.last_byte,
        )

    class Started(Event, CanInitAggregate[str]):
        """Bits, or a link to them, are about to be sent to somebody.

        They are those of the package or droplet `bits_guid`, as `kind` says; first_byte and
        last_byte are those of the range that was asked for, null for all of the bits.
        """

        TOPIC = "download.started"
        originator_topic: str
        kind: str
        bits_guid: str
        app_guid: str
        first_byte: int | None
        last_byte: int | None

        def apply(self, download: Download) -> None:
            download.kind = BitsOf(self.kind)
            download.bits_guid = self.bits_guid
