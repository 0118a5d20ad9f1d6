"""Answers questions about who did what."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Row,
    Select,
    and_,
    false,
    func,
    or_,
    select,
    union,
    union_all,
)

from projections.audit import audit, audit_counts
from projections.audit_entries import APP
from projections.representation import AuditView
from projections.rows import LOOKUP, Selection, moment_of
from projections.snapshots import Snapshots
from projections.tally import Tally, seek


@dataclass(frozen=True)
class Places:
    """Spaces and organizations, by their guids."""

    spaces: Selection
    organizations: Selection


@dataclass(frozen=True)
class Visible:
    """Whose events a caller sees: those of the apps, and those that happened in the places."""

    apps: Selection
    places: Places


@dataclass(frozen=True)
class AuditQuery:
    """Which audit events are asked for, and in which order; None filters nothing.

    Targets are those of the events, and the packages and droplets that they are about. Times are
    microseconds since the epoch: `spans` are from and up to, `since` is from, `until` up to.
    """

    types: Sequence[str] | None = None
    targets: Sequence[str] | None = None
    other_targets: Sequence[str] | None = None
    spaces: Sequence[str] | None = None
    organizations: Sequence[str] | None = None
    spans: Sequence[tuple[int, int]] | None = None
    since: int | None = None
    until: int | None = None
    descending: bool = False
    visible: Visible | None = None

    @property
    def by_type_alone(self) -> bool:
        """Whether nothing else is asked for."""
        return self == AuditQuery(types=self.types, descending=self.descending)


@dataclass(frozen=True)
class AuditPage:
    total: int
    events: list[AuditView]


class AuditReadModel:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._snapshots = Snapshots(engine)
        self._tally = Tally(audit_counts)

    def find(self, guid: str) -> AuditView | None:
        if "\0" in guid:
            return None
        with self._engine.connect() as connection:
            row = connection.execute(select(audit).where(audit.c.guid == guid)).first()
        return _view(row) if row else None

    def happened_in(self, guid: str, places: Places) -> bool:
        """Whether an event happened in one of these places."""
        there = or_(
            audit.c.space_guid.in_(places.spaces),
            audit.c.organization_guid.in_(places.organizations),
        )
        query = select(audit.c.guid).where(audit.c.guid == guid, there)
        with self._engine.connect() as connection:
            return connection.execute(query).first() is not None

    def apps_about(self, targets: Sequence[str], most: int) -> list[str]:
        """The apps that are these, or whose packages and droplets are; `most` of them."""
        query = select(audit.c.target_guid).where(audit.c.target_type == APP, _about(targets))
        with self._engine.connect() as connection:
            return list(connection.scalars(query.distinct().limit(most)))

    def page(self, query: AuditQuery, page: int, per_page: int) -> AuditPage:
        """The events that a query asks for, in the order of the log; pages count from 1."""
        offset = (page - 1) * per_page
        with self._snapshots.of(audit, audit_counts, *_read_by(query.visible)) as connection:
            if query.by_type_alone:
                total, numbers = self._by_type(connection, query, offset, per_page)
            else:
                total, numbers = _filtered(connection, query, offset, per_page)
            return AuditPage(total, _views(connection, numbers))

    def _by_type(
        self, connection: Connection, query: AuditQuery, offset: int, limit: int
    ) -> tuple[int, Sequence[int]]:
        types = None
        if query.types is not None:
            types = sorted(set(query.types) & self._tally.kinds(connection))
        stretches = self._tally.stretches(connection, types)
        total = sum(rows for _, rows in stretches)
        start = seek(stretches, offset, query.descending)
        if start is None:
            return total, []
        number = audit.c.number
        behind = number < start.number if query.descending else number >= start.number
        most = start.skipped + limit
        # one list a type, each in the order of its index
        wanted = [[behind]] if types is None else [[behind, audit.c.type == t] for t in types]
        lists = [
            select(number).where(*conditions).order_by(_ordered(number, query)).limit(most)
            for conditions in wanted
        ]
        found = union_all(*(select(one.subquery().c.number) for one in lists)).subquery()
        numbers = select(found.c.number).order_by(_ordered(found.c.number, query))
        return total, connection.scalars(numbers.limit(limit).offset(start.skipped)).all()


def _read_by(visible: Visible | None) -> Sequence[Selection]:
    if visible is None:
        return ()
    return visible.apps, visible.places.spaces, visible.places.organizations


def _filtered(
    connection: Connection, query: AuditQuery, offset: int, limit: int
) -> tuple[int, Sequence[int]]:
    wanted = _conditions(query)
    total = connection.scalar(select(func.count()).select_from(audit).where(*wanted)) or 0
    if offset >= total:
        return total, []
    # not to be found in the order of numbers: what is asked for may be few of many
    order = _ordered(audit.c.number + 0, query)
    numbers = select(audit.c.number).where(*wanted).order_by(order)
    return total, connection.scalars(numbers.limit(limit).offset(offset)).all()


def _ordered(number: ColumnElement[int], query: AuditQuery) -> ColumnElement[int]:
    return number.desc() if query.descending else number


def _conditions(query: AuditQuery) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    for column, values in (
        (audit.c.type, query.types),
        (audit.c.space_guid, query.spaces),
        (audit.c.organization_guid, query.organizations),
    ):
        if values is not None:
            found.append(column.in_(_askable(values)))
    target, subject = audit.c.target_guid, audit.c.subject_guid
    if query.targets is not None:
        found.append(_about(query.targets))
    if query.other_targets is not None:
        others = _askable(query.other_targets)
        found.append(target.not_in(others))
        found.append(or_(subject.is_(None), subject.not_in(others)))
    at = audit.c.created_at
    if query.spans is not None:
        found.append(or_(false(), *(and_(at >= start, at < end) for start, end in query.spans)))
    if query.since is not None:
        found.append(at >= query.since)
    if query.until is not None:
        found.append(at < query.until)
    if query.visible is not None:
        found.append(audit.c.number.in_(_seen(query.visible)))
    return found


def _about(targets: Sequence[str]) -> ColumnElement[bool]:
    some = _askable(targets)
    return or_(audit.c.target_guid.in_(some), audit.c.subject_guid.in_(some))


def _seen(visible: Visible) -> Select[tuple[int]]:
    """The numbers of what may be seen: each way to see it by an index of its own."""
    number, space, organization = audit.c.number, audit.c.space_guid, audit.c.organization_guid
    spaces, organizations = visible.places.spaces, visible.places.organizations
    return select(
        union(
            select(number).where(audit.c.target_guid.in_(visible.apps), audit.c.target_type == APP),
            # the indexes have only what is set
            select(number).where(space.in_(spaces), space.is_not(None)),
            select(number).where(organization.in_(organizations), organization.is_not(None)),
        )
        .subquery()
        .c.number
    )


def _askable(values: Sequence[str]) -> list[str]:
    """Without those that PostgreSQL can't even be asked for, and that nothing has."""
    return [value for value in values if "\0" not in value]


def _views(connection: Connection, numbers: Sequence[int]) -> list[AuditView]:
    """In the order of the numbers."""
    rows: dict[int, Row[Any]] = {}
    for start in range(0, len(numbers), LOOKUP):
        some = numbers[start : start + LOOKUP]
        for row in connection.execute(select(audit).where(audit.c.number.in_(some))):
            rows[row.number] = row
    return [_view(rows[number]) for number in numbers]


def _view(row: Row[Any]) -> AuditView:
    return AuditView(
        guid=row.guid,
        position=row.number,
        type=row.type,
        actor=row.actor,
        target_type=row.target_type,
        target_guid=row.target_guid,
        target_name=row.target_name,
        space_guid=row.space_guid,
        organization_guid=row.organization_guid,
        created_at=moment_of(row.created_at),
        data=json.loads(row.data),
    )
