"""Commands by message: each does what it says, and is answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.bus import work
from adapters.bus.contract import COMMANDS
from adapters.bus.messages import Message
from adapters.store import Store
from adapters.tokens import Scope
from domain.aggregate import Cause
from domain.command import Command, Receipt
from domain.droplet_service import Wanted
from domain.package import PackageType
from domain.role import Grant, RoleType
from tests.support.commands import ADMIN, REPLIES, SOURCE, WRITER, CommandDesk, body_of
from tests.support.packages import BY
from tests.support.service import TOKENS, token
from tests.support.zips import random_zip, sha1

BITS = random_zip(5000)
READER = token("reader", (Scope.READ,))
OTHER_SECRET = "eyJhbGciOiJIUzI1NiJ9.eyJ1c2VyX2lkIjoieCJ9.c2lnbmVkLWJ5LXNvbWVib2R5LWVsc2U"


@pytest.fixture
def desk(
    any_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CommandDesk]:
    monkeypatch.setattr(work, "FIRST_DELAY", 0.001)
    monkeypatch.setattr(work, "MAX_DELAY", 0.01)
    desk = CommandDesk.open(any_store, tmp_path, monkeypatch)
    yield desk
    desk.bus.close()


def waiting_droplet(desk: CommandDesk) -> str:
    droplets = desk.store.store.services.droplets
    return droplets.stage(desk.ready(), Wanted(), BY).aggregate.guid


def announced(desk: CommandDesk) -> None:
    directory = desk.store.store.services.directory
    directory.announce_app("app-1", "one", None, None, BY)
    directory.announce_space("space-1", "one", None, BY)
    directory.announce_organization("org-1", "one", BY)


def staged_data(desk: CommandDesk) -> dict[str, Any]:
    path = desk.put(b"a droplet", "droplet.tgz")
    return {
        "guid": waiting_droplet(desk), "bits_path": str(path), "sha1": sha1(b"a droplet"),
        "process_types": {"web": "rackup"}, "buildpack": "ruby",
    }  # fmt: skip


ROLE = {"user_guid": "user-9", "type": "SpaceDeveloper", "space_guid": "space-1"}
GRANT = Grant("user-9", RoleType.SPACE_DEVELOPER, "space-1")


def held_role(desk: CommandDesk) -> dict[str, Any]:
    desk.store.store.services.directory.assign_role(GRANT, BY)
    return dict(ROLE)


Data = Callable[[CommandDesk], dict[str, Any]]
DATA: dict[str, Data] = {
    "package.create": lambda desk: {"app_guid": "app-1", "type": "docker", "url": "an/image"},
    "package.upload": lambda desk: {"guid": desk.awaiting(), "bits_path": str(desk.put(BITS))},
    "package.copy": lambda desk: {"source_guid": desk.ready(), "app_guid": "app-2"},
    "package.delete": lambda desk: {"guid": desk.ready()},
    "package.stage": lambda desk: {"guid": desk.ready(), "memory_limit": 2048},
    "droplet.delete": lambda desk: {"guid": waiting_droplet(desk)},
    "droplet.staging_started": lambda desk: {"guid": waiting_droplet(desk)},
    "droplet.staged": staged_data,
    "droplet.staging_failed": lambda desk: {"guid": waiting_droplet(desk), "error": "no buildpack"},
    "app.created": lambda desk: {"guid": "app-9", "name": "nine", "space_guid": "space-1"},
    "app.renamed": lambda desk: {"guid": "app-1", "name": "two"},
    "app.deleted": lambda desk: {"guid": "app-1"},
    "space.created": lambda desk: {"guid": "space-9", "name": "nine", "organization_guid": "org-1"},
    "space.renamed": lambda desk: {"guid": "space-1", "name": "two"},
    "space.deleted": lambda desk: {"guid": "space-1"},
    "organization.created": lambda desk: {"guid": "org-9", "name": "nine"},
    "organization.renamed": lambda desk: {"guid": "org-1", "name": "two"},
    "organization.deleted": lambda desk: {"guid": "org-1"},
    "role.assigned": lambda desk: dict(ROLE),
    "role.removed": lambda desk: held_role(desk),
}
LEADS_TO = {
    "package.create": "package.created", "package.upload": "package.upload_started",
    "package.copy": "package.copy_started", "package.delete": "package.deleted",
    "package.stage": "droplet.created", "droplet.delete": "droplet.deleted",
}  # fmt: skip
MAKES = ("package.create", "package.copy", "package.stage")
ANNOUNCEMENTS = [kind for kind in COMMANDS if COMMANDS[kind].SCOPE is Scope.ADMIN]
every_command = pytest.mark.parametrize("kind", COMMANDS)


@every_command
def test_a_command_does_what_it_says(desk: CommandDesk, kind: str) -> None:
    """One event and a record, by whom the token names; the answer tells guid and position."""
    announced(desk)
    data = DATA[kind](desk)
    before = desk.store.log.head()
    user = "admin" if Scope.ADMIN is COMMANDS[kind].SCOPE else "writer"
    reply = desk.send(kind, data, "command-1", ADMIN if user == "admin" else WRITER)
    event, *_, record = desk.events(before)
    receipt = Receipt(SOURCE, "command-1", kind, "", Cause(user, "request-1"))
    assert (event.TOPIC, event.guid) == (LEADS_TO.get(kind, kind), reply.guid)
    assert kind in MAKES or reply.guid == data.get("guid", GRANT.guid)
    for written in (event, record):
        assert written.actor == user
        assert written.request_id.startswith("command-1::")
    assert isinstance(record, Command.Executed)
    assert record.guid == receipt.guid
    assert reply.data == {
        "command_id": "command-1", "command_source": SOURCE, "guid": reply.guid,
        "position": desk.store.log.head(),
    }  # fmt: skip
    assert (reply.correlation_id, desk.bus.parked) == ("c-1", [])
    for name, value in data.items():
        if name not in ("guid", "bits_path") and kind != "role.removed":
            field = "role_type" if (kind, name) == ("role.assigned", "type") else name
            assert getattr(event, field) == value


@every_command
def test_a_repeated_command_changes_nothing(desk: CommandDesk, kind: str) -> None:
    """It is answered as it was then: at once, after a restart, and whatever happened since."""
    announced(desk)
    data = DATA[kind](desk)
    first = desk.send(kind, data, "command-1", ADMIN)
    desk.store.service.create("app-3", PackageType.BITS, None, BY)
    head = desk.store.log.head()
    for handler in (desk.handler, desk.another_handler()):
        again = desk.send(kind, data, "command-1", ADMIN, handler)
        assert again.guid == first.guid
        assert head >= again.data["position"] >= first.data["position"]
        same = ("command_id", "command_source", "guid")
        assert [again.data[name] for name in same] == [first.data[name] for name in same]
    assert desk.store.log.head() == head


def test_an_id_is_unique_among_those_of_its_source(desk: CommandDesk) -> None:
    """Another source's command with the same id is another command."""
    data = {"app_guid": "app-1", "type": "bits"}
    headers = {"authorization": f"bearer {WRITER}"}
    guids = {
        desk.deliver(body_of("package.create", data, "command-1", source), headers=headers).guid
        for source in (SOURCE, "/another/system")
    }
    assert len(guids) == 2


