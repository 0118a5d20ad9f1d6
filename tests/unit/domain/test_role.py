"""A role: which there are, and what is wrong with one that is none."""

from __future__ import annotations

import pytest

from domain.errors import InvalidRequest
from domain.role import Grant, Role, RoleType
from tests.support.packages import BY

GRANT = Grant("user-1", RoleType.SPACE_DEVELOPER, "space-1")
TYPES = "Type must be one of 'SpaceDeveloper, SpaceManager, SpaceAuditor, OrgManager'"
USER = "User guid must be between 1 and 200 characters"
SPACE = "Space guid must be between 1 and 200 characters"
NO_ORGANIZATION = "Organization guid must be absent when type is SpaceManager"


def test_the_same_role_has_the_same_guid() -> None:
    """Whenever and by whomever it is told; and any other has another."""
    others = [
        Grant("user-2", RoleType.SPACE_DEVELOPER, "space-1"),
        Grant("user-1", RoleType.SPACE_AUDITOR, "space-1"),
        Grant("user-1", RoleType.SPACE_DEVELOPER, "space-2"),
        Grant("user-1", RoleType.ORG_MANAGER, None, "space-1"),
    ]
    assert GRANT.guid == Grant.of("user-1", "SpaceDeveloper", "space-1", None).guid
    assert len({GRANT.guid, *(grant.guid for grant in others)}) == 5


@pytest.mark.parametrize(
    ("fields", "faults"),
    [
        ((None, "SpaceAuditor", "s", None), [USER]),
        (("", "SpaceAuditor", "s", None), [USER]),
        (("u", "Boss", "s", None), [TYPES]),
        (("u", None, "s", None), [TYPES]),
        (("u", "SpaceManager", None, None), ["Space guid is required"]),
        (("u", "SpaceManager", "s" * 201, None), [SPACE]),
        (("u", "SpaceManager", "a\0b", None), [SPACE]),
        (("u", "SpaceManager", "s", "o"), [NO_ORGANIZATION]),
        (("u", "OrgManager", None, None), ["Organization guid is required"]),
        (("u", "OrgManager", "s", "o"), ["Space guid must be absent when type is OrgManager"]),
    ],
    ids=range(10),
)  # fmt: skip
def test_all_that_is_wrong_is_told(fields: tuple[object, ...], faults: list[str]) -> None:
    """In sentences for whoever sent it."""
    with pytest.raises(InvalidRequest) as refused:
        Grant.of(*fields)
    assert refused.value.faults == faults


def test_a_role_is_held_until_it_is_removed() -> None:
    """And again when it is restored; told twice, it changes nothing."""
    role = Role.assign(GRANT, BY)
    held = [role.held]
    for change in (role.restore, role.remove, role.remove, role.restore):
        change(BY)
        held.append(role.held)
    assert held == [True, True, False, False, True]
    topics = [type(event).TOPIC for event in role.collect_events()]  # type: ignore[attr-defined]
    assert topics == ["role.assigned", "role.removed", "role.restored"]
