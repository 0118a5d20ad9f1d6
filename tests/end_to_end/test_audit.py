"""Who did what, and how things were: audit events, a package's trail, and its past."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from adapters.tokens import Scope
from tests.support.service import ROOT, TOKENS, Client, Service, bearer, token
from tests.support.waiting import eventually
from tests.support.zips import random_zip

BITS = random_zip(1000)


def listed(client: Client, **query: Any) -> list[dict[str, Any]]:
    response = client.http.get("/v3/audit_events", params={"per_page": 5000, **query})
    assert response.status_code == 200, response.text
    page = response.json()
    assert page["pagination"]["total_results"] == len(page["resources"])
    events: list[dict[str, Any]] = page["resources"]
    return events


def refused(response: httpx.Response) -> str:
    assert (response.status_code, response.json()["code"]) == (400, 10005), response.text
    description: str = response.json()["description"]
    return description.removeprefix("The query parameter is invalid: ")


def written(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


# Audit events -----------------------------------------------------------------------------


def test_an_audit_event_has_cloud_foundrys_shape(client: Client) -> None:
    """Who, by the address that is kept; what, to what, when; and where to find it in the log."""
    email = "ann@example.com"
    signed = TOKENS.sign("ann", email, (Scope.READ, Scope.WRITE), 60)
    created = client.http.post(
        "/v3/apps/a-shop/packages",
        json={"type": "docker", "url": "image"},
        headers={**bearer(signed), "X-VCAP-Request-ID": "mine"},
    )
    guid = created.json()["guid"]
    (event,) = listed(client, target_guids=guid)
    itself = event.pop("guid")
    assert event == {
        "created_at": created.json()["created_at"],
        "updated_at": created.json()["created_at"],
        "type": "audit.app.package.create",
        "actor": {"guid": "ann", "type": "user", "name": email},
        "target": {"guid": "a-shop", "type": "app", "name": ""},
        "data": {
            "package_guid": guid,
            "request": {"type": "docker", "url": "image"},
            "event_id": f"{guid}/1",
            "request_id": created.headers["X-VCAP-Request-ID"],
            "position": event["data"]["position"],
        },
        "space": None,
        "organization": None,
        "links": {"self": {"href": f"/v3/audit_events/{itself}"}},
    }
    assert client.http.get(f"/v3/audit_events/{itself}").json() == {"guid": itself, **event}


@pytest.mark.slow
def test_a_forgotten_address_is_shown_no_more(client: Client, service: Service) -> None:
    """Who did it is still told, by their guid."""
    signed = TOKENS.sign("carl", "carl@example.com", (Scope.READ, Scope.WRITE), 60)
    client.http.post("/v3/apps/of-carl/packages", json={"type": "bits"}, headers=bearer(signed))
    (before,) = listed(client, target_guids="of-carl")
    subprocess.run(
        [sys.executable, "-m", "entrypoints", "forget", "carl"],
        cwd=ROOT, env=service.environment(), check=True, capture_output=True,
    )  # fmt: skip
    (after,) = listed(client, target_guids="of-carl")
    assert (before["actor"]["name"], after["actor"]["name"]) == ("carl@example.com", "carl")


def test_an_event_that_is_not_there_is_not_found(client: Client) -> None:
    """As everything else."""
    for guid in ("nobody", "a%2Fb", "%00"):
        response = client.http.get(f"/v3/audit_events/{guid}")
        assert (response.status_code, response.json()["description"]) == (404, "Event not found")


def test_downloads_are_recorded(client: Client) -> None:
    """Each that sends bits, with the range that was asked for; not what sends nothing."""
    guid = client.push(BITS)["guid"]
    path = f"/v3/packages/{guid}/download"
    whole = client.http.get(path, headers=bearer(token("bob")))
    client.http.get(path, headers={"Range": "bytes=10-19"})
    nothing_sent = [
        client.http.get(path, headers={"If-None-Match": whole.headers["ETag"]}),
        client.http.get(path, headers={"Range": "bytes=99999999-"}),
        client.http.get(path, headers=bearer("no token")),
        client.http.get(f"/v3/packages/{client.create()}/download"),
    ]
    assert [answer.status_code for answer in nothing_sent] == [304, 416, 401, 422]
    events = listed(client, types="audit.app.package.download", target_guids=guid)
    assert [(event["actor"]["guid"], event["data"].get("request")) for event in events] == [
        ("bob", None),
        ("user-1", {"first_byte": 10, "last_byte": 19}),
    ]
    assert events[0]["data"]["request_id"] == whole.headers["X-VCAP-Request-ID"]


@pytest.mark.slow
def test_without_the_log_no_bits_leave(own_service: Service) -> None:
    """What can't be recorded is refused, as a write is; reads that send no bits are answered."""
    with own_service as service:
        client = service.client()
        guid = client.push(BITS)["guid"]
        path = f"/v3/packages/{guid}/download"
        file = service.data_dir / "packtrail.db"
        with closing(sqlite3.connect(file, isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")
            answer = client.http.get(path)
            assert (answer.status_code, answer.json()["code"]) == (503, 10011)
            assert answer.headers["Retry-After"] == "1"
            assert "ETag" not in answer.headers
            assert client.show(guid)["state"] == "READY"
            database.execute("ROLLBACK")
        eventually(lambda: client.http.get(path).content == BITS)


def test_a_time_that_is_shown_can_be_asked_for(client: Client) -> None:
    """Whole seconds are shown: what is asked for by them is all of a second, or none of it."""
    guid = client.create("of-a-time")
    client.http.delete(f"/v3/packages/{guid}")
    events = listed(client, target_guids="of-a-time")
    at = events[0]["created_at"]
    same = [event for event in events if event["created_at"] == at]
    later = [event for event in events if event["created_at"] > at]

    def found(**query: str) -> list[dict[str, Any]]:
        return listed(client, target_guids="of-a-time", **query)

    assert found(created_ats=at) == same
    assert found(**{"created_ats[gt]": at}) == later
    assert found(**{"created_ats[gte]": at}) == events
    assert found(**{"created_ats[lte]": at}) == same
    assert found(**{"created_ats[lt]": at}) == []
    assert found(**{"created_ats[gte]": at, "created_ats[lte]": at}) == same
    earlier = datetime.fromisoformat(at) - timedelta(seconds=1)
    two = f"{earlier:%Y-%m-%dT%H:%M:%S}+00:00,{at}"
    assert found(created_ats=two) == same


def test_the_newest_come_first_if_they_are_asked_for_so(client: Client) -> None:
    """And pages link to each other with all that was asked for."""
    for _ in range(3):
        client.create("in-order")
    events = listed(client, target_guids="in-order")
    for order in ("-created_at", "-updated_at"):
        assert listed(client, target_guids="in-order", order_by=order) == events[::-1]
    assert listed(client, target_guids="in-order", order_by="+created_at") == events
    asked = {
        "target_guids": "in-order", "order_by": "-created_at", "per_page": 2,
        "created_ats[gte]": events[0]["created_at"],
    }  # fmt: skip
    first = client.http.get("/v3/audit_events", params=asked).json()
    second = client.http.get(first["pagination"]["next"]["href"]).json()
    assert first["resources"] + second["resources"] == events[::-1]
    assert second["pagination"]["next"] is None


def test_what_is_wrong_with_a_query_is_told_at_once(client: Client) -> None:
    """Every reason, with the value and what would be right."""
    query = {
        "page": "0", "order_by": "name", "created_ats": "yesterday,today",
        "created_ats[gt]": "2026-02-30T00:00:00Z", "actors": "ann",
        "types": ",".join("x" * 1001),
    }  # fmt: skip
    assert refused(client.http.get("/v3/audit_events", params=query)).split(", ", 1) == [
        "Unknown query parameter(s): 'actors'",
        "Page must be greater than 0, "
        "Order by can only be ordered by 'created_at' or 'updated_at', "
        "Types must be 1000 values or less, "
        "Created ats must be times, and 'yesterday' is no time such as 2026-11-26T09:30:00Z, "
        "'today' is no time such as 2026-11-26T09:30:00Z, "
        "Created ats[gt] must be a time, and '2026-02-30T00:00:00Z' is no time that there is, "
        "such as 2026-11-26T09:30:00Z",
    ]
    many = ",".join(["2026-11-26T09:30:00Z"] * 101)
    assert refused(client.http.get("/v3/audit_events", params={"created_ats": many})) == (
        "Created ats must be 100 times or less"
    )


# A package's own trail --------------------------------------------------------------------


def test_a_package_has_a_trail(client: Client) -> None:
    """Each event with its position, who, by which request, and what led to it."""
    guid = client.create()
    upload = client.upload(guid, BITS)
    client.settled(guid)
    client.http.delete(f"/v3/packages/{guid}")
    path = f"/v3/packages/{guid}/events"
    page = client.http.get(path).json()
    events = page["resources"]
    assert page["pagination"]["total_results"] == 5
    assert [(event["type"], event["id"], event["caused_by"]) for event in events] == [
        ("package.created", f"{guid}/1", None),
        ("package.upload_started", f"{guid}/2", None),
        ("package.bits_stored", f"{guid}/3", f"{guid}/2"),
        ("package.hash_computed", f"{guid}/4", f"{guid}/3"),
        ("package.deleted", f"{guid}/5", None),
    ]
    positions = [event["position"] for event in events]
    assert positions == sorted(set(positions))
    started = events[1]
    assert started["request_id"] == upload.headers["X-VCAP-Request-ID"]
    assert events[3]["request_id"] == started["request_id"]
    assert started["actor"] == {"guid": "user-1", "type": "user", "name": "user-1"}
    assert started["data"]["file_name"] == "app.zip"
    assert "staged_uri" not in started["data"]
    assert events[0]["data"] == {"type": "bits", "app_guid": "app-1", "url": None}
    assert events[0]["created_at"].startswith(started["created_at"][:11])
    assert started["links"] == {
        "package": {"href": f"/v3/packages/{guid}"},
        "state": {"href": f"/v3/packages/{guid}?at={started['position']}"},
    }
    assert list(events[4]["links"]) == ["package"]
    second = client.http.get(path, params={"per_page": 2, "page": 2}).json()
    assert second["resources"] == events[2:4]
    assert second["pagination"]["next"]["href"] == f"{path}?page=3&per_page=2"
    assert client.http.get(path, params={"page": 9}).json()["resources"] == []


def test_a_package_that_never_was_has_no_trail(client: Client) -> None:
    """Nor has one whose guid could be none."""
    for guid in ("nobody", "%00", "a%2Fb"):
        response = client.http.get(f"/v3/packages/{guid}/events")
        assert (response.status_code, response.json()["description"]) == (404, "Package not found")
    assert refused(client.http.get("/v3/packages/nobody/events", params={"page": "x"})) == (
        "Page is not a number"
    )


# Its past ---------------------------------------------------------------------------------


def test_a_package_is_shown_as_it_was(client: Client) -> None:
    """At each position what was shown then, also when it is deleted."""
    guid = client.create("past")
    shown = [client.show(guid)]
    client.upload(guid, BITS)
    shown.append(client.settled(guid))
    client.http.delete(f"/v3/packages/{guid}")
    path = f"/v3/packages/{guid}"
    events = client.http.get(f"{path}/events").json()["resources"]
    positions = {event["type"]: event["position"] for event in events}

    def at(what: int) -> httpx.Response:
        return client.http.get(path, params={"at": what})

    assert at(positions["package.created"]).json() == shown[0]
    assert at(positions["package.upload_started"]).json()["state"] == "PROCESSING_UPLOAD"
    assert at(positions["package.hash_computed"]).json() == shown[1]
    assert at(positions["package.deleted"] - 1).json() == shown[1]
    for gone in (0, positions["package.created"] - 1, positions["package.deleted"]):
        assert (at(gone).status_code, at(gone).json()["code"]) == (404, 10010)
    for event in events[:-1]:
        assert client.http.get(event["links"]["state"]["href"]).status_code == 200


def test_a_time_is_the_last_position_before_it(client: Client) -> None:
    """In any offset, to the microsecond."""
    before = datetime.now(UTC)
    guid = client.create("past")
    between = datetime.now(UTC)
    docker = {"type": "docker", "url": "image"}
    client.http.post("/v3/apps/past/packages", json=docker)
    client.http.delete(f"/v3/packages/{guid}")
    path = f"/v3/packages/{guid}"
    assert client.http.get(path, params={"at": written(before)}).status_code == 404
    there = client.http.get(path, params={"at": written(between)})
    assert there.json()["state"] == "AWAITING_UPLOAD"
    elsewhere = between + timedelta(hours=2)
    text = f"{elsewhere:%Y-%m-%dT%H:%M:%S.%f}+02:00"
    assert client.http.get(f"{path}?at={text}").json() == there.json()  # the plus is not encoded
    assert client.http.get(path, params={"at": written(datetime.now(UTC))}).status_code == 404


def test_what_is_no_place_in_the_past_is_refused(client: Client) -> None:
    """With the value, and what would be right."""
    path = f"/v3/packages/{client.create()}"

    def reason(at: str) -> str:
        return refused(client.http.get(path, params={"at": at}))

    for text in ("yesterday", "", "-1", "1.5", "2026-11-26", "2026-11-26T09:30:00"):
        assert reason(text) == (
            f"At: {text!r} is no time such as 2026-11-26T09:30:00Z, and no position such as 4711"
        )
    assert reason("9" * 30).startswith(f"At: position {'9' * 30} is beyond the newest event, which")
    future = written(datetime.now(UTC) + timedelta(minutes=1))
    assert reason(future).startswith(f"At: '{future}' is in the future: it is ")
    assert client.http.get("/v3/packages/nobody?at=1").status_code == 404


@pytest.mark.slow
def test_audit_events_keep_their_guids(own_service: Service) -> None:
    """Whoever has kept one finds it again, also when the list was built anew."""
    with own_service as service:
        client = service.client()
        guid = client.push(BITS)["guid"]
        before = listed(client)
        service.kill()
        with closing(sqlite3.connect(service.data_dir / "packtrail.db")) as database:
            with database:
                database.execute("DELETE FROM projection_positions WHERE name = 'audit'")
        service.start()
        client = service.client()
        assert listed(client) == before
        assert {event["data"]["package_guid"] for event in before} == {guid}