def test_an_id_is_for_one_command_of_one_user(desk: CommandDesk) -> None:
    """Used for something else it is refused; somebody else's command is another one."""
    data = {"app_guid": "app-1", "type": "bits"}
    guid = desk.send("package.create", data, "command-1").guid
    head = desk.store.log.head()
    used = (
        422, 10008, "CF-UnprocessableEntity",
        "The request is semantically invalid: The id 'command-1' was used for another command",
    )  # fmt: skip
    assert desk.send("package.delete", {"guid": guid}, "command-1").error == used
    others = {"app_guid": "app-2", "type": "bits"}
    assert desk.send("package.create", others, "command-1").error == used
    assert (desk.store.log.head(), desk.bus.parked) == (head, [])
    theirs = desk.send("package.create", data, "command-1", token("somebody-else"))
    assert theirs.guid != guid


def test_a_refused_command_may_be_sent_again(desk: CommandDesk) -> None:
    """Under its id: nothing was done, and nothing remembered."""
    data = {"guid": "app-1", "name": "two"}
    refused = desk.send("app.renamed", data, "command-1", ADMIN)
    assert refused.error == (404, 10010, "CF-ResourceNotFound", "App not found")
    assert (refused.data["command_id"], refused.data["command_source"]) == ("command-1", SOURCE)
    assert (refused.subject, refused.correlation_id, desk.store.log.head()) == (None, "c-1", 0)
    announced(desk)
    assert desk.send("app.renamed", data, "command-1", ADMIN).guid == "app-1"
    assert desk.topics()[-2:] == ["app.renamed", "command.executed"]


