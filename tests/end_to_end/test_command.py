"""The `packtrail` command, run as a process."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from adapters.cores import ALL
from tests.support.metrics import metrics_at
from tests.support.service import ROOT, Service
from tests.support.waiting import eventually
from tests.support.zips import random_zip


def packtrail(
    *arguments: str, environment: dict[str, str], code: int = 0
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "entrypoints", *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done


def rows(database: Path) -> dict[str, list[tuple[object, ...]]]:
    """All rows of the read models."""
    connection = sqlite3.connect(database)
    try:
        return {
            table: connection.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()
            for table in ("packages", "unfinished_packages", "dead_letters", "projection_positions")
        }
    finally:
        connection.close()


@pytest.mark.slow
def test_replay_builds_the_same_read_models(own_service: Service) -> None:
    """Dropped and rebuilt from the log, also while the service runs, the rows are the same."""
    with own_service as service:
        client = service.client()
        client.push(random_zip(1000))
        client.push(b"this is no zip")
        client.http.delete(f"/v3/packages/{client.create()}")
        last = client.create()
        before = rows(service.data_dir / "packtrail.db")
        assert len(before["packages"]) == 3
        replayed = packtrail("replay", environment=service.environment())
        assert "rebuilt packages, work, droplets, directory" in replayed.stdout
        assert rows(service.data_dir / "packtrail.db") == before
        assert client.show(last)["state"] == "AWAITING_UPLOAD"
        assert client.push(random_zip(1000))["state"] == "READY"


@pytest.mark.slow
def test_replay_refuses_what_it_does_not_know(own_service: Service) -> None:
    """An unknown projection is named, with those there are; exit code 2."""
    with own_service as service:
        done = packtrail("replay", "nonsense", environment=service.environment(), code=2)
        assert "nonsense" in done.stderr
        assert "packages, work, droplets, directory" in done.stderr


@pytest.mark.slow
def test_a_dump_and_restore_loses_no_position(own_service: Service) -> None:
    """The SQLite file, dumped as text and restored, has its events at their positions."""
    with own_service as service:
        client = service.client()
        package = client.push(random_zip(1000))
        assert service.stop() == 0
        database = service.data_dir / "packtrail.db"
        query = "SELECT rowid, originator_id, originator_version, state FROM events ORDER BY 1"
        original = sqlite3.connect(database)
        events = original.execute(query).fetchall()
        dump = "\n".join(original.iterdump())
        original.close()
        for path in service.data_dir.glob("packtrail.db*"):
            path.unlink()
        restored = sqlite3.connect(database)
        restored.executescript(dump)
        assert restored.execute(query).fetchall() == events
        restored.close()
        service.start()
        assert service.client().show(package["guid"]) == package


@pytest.mark.slow
def test_a_printed_token_is_accepted(own_service: Service) -> None:
    """`packtrail token` signs with the service's secret, with the scopes asked for."""
    with own_service as service:
        url = f"{service.url}/v3/packages"
        token = packtrail("token", environment=service.environment()).stdout.strip()
        assert httpx.get(url, headers={"Authorization": f"bearer {token}"}).status_code == 200
        weak = packtrail(
            "token", "--scope", "other.read", environment=service.environment()
        ).stdout.strip()
        assert httpx.get(url, headers={"Authorization": f"bearer {weak}"}).status_code == 403
        admin = packtrail(
            "token", "--scope", "other.read", "--admin", environment=service.environment()
        ).stdout.strip()
        assert httpx.get(url, headers={"Authorization": f"bearer {admin}"}).status_code == 200


