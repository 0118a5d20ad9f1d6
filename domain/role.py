"""Roles: what users may do in a space or an organization, as others tell us."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID, uuid5

from eventsourcing.domain import CanInitAggregate

from domain.aggregate import Aggregate, Cause, RecordedEvent
from domain.directory import faults_of_name
from domain.errors import InvalidRequest

_ROLES = UUID("5e1f8f0e-3d47-4b0c-8f43-0d3f7f6d5a21")  # the name space of roles


class RoleType(StrEnum):
    """In a space the first three, in an organization the last."""

    SPACE_DEVELOPER = "SpaceDeveloper"
    SPACE_MANAGER = "SpaceManager"
    SPACE_AUDITOR = "SpaceAuditor"
    ORG_MANAGER = "OrgManager"


@dataclass(frozen=True)
class Grant:
    """A user's role in a space, or in an organization: one of the two guids is None."""

    user_guid: str
    type: RoleType
    space_guid: str | None = None
    organization_guid: str | None = None

    @classmethod
    def of(
        cls, user_guid: object, type: object, space_guid: object, organization_guid: object
    ) -> Grant:
        """Raises `InvalidRequest`, with all that is wrong."""
        faults = faults_of_name("User guid", user_guid)
        if type not in tuple(RoleType):
            return _refuse([*faults, f"Type must be one of '{', '.join(RoleType)}'"])
        in_space = type != RoleType.ORG_MANAGER
        place, other = "Space guid", "Organization guid"
        given, not_wanted = space_guid, organization_guid
        if not in_space:
            place, other, given, not_wanted = other, place, not_wanted, given
        faults += [f"{place} is required"] if given is None else faults_of_name(place, given)
        if not_wanted is not None:
            faults.append(f"{other} must be absent when type is {type}")
        if faults:
            return _refuse(faults)
        where = str(given)
        return cls(
            str(user_guid),
            RoleType(str(type)),
            where if in_space else None,
            None if in_space else where,
        )

    @property
    def guid(self) -> str:
        """Under which the log knows it: the same role has the same guid, whenever it is told."""
        place = self.space_guid or self.organization_guid
        return str(uuid5(_ROLES, f"{self.user_guid}\0{self.type}\0{place}"))


def _refuse(faults: list[str]) -> Grant:
    raise InvalidRequest(faults)


class Role(Aggregate, created_event_name="Assigned"):
    """A role that a user has, or had."""

    TOPIC = "role"
    ID_PREFIX = "role:"

    class Event(RecordedEvent):
        TOPIC = "role.event"

    def __init__(self) -> None:
        self.held = False

    @classmethod
    def assign(cls, grant: Grant, by: Cause) -> Role:
        return cls._begin(
            cls.Assigned,
            grant.guid,
            by,
            user_guid=grant.user_guid,
            role_type=grant.type.value,
            space_guid=grant.space_guid,
            organization_guid=grant.organization_guid,
        )

    class Assigned(Event, CanInitAggregate[str]):
        """A user has a role."""

        TOPIC = "role.assigned"
        originator_topic: str
        user_guid: str
        role_type: str
        space_guid: str | None
        organization_guid: str | None

        def apply(self, role: Role) -> None:
            role.held = True

    def restore(self, by: Cause) -> None:
        """Changes nothing for a role that is held."""
        if not self.held:
            self._trigger(self.Restored, by)

    class Restored(Event):
        """A user has a role again that was removed."""

        TOPIC = "role.restored"

        def apply(self, role: Role) -> None:
            role.held = True

    def remove(self, by: Cause) -> None:
        """Changes nothing for a role that is not held."""
        if self.held:
            self._trigger(self.Removed, by)

    class Removed(Event):
        """A user has a role no more."""

        TOPIC = "role.removed"

        def apply(self, role: Role) -> None:
            role.held = False
