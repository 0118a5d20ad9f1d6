"""Downloads: each is recorded once, as something of its own."""

from __future__ import annotations

from pathlib import Path

from domain.aggregate import Cause
from domain.download import BitsOf, Download, Downloaded
from tests.support.packages import LocalStore

BY = Cause("user-1", "request-1")


def test_a_download_says_whose_bits_who_has_fetched(tmp_path: Path) -> None:
    """Which of them, of what, of which app; by whom and by which request."""
    store = LocalStore.open(tmp_path / "log.db")
    of = Downloaded(BitsOf.DROPLET, "droplet-1", "app-1", 10, 19)
    committed = store.store.services.downloads.record(of, BY)
    event = store.log.read(0, 10)[0].event
    assert isinstance(event, Download.Started)
    assert (event.TOPIC, event.kind, event.bits_guid, event.app_guid) == (
        "download.started", "droplet", "droplet-1", "app-1",
    )  # fmt: skip
    assert (event.first_byte, event.last_byte) == (10, 19)
    assert (event.actor, event.request_id, event.caused_by) == ("user-1", "request-1", None)
    assert (committed.position, committed.aggregate.bits_guid) == (1, "droplet-1")
    store.close()


def test_downloads_do_not_meet(tmp_path: Path) -> None:
    """The same bits fetched twice are two downloads; what they are of is as it was."""
    store = LocalStore.open(tmp_path / "log.db")
    of = Downloaded(BitsOf.PACKAGE, "guid-1", "app-1")
    for _ in range(2):
        store.store.services.downloads.record(of, BY)
    one, other = (logged.event for logged in store.log.read(0, 10))
    assert one.guid != other.guid
    assert (one.originator_version, other.originator_version) == (1, 1)
    store.close()
