"""`packtrail apps`: the directory on the embedded default, where no message reaches us."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.service import ROOT, Client, Service
from tests.support.waiting import eventually
from tests.support.zips import random_zip

DIRECTORY: dict[str, Any] = {
    "organizations": [{"guid": "org-1", "name": "retail"}],
    "spaces": [{"guid": "space-1", "name": "production", "organization_guid": "org-1"}],
    "apps": [
        {
            "guid": "app-1", "name": "shop", "space_guid": "space-1", "buildpack": "procfile",
            "environment_variables": {"COLOR": "green"},
        }
    ],
}  # fmt: skip


REGISTERED = {"PACKTRAIL_APPS": "registered"}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with Service(tmp_path, REGISTERED) as service:
        yield service


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that nothing is imported into."""
    with Service(tmp_path_factory.mktemp("untouched"), REGISTERED) as service:
        yield service


def apps(service: Service, *arguments: str, file: Any = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "entrypoints", "apps", *arguments],
        cwd=ROOT, env=service.environment(), capture_output=True, text=True, timeout=60,
        input=file if isinstance(file, str) else json.dumps(file), check=False,
    )  # fmt: skip


def show(client: Client, path: str) -> dict[str, Any]:
    found: dict[str, Any] = client.http.get(path).json()
    return found


def test_a_directory_is_imported_beside_a_running_service(service: Service) -> None:
    """Every entry can be read, and leads to the one that it is in."""
    client = service.client()
    assert client.http.get("/v3/apps/app-1").status_code == 404
    done = apps(service, "import", "-", file=DIRECTORY)
    assert done.stdout.startswith("imported 1 organizations, 1 spaces and 1 apps, 3 of them new")
    app = show(client, "/v3/apps/app-1")
    assert (app["name"], app["buildpack"]) == ("shop", "procfile")
    assert app["environment_variables"] == {"COLOR": "green"}
    space = show(client, app["links"]["space"]["href"])
    assert space["name"] == "production"
    assert show(client, space["links"]["organization"]["href"])["name"] == "retail"


@pytest.mark.slow
def test_an_import_may_be_repeated(service: Service) -> None:
    """What is known changes nothing; what differs is changed; what is not named stays."""
    apps(service, "import", "-", file=DIRECTORY)
    again = apps(service, "import", "-", file=DIRECTORY)
    assert "0 of them new or changed" in again.stdout
    renamed = {"apps": [{"guid": "app-1", "name": "store", "space_guid": "space-1"}]}
    assert "1 of them new or changed" in apps(service, "import", "-", file=renamed).stdout
    client = service.client()
    app = show(client, "/v3/apps/app-1")
    assert (app["name"], app["buildpack"]) == ("store", None)
    assert app["environment_variables"] == {"COLOR": "green"}
    assert show(client, "/v3/spaces/space-1")["name"] == "production"


@pytest.mark.parametrize(
    ("file", "faults"),
    [
        ("{", ["it is not JSON"]),
        pytest.param([], ["it is not a JSON object"], marks=pytest.mark.slow),
        pytest.param(
            {"teams": []},
            ["there is no part 'teams', only organizations, spaces and apps"],
            marks=pytest.mark.slow,
        ),
        pytest.param({"apps": {}}, ["apps is not a list"], marks=pytest.mark.slow),
        (
            {"apps": [{"guid": "app-1", "name": 5}, 3], "spaces": [{"guid": ""}]},
            [
                "apps[0]: Name must be a string",
                "apps[1] is not an object",
                "spaces[0]: Guid must have 1 or more characters, Name is required",
            ],
        ),
        pytest.param(
            {"apps": [{"guid": "a", "name": "a", "environment_variables": {"PORT": "1"}}]},
            ["apps[0]: Environment variables cannot set PORT"],
            marks=pytest.mark.slow,
        ),
        (
            {"apps": [{"guid": "a", "name": "a", "buildpack": "https://me:secret@host/x"}]},
            ["apps[0]: Buildpack must not hold credentials"],
        ),
    ],
)
def test_a_wrong_file_is_refused_whole(untouched: Service, file: Any, faults: list[str]) -> None:
    """All that is wrong is told, and nothing is taken in."""
    if isinstance(file, dict) and isinstance(file.get("apps"), list):
        file = {**file, "apps": [*file["apps"], *DIRECTORY["apps"]]}
    done = apps(untouched, "import", "-", file=file)
    assert done.returncode == 1
    for fault in faults:
        assert fault in done.stderr
    assert untouched.client().http.get("/v3/apps/app-1").status_code == 404


def test_a_file_that_is_not_there_is_told(untouched: Service, tmp_path: Path) -> None:
    """In one line."""
    done = apps(untouched, "import", str(tmp_path / "nowhere.json"))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "nowhere.json" in done.stderr


@pytest.mark.slow
def test_a_deleted_app_takes_everything_along(service: Service) -> None:
    """Packages, droplets, bits and environment; and it can't be announced again."""
    apps(service, "import", "-", file=DIRECTORY)
    client = service.client()
    for seed in range(3):
        package = client.push(random_zip(1000, seed))
    client.http.post(package["links"]["stage"]["href"], json={})
    assert len(service.blobs()) == 3
    deleted = apps(service, "delete", "app-1", "--as", "auditor-1")
    assert deleted.stdout.startswith("deleted app-1")
    eventually(lambda: show(client, "/v3/packages")["pagination"]["total_results"] == 0)
    eventually(lambda: show(client, "/v3/droplets")["pagination"]["total_results"] == 0)
    eventually(lambda: service.blobs() == [])
    for path in ("", "/packages", "/droplets"):
        assert client.http.get(f"/v3/apps/app-1{path}").status_code == 404
    again = apps(service, "import", "-", file=DIRECTORY)
    assert again.returncode == 1
    assert "App 'app-1' was deleted" in again.stderr
    assert apps(service, "delete", "app-1").stdout.startswith("was deleted before: app-1")
