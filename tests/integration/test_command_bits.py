"""Commands by message that name bits, or hold odd texts: what is taken, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from eventsourcing.persistence import OperationalError

from adapters.bus import work
from adapters.store import Store
from domain.droplet import DropletState
from domain.package import PackageState, StagedBits
from tests.integration.test_commands import BITS, DATA, Data, invalid, staged_data, waiting_droplet
from tests.support.commands import ADMIN, LIMIT, CommandDesk
from tests.support.packages import BY, STAGED
from tests.support.zips import sha1


@pytest.fixture
def desk(
    any_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CommandDesk]:
    monkeypatch.setattr(work, "FIRST_DELAY", 0.001)
    desk = CommandDesk.open(any_store, tmp_path, monkeypatch)
    yield desk
    desk.bus.close()


def test_uploads_that_are_switched_off(desk: CommandDesk) -> None:
    """403, before the form is looked at; admins pass."""
    guid, path = desk.awaiting(), desk.put(BITS)
    off = desk.another_handler(enabled=False)
    disabled = (403, 330002, "CF-FeatureDisabled", "Feature Disabled: app_bits_upload")
    for data in ({"guid": guid, "bits_path": str(path)}, {}):
        assert desk.send("package.upload", data, handler=off).error == disabled
    assert desk.store.service.get(guid).state is PackageState.AWAITING_UPLOAD
    admins = {"guid": guid, "bits_path": str(path)}
    assert desk.send("package.upload", admins, None, ADMIN, off).guid == guid


def test_uploaded_bits_are_taken_from_their_file(desk: CommandDesk) -> None:
    """They become the package's, and the file is gone once they are stored."""
    guid, path = desk.awaiting(), desk.put(BITS, "some.tmp")
    data = {"guid": guid, "bits_path": str(path), "bits_name": "größe.zip"}
    assert desk.send("package.upload", data).guid == guid
    package = desk.store.service.get(guid)
    assert (package.state, package.file_name) == (PackageState.PROCESSING_UPLOAD, "größe.zip")
    desk.process(guid)
    digests = desk.store.service.get(guid).digests
    assert digests is not None and digests.sha1 == sha1(BITS)
    assert not path.exists()


def test_a_droplet_is_taken_from_its_file(desk: CommandDesk) -> None:
    """It is stored with the answer; the file is gone, and nothing stays in staging."""
    data = staged_data(desk)
    guid = desk.send("droplet.staged", data).guid
    droplet = desk.store.store.services.droplets.get(guid)
    assert (droplet.state, droplet.buildpack) == (DropletState.STAGED, "ruby")
    assert droplet.process_types == {"web": "rackup"}
    assert droplet.stored is not None
    with desk.blobs.open(droplet.stored.key) as bits:
        assert bits.read_at(0, bits.size) == b"a droplet"
    assert (desk.staged_files(), Path(data["bits_path"]).exists()) == ([], False)


@pytest.mark.parametrize("kind", ["package.upload", "droplet.staged"])
def test_bits_are_taken_from_the_upload_directory_alone(
    desk: CommandDesk, kind: str, tmp_path: Path
) -> None:
    """What is elsewhere, too large, or not there is refused, and stays where it is."""
    data = DATA[kind](desk)
    del data["bits_path"]
    outside = tmp_path / "secret"
    outside.write_bytes(BITS)
    uploads = desk.staging.upload_folder
    (uploads / "link").symlink_to(outside)
    large = desk.put(bytes(LIMIT + 1), "large.zip")
    bad = invalid("Bits path is invalid")
    wrong: list[tuple[dict[str, str], tuple[Any, ...]]] = [
        ({"bits_path": str(outside)}, bad),
        ({"bits_path": str(uploads / ".." / "secret")}, bad),
        ({"bits_path": str(uploads / "link")}, bad),
        ({"bits_path": str(uploads / "nothing.zip")}, bad),
        ({"bits_path": str(uploads)}, bad),
        ({"bits_path": "app.zip"}, bad),
        ({"bits_path": "/a\0b"}, invalid("Bits path must not hold NUL characters")),
        ({"bits_url": "s3://bucket/prefix/uploads/app.zip"}, bad),
        ({"bits_path": str(large)},
         invalid(f"The upload is larger than {LIMIT} bytes, the limit", 413)),
        ({}, invalid("Bits path An application zip file must be uploaded")),
        ({"bits_path": "", "bits_url": ""},
         invalid("Bits path An application zip file must be uploaded")),
    ]  # fmt: skip
    head = desk.store.log.head()
    for claim, error in wrong:
        assert desk.send(kind, {**data, **claim}).error == error, claim
    assert (desk.store.log.head(), desk.staged_files(), desk.bus.parked) == (head, [], [])
    assert outside.read_bytes() == BITS and large.exists()


