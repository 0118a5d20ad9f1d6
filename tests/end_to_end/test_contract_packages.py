"""Packages as the contract has them: their JSON, lists, copies, uploads and downloads."""

from __future__ import annotations

import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.support.service import Client, Service, bearer, token
from tests.support.waiting import eventually
from tests.support.zips import random_zip, sha1, sha256, zip_of

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
BITS = random_zip(20_000)


def test_a_bits_package_is_represented_as_the_contract_has_it(client: Client) -> None:
    """Keys in order, pretty-printed, relative links; `updated_at` is null at first."""
    response = client.http.post("/v3/apps/app-1/packages", json={"type": "bits"})
    package = response.json()
    assert response.status_code == 201
    assert list(package) == [
        "guid", "type", "hash", "url", "state", "error", "created_at", "updated_at", "links",
    ]  # fmt: skip
    assert response.text == json.dumps(package, indent=2)
    guid = package["guid"]
    assert re.fullmatch(UUID, guid)
    assert re.fullmatch(TIME, package["created_at"])
    assert (package["type"], package["state"], package["updated_at"]) == (
        "bits", "AWAITING_UPLOAD", None,
    )  # fmt: skip
    assert package["hash"] == {"type": "sha1", "value": None}
    assert list(package["links"].items()) == [
        ("self", {"href": f"/v3/packages/{guid}"}),
        ("upload", {"href": f"/v3/packages/{guid}/upload", "method": "POST"}),
        ("download", {"href": f"/v3/packages/{guid}/download", "method": "GET"}),
        ("stage", {"href": f"/v3/packages/{guid}/droplets", "method": "POST"}),
        ("app", {"href": "/v3/apps/app-1"}),
    ]
    assert client.http.get(f"/v3/packages/{guid}").content == response.content


BITS_PACKAGE = """{
  "guid": "%(guid)s",
  "type": "bits",
  "hash": {
    "type": "sha1",
    "value": null
  },
  "url": null,
  "state": "AWAITING_UPLOAD",
  "error": null,
  "created_at": "%(created_at)s",
  "updated_at": null,
  "links": {
    "self": {
      "href": "/v3/packages/%(guid)s"
    },
    "upload": {
      "href": "/v3/packages/%(guid)s/upload",
      "method": "POST"
    },
    "download": {
      "href": "/v3/packages/%(guid)s/download",
      "method": "GET"
    },
    "stage": {
      "href": "/v3/packages/%(guid)s/droplets",
      "method": "POST"
    },
    "app": {
      "href": "/v3/apps/app-1"
    }
  }
}"""

DOCKER_PACKAGE = """{
  "guid": "%(guid)s",
  "type": "docker",
  "hash": {
    "type": "sha1",
    "value": null
  },
  "url": "registry/größe:1",
  "state": "READY",
  "error": null,
  "created_at": "%(created_at)s",
  "updated_at": null,
  "links": {
    "self": {
      "href": "/v3/packages/%(guid)s"
    },
    "app": {
      "href": "/v3/apps/app-1"
    }
  }
}"""


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"type": "bits"}, BITS_PACKAGE),
        ({"type": "docker", "url": "registry/größe:1"}, DOCKER_PACKAGE),
    ],
    ids=["bits", "docker"],
)
def test_a_package_is_formatted_to_the_byte(
    client: Client, body: dict[str, str], text: str
) -> None:
    """Two spaces a level, no newline at the end; the same when it is shown as when created."""
    response = client.http.post("/v3/apps/app-1/packages", json=body)
    assert response.status_code == 201
    assert response.content.decode() == text % response.json()
    shown = client.http.get(f"/v3/packages/{response.json()['guid']}")
    for answer in (response, shown):
        assert answer.content == response.content
        assert answer.headers["Content-Type"] == "application/json;charset=utf-8"
        assert answer.headers["Content-Length"] == str(len(response.content))
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_an_apps_guid_is_escaped_in_links(client: Client) -> None:
    """Any text is a legal guid: the link leads back to it."""
    app = "größe & ?#%"
    guid = client.http.post(f"/v3/apps/{quote(app, safe='')}/packages", json={"type": "bits"})
    link = guid.json()["links"]["app"]["href"]
    assert link == f"/v3/apps/{quote(app, safe='')}"
    listed = client.http.get(f"{link}/packages").json()
    assert listed["pagination"]["first"] == {"href": f"{link}/packages?page=1&per_page=50"}
    assert [package["guid"] for package in listed["resources"]] == [guid.json()["guid"]]