@pytest.mark.slow
def test_the_secret_is_made_at_the_first_start(tmp_path: Path) -> None:
    """Without a setting, the secret is in the data folder, for its owner alone, and stays."""
    service = Service(tmp_path, {"PACKTRAIL_JWT_SECRET": ""})
    with service:
        secret = service.data_dir / "jwt.secret"
        assert secret.stat().st_mode & 0o777 == 0o600
        lock = service.data_dir / "serve.lock"  # who could open it could keep a service out
        assert lock.stat().st_mode & 0o777 == 0o600
        first = secret.read_text()
        assert len(first.strip()) >= 32
        service.stop()
        service.start()
        assert secret.read_text() == first


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        pytest.param("PACKTRAIL_LISTEN", "nowhere", "127.0.0.1:8080", marks=pytest.mark.slow),
        ("PACKTRAIL_LISTEN", "192.0.2.1:1", "can be listened on"),
        ("PACKTRAIL_MAX_PACKAGE_SIZE", "1 GiB", "number of bytes"),
        pytest.param("PACKTRAIL_BROKER", "redis://x", "memory://", marks=pytest.mark.slow),
        pytest.param("PACKTRAIL_APP_BITS_UPLOAD", "yes", "on or off", marks=pytest.mark.slow),
        ("PACKTRAIL_TYPO", "x", "PACKTRAIL_LISTEN"),
    ],
)
def test_a_wrong_setting_stops_the_start_with_one_line(
    tmp_path: Path, name: str, value: str, expected: str
) -> None:
    """The line names the variable, and says what is expected."""
    environment = Service(tmp_path).environment() | {name: value}
    done = packtrail("serve", environment=environment, code=1)
    assert done.stderr.count("\n") == 1
    assert name in done.stderr
    assert expected in done.stderr
    assert done.stdout == ""


@pytest.mark.slow
def cores_of_threads(pid: int) -> set[frozenset[int]]:
    """The sets of cores that the threads of a process may run on."""
    found = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(ProcessLookupError):  # it has just ended
            found.add(frozenset(os.sched_getaffinity(int(task.name))))
    return found


@pytest.mark.skipif(len(ALL) == 1, reason="there is one core")
def test_serve_keeps_its_threads_on_one_core_unless_told(service: Service, tmp_path: Path) -> None:
    """But those that compute long have all of them."""
    own = frozenset(os.sched_getaffinity(service.pid))
    assert len(own) == 1
    eventually(lambda: cores_of_threads(service.pid) == {own, ALL})
    with Service(tmp_path, {"PACKTRAIL_CORES": "all"}) as on_all:
        assert cores_of_threads(on_all.pid) == {ALL}


def test_a_second_service_on_the_same_folder_is_refused(own_service: Service) -> None:
    """The embedded engines are for one process: the second says so and goes."""
    with own_service as service:
        environment = service.environment() | {"PACKTRAIL_LISTEN": "127.0.0.1:0"}
        done = packtrail("serve", environment=environment, code=1)
        assert "in use by another packtrail serve" in done.stderr


