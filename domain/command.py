"""Commands that came by message: what was done is in the log, under the command's own id.

The record is appended with the events that the command led to, in one transaction. So a
command is done once, whatever happens to the message or to us.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID, uuid5

from eventsourcing.domain import CanInitAggregate

from domain.aggregate import Aggregate, Cause, RecordedEvent

_COMMANDS = UUID("0b0cb7f6-65a1-4a56-8b37-6c9c0f4f6a52")  # the name space of commands


@dataclass(frozen=True)
class Receipt:
    """A command as its sender has named it: `id` is unique among those of `source`.

    Another sender's command is another one, whatever it is named.
    """

    source: str
    id: str
    type: str
    digest: str  # SHA-256 of its data
    by: Cause

    @property
    def guid(self) -> str:
        """Under which the log knows the command."""
        return str(uuid5(_COMMANDS, f"{self.by.actor}\0{self.source}\0{self.id}"))


class Command(Aggregate, created_event_name="Executed"):
    """A command that was carried out."""

    TOPIC = "command"
    ID_PREFIX = "command:"

    class Event(RecordedEvent):
        TOPIC = "command.event"

    def __init__(self) -> None:
        self.type = ""
        self.digest = ""
        self.result = ""

    @classmethod
    def execute(cls, receipt: Receipt, result: str) -> Command:
        """It was carried out, on what has the guid `result`."""
        return cls._begin(
            cls.Executed,
            receipt.guid,
            receipt.by,
            command_source=receipt.source,
            command_id=receipt.id,
            command_type=receipt.type,
            command_digest=receipt.digest,
            result=result,
        )

    class Executed(Event, CanInitAggregate[str]):
        """A command that came by message was carried out, on what `result` names."""

        TOPIC = "command.executed"
        originator_topic: str
        command_source: str
        command_id: str
        command_type: str
        command_digest: str
        result: str

        def apply(self, command: Command) -> None:
            command.type = self.command_type
            command.digest = self.command_digest
            command.result = self.result
