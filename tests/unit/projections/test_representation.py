"""The seed page's guids and times give its 849 bytes."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from adapters.http.answers import pretty_json
from domain.aggregate import RecordedEvent
from domain.package import Package, PackageType
from domain.ports import LoggedEvent
from projections.representation import represent, view_of
from tests.support.packages import BY, LocalStore

GUID = "guid-ab3a2fc4-5f81-4107-b5d0-2a92afcccf06"
APP = "guid-767a1327-02e8-4927-8aa2-5aa958789aa5"
MOMENT = datetime(2015, 10, 7, 0, 35, 46, tzinfo=UTC)
PAGE = (Path(__file__).parent / "seed_page_body.json").read_bytes()


def event(kind: Any, version: int, **fields: Any) -> RecordedEvent:
    made: RecordedEvent = kind(
        originator_id=f"package:{GUID}",
        originator_version=version,
        timestamp=MOMENT,
        actor="uaa-id-429",
        request_id="r",
        caused_by=None,
        **fields,
    )
    return made


def events() -> list[RecordedEvent]:
    bits = {"staged_uri": "staging:a", "staged_offset": 0, "staged_length": 1}
    new = {"originator_topic": "package", "type": "bits", "app_guid": APP, "url": None}
    return [
        event(Package.Created, 1, **new),
        event(Package.UploadStarted, 2, file_name="application.zip", **bits),
    ]


def test_the_page_is_849_bytes() -> None:
    """The golden body is the seed page's."""
    assert len(PAGE) == 849


def test_the_aggregate_gives_the_seed_page() -> None:
    """What an upload answers, to the byte."""
    package: Package | None = None
    for event in events():
        package = event.mutate(package)
    assert package is not None
    assert pretty_json(represent(view_of(package))) == PAGE


def test_the_read_model_gives_the_seed_page(tmp_path: Path) -> None:
    """What a GET answers, to the byte."""
    store = LocalStore.open(tmp_path / "log.db")
    try:
        logged = [LoggedEvent(number, event) for number, event in enumerate(events(), 1)]
        with store.writer.begin() as connection:
            for projection in store.projector._projections:
                projection.apply(connection, logged)
        row = store.packages.find(GUID)
        assert row is not None
        assert pretty_json(represent(row.view)) == PAGE
    finally:
        store.close()


@pytest.mark.parametrize(
    ("guid", "encoded"), [("a b", "a%20b"), ("ä", "%C3%A4"), ("a/b", "a%2Fb"), ("100%", "100%25")]
)
def test_guids_in_links_are_encoded(guid: str, encoded: str) -> None:
    """Any legal guid gives a link that leads back to it."""
    package = Package.create(guid, guid, PackageType.DOCKER, "image", BY)
    assert represent(view_of(package))["links"] == {
        "self": {"href": f"/v3/packages/{encoded}"},
        "app": {"href": f"/v3/apps/{encoded}"},
    }