def test_a_docker_package_is_ready_and_has_two_links(client: Client) -> None:
    """It has its image as url, and neither upload nor download."""
    created = client.http.post(
        "/v3/apps/app-1/packages", json={"type": "docker", "url": "registry/image:1"}
    ).json()
    assert (created["state"], created["url"]) == ("READY", "registry/image:1")
    assert list(created["links"]) == ["self", "app"]


@pytest.mark.parametrize("url", ["", None])
def test_a_blank_url_of_bits_passes(client: Client, url: str | None) -> None:
    """An empty string is as good as none."""
    body = {"type": "bits", "url": url}
    created = client.http.post("/v3/apps/app-1/packages", json=body)
    assert (created.status_code, created.json()["url"]) == (201, None)


REQUEST_IDS = [
    ({}, rf"{UUID}"),
    ({"X-VCAP-Request-ID": "mine:1.2_3-4"}, rf"mine:1\.2_3-4::{UUID}"),
    ({"X-Request-ID": "other"}, rf"other::{UUID}"),
    ({"X-VCAP-Request-ID": "mine", "X-Request-ID": "other"}, rf"mine::{UUID}"),
    ({"X-VCAP-Request-ID": "a b"}, rf"{UUID}"),
    ({"X-VCAP-Request-ID": "a" * 201}, rf"{UUID}"),
    ({"X-VCAP-Request-ID": "a/b"}, rf"{UUID}"),
    ({"X-VCAP-Request-ID": '{"x":1}'}, rf"{UUID}"),
    ({"X-Request-ID": "a\tb"}, rf"{UUID}"),
    ({"X-VCAP-Request-ID": "", "X-Request-ID": "other"}, rf"other::{UUID}"),
    ({"X-VCAP-Request-ID": "a" * 200}, rf"a{{200}}::{UUID}"),
]


@pytest.mark.parametrize(("headers", "pattern"), REQUEST_IDS)
def test_the_request_id_is_new_behind_the_callers(
    client: Client, headers: dict[str, str], pattern: str
) -> None:
    """A caller's id is kept if it is fit for a log; uploads have one too, also refused."""
    for response in (
        client.http.get("/v3/packages", headers=headers),
        client.http.get("/nope", headers=headers),
        client.http.delete(f"/v3/packages/{client.create()}", headers=headers),
        client.http.post("/v3/packages/x/upload", headers=headers, files={"bits": ("a", b"x")}),
        client.http.post(
            "/v3/packages/x/upload", headers=headers | bearer("bad"), files={"bits": ("a", b"x")}
        ),
    ):
        assert re.fullmatch(pattern, response.headers["X-VCAP-Request-ID"])


def test_no_two_requests_have_the_same_id(client: Client) -> None:
    """A caller that repeats its id gets a new UUID behind it."""
    headers = {"X-VCAP-Request-ID": "same"}
    ids = [
        client.http.get("/v3/packages", headers=headers).headers["X-VCAP-Request-ID"]
        for _ in range(10)
    ]
    assert len(set(ids)) == 10


def test_a_multipart_upload_becomes_ready(client: Client) -> None:
    """200 and PROCESSING_UPLOAD; then READY, with the sha1 of the bits."""
    guid = client.create()
    response = client.upload(guid, BITS)
    assert (response.status_code, response.json()["state"]) == (200, "PROCESSING_UPLOAD")
    assert re.fullmatch(TIME, response.json()["updated_at"])
    package = client.settled(guid)
    assert (package["state"], package["hash"]["value"]) == ("READY", sha1(BITS))


def test_an_upload_in_the_upload_directory_becomes_ready(client: Client, service: Service) -> None:
    """The form of the seed page: the file's bits are taken, and the file is gone then."""
    path = service.upload_dir / "d20151007-23074-1cnqkvw" / "application.zip"
    path.parent.mkdir()
    path.write_bytes(BITS)
    guid = client.create()
    form = {"bits_name": "application.zip", "bits_path": str(path)}
    response = client.http.post(f"/v3/packages/{guid}/upload", data=form)
    assert (response.status_code, response.json()["state"]) == (200, "PROCESSING_UPLOAD")
    assert client.settled(guid)["hash"]["value"] == sha1(BITS)
    eventually(lambda: not path.exists())
    download = client.http.get(f"/v3/packages/{guid}/download")
    assert download.content == BITS
    assert 'filename="application.zip"' in download.headers["Content-Disposition"]