def test_an_answer_can_be_told_by_the_commands_id(desk: CommandDesk) -> None:
    """Where the sender has named no correlation id; and who wants no answer gets none."""
    data = {"app_guid": "app-1", "type": "bits"}
    reply = desk.send("package.create", data, "command-1", correlation_id=None)
    assert reply.correlation_id == "command-1"
    headers = {"authorization": f"bearer {WRITER}"}
    desk.handler(Message("message-1", "", body_of("package.create", data), headers))
    assert [queue for queue, _ in desk.bus.sent] == [REPLIES]
    assert desk.topics() == ["package.created", "command.executed"] * 2


NOT_AUTHENTICATED = (401, 10002, "CF-NotAuthenticated", "Authentication error")
INVALID = (401, 1000, "CF-InvalidAuthToken", "Invalid Auth Token")
NOT_AUTHORIZED = (
    403, 10003, "CF-NotAuthorized", "You are not authorized to perform the requested action",
)  # fmt: skip


WHO_MAY_NOT: list[tuple[str, dict[str, Any], tuple[Any, ...]]] = [
    ("package.create", {}, NOT_AUTHENTICATED),
    ("package.create", {"authorization": ""}, NOT_AUTHENTICATED),
    ("package.create", {"authorization": WRITER}, NOT_AUTHENTICATED),
    ("package.create", {"authorization": f"basic {WRITER}"}, NOT_AUTHENTICATED),
    ("package.create", {"authorization": None}, NOT_AUTHENTICATED),
    ("package.create", {"authorization": 7}, NOT_AUTHENTICATED),
    ("package.create", {"authorization": {"bearer": WRITER}}, NOT_AUTHENTICATED),
    ("package.create", {"token": f"bearer {WRITER}"}, NOT_AUTHENTICATED),
    ("package.create", {"authorization": f"bearer {OTHER_SECRET}"}, INVALID),
    ("package.create", {"authorization": "bearer größe"}, INVALID),
    ("package.create", {"authorization": f"bearer {token('u', expires_in=-9)}"}, INVALID),
    ("package.create", {"authorization": f"bearer {READER}"}, NOT_AUTHORIZED),
    *((kind, {"authorization": f"bearer {WRITER}"}, NOT_AUTHORIZED) for kind in ANNOUNCEMENTS),
]


def test_who_may_not_is_refused(desk: CommandDesk) -> None:
    """As by HTTP, before the data is looked at; nothing is parked."""
    assert len(ANNOUNCEMENTS) == 11
    for kind, headers, error in WHO_MAY_NOT:
        for data in (COMMANDS[kind].EXAMPLE, {}):
            assert desk.deliver(body_of(kind, data), headers=headers).error == error, headers
    assert (desk.store.log.head(), desk.bus.parked) == (0, [])


def test_a_token_is_found_however_the_header_is_written(desk: CommandDesk) -> None:
    """Capitals, spaces, bytes, or among others: libraries differ."""
    data = {"app_guid": "app-1", "type": "bits"}
    ways: list[dict[str, Any]] = [
        {"Authorization": f"Bearer {WRITER}"},
        {"AUTHORIZATION": f"bearer   {WRITER} ".encode()},
        {"x-more": 7, "authorization": f"bearer {WRITER}"},
    ]
    guids = {desk.deliver(body_of("package.create", data), headers=way).guid for way in ways}
    assert len(guids) == 3


def test_who_sends_a_command_is_known_by_address(
    desk: CommandDesk, caplog: pytest.LogCaptureFixture
) -> None:
    """If it was accepted. The address is in its table, and nowhere else."""
    people = desk.store.store.services.people
    ada = TOKENS.sign("ada", "ada@example.org", (Scope.WRITE,), 3600)
    assert desk.send("package.delete", {"guid": "no-such"}, token=ada).type == "command.refused"
    assert people.find("ada") is None
    desk.send("package.create", {"app_guid": "app-1", "type": "bits"}, token=ada)
    assert people.find("ada") == "ada@example.org"
    assert "example.org" not in desk.everything_told(caplog.records)


def invalid(reason: str, status: int = 422) -> tuple[int, int, str, str]:
    said = f"The request is semantically invalid: {reason}"
    return status, 10008, "CF-UnprocessableEntity", said


