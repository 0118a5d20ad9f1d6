"""Read models are built anew while the service runs, and whatever happens to whoever builds."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.store import open_sqlite
from adapters.tokens import Scope
from benchmarks.logs import write_log
from tests.support.service import ROOT, Client, Service, bearer, token
from tests.support.waiting import eventually
from tests.support.zips import random_zip


def copied(folder: Path) -> Path:
    """This program, where it can be changed."""
    if not folder.exists():
        folder.mkdir()
        for part in ("domain", "projections", "adapters", "entrypoints"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / part, folder / part, ignore=ignored)
    return folder


def with_defect(folder: Path, module: str, before: str) -> Path:
    """This program, with a projection that can't get past a line of its."""
    text = (ROOT / "projections" / module).read_text()
    assert text.count(before) == 1
    defect = before[: len(before) - len(before.lstrip())] + 'raise LookupError("a defect")\n'
    (copied(folder) / "projections" / module).write_text(text.replace(before, defect + before))
    return folder


def with_version(folder: Path, version: int, choking: bool = False) -> Path:
    """This program, with a later version of the packages' projection, which may have a defect."""
    copied(folder)
    text = (ROOT / "projections" / "packages.py").read_text()
    assert text.count("    version = 3\n") == 1
    text = text.replace("    version = 3\n", f"    version = {version}\n")
    if choking:
        before = '    row["blob_key"] = event.blob_key\n'
        assert text.count(before) == 1
        text = text.replace(before, '    raise LookupError("a defect")\n' + before)
    (folder / "projections" / "packages.py").write_text(text)
    return folder


def ask(service: Service, query: str) -> list[tuple[Any, ...]]:
    path = service.data_dir / "packtrail.db"
    with contextlib.closing(sqlite3.connect(path, timeout=20)) as connection:
        return connection.execute(query).fetchall()


def version_of(service: Service) -> int:
    return int(
        ask(service, "SELECT version FROM projection_positions WHERE name = 'packages'")[0][0]
    )


def parts_of(service: Service) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = httpx.get(f"{service.url}/readyz").json()["parts"]
    return found


def projections_of(service: Service) -> dict[str, str]:
    return parts_of(service)["projections"]


def command(service: Service, *arguments: str, content: object = None) -> None:
    """Runs `packtrail` beside the service; content is given to it."""
    given = [] if content is None else ["-"]
    subprocess.run(
        [sys.executable, "-m", "entrypoints", *arguments, *given],
        cwd=ROOT, env=service.environment(), input=json.dumps(content), text=True,
        capture_output=True, check=True,
    )  # fmt: skip


@pytest.mark.slow
def test_a_newer_program_builds_what_it_reads_by_itself(tmp_path: Path) -> None:
    """Beside the old read model, which answers meanwhile; then it is the newer one's."""
    with Service(tmp_path) as service:
        pushed = service.client().push(random_zip(1000))
        assert service.stop() == 0
        service.start(program=with_version(tmp_path / "newer", 4))
        client = service.client()
        assert client.show(pushed["guid"]) == pushed
        eventually(lambda: version_of(service) == 4)
        assert client.show(pushed["guid"]) == pushed
        assert client.push(random_zip(1000))["state"] == "READY"
        assert not ask(service, "SELECT * FROM projection_builds")
        assert projections_of(service) == {"status": "ok"}


@pytest.mark.slow
def test_a_program_that_can_not_build_its_read_model_says_so(tmp_path: Path) -> None:
    """It serves what it has, /readyz names the event, and a mended program goes on."""
    with Service(tmp_path) as service:
        pushed = service.client().push(random_zip(1000))
        assert service.stop() == 0
        newer = tmp_path / "newer"
        service.start(program=with_version(newer, 4, choking=True))
        eventually(lambda: projections_of(service)["status"] == "degraded")
        reason = projections_of(service)["reason"]
        assert reason == f"packages is not built anew: event {pushed['guid']}/3 at position 3"
        assert httpx.get(f"{service.url}/readyz").status_code == 200
        client = service.client()
        assert client.show(pushed["guid"]) == pushed
        # the old read model is followed by the program with the defect, and stops there
        created = client.create()
        client.upload(created, random_zip(1000))
        eventually(lambda: "packages stays before event" in projections_of(service)["reason"])
        assert client.show(pushed["guid"]) == pushed
        assert client.show(created)["state"] == "PROCESSING_UPLOAD", "as far as it is known"
        assert service.stop() == 0
        service.start(program=with_version(newer, 4))
        eventually(lambda: version_of(service) == 4)
        assert client.settled(created)["state"] == "READY"
        assert projections_of(service) == {"status": "ok"}


