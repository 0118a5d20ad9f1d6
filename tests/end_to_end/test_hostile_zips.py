"""The corpus of hostile zips against a real service, which is as healthy afterwards as before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.hostile_zips import CORPUS, READY, STAGED
from tests.support.memory import MIB, anonymous_memory
from tests.support.service import Client, Service
from tests.support.waiting import eventually
from tests.support.zips import random_zip

pytestmark = pytest.mark.slow


@pytest.mark.timeout(600)
def test_every_hostile_zip_ends_as_documented(tmp_path: Path) -> None:
    """Package and droplet; with little memory, nothing left over, and nothing put elsewhere."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with Service(tmp_path, {"TMPDIR": str(temporary)}) as service:
        client = service.client()
        client.push(random_zip(1000))
        before = most = anonymous_memory(service.pid)
        wrong = []
        for name, case in CORPUS.items():
            package = client.push(case.make())
            told = package["state"], package["error"] or ""
            if told[0] != case.outcome or case.sentence not in told[1]:
                wrong.append((name, told))
            most = max(most, anonymous_memory(service.pid))
            if told[0] == READY:
                told = staged(client, package["guid"])
                if case.staged not in " ".join(told):
                    wrong.append((name, told))
            most = max(most, anonymous_memory(service.pid))
        assert not wrong
        assert most - before < 150 * MIB
        assert client.http.get("/readyz").status_code == 200
        assert client.push(random_zip(1000))["state"] == READY
        eventually(lambda: not service.staged_files())
        assert not list(temporary.iterdir())
        assert "Traceback" not in service.log.read_text()
        assert service.stop() == 0
        client.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "stderr.log", "temporary"]


def staged(client: Client, guid: str) -> tuple[str, str]:
    """What becomes of a droplet: its state, and why it FAILED."""
    droplet: dict[str, Any] = client.http.post(f"/v3/packages/{guid}/droplets", json={}).json()

    def ended() -> bool:
        droplet.update(client.http.get(f"/v3/droplets/{droplet['guid']}").json())
        return droplet["state"] in (STAGED, "FAILED")

    eventually(ended, within=180, every=0.02)
    return droplet["state"], droplet["error"] or ""