NO_PACKAGE = (404, 10010, "CF-ResourceNotFound", "Package not found")
NO_DROPLET = (404, 10010, "CF-ResourceNotFound", "Droplet not found")
REFUSED: dict[str, tuple[str, Data, tuple[Any, ...]]] = {
    "no such command": (
        "package.explode", lambda desk: {"guid": "x"},
        (400, 1001, "CF-MessageParseError",
         "Request invalid due to parse error: there is no command of type 'package.explode'"),
    ),
    "fields": (
        "package.copy", lambda desk: {"app_guid": 7, "colour": "blue"},
        invalid("Unknown field(s): 'colour', Source guid is required, App guid must be a string"),
    ),
    "type": (
        "package.create", lambda desk: {"app_guid": "app-1", "type": "zip"},
        invalid("Type must be one of 'bits, docker'"),
    ),
    "no image": (
        "package.create", lambda desk: {"app_guid": "app-1", "type": "docker"},
        invalid("Url can not be blank when type is docker"),
    ),
    "credentials in an image": (
        "package.create",
        lambda desk: {"app_guid": "app-1", "type": "docker", "url": "user:hunter2@registry/app"},
        invalid("Url must not hold credentials"),
    ),
    "no package": ("package.delete", lambda desk: {"guid": "nobody"}, NO_PACKAGE),
    "no droplet": ("droplet.delete", lambda desk: {"guid": "nobody"}, NO_DROPLET),
    "a guid that nobody could have": (
        "package.delete", lambda desk: {"guid": "a\0b"},
        invalid("Guid must not hold NUL characters"),
    ),
    "no bits": (
        "package.upload", lambda desk: {"guid": desk.awaiting(PackageType.DOCKER)},
        invalid("Bits path An application zip file must be uploaded"),
    ),
    "not of bits": (
        "package.upload",
        lambda desk: {
            "guid": desk.awaiting(PackageType.DOCKER), "bits_path": str(desk.put(BITS)),
        },
        invalid("Package type must be bits."),
    ),
    "uploaded already": (
        "package.upload",
        lambda desk: {"guid": desk.ready(), "bits_path": str(desk.put(BITS))},
        (400, 150004, "CF-PackageBitsAlreadyUploaded",
         "Bits may be uploaded only once. Create a new package to upload different bits."),
    ),
    "source not ready": (
        "package.copy", lambda desk: {"source_guid": desk.awaiting(), "app_guid": "app-2"},
        invalid("Source package must be READY"),
    ),
    "not ready": (
        "package.stage", lambda desk: {"guid": desk.awaiting()},
        (400, 10004, "CF-InvalidRequest", "The request is invalid"),
    ),
    "over the limit": (
        "package.stage", lambda desk: {"guid": desk.ready(), "memory_limit": 1 << 30},
        (400, 10009, "CF-UnableToPerform",
         "Staging request could not be completed: memory limit exceeded"),
    ),
    "environment variables": (
        "package.stage", lambda desk: {"guid": desk.ready(), "environment_variables": {"A": "b"}},
        invalid("Environment variables may be secrets, and never travel in a message"),
    ),
    "no environment variables": (
        "package.stage", lambda desk: {"guid": desk.ready(), "environment_variables": {}},
        invalid("Environment variables may be secrets, and never travel in a message"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_is_what_http_would_say(desk: CommandDesk, case: str) -> None:
    """Nothing has changed, nothing is parked, and no bits stay in staging."""
    kind, data_of, error = REFUSED[case]
    data = data_of(desk)
    head = desk.store.log.head()
    assert desk.send(kind, data).error == error
    assert (desk.store.log.head(), desk.bus.parked, desk.staged_files()) == (head, [], [])
    assert "bits_path" not in data or Path(data["bits_path"]).read_bytes() == BITS


@pytest.mark.parametrize(
    "url", ["user:hunter2@registry/app", "https://user%3Ahunter2%40registry/app"]
)
def test_credentials_in_an_image_are_left_nowhere(
    desk: CommandDesk, caplog: pytest.LogCaptureFixture, url: str
) -> None:
    """Neither in the answer, nor in a log line, an event or what is parked."""
    caplog.set_level(1)
    data = {"app_guid": "app-1", "type": "docker", "url": url}
    assert desk.send("package.create", data).error == invalid("Url must not hold credentials")
    assert "hunter2" not in desk.everything_told(caplog.records)