@pytest.mark.slow
def test_a_replay_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    """The old read model answers all the time; what is written meanwhile is in the new one."""
    service = Service(tmp_path)
    store = open_sqlite(service.data_dir / "packtrail.db")
    write_log(store, 120_000)
    store.close()
    with service:
        before = ask(service, "SELECT * FROM packages ORDER BY number")
        assert len(before) == 30_000
        http = httpx.Client(base_url=service.url, headers=bearer(), timeout=10)
        position = "SELECT position FROM projection_builds WHERE name = 'packages'"
        reached = 0
        for _ in range(2):
            child = subprocess.Popen(
                [sys.executable, "-m", "entrypoints", "replay", "packages"],
                cwd=ROOT, env=service.environment(),
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip

            def further(above: int = reached) -> bool:
                found = ask(service, position)
                return bool(found) and found[0][0] > above

            eventually(further, within=60, every=0.001)
            child.send_signal(signal.SIGKILL)
            child.wait()
            now = ask(service, position)[0][0]
            assert now > reached
            reached = now
            page = http.get("/v3/packages?per_page=1").json()
            assert page["pagination"]["total_results"] >= 30_000
            created = http.post("/v3/apps/app-new/packages", json={"type": "bits"})
            assert created.status_code == 201
        done = subprocess.run(
            [sys.executable, "-m", "entrypoints", "replay", "packages"],
            cwd=ROOT, env=service.environment(), capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert "rebuilt packages up to position 120002" in done.stdout
        after = ask(service, "SELECT * FROM packages ORDER BY number")
        assert after[:30_000] == before
        assert len(after) == 30_002
        assert http.get("/v3/apps/app-new/packages").json()["pagination"]["total_results"] == 2
        left = "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'package%\\_%' \
            ESCAPE '\\'"
        assert {name for (name,) in ask(service, left)} == {"package_totals"}


@pytest.mark.slow
def test_a_role_that_was_taken_back_does_not_count_where_that_can_not_be_told(
    tmp_path: Path,
) -> None:
    """Where the roles' read model has stopped, nobody is let in by it; admins are, as ever."""
    grant = {"roles": [{"user_guid": "user-1", "type": "SpaceDeveloper", "space_guid": "space-1"}]}
    app = {"guid": "app-1", "name": "shop", "space_guid": "space-1"}
    line = "            row_of(rows, logged)["
    with Service(tmp_path, {"PACKTRAIL_AUTHORIZATION": "roles"}) as service:
        assert service.stop() == 0
        service.start(program=with_defect(tmp_path / "defective", "roles.py", line))
        command(service, "apps", "import", content={"apps": [app]})
        command(service, "roles", "import", content=grant)
        guid = service.client().create()
        command(service, "roles", "remove", content=grant)
        eventually(lambda: "roles stays before event" in projections_of(service).get("reason", ""))
        paths = ("/v3/packages", f"/v3/packages/{guid}", "/v3/audit_events", "/v3/apps/app-1")
        asked = {path: service.client().http.get(path).status_code for path in paths}
        assert asked == dict.fromkeys(paths, 503)
        new = service.client().http.post("/v3/apps/app-1/packages", json={"type": "bits"})
        assert new.status_code == 503
        assert httpx.get(f"{service.url}/readyz").status_code == 200
        admin = Client(service, token=token("admin", (Scope.ADMIN,))).http
        assert {admin.get(path).status_code for path in paths} == {200}
        assert service.stop() == 0
        service.start()
        assert service.client().http.get(f"/v3/packages/{guid}").status_code == 404
        assert projections_of(service) == {"status": "ok"}


@pytest.mark.slow
def test_what_follows_from_an_event_waits_for_a_read_model_that_has_stopped(tmp_path: Path) -> None:
    """An app's deletion takes along also what the read model does not have yet."""
    with Service(tmp_path) as service:
        assert service.stop() == 0
        line = '    row["blob_key"] = event.blob_key\n'
        service.start(program=with_defect(tmp_path / "defective", "packages.py", line))
        client = service.client()
        client.upload(client.create("app-2"), random_zip(1000))
        eventually(lambda: "packages stays before" in projections_of(service).get("reason", ""))
        guid = client.create()
        command(service, "apps", "delete", "app-1")
        assert client.http.get(f"/v3/packages/{guid}").status_code == 404, "is not shown yet"
        eventually(lambda: parts_of(service)["policies"]["status"] == "degraded")
        assert service.stop() == 0
        service.start()
        deleted = "SELECT originator_id FROM events WHERE topic = 'package.deleted'"
        eventually(lambda: ask(service, deleted) == [(f"package:{guid}",)])
        eventually(lambda: parts_of(service)["policies"]["status"] == "ok")
