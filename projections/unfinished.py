"""The read models of work: what is unfinished, and what was given up (dead letters).

A package's work moves between them: uploaded or copied, it is unfinished; READY, it is in
neither; failed by a fault of ours, it is a dead letter until it is resumed or deleted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Index,
    Table,
    Text,
    select,
)

from domain.package import Fault, Package, PackageType
from domain.ports import LoggedEvent
from projections.positions import metadata
from projections.rows import KeyedTable, Rows, beside, row_of


class Step(StrEnum):
    """The step of work that a package or droplet waits for."""

    STORAGE = "storage"
    HASHING = "hashing"
    STAGING = "staging"  # of a droplet


unfinished = Table(
    "unfinished_packages",
    metadata,
    Column("guid", Text, primary_key=True),
    Column("step", Text, nullable=False),
    Column("position", BigInteger, nullable=False),  # of the event that asked for the step
    Column("since", Text, nullable=False),  # that event's time, RFC 3339
    Column("staged_uri", Text),
    Index("unfinished_in_order", "position"),
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("guid", Text, primary_key=True),
    Column("step", Text, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("failed_at", Text, nullable=False),
    Column("error", Text, nullable=False),
    Column("detail", Text),
    Column("request_id", Text, nullable=False),
    Column("staged_uri", Text),
    Index("dead_letters_in_order", "position"),
)


class WorkProjection:
    """Keeps both tables: an entry leaves one in the transaction in which it enters the other."""

    name = "work"
    version = 1

    def __init__(self, suffix: str = "") -> None:
        self._unfinished = KeyedTable(beside(unfinished, suffix))
        self._dead_letters = KeyedTable(beside(dead_letters, suffix))
        self.tables: Sequence[Table] = (self._unfinished.table, self._dead_letters.table)

    def apply(self, connection: Connection, events: Sequence[LoggedEvent]) -> None:
        ours = [logged for logged in events if isinstance(logged.event, Package.Event)]
        # what begins in these events is in neither table yet; most of it ends in them, too
        begun = {event.guid for _, event in ours if event.originator_version == 1}
        older = {event.guid for _, event in ours} - begun
        waiting = self._unfinished.rows(connection, older)
        given_up = self._dead_letters.rows(connection, older)
        work = _Work(
            {guid: dict(row) for guid, row in waiting.items()},
            {guid: dict(row) for guid, row in given_up.items()},
        )
        for logged in ours:
            work.take(logged)
        self._unfinished.write(connection, waiting, work.unfinished)
        self._dead_letters.write(connection, given_up, work.dead_letters)


@dataclass(frozen=True)
class _Work:
    """The entries of some packages, by their guids."""

    unfinished: Rows
    dead_letters: Rows

    def take(self, logged: LoggedEvent) -> None:
        event = logged.event
        match event:
            case Package.UploadStarted():
                self._begin(logged, Step.STORAGE, event.staged_uri)
            case Package.CopyStarted() if event.type == PackageType.BITS:
                self._begin(logged, Step.STORAGE, None)
            case Package.BitsStored():
                if event.guid in self.unfinished:
                    staged = self.unfinished[event.guid]["staged_uri"]
                    self._begin(logged, Step.HASHING, staged)
            case Package.HashComputed():
                self.unfinished.pop(event.guid, None)
            case Package.ProcessingFailed():
                if event.fault == Fault.SERVICE:
                    work = row_of(self.unfinished, logged)
                    self.dead_letters[event.guid] = {
                        "guid": event.guid,
                        "step": work["step"],
                        "position": logged.position,
                        "failed_at": event.timestamp.isoformat(),
                        "error": event.error,
                        "detail": event.detail,
                        "request_id": event.request_id,
                        "staged_uri": work["staged_uri"],
                    }
                self.unfinished.pop(event.guid, None)
            case Package.ProcessingResumed():
                letter = row_of(self.dead_letters, logged)
                self._begin(logged, Step(letter["step"]), letter["staged_uri"])
                del self.dead_letters[event.guid]
            case Package.Deleted():
                self.unfinished.pop(event.guid, None)
                self.dead_letters.pop(event.guid, None)

    def _begin(self, logged: LoggedEvent, step: Step, staged_uri: str | None) -> None:
        self.unfinished[logged.event.guid] = {
            "guid": logged.event.guid,
            "step": step.value,
            "position": logged.position,
            "since": logged.event.timestamp.isoformat(),
            "staged_uri": staged_uri,
        }


@dataclass(frozen=True)
class UnfinishedWork:
    guid: str
    step: Step
    position: int


@dataclass(frozen=True)
class DeadLetter:
    guid: str
    step: Step
    failed_at: str
    error: str
    detail: str | None
    request_id: str


class WorkReadModel:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def unfinished(self) -> list[UnfinishedWork]:
        """All unfinished work, the oldest first."""
        query = select(unfinished.c.guid, unfinished.c.step, unfinished.c.position)
        with self._engine.connect() as connection:
            rows = connection.execute(query.order_by(unfinished.c.position)).all()
        return [UnfinishedWork(row.guid, Step(row.step), row.position) for row in rows]

    def dead_letters(self) -> list[DeadLetter]:
        """All that was given up by a fault of ours, the oldest first."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(dead_letters).order_by(dead_letters.c.position)).all()
        return [
            DeadLetter(
                row.guid, Step(row.step), row.failed_at, row.error, row.detail, row.request_id
            )
            for row in rows
        ]

    def staged_uris(self) -> Iterable[str]:
        """What is named in staging by work that may still need it."""
        with self._engine.connect() as connection:
            for table in (unfinished, dead_letters):
                query = select(table.c.staged_uri).where(table.c.staged_uri.is_not(None))
                yield from connection.scalars(query).all()

    def guids(self) -> set[str]:
        """The packages whose work is unfinished or was given up."""
        with self._engine.connect() as connection:
            return {
                guid
                for table in (unfinished, dead_letters)
                for guid in connection.scalars(select(table.c.guid))
            }
