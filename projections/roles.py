"""Who may do what where: the roles that users have, and the apps that they reach by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Engine,
    Index,
    Select,
    Table,
    Text,
    and_,
    func,
    select,
    union,
    union_all,
)

from domain.ports import LoggedEvent
from domain.role import Role, RoleType
from projections.directory import apps, organizations, spaces
from projections.positions import metadata
from projections.rows import KeyedTable, Rows, beside, row_of

roles = Table(
    "roles",
    metadata,
    Column("guid", Text, primary_key=True),
    Column("user_guid", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("space_guid", Text),
    Column("organization_guid", Text),
    Column("held", Boolean, nullable=False),
    Index("roles_in_spaces", "user_guid", "space_guid"),
    Index("roles_in_organizations", "user_guid", "organization_guid"),
)


class RolesProjection:
    """Keeps a row a role, also one that was removed: it may be given back."""

    name = "roles"
    version = 1

    def __init__(self, suffix: str = "") -> None:
        self._rows = KeyedTable(beside(roles, suffix))
        self.tables: Sequence[Table] = (self._rows.table,)

    def apply(self, connection: Connection, events: Sequence[LoggedEvent]) -> None:
        ours = [logged for logged in events if isinstance(logged.event, Role.Event)]
        if ours:
            self._rows.apply(connection, {logged.event.guid for logged in ours}, ours, _project)


def _project(rows: Rows, logged: LoggedEvent) -> None:
    event = logged.event
    match event:
        case Role.Assigned():
            rows[event.guid] = {
                "guid": event.guid,
                "user_guid": event.user_guid,
                "type": event.role_type,
                "space_guid": event.space_guid,
                "organization_guid": event.organization_guid,
                "held": True,
            }
        case Role.Restored() | Role.Removed():
            row_of(rows, logged)["held"] = isinstance(event, Role.Restored)


@dataclass(frozen=True)
class HeldRole:
    """A role that a user has now."""

    user_guid: str
    type: RoleType
    space_guid: str | None
    organization_guid: str | None


# An app, with the space and the organization that it is in. Nothing is reached by what was
# deleted, or in an organization that is suspended; what nobody announced is neither.
_PLACES = apps.outerjoin(spaces, spaces.c.guid == apps.c.space_guid).outerjoin(
    organizations, organizations.c.guid == spaces.c.organization_guid
)
_SPACE_OPEN = and_(
    func.coalesce(spaces.c.deleted, False).is_(False),
    func.coalesce(organizations.c.deleted, False).is_(False),
    func.coalesce(organizations.c.suspended, False).is_(False),
)
_OPEN = and_(apps.c.deleted.is_(False), _SPACE_OPEN)


class RoleReadModel:
    """Answers what users may do."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def in_app(self, user_guid: str, app_guid: str) -> set[RoleType]:
        """The roles that count for an app; none for one that nobody announced."""
        place = select(apps.c.space_guid, spaces.c.organization_guid)
        return self._held(
            user_guid, place.select_from(_PLACES).where(apps.c.guid == app_guid, _OPEN), app_guid
        )

    def in_space(self, user_guid: str, space_guid: str) -> set[RoleType]:
        """The roles that count for a space."""
        joined = spaces.outerjoin(organizations, organizations.c.guid == spaces.c.organization_guid)
        place = select(spaces.c.guid, spaces.c.organization_guid).select_from(joined)
        return self._held(
            user_guid, place.where(spaces.c.guid == space_guid, _SPACE_OPEN), space_guid
        )

    def in_organization(self, user_guid: str, organization_guid: str) -> set[RoleType]:
        """The roles that a user has in an organization, or in a space of it."""
        there = and_(
            spaces.c.organization_guid == organizations.c.guid, spaces.c.deleted.is_(False)
        )
        joined = organizations.outerjoin(spaces, there)
        place = select(spaces.c.guid, organizations.c.guid).select_from(joined)
        return self._held(
            user_guid,
            place.where(organizations.c.guid == organization_guid, _SPACE_OPEN),
            organization_guid,
        )

    def apps_of(self, user_guid: str) -> Select[tuple[str]]:
        """Selects the guids of the apps in which a user has any role."""
        held = and_(roles.c.user_guid == user_guid, roles.c.held.is_(True))
        by_space = (
            select(apps.c.guid)
            .select_from(
                roles.join(apps, apps.c.space_guid == roles.c.space_guid)
                .outerjoin(spaces, spaces.c.guid == apps.c.space_guid)
                .outerjoin(organizations, organizations.c.guid == spaces.c.organization_guid)
            )
            .where(held, _OPEN)
        )
        by_organization = (
            select(apps.c.guid)
            .select_from(
                roles.join(spaces, spaces.c.organization_guid == roles.c.organization_guid)
                .join(apps, apps.c.space_guid == spaces.c.guid)
                .outerjoin(organizations, organizations.c.guid == spaces.c.organization_guid)
            )
            .where(held, _OPEN)
        )
        return select(union(by_space, by_organization).subquery().c.guid)

    def spaces_of(self, user_guid: str) -> Select[tuple[str]]:
        """Selects the guids of the spaces in which a user has any role."""
        held = and_(roles.c.user_guid == user_guid, roles.c.held.is_(True))
        by_space = (
            select(roles.c.space_guid)
            .select_from(
                roles.outerjoin(spaces, spaces.c.guid == roles.c.space_guid).outerjoin(
                    organizations, organizations.c.guid == spaces.c.organization_guid
                )
            )
            .where(held, roles.c.space_guid.is_not(None), _SPACE_OPEN)
        )
        by_organization = (
            select(spaces.c.guid)
            .select_from(
                roles.join(
                    spaces, spaces.c.organization_guid == roles.c.organization_guid
                ).outerjoin(organizations, organizations.c.guid == spaces.c.organization_guid)
            )
            .where(held, _SPACE_OPEN)
        )
        return select(union(by_space, by_organization).subquery().c.space_guid)

    def organizations_of(self, user_guid: str) -> Select[tuple[str]]:
        """Selects the guids of the organizations in which a user has a role."""
        return (
            select(roles.c.organization_guid)
            .select_from(
                roles.outerjoin(organizations, organizations.c.guid == roles.c.organization_guid)
            )
            .where(
                roles.c.user_guid == user_guid,
                roles.c.held.is_(True),
                roles.c.organization_guid.is_not(None),
                func.coalesce(organizations.c.deleted, False).is_(False),
                func.coalesce(organizations.c.suspended, False).is_(False),
            )
        )

    def all(self, user_guid: str | None) -> list[HeldRole]:
        """All roles that are held, or those of a user, in a fixed order."""
        query = select(roles).where(roles.c.held.is_(True))
        if user_guid is not None:
            query = query.where(roles.c.user_guid == user_guid)
        order = (roles.c.user_guid, roles.c.type, roles.c.space_guid, roles.c.organization_guid)
        with self._engine.connect() as connection:
            return [
                HeldRole(row.user_guid, RoleType(row.type), row.space_guid, row.organization_guid)
                for row in connection.execute(query.order_by(*order))
            ]

    def _held(self, user_guid: str, places: Select[tuple[str, str]], asked: str) -> set[RoleType]:
        """The user's roles in what `places` selects: guids of spaces, and of organizations."""
        if "\0" in asked:  # PostgreSQL can't even be asked
            return set()
        found = places.subquery()
        space_guid, organization_guid = found.c
        held = and_(roles.c.user_guid == user_guid, roles.c.held.is_(True))
        query = union_all(
            select(roles.c.type).join(found, roles.c.space_guid == space_guid).where(held),
            select(roles.c.type)
            .join(found, roles.c.organization_guid == organization_guid)
            .where(held),
        )
        with self._engine.connect() as connection:
            return {RoleType(type) for type in connection.scalars(query)}
