"""Commands by message where roles decide: as by HTTP, whoever sends them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import sentinel

import pytest

from adapters.authorization import ByCloudController, ByRoles, Guard
from adapters.bus import work
from adapters.bus.commands import CommandHandler
from adapters.bus.contract import COMMANDS
from adapters.store import Store
from adapters.tokens import Scope
from domain.role import Grant, RoleType
from projections.roles import RoleReadModel
from tests.integration.test_commands import DATA
from tests.support.commands import ADMIN, CommandDesk, new_handler
from tests.support.issuer import JsonServer
from tests.support.packages import BY
from tests.support.service import token

pytestmark = pytest.mark.slow

KINDS = [kind for kind in COMMANDS if COMMANDS[kind].SCOPE is Scope.WRITE]
ANSWERS = ("droplet.staging_started", "droplet.staged", "droplet.staging_failed")
BUILDER = token("a-builder", (Scope.READ, Scope.WRITE, Scope.BUILDER))


@pytest.fixture
def desk(
    any_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CommandDesk]:
    monkeypatch.setattr(work, "FIRST_DELAY", 0.001)
    any_store.migrate()
    directory = any_store.services.directory
    for number in (1, 2):
        directory.announce_app(f"app-{number}", "an app", "space-1", None, BY)
    for user, type in (
        ("developer", RoleType.SPACE_DEVELOPER),
        ("auditor", RoleType.SPACE_AUDITOR),
    ):
        directory.assign_role(Grant(user, type, "space-1"), BY)
    desk = CommandDesk.open(any_store, tmp_path, monkeypatch)
    yield desk
    desk.bus.close()


@pytest.fixture
def handler(desk: CommandDesk) -> CommandHandler:
    projector = desk.store.store.projector()
    guard = Guard(ByRoles(RoleReadModel(desk.store.store.reader), projector.catch_up))
    return new_handler(desk.store, desk.staging, desk.blobs, desk.bus, guard=guard)


@pytest.mark.parametrize("kind", KINDS)
def test_only_developers_and_admins_write(
    desk: CommandDesk, handler: CommandHandler, kind: str
) -> None:
    """Who may see is told that they may not; to everyone else it is not there."""
    data = DATA[kind](desk)
    before = desk.store.log.head()
    stranger = desk.send(kind, data, token=token("stranger"), handler=handler)
    auditor = desk.send(kind, data, token=token("auditor"), handler=handler)
    assert stranger.error[:2] == (404, 10010)
    assert auditor.error[:2] == (403, 10003)
    assert (desk.store.log.head(), desk.bus.parked) == (before, [])
    done = desk.send(kind, data, token=token("developer"), handler=handler)
    assert done.type == "command.accepted", done


@pytest.mark.parametrize("kind", KINDS)
def test_a_builder_answers_and_nothing_else(
    desk: CommandDesk, handler: CommandHandler, kind: str
) -> None:
    """For any droplet, without a role; what it does not build it may see and not change."""
    reply = desk.send(kind, DATA[kind](desk), token=BUILDER, handler=handler)
    if kind in ANSWERS:
        assert reply.type == "command.accepted", reply
    else:
        assert reply.error[:2] == (403, 10003)


def test_admins_need_no_role(desk: CommandDesk, handler: CommandHandler) -> None:
    """As everywhere."""
    reply = desk.send("package.delete", {"guid": desk.ready()}, token=ADMIN, handler=handler)
    assert reply.type == "command.accepted", reply


def test_what_is_wrong_is_told_before_who_may_not(
    desk: CommandDesk, handler: CommandHandler
) -> None:
    """In the contract's order."""
    data = {"app_guid": "app-1", "type": "nothing"}
    reply = desk.send("package.create", data, token=token("stranger"), handler=handler)
    assert reply.error[0] == 422


def test_a_command_of_which_a_cloud_controller_tells_nothing_holds_up_no_others(
    desk: CommandDesk,
) -> None:
    """Whatever it answers, there is an end of asking: the command is parked."""
    with JsonServer() as controller:
        controller.answers["/v3/apps/app-1/permissions"] = (500, {})
        by = ByCloudController(
            controller.url, sentinel.packages, sentinel.droplets, sentinel.directory
        )
        handler = new_handler(desk.store, desk.staging, desk.blobs, desk.bus, guard=Guard(by))
        data = {"app_guid": "app-1", "type": "bits"}
        reply = desk.send("package.create", data, token=token("developer"), handler=handler)
    assert reply.error[:2] == (500, 10001)
    assert len(desk.bus.parked) == 1
