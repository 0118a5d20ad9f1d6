"""`packtrail forget`: who has written is known by an address until somebody wants that gone."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.people import People
from adapters.store import open_sqlite
from adapters.tokens import Scope
from tests.support.service import ROOT, TOKENS, Service, bearer
from tests.support.waiting import eventually

ADDRESS = "ada.lovelace@example.org"


def token(email: str | None = ADDRESS, scopes: tuple[str, ...] = (Scope.READ, Scope.WRITE)) -> str:
    return TOKENS.sign("ada", email, scopes, 3600)


@pytest.fixture
def service(own_service: Service) -> Iterator[Service]:
    with own_service as service:
        yield service


@pytest.fixture
def people(service: Service) -> Iterator[People]:
    store = open_sqlite(service.data_dir / "packtrail.db")
    yield store.services.people
    store.close()


def forget(service: Service, *users: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "entrypoints", "forget", *users],
        cwd=ROOT, env=service.environment(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def holds(folder: Path, text: str) -> list[str]:
    """The names of the files of a folder that have a text in them."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path.name for path in files if text.encode() in path.read_bytes()]


def events(service: Service) -> list[tuple[object, ...]]:
    with sqlite3.connect(service.data_dir / "packtrail.db") as connection:
        return connection.execute("SELECT * FROM events ORDER BY rowid").fetchall()


def test_an_address_is_kept_until_it_is_forgotten(service: Service, people: People) -> None:
    """Beside a running service: nothing of it is in any file then, and the log is the same."""
    service.client(token=token()).create()
    assert people.find("ada") == ADDRESS
    before = events(service)
    done = forget(service, "ada", "nobody")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "forgot the address of ada\nno address is kept of nobody\n"
    assert people.find("ada") is None
    assert holds(service.data_dir, ADDRESS) == []
    assert events(service) == before
    assert ADDRESS not in service.log.read_text()


@pytest.mark.slow
def test_forgetting_works_without_a_service(service: Service) -> None:
    """And there being nothing to forget is no failure."""
    service.client(token=token()).create()
    assert service.stop() == 0
    assert forget(service, "ada").stdout == "forgot the address of ada\n"
    assert holds(service.data_dir, ADDRESS) == []
    again = forget(service, "ada")
    assert (again.returncode, again.stdout) == (0, "no address is kept of ada\n")


@pytest.mark.slow
def test_who_comes_again_is_known_again(service: Service, people: People) -> None:
    """A moment later, whatever the service remembers: to forget is no ban."""
    client = service.client(token=token())
    client.create()
    forget(service, "ada")

    def is_known_again() -> bool:
        client.create()
        return people.find("ada") == ADDRESS

    eventually(is_known_again, every=0.2)


def test_who_only_reads_or_is_refused_is_not_known(service: Service, people: People) -> None:
    """There is nothing in the log that the address would belong to."""
    client = service.client(token=token())
    assert client.http.get("/v3/packages").status_code == 200
    assert client.http.delete("/v3/packages/no-such").status_code == 404
    reader = bearer(token(scopes=(Scope.READ,)))
    refused = client.http.post("/v3/apps/a/packages", json={"type": "bits"}, headers=reader)
    assert refused.status_code == 403
    assert people.find("ada") is None


@pytest.mark.slow
def test_a_folder_without_a_log_is_told_of(own_service: Service) -> None:
    """Nothing was forgotten there: it may be the wrong folder."""
    done = forget(own_service, "ada")
    assert (done.returncode, done.stdout) == (1, "")
    assert "there is no log at" in done.stderr
    assert not own_service.data_dir.exists()
