"""The OpenAPI document against a real service: what it says is so."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.service import ROOT, Client, Service, bearer, token
from tests.support.waiting import eventually
from tests.support.zips import zip_of

DIRECTORY: dict[str, Any] = {
    "organizations": [{"guid": "org-1", "name": "retail"}],
    "spaces": [{"guid": "space-1", "name": "production", "organization_guid": "org-1"}],
    "apps": [
        {
            "guid": "app-1", "name": "shop", "space_guid": "space-1",
            "environment_variables": {"COLOR": "green"},
        }
    ],
}  # fmt: skip
ROLES = {
    "roles": [
        {"user_guid": "user-1", "type": "SpaceDeveloper", "space_guid": "space-1"},
        {"user_guid": "user-1", "type": "OrgManager", "organization_guid": "org-1"},
    ]
}
SITE = zip_of({"index.html": b"<p>hello"})
CONFIG = Path(__file__).with_name("schemathesis.toml")
OTHERS = 4  # packages in each state, which are deleted one after the other

THINGS = dict[str, list[str]]


def take_in(service: Service, what: str, told: Any) -> None:
    subprocess.run(
        [sys.executable, "-m", "entrypoints", what, "import", "-"],
        cwd=ROOT, env=service.environment(), input=json.dumps(told), text=True, timeout=60,
        check=True, capture_output=True,
    )  # fmt: skip


def staged_droplet(client: Client, package: str) -> str:
    response = client.http.post(f"/v3/packages/{package}/droplets", json={})
    assert response.status_code == 201, response.text
    droplet: str = response.json()["guid"]
    eventually(lambda: client.http.get(f"/v3/droplets/{droplet}").json()["state"] == "STAGED")
    return droplet


def make_things(service: Service) -> THINGS:
    """The directory, packages in every state, and droplets; their guids, by kind."""
    take_in(service, "apps", DIRECTORY)
    take_in(service, "roles", ROLES)
    client = service.client()
    ready = [client.push(SITE)["guid"] for _ in range(OTHERS)]
    failed = [client.push(b"no zip")["guid"] for _ in range(OTHERS)]
    awaiting = [client.create() for _ in range(OTHERS)]
    image = {"type": "docker", "url": "registry.example/image:1"}
    docker = client.http.post("/v3/apps/app-1/packages", json=image).json()["guid"]
    droplets = [staged_droplet(client, guid) for guid in ready]
    client.close()
    return {
        "apps": ["app-1"],
        "spaces": ["space-1"],
        "organizations": ["org-1"],
        "packages": [*ready, *failed, *awaiting, docker],
        "droplets": droplets,
    }


def try_api(service: Service, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs schemathesis."""
    for kind, guids in make_things(service).items():
        (folder / kind).write_text("".join(f'"{guid}"\n' for guid in guids))
    shutil.copy(CONFIG, folder)
    return subprocess.run(
        [
            sys.executable, "-m", "schemathesis.cli",
            "--config-file", str(folder / CONFIG.name),
            "run", f"{service.url}/openapi.json", "--no-color", *options,
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "PACKTRAIL_URL": service.url,
            "PACKTRAIL_TOKEN": token(),
        },
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("authorization", ["scopes", "roles"])
def test_schemathesis_finds_nothing(tmp_path: Path, authorization: str) -> None:
    """Whatever is sent, the answer is one that the document has, and no fault is logged."""
    with Service(tmp_path, {"PACKTRAIL_AUTHORIZATION": authorization}) as service:
        run = try_api(service, tmp_path)
        assert run.returncode == 0, run.stdout + run.stderr
        logged = [json.loads(line) for line in service.log.read_text().splitlines()]
        of_http = [line for line in logged if line["logger"] == "packtrail.http"]
        assert [line for line in of_http if line["level"] == "error"] == []
        # half of an API that nobody got into would have no defects, either
        deep = {
            (line["method"], re.sub("(?<=s/)[^/]+", ":guid", line["path"]))
            for line in of_http
            if line.get("status") in (200, 201, 204, 206, 304)
        }
        assert len(deep) >= 20, sorted(deep)


def test_the_document_is_served_to_everybody(service: Service) -> None:
    """Without a token, as JSON; `packtrail openapi` prints the same, and / links to it."""
    root = httpx.get(service.url).json()
    response = httpx.get(service.url + root["links"]["openapi"]["href"])
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json;charset=utf-8"
    printed = subprocess.run(
        [sys.executable, "-m", "entrypoints", "openapi"],
        cwd=ROOT, capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    assert json.loads(printed.stdout) == response.json()
    assert response.json()["info"]["version"] == root["version"]


@pytest.mark.parametrize("path", ["/docs", "/docs/page.js", "/docs/page.css"])
def test_the_page_may_load_only_what_is_its_own(service: Service, path: str) -> None:
    """A policy says so to the browser; the page names no other host."""
    response = httpx.get(service.url + path)
    assert response.status_code == 200
    policy = response.headers["Content-Security-Policy"]
    assert policy == (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    assert "://" not in response.text
    assert "innerHTML" not in response.text


def test_what_is_not_in_the_document_is_unknown(service: Service) -> None:
    """Another method of a known path, too: 404, and no 405."""
    with httpx.Client(base_url=service.url, headers=bearer()) as client:
        for path, methods in client.get("/openapi.json").json()["paths"].items():
            for method in {"GET", "POST", "PUT", "DELETE"} - {m.upper() for m in methods}:
                response = client.request(method, path.replace("{guid}", "a"))
                found = response.status_code, response.json()["code"]
                assert found == (404, 10000), (method, path)