def test_an_upload_that_came_too_late_leaves_its_file(
    desk: CommandDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another was first, after the bits were taken: they are given back."""
    guid, path = desk.awaiting(), desk.put(BITS)
    take = desk.staging.take

    def take_slowly(*found: Any) -> StagedBits:
        staged = take(*found)
        desk.store.service.start_upload(guid, STAGED, None, BY)
        return staged

    monkeypatch.setattr(desk.staging, "take", take_slowly)
    refused = desk.send("package.upload", {"guid": guid, "bits_path": str(path)})
    assert refused.error[:2] == (400, 150004)
    assert (desk.staged_files(), path.read_bytes()) == ([], BITS)


def test_a_droplet_whose_answer_was_lost_leaves_no_file(desk: CommandDesk) -> None:
    """It is in the log and stored: the file is removed, as after any other acceptance."""
    data = staged_data(desk)
    desk.troubles.after.append(OperationalError("gone"))
    desk.troubles.before.append(OperationalError("gone"))
    guid = desk.send("droplet.staged", data).guid
    assert desk.store.store.services.droplets.get(guid).state is DropletState.STAGED
    assert (desk.staged_files(), Path(data["bits_path"]).exists()) == ([], False)


def test_a_droplet_of_other_bits_than_told_is_refused(desk: CommandDesk) -> None:
    """The file stays, for the builder to look at; nothing was stored."""
    data = {**staged_data(desk), "sha1": "0" * 40}
    status, code, _, description = desk.send("droplet.staged", data).error
    assert (status, code) == (422, 10008)
    assert sha1(b"a droplet") in description
    assert (desk.staged_files(), Path(data["bits_path"]).read_bytes()) == ([], b"a droplet")
    assert not any(path.is_file() for path in desk.staging.folder.with_name("blobs").rglob("*/*"))
    told = desk.send("droplet.staged", {**data, "sha1": "no sum", "process_types": {"a b": "c\nd"}})
    assert told.error == invalid(
        "Sha1 must be 40 lower-case hexadecimal digits, "
        "Process types must be named by letters, digits, _ and -, "
        "Commands must be one line of 1 to 4096 characters"
    )


ODD: dict[str, tuple[str, Data]] = {
    "app guid": ("package.create", lambda desk: {"app_guid": "a\0b", "type": "bits"}),
    "url": (
        "package.create", lambda desk: {"app_guid": "app-1", "type": "docker", "url": "a\0b"},
    ),
    "another app": (
        "package.copy", lambda desk: {"source_guid": desk.ready(), "app_guid": "a\0b"},
    ),
    "stack": ("package.stage", lambda desk: {"guid": desk.ready(), "stack": "a\0b"}),
    "error": (
        "droplet.staging_failed", lambda desk: {"guid": waiting_droplet(desk), "error": "a\0b"},
    ),
    "process": (
        "droplet.staged", lambda desk: {**staged_data(desk), "process_types": {"web": "a\0b"}},
    ),
    "buildpack": ("droplet.staged", lambda desk: {**staged_data(desk), "buildpack": "a\0b"}),
    "name": ("app.created", lambda desk: {"guid": "app-9", "name": "a\0b"}),
    "app's buildpack": (
        "app.created", lambda desk: {"guid": "app-9", "name": "nine", "buildpack": "a\0b"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ODD)
def test_no_text_stops_the_read_models(desk: CommandDesk, case: str) -> None:
    """Accepted or refused for what it is, what somebody writes is nobody else's trouble."""
    kind, data_of = ODD[case]
    reply = desk.send(kind, data_of(desk), token=ADMIN)
    desk.store.projector.catch_up()
    assert reply.type == "command.accepted" or reply.data["status"] in (404, 422)
    assert desk.bus.parked == []