def test_a_file_in_the_upload_directory_is_consumed_by_a_failure_too(
    client: Client, service: Service
) -> None:
    """It is gone once the package FAILED."""
    path = service.upload_dir / "broken.zip"
    path.write_bytes(b"no zip")
    guid = client.create()
    client.http.post(f"/v3/packages/{guid}/upload", data={"bits_path": str(path)})
    assert client.settled(guid)["state"] == "FAILED"
    eventually(lambda: not path.exists())


def test_a_broken_zip_fails_with_a_sentence(client: Client, service: Service) -> None:
    """FAILED says what is wrong and with which entry; nothing of the bits is kept."""
    assert "not a readable zip file" in client.push(b"no zip")["error"]
    package = client.push(zip_of({"../escape": b"x"}))
    assert package["state"] == "FAILED"
    assert (
        package["error"] == "The package's entry '../escape' would be unpacked outside its folder"
    )
    eventually(lambda: service.staged_files() == [])
    assert package["guid"] not in [path.name for path in service.blobs()]


def both_at_once(service: Service, guid: str, contents: list[bytes]) -> dict[int, httpx.Response]:
    """Each content uploaded to the one package by a client of its own, at the same moment."""
    barrier = threading.Barrier(len(contents))
    answers: dict[int, httpx.Response] = {}

    def upload(number: int) -> None:
        client = service.client()
        barrier.wait(timeout=20)
        answers[number] = client.upload(guid, contents[number], f"{number}.zip")
        client.close()

    threads = [threading.Thread(target=upload, args=(number,)) for number in range(len(contents))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


@pytest.mark.slow
def test_of_two_uploads_at_once_one_wins(client: Client, service: Service) -> None:
    """One 200, one 400 CF-PackageBitsAlreadyUploaded; bits, hash and name are the winner's."""
    contents = [random_zip(100_000, seed=1), random_zip(100_000, seed=2)]
    for _ in range(20):
        guid = client.create()
        answers = both_at_once(service, guid, contents)
        assert sorted(answer.status_code for answer in answers.values()) == [200, 400]
        (winner,) = [n for n, answer in answers.items() if answer.status_code == 200]
        assert answers[1 - winner].json()["error_code"] == "CF-PackageBitsAlreadyUploaded"
        assert client.settled(guid)["hash"]["value"] == sha1(contents[winner])
        download = client.http.get(f"/v3/packages/{guid}/download")
        assert download.content == contents[winner]
        assert f'filename="{winner}.zip"' in download.headers["Content-Disposition"]
    eventually(lambda: service.staged_files() == [])


@pytest.mark.parametrize("content", [BITS, b"no zip"], ids=["ready", "failed"])
def test_a_second_upload_is_refused(client: Client, service: Service, content: bytes) -> None:
    """400 while the first is processed, and when it is READY or FAILED; nothing changes."""
    guid = client.create()
    assert client.upload(guid, content).status_code == 200
    at_once = client.upload(guid, random_zip(100))
    before = client.settled(guid)
    later = client.upload(guid, random_zip(100))
    for answer in (at_once, later):
        assert answer.status_code == 400
        assert answer.json()["error_code"] == "CF-PackageBitsAlreadyUploaded"
    assert client.show(guid) == before
    eventually(lambda: service.staged_files() == [])


def test_a_copy_has_bits_and_hash_of_its_source(client: Client) -> None:
    """COPYING, then READY; it has its source's name, and outlives it."""
    guid = client.create()
    client.upload(guid, BITS, "named.zip")
    source = client.settled(guid)
    response = client.http.post(
        f"/v3/apps/app-2/packages?source_package_guid={source['guid']}", content=b"ignored"
    )
    assert (response.status_code, response.json()["state"]) == (201, "COPYING")
    copy = client.settled(response.json()["guid"])
    assert (copy["state"], copy["hash"]) == ("READY", source["hash"])
    assert client.http.delete(f"/v3/packages/{source['guid']}").status_code == 204
    download = client.http.get(f"/v3/packages/{copy['guid']}/download")
    assert (download.content, download.headers["ETag"]) == (BITS, f'"{sha256(BITS)}"')
    assert 'filename="named.zip"' in download.headers["Content-Disposition"]


def test_the_source_outlives_its_copy(client: Client, service: Service) -> None:
    """Each has bits of its own; a copy can be copied, back into the first app, too."""
    source = client.push(BITS)["guid"]
    copies: list[str] = []
    for app, of in (("app-2", source), ("app-1", None)):
        path = f"/v3/apps/{app}/packages?source_package_guid={of or copies[-1]}"
        copies.append(client.http.post(path).json()["guid"])
        assert client.settled(copies[-1])["state"] == "READY"
    for copy in copies:
        assert client.http.delete(f"/v3/packages/{copy}").status_code == 204
    eventually(lambda: not {path.name for path in service.blobs()} & set(copies))
    assert client.http.get(f"/v3/packages/{source}/download").content == BITS


def test_a_docker_copy_is_ready_at_once(client: Client) -> None:
    """There is nothing to copy but the image's name."""
    body = {"type": "docker", "url": "registry/image"}
    source = client.http.post("/v3/apps/app-1/packages", json=body).json()["guid"]
    copy = client.http.post(f"/v3/apps/app-2/packages?source_package_guid={source}").json()
    assert (copy["state"], copy["url"], copy["type"]) == ("READY", "registry/image", "docker")


def page(client: Client, path: str) -> dict[str, Any]:
    response = client.http.get(path)
    assert response.status_code == 200, response.text
    assert response.text == json.dumps(response.json(), indent=2)
    body: dict[str, Any] = response.json()
    return body


def test_lists_are_in_creation_order_and_link_their_pages(client: Client) -> None:
    """Relative links with page and per_page, in alphabetical order; null where there is none."""
    guids = [client.create("app-list") for _ in range(5)]
    path = "/v3/apps/app-list/packages"

    def link(number: int) -> dict[str, str]:
        return {"href": f"{path}?page={number}&per_page=2"}

    second = page(client, f"{path}?per_page=2&page=2")
    assert [package["guid"] for package in second["resources"]] == guids[2:4]
    assert list(second) == ["pagination", "resources"]
    assert list(second["pagination"].items()) == [
        ("total_results", 5), ("first", link(1)), ("last", link(3)), ("next", link(3)),
        ("previous", link(1)),
    ]  # fmt: skip
    first, last = page(client, f"{path}?per_page=2"), page(client, f"{path}?per_page=2&page=3")
    assert first["pagination"]["previous"] is None
    assert first["pagination"]["next"] == link(2)
    assert last["pagination"]["next"] is None
    assert last["pagination"]["previous"] == link(2)
    assert [package["guid"] for package in last["resources"]] == guids[4:]
    whole = page(client, path)
    assert [package["guid"] for package in whole["resources"]] == guids
    assert whole["resources"] == [client.show(guid) for guid in guids]
    beyond = page(client, f"{path}?per_page=2&page=9")
    assert beyond["resources"] == []
    assert beyond["pagination"]["next"] is None
    assert beyond["pagination"]["previous"] == link(8)
    far = page(client, f"{path}?page=999999999999999999&per_page=5000")
    assert far["resources"] == []


def test_an_empty_list_has_one_page(client: Client) -> None:
    """First and last are page 1; 50 a page is the default."""
    only = {"href": "/v3/apps/app-empty/packages?page=1&per_page=50"}
    assert page(client, "/v3/apps/app-empty/packages") == {
        "pagination": {
            "total_results": 0, "first": only, "last": only, "next": None, "previous": None,
        },
        "resources": [],
    }  # fmt: skip


def test_a_list_without_deleted_and_other_packages(client: Client) -> None:
    """A deleted package, and another app's, are neither shown nor counted."""
    kept, deleted = client.create("app-left"), client.create("app-left")
    client.create("app-right")
    assert client.http.delete(f"/v3/packages/{deleted}").status_code == 204
    body = page(client, "/v3/apps/app-left/packages")
    assert [package["guid"] for package in body["resources"]] == [kept]
    assert body["pagination"]["total_results"] == 1


def test_all_packages_are_listed(client: Client) -> None:
    """The last page ends with the newest package."""
    guid = client.create("app-of-its-own")
    last = page(client, "/v3/packages?per_page=1")["pagination"]["last"]["href"]
    assert [package["guid"] for package in page(client, last)["resources"]] == [guid]


@pytest.mark.parametrize("state", ["awaiting", "processing", "ready", "failed", "docker", "copy"])
def test_a_package_can_be_deleted_in_any_state(
    client: Client, service: Service, state: str
) -> None:
    """204 with neither type nor length; then it is gone, and its bits go too."""
    if state == "docker":
        body = {"type": "docker", "url": "x"}
        guid = client.http.post("/v3/apps/app-1/packages", json=body).json()["guid"]
    elif state == "copy":
        path = f"/v3/apps/app-2/packages?source_package_guid={client.push(BITS)['guid']}"
        guid = client.http.post(path).json()["guid"]
    else:
        guid = client.create()
    if state in ("processing", "ready"):
        assert client.upload(guid, BITS).status_code == 200
    if state == "failed":
        client.upload(guid, b"no zip")
    if state in ("ready", "failed"):
        client.settled(guid)
    response = client.http.delete(f"/v3/packages/{guid}")
    assert (response.status_code, response.content) == (204, b"")
    assert "Content-Type" not in response.headers
    assert "Content-Length" not in response.headers
    assert response.headers["X-VCAP-Request-ID"]
    assert client.http.get(f"/v3/packages/{guid}").status_code == 404
    eventually(lambda: guid not in [path.name for path in service.blobs()])
    eventually(lambda: service.staged_files() == [])


def test_a_download_gives_the_bits_with_their_name(client: Client) -> None:
    """Content-Length, ETag of the SHA-256, and the file's name, in any script."""
    guid = client.create()
    client.upload(guid, BITS, 'größe "1".zip')
    client.settled(guid)
    response = client.http.get(f"/v3/packages/{guid}/download")
    assert (response.status_code, response.content) == (200, BITS)
    assert response.headers["Content-Length"] == str(len(BITS))
    assert response.headers["ETag"] == f'"{sha256(BITS)}"'
    assert response.headers["Content-Disposition"] == (
        "attachment; filename=\"gr__e _1_.zip\"; filename*=UTF-8''gr%C3%B6%C3%9Fe%20%221%22.zip"
    )


@pytest.mark.parametrize(
    ("sent", "given"),
    [
        ("../../etc/passwd", "passwd"), ("C:\\apps\\a.zip", "a.zip"),
        ("\u4e2d\u6587.zip", "%E4%B8%AD%E6%96%87.zip"), ("a;b.zip", "a%3Bb.zip"),
    ],
)  # fmt: skip
def test_a_file_name_has_no_folders(client: Client, sent: str, given: str) -> None:
    """What a sender named is given back without its folders, in any script."""
    guid = client.create()
    client.upload(guid, BITS, sent)
    client.settled(guid)
    response = client.http.get(f"/v3/packages/{guid}/download")
    assert response.headers["Content-Disposition"].endswith(f"filename*=UTF-8''{given}")


SIZE = len(BITS)
RANGES: list[tuple[str, slice]] = [
    ("bytes=0-99", slice(0, 100)),
    ("bytes=100-", slice(100, None)),
    ("bytes=-50", slice(-50, None)),
    (f"bytes=10-{SIZE * 10}", slice(10, None)),
    (f"bytes=-{SIZE * 10}", slice(0, None)),
    ("bytes=0-0", slice(0, 1)),
]


@pytest.fixture(scope="module")
def ready(service: Service) -> str:
    client = service.client()
    guid: str = client.push(BITS)["guid"]
    client.close()
    return guid


@pytest.mark.parametrize(("header", "expected"), RANGES)
def test_a_range_gives_part_of_the_bits(
    client: Client, ready: str, header: str, expected: slice
) -> None:
    """206 with Content-Range."""
    response = client.http.get(f"/v3/packages/{ready}/download", headers={"Range": header})
    start, stop, _ = expected.indices(SIZE)
    assert (response.status_code, response.content) == (206, BITS[expected])
    assert response.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{SIZE}"
    assert response.headers["Content-Length"] == str(stop - start)


@pytest.mark.parametrize("header", ["bytes=0-1,5-6", "lines=1-2", "bytes=9-5", "bytes=-", "x"])
def test_a_range_that_is_not_understood_is_ignored(client: Client, ready: str, header: str) -> None:
    """200 and all of the bits."""
    response = client.http.get(f"/v3/packages/{ready}/download", headers={"Range": header})
    assert (response.status_code, response.content) == (200, BITS)


@pytest.mark.parametrize("header", [f"bytes={SIZE}-", "bytes=-0", "bytes=99999999-100000000"])
def test_a_range_behind_the_end_is_refused(client: Client, ready: str, header: str) -> None:
    """416 tells the size."""
    response = client.http.get(f"/v3/packages/{ready}/download", headers={"Range": header})
    assert response.status_code == 416
    assert response.headers["Content-Range"] == f"bytes */{SIZE}"
    assert set(response.json()) == {"code", "description", "error_code"}


def test_conditions_are_heard(client: Client, ready: str) -> None:
    """If-None-Match of the same bits is 304; If-Range of others gives all."""
    url, etag = f"/v3/packages/{ready}/download", f'"{sha256(BITS)}"'
    same = client.http.get(url, headers={"If-None-Match": f'"x", {etag}'})
    assert (same.status_code, same.content, same.headers["ETag"]) == (304, b"", etag)
    assert client.http.get(url, headers={"If-None-Match": '"x"'}).status_code == 200
    part = {"Range": "bytes=0-9"}
    assert client.http.get(url, headers=part | {"If-Range": etag}).status_code == 206
    for other in ('"x"', f"W/{etag}", "Tue, 24 Nov 2026 14:00:00 GMT"):
        whole = client.http.get(url, headers=part | {"If-Range": other})
        assert (whole.status_code, whole.content) == (200, BITS)
    weak = client.http.get(url, headers={"If-None-Match": f"W/{etag}"})
    assert weak.status_code == 304
    assert client.http.get(url, headers={"If-None-Match": "*"}).status_code == 304
    both = client.http.get(url, headers=part | {"If-None-Match": etag})
    assert both.status_code == 304


@pytest.mark.slow
def test_a_create_can_be_repeated_by_its_key(own_service: Service) -> None:
    """The same answer to the byte, whatever happened since, and after a restart; one package."""
    with own_service as service:
        client = service.client()
        headers = {"Idempotency-Key": "push-17"}

        def create(**changes: Any) -> httpx.Response:
            request = {"json": {"type": "bits"}, "headers": headers, **changes}
            return client.http.post("/v3/apps/app-1/packages", **request)

        first = create()
        assert first.status_code == 201
        guid = first.json()["guid"]
        assert client.upload(guid, random_zip(1000)).status_code == 200
        client.settled(guid)
        assert create().content == first.content
        service.kill()
        service.start()
        client = service.client()
        assert (create().status_code, create().content) == (201, first.content)
        assert client.http.get("/v3/packages").json()["pagination"]["total_results"] == 1
        other = create(json={"type": "docker", "url": "image"})
        assert other.status_code == 422
        assert other.json()["description"].endswith("Idempotency-Key was used for another request")
        for key in ("", "a b", "x" * 256):
            assert create(headers={"Idempotency-Key": key}).status_code == 422
        someone_else = service.client(token=token(user="user-2"))
        theirs = someone_else.http.post(
            "/v3/apps/app-1/packages", json={"type": "bits"}, headers=headers
        )
        assert theirs.json()["guid"] != guid


def test_a_copy_can_be_repeated_by_its_key(client: Client) -> None:
    """Also when its source is gone; at once with itself it makes one package."""
    source = client.push(random_zip(1000))["guid"]

    def copy(app: str = "app-2") -> httpx.Response:
        return client.http.post(
            f"/v3/apps/{app}/packages", params={"source_package_guid": source},
            headers={"Idempotency-Key": f"copy-{source}"},
        )  # fmt: skip

    with ThreadPoolExecutor(4) as pool:
        answers = {response.content for response in pool.map(lambda _: copy(), range(4))}
    assert len(answers) == 1
    assert client.http.delete(f"/v3/packages/{source}").status_code == 204
    assert copy().content in answers
    assert copy(app="app-3").status_code == 422