@pytest.mark.slow
def test_first_steps_can_be_pasted(own_service: Service, tmp_path: Path) -> None:
    """What `serve --first-steps` prints works in a shell as it is."""
    with own_service as service:
        environment = service.environment() | {"PACKTRAIL_LISTEN": "127.0.0.1:0"}
        environment["PACKTRAIL_DATA_DIR"] = str(tmp_path / "other")
        process = subprocess.Popen(
            [sys.executable, "-m", "entrypoints", "serve", "--first-steps"],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        try:
            printed = ""
            while printed.count("curl") < 3:
                printed += process.stdout.readline()
            (tmp_path / "app.zip").write_bytes(random_zip(1000))
            script = "\n".join(
                line.strip()
                for line in printed.splitlines()
                if re.match(r"\s+(TOKEN|GUID|curl)", line)
            )
            shell = subprocess.run(
                ["sh", "-ec", script], cwd=tmp_path, capture_output=True, text=True, timeout=30
            )
            assert shell.returncode == 0, shell.stderr
            assert '"state": "PROCESSING_UPLOAD"' in shell.stdout
        finally:
            process.terminate()
            assert process.wait(30) == 0
            process.stdout.close()


def test_health_says_what_there_is(service: Service) -> None:
    """`/healthz`, `/readyz` and `/` answer without a token; each part is named."""
    assert httpx.get(f"{service.url}/healthz").json() == {"status": "ok"}
    ready = httpx.get(f"{service.url}/readyz")
    assert ready.status_code == 200
    assert set(ready.json()["parts"]) == {
        "event_store", "read_models", "projections", "staging", "blob_store",
        "broker", "policies",
    }  # fmt: skip
    assert httpx.get(f"{service.url}/").json()["links"]["packages"] == {"href": "/v3/packages"}


def test_logs_carry_the_request_id_through_all_parts(own_service: Service) -> None:
    """One id leads from the upload's request to the work that it caused."""
    with own_service as service:
        client = service.client()
        guid = client.create()
        response = client.upload(guid, random_zip(1000))
        client.settled(guid)
        service.stop()
        request_id = response.headers["X-VCAP-Request-ID"]
        lines = [line for line in service.log.read_text().splitlines() if request_id in line]
        assert any('"logger":"packtrail.http"' in line for line in lines)
        assert any('"logger":"packtrail.relay"' in line for line in lines)
        assert any('"step":"storage"' in line for line in lines)


def test_prometheus_is_told(own_service: Service) -> None:
    """Requests, bytes, time to READY, work, and where everybody stands in the log."""
    with own_service as service:
        client = service.client()
        bits = random_zip(20_000)
        guid = client.push(bits)["guid"]
        assert client.http.get(f"/v3/packages/{guid}/download").content == bits
        client.http.get("/nope")
        for made_up in ("BREW", "WHEN", "WEBSOCKET"):
            client.http.request(made_up, "/v3/packages")
        for follower in ("relay", "projection packages"):
            lag = ("packtrail_lag", follower)
            eventually(lambda: metrics_at(f"{service.url}/metrics")[lag] == 0)  # noqa: B023 - now
        found = metrics_at(f"{service.url}/metrics")
        route = "/v3/packages/{guid}/upload"
        assert found[("packtrail_http_requests_total", "POST", route, "200")] == 1
        assert found[("packtrail_http_requests_total", "any", "none", "404")] == 1
        made_up_requests = ("packtrail_http_requests_total", "UNKNOWN", "/v3/packages", "404")
        assert found[made_up_requests] == 3  # one label, or anybody could make metrics grow
        assert not any("BREW" in labels for labels in found)
        assert found[("packtrail_received_bytes_total",)] == len(bits)
        assert found[("packtrail_sent_bytes_total",)] == len(bits)
        assert found[("packtrail_time_to_ready_seconds_count",)] == 1
        assert 0 < found[("packtrail_time_to_ready_seconds_sum",)] < 30
        assert found[("packtrail_work_total", "done", "hashing")] == 1
        assert found[("packtrail_log_position",)] == 5  # the download is an event, too
        assert found[("packtrail_position", "projection packages")] == 5
        assert found[("packtrail_unfinished_packages",)] == 0
        assert found[("packtrail_oldest_unfinished_seconds",)] == 0
        assert found[("packtrail_dead_letters",)] == 0
        assert found[("packtrail_waiting_droplets",)] == 0
        assert found[("packtrail_oldest_waiting_droplet_seconds",)] == 0
        eventually(lambda: metrics_at(f"{service.url}/metrics")[("packtrail_lag", "policies")] == 0)
        assert found[("packtrail_database_up",)] == 1
        (service.data_dir / "blobs").rename(service.data_dir / "away")
        assert client.upload(client.create(), bits).status_code == 200
        eventually(
            lambda: metrics_at(f"{service.url}/metrics").get(
                ("packtrail_work_total", "waits", "storage"), 0
            )
        )
        waiting = metrics_at(f"{service.url}/metrics")
        assert waiting[("packtrail_unfinished_packages",)] == 1
        assert waiting[("packtrail_oldest_unfinished_seconds",)] > 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("forget", "\udcff"), ("apps", "delete", "\udcff"), ("roles", "list", "--user", "\udcff"),
        ("roles", "import", "-", "--as", "\udcff"), ("token", "--email", "\udcff"),
    ],
)  # fmt: skip
def test_an_argument_that_is_no_text_is_told(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """In one line, and not by a stack trace of the database's."""
    environment = {**os.environ, "PACKTRAIL_DATA_DIR": str(tmp_path)}
    told = packtrail(*arguments, environment=environment, code=2).stderr
    assert told.endswith("packtrail: error: '\\udcff' is not UTF-8\n")
