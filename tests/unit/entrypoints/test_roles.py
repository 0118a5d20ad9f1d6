"""The file that `packtrail roles` takes: every fault in it is told, and none of it is taken."""

from __future__ import annotations

import json

import pytest

from domain.role import Grant, RoleType
from entrypoints.apps import UnusableFile
from entrypoints.roles import grants_of


def test_each_entry_is_a_role() -> None:
    """In a space or in an organization."""
    roles = [
        {"user_guid": "u", "type": "SpaceAuditor", "space_guid": "s"},
        {"user_guid": "u", "type": "OrgManager", "organization_guid": "o"},
    ]
    assert grants_of(json.dumps({"roles": roles}).encode()) == [
        Grant("u", RoleType.SPACE_AUDITOR, "s"),
        Grant("u", RoleType.ORG_MANAGER, None, "o"),
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"roles": [{"user_guid": "u", "type": "Boss", "space_guid": "s"}]}, "Type must be one of"),
        ({"roles": [{"user_guid": "u", "type": "OrgManager"}]}, "Organization guid is required"),
        (
            {"roles": [{"user_guid": "u", "type": "SpaceAuditor", "organization_guid": "o"}]},
            "Space guid is required, Organization guid must be absent when type is SpaceAuditor",
        ),
        ({"roles": [{"type": "OrgManager", "organization_guid": "o"}]}, "User guid is required"),
        ({"roles": {}}, "roles is not a list"),
        ({"role": []}, "there is no part 'role', only roles"),
    ],
    ids=range(6),
)
def test_what_is_wrong_is_told(content: object, said: str) -> None:
    """With the entry that it is wrong with."""
    with pytest.raises(UnusableFile, match=said):
        grants_of(json.dumps(content).encode())
