"""What `bits_path` may not name, and that a refused upload removes nothing."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote_plus

import pytest

from adapters.tokens import Scope
from tests.support.service import Client, Service, bearer, token
from tests.support.waiting import eventually
from tests.support.zips import random_zip

BITS = random_zip(1000)


INVALID = (422, "The request is semantically invalid: Bits path is invalid")
NO_FILE = (
    422,
    "The request is semantically invalid: Bits path An application zip file must be uploaded",
)


def upload(
    client: Client, guid: str, path: str, headers: dict[str, str] | None = None
) -> tuple[int, str]:
    response = client.http.post(
        f"/v3/packages/{guid}/upload",
        data={"bits_name": "a.zip", "bits_path": path},
        headers=headers,
    )
    return response.status_code, response.json().get("description", "")


def forbidden(service: Service, tmp_path: Path) -> dict[str, str]:
    """Paths that may not be used, by what is wrong with them."""
    uploads = service.upload_dir
    outside = tmp_path / "outside.zip"
    outside.write_bytes(BITS)
    inside = uploads / "inside.zip"
    inside.write_bytes(BITS)
    names = {
        "link": uploads / "link.zip",
        "hard link": uploads / "second-name.zip",
        "folder link": uploads / "folder-link",
        "fifo": uploads / "fifo",
        "device link": uploads / "device-link",
        "dead link": uploads / "dead-link",
        "loop": uploads / "loop",
    }
    for path in names.values():
        path.unlink(missing_ok=True)
    names["link"].symlink_to(outside)
    os.link(outside, names["hard link"])
    names["folder link"].symlink_to(tmp_path)
    os.mkfifo(names["fifo"])
    names["device link"].symlink_to("/dev/zero")
    names["dead link"].symlink_to(uploads / "nowhere.zip")
    names["loop"].symlink_to(names["loop"])
    neighbour = uploads.with_name(f"{uploads.name}-of-others") / "a.zip"
    neighbour.parent.mkdir(exist_ok=True)
    neighbour.write_bytes(BITS)
    return {
        "outside": str(outside),
        "through ..": f"{uploads}/{os.path.relpath(outside, uploads)}",
        "dots that lead out": f"{uploads}/../serve.lock",
        "a link out": str(names["link"]),
        "a folder link out": str(names["folder link"] / outside.name),
        "a hard link": str(names["hard link"]),
        "a link to a device": str(names["device link"]),
        "a link to nothing": str(names["dead link"]),
        "a link to itself": str(names["loop"]),
        "a neighbour by its prefix": str(neighbour),
        "a device": "/dev/zero",
        "a FIFO": str(names["fifo"]),
        "a folder": str(uploads),
        "a missing file": str(uploads / "missing.zip"),
        "a file as folder": str(inside / "x"),
        "a relative path": "inside.zip",
        "a blank": " ",
        "an address": inside.as_uri(),
        "a NUL": f"{inside}\0",
        "an endless name": str(uploads / ("x" * 5000)),
    }


CASES = [
    "outside", "through ..", "dots that lead out", "a link out", "a folder link out",
    "a hard link", "a device", "a FIFO", "a folder", "a missing file", "a file as folder",
    "a relative path", "a NUL", "an endless name", "a link to a device", "a link to nothing",
    "a link to itself", "a neighbour by its prefix", "a blank", "an address",
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_forbidden_path_is_refused_and_nothing_removed(
    service: Service, client: Client, tmp_path: Path, case: str
) -> None:
    """422 `Bits path is invalid`, whatever leads out or is no file; every file stays."""
    path = forbidden(service, tmp_path)[case]
    before = sorted(service.data_dir.rglob("uploads*/**/*"))
    guid = client.create()
    assert upload(client, guid, path) == INVALID
    assert sorted(service.data_dir.rglob("uploads*/**/*")) == before
    assert (tmp_path / "outside.zip").read_bytes() == BITS
    assert (service.upload_dir / "inside.zip").stat().st_nlink == 1
    assert service.staged_files() == []
    assert client.show(guid)["state"] == "AWAITING_UPLOAD"


def test_a_link_inside_the_directory_is_followed(service: Service, client: Client) -> None:
    """What counts is where it leads; the file is consumed."""
    target, link = service.upload_dir / "target.zip", service.upload_dir / "inner-link.zip"
    target.write_bytes(BITS)
    link.symlink_to(target)
    guid = client.create()
    assert upload(client, guid, str(link))[0] == 200
    assert client.settled(guid)["state"] == "READY"


def test_every_case_is_one_of_the_forbidden_paths(service: Service, tmp_path: Path) -> None:
    """The list of cases has each path once."""
    assert sorted(CASES) == sorted(forbidden(service, tmp_path))


@pytest.mark.parametrize("form", [{}, {"bits_path": ""}, {"bits_name": "a.zip"}])
def test_a_form_without_a_path_holds_no_file(
    service: Service, client: Client, form: dict[str, str]
) -> None:
    """An empty or missing path is no upload at all."""
    guid = client.create()
    response = client.http.post(f"/v3/packages/{guid}/upload", data={"something": "else", **form})
    assert (response.status_code, response.json()["description"]) == NO_FILE
    assert service.staged_files() == []


@pytest.mark.parametrize(
    "name", ["größe +&%.zip", "a b.zip", "中.zip"], ids=["latin", "blank", "han"]
)
def test_a_name_in_any_script_is_taken(service: Service, client: Client, name: str) -> None:
    """What a form can say is found, and consumed."""
    path = service.upload_dir / name
    path.write_bytes(BITS)
    guid = client.create()
    assert upload(client, guid, str(path))[0] == 200
    assert client.settled(guid)["state"] == "READY"
    eventually(lambda: not path.exists())


@pytest.mark.parametrize("encoded", [True, False], ids=["percent", "raw"])
def test_a_name_that_is_not_utf_8_harms_nothing(
    service: Service, client: Client, encoded: bool
) -> None:
    """Taken or refused, but no fault of ours; a refusal leaves the file with its one name."""
    path = os.fsencode(service.upload_dir) + b"/latin-\xff.zip"
    file = Path(os.fsdecode(path))
    file.unlink(missing_ok=True)
    file.write_bytes(BITS)
    guid = client.create()
    response = client.http.post(
        f"/v3/packages/{guid}/upload",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
        content=b"bits_path=" + (quote_plus(path).encode() if encoded else path),
    )
    if response.status_code == 200:
        assert client.settled(guid)["state"] == "READY"
        eventually(lambda: not file.exists())
    else:
        assert (response.status_code, response.json()["description"]) == INVALID
        assert (service.staged_files(), file.stat().st_nlink) == ([], 1)


def test_the_same_file_goes_into_one_package_only(service: Service, client: Client) -> None:
    """What one upload has consumed is no file for the next."""
    path = service.upload_dir / "once.zip"
    path.write_bytes(BITS)
    first, second = client.create(), client.create()
    assert upload(client, first, str(path))[0] == 200
    assert client.settled(first)["state"] == "READY"
    eventually(lambda: not path.exists())
    assert upload(client, second, str(path)) == INVALID
    assert client.show(second)["state"] == "AWAITING_UPLOAD"


def test_two_uploads_of_a_file_to_one_package_at_once(service: Service, client: Client) -> None:
    """One 200, one 400: the path is as good for the one as for the other.

    One that comes so late that the file is being taken in already finds no file of one name: 422.
    """
    for turn in range(10):
        path = service.upload_dir / f"twice-{turn}.zip"
        path.write_bytes(BITS)
        guid = client.create()
        with ThreadPoolExecutor(2) as pool:
            uploads = [pool.submit(upload, client, guid, str(path)) for _ in range(2)]
        won, lost = sorted(done.result() for done in uploads)
        assert won[0] == 200
        assert lost[0] == 400 or lost == INVALID
        assert client.settled(guid)["state"] == "READY"
        eventually(lambda path=path: not path.exists())  # type: ignore[misc]
    eventually(lambda: service.staged_files() == [])


def test_a_refused_upload_leaves_its_file(service: Service, client: Client) -> None:
    """A bad token, no scope, an unknown package, a wrong type or state: the file stays usable."""
    path = service.upload_dir / "kept.zip"
    path.write_bytes(BITS)
    used = client.push(BITS)["guid"]
    docker = client.http.post("/v3/apps/app-1/packages", json={"type": "docker", "url": "x"})
    assert upload(client, used, str(path), headers=bearer("bad"))[0] == 401
    assert upload(client, used, str(path), headers=bearer(token(scopes=(Scope.READ,))))[0] == 403
    assert upload(client, "nobody", str(path))[0] == 404
    assert upload(client, docker.json()["guid"], str(path))[0] == 422
    assert upload(client, used, str(path))[0] == 400
    assert path.read_bytes() == BITS
    assert path.stat().st_nlink == 1
    assert service.staged_files() == []
    guid = client.create()
    assert upload(client, guid, str(path))[0] == 200
    assert client.settled(guid)["state"] == "READY"


def test_a_forbidden_path_is_found_before_the_package_and_its_state(
    service: Service, client: Client, tmp_path: Path
) -> None:
    """The form comes first: the same 422 for an unknown package, and for one that has bits."""
    outside = tmp_path / "outside.zip"
    outside.write_bytes(BITS)
    used = client.push(BITS)["guid"]
    assert upload(client, "nobody", str(outside)) == INVALID
    assert upload(client, used, str(outside)) == INVALID
    assert upload(client, used, str(outside), headers=bearer("bad"))[0] == 401
    assert outside.read_bytes() == BITS
    eventually(lambda: service.staged_files() == [])
