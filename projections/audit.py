"""The read model of who did what: a row an audit event, as things were when it happened."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Column, Connection, Index, Integer, Table, Text

from domain.aggregate import RecordedEvent
from domain.directory import App, Organization, Space
from domain.ports import LoggedEvent
from projections.audit_entries import TOLD, USER, Entry, entry_of, places_named
from projections.bulk import BulkInsert
from projections.positions import metadata
from projections.rows import KeyedTable, Rows, beside, index_of_set, microseconds, storable
from projections.tally import Tally, counts_table, stretch_of

_EVENTS = UUID("3f2d0b0e-6f0f-4c7b-9a43-8c1f0f5f7d64").bytes  # the name space of audit events
_VARIANT = "89ab"
_to_json = json.JSONEncoder(check_circular=False, separators=(",", ":")).encode

audit = Table(
    "audit",
    metadata,
    # its position in the log; in SQLite the row's own number, so that no index is needed
    Column(
        "number",
        BigInteger().with_variant(Integer, "sqlite"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("guid", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("target_type", Text, nullable=False),
    Column("target_guid", Text, nullable=False),
    Column("target_name", Text),
    Column("subject_guid", Text),  # the package or droplet that it is about
    Column("space_guid", Text),
    Column("organization_guid", Text),
    Column("created_at", BigInteger, nullable=False),  # microseconds since the epoch, UTC
    Column("data", Text, nullable=False),  # JSON
    Index("audit_by_guid", "guid"),
    Index("audit_by_type", "type", "number"),
    Index("audit_by_target", "target_guid"),
    index_of_set("audit_by_subject", "subject_guid"),
    index_of_set("audit_of_space", "space_guid"),
    index_of_set("audit_of_organization", "organization_guid"),
    Index("audit_by_time", "created_at"),
)

# What is known of apps, spaces and organizations, and of which app a package or droplet is: each
# by its originator id, with that of what it is in.
audit_places = Table(
    "audit_places",
    metadata,
    Column("guid", Text, primary_key=True),
    Column("name", Text),
    Column("parent", Text),
    Column("kind", Text),  # of a role: its type
)

audit_counts = counts_table("audit_counts")


class AuditProjection:
    """Keeps a row an event that somebody did, for ever."""

    name = "audit"
    version = 1

    def __init__(self, suffix: str = "") -> None:
        events, counts = beside(audit, suffix), beside(audit_counts, suffix)
        self._insert = BulkInsert(events)
        self._places = KeyedTable(beside(audit_places, suffix))
        self._tally = Tally(counts)
        self.tables: Sequence[Table] = (events, self._places.table, counts)

    def apply(self, connection: Connection, events: Sequence[LoggedEvent]) -> None:
        ours = [logged for logged in events if type(logged.event) in TOLD]
        if not ours:
            return
        before = self._known(connection, ours)
        places = {key: dict(row) for key, row in before.items()}
        rows = []
        for position, event in ours:
            entry = entry_of(places, event)
            if entry is not None:
                rows.append(_row(places, position, event, entry))
        if rows:
            self._insert.execute(connection, rows)
        self._tally.add(
            connection, Counter((row["type"], stretch_of(row["number"])) for row in rows)
        )
        self._places.write(connection, before, places)

    def _known(self, connection: Connection, events: Iterable[LoggedEvent]) -> Rows:
        """What there is of all that has to be known, up to the organizations."""
        found: Rows = {}
        # what begins in these events is not there yet
        asked = {event.originator_id for _, event in events if event.originator_version == 1}
        wanted = {key for _, event in events for key in places_named(event)} - asked
        while wanted:
            asked |= wanted
            some = self._places.rows(connection, wanted)
            found |= some
            wanted = {row["parent"] for row in some.values() if row["parent"]} - asked
        return found


def _row(places: Rows, position: int, event: RecordedEvent, entry: Entry) -> dict[str, Any]:
    space, organization = _where(places, entry.place)
    told = {**entry.data, "event_id": event.event_id, "request_id": event.request_id}
    target = None if entry.target_type == USER else places.get(entry.place or "")
    row = {
        "number": position,
        "guid": _guid_of(event),
        "type": entry.type,
        "actor": event.actor,
        "target_type": entry.target_type,
        "target_guid": entry.target_guid,
        "target_name": target["name"] if target else None,
        "subject_guid": entry.subject,
        "space_guid": space,
        "organization_guid": organization,
        "created_at": microseconds(event.timestamp),
        "data": _to_json(told),
    }
    storable(row)
    return row


def _guid_of(event: RecordedEvent) -> str:
    """A UUID of version 5; made by hand, since whoever rebuilds makes many."""
    name = f"{event.originator_id}/{event.originator_version}"
    text = hashlib.sha1(_EVENTS + name.encode(), usedforsecurity=False).hexdigest()
    variant = _VARIANT[int(text[16], 16) & 3]
    return f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{variant}{text[17:20]}-{text[20:32]}"


def _where(places: Rows, key: str | None) -> tuple[str | None, str | None]:
    """The guids of the space and the organization that a place is in, or is."""
    found: dict[type[App | Space | Organization], str | None] = {}
    for kind in (App, Space, Organization):
        if key is not None and key.startswith(kind.ID_PREFIX):
            found[kind] = key.removeprefix(kind.ID_PREFIX)
            place = places.get(key)
            key = place["parent"] if place else None
    return found.get(Space), found.get(Organization)
