"""An upgrade in the documented order, with an old and a new program on one database."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.postgres import PostgresServer
from tests.support.rabbit import RabbitServer
from tests.support.service import ROOT
from tests.support.waiting import eventually
from tests.support.zips import random_zip

BITS = random_zip(10_000)


def newer_program(folder: Path) -> Path:
    """This program, with a read model of packages of a later version."""
    folder.mkdir()
    for part in ("domain", "projections", "adapters", "entrypoints"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    source = folder / "projections" / "packages.py"
    text = source.read_text()
    assert text.count("    version = 3\n") == 1
    source.write_text(text.replace("    version = 3\n", "    version = 4\n"))
    return folder


@pytest.mark.slow
def test_an_upgrade_in_the_documented_order(
    tmp_path: Path, postgres: PostgresServer, rabbit: RabbitServer
) -> None:
    """Uploads are accepted all the time; old APIs refuse reads until they are replaced."""
    rabbit.forget_queues()
    newer = newer_program(tmp_path / "newer")
    parts = ("worker-1", "relay-1", "projector-1")
    with Cluster(tmp_path, postgres.new_database(), rabbit.url) as cluster:
        cluster.start("api-1", "projector-2", *parts)
        cluster.until_ready("api-1")
        pushed = []

        def push() -> None:
            with cluster.client("api-1") as client:
                created = client.post("/v3/apps/app-1/packages", json={"type": "bits"})
                guid = created.json()["guid"]
                upload = client.post(f"/v3/packages/{guid}/upload", files={"bits": ("a.zip", BITS)})
                assert upload.status_code == 200
                pushed.append(guid)

        push()
        for name in parts:
            assert cluster.stop(name) == 0
            cluster.start(name, program=newer)
            push()
        assert cluster.stop("projector-2") == 0  # the old one that stood by, and leads now
        with cluster.client("api-1") as client:
            eventually(lambda: client.get("/v3/packages").status_code == 503)
        assert "upgrade it" in cluster.log("api-1").read_text()
        push()
        cluster.start("projector-3")  # an old one that was forgotten does no harm
        assert cluster.stop("projector-1") == 0
        eventually(lambda: "upgrade it" in cluster.log("projector-3").read_text())
        cluster.start("projector-1", program=newer)
        assert cluster.stop("api-1") == 0
        cluster.start("api-1", program=newer)
        cluster.until_ready("api-1")
        with cluster.client("api-1") as client:

            def states() -> list[str]:
                page = client.get("/v3/packages").json()
                return [package["state"] for package in page["resources"]]

            eventually(lambda: states() == ["READY"] * len(pushed))
