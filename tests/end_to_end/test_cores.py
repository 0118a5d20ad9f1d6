"""The cores that the threads of a real service run on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from adapters.cores import ALL
from tests.support.s3 import S3Server
from tests.support.service import Service


def cores_of_threads(pid: int, named: str) -> set[frozenset[int]]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    found = [task for task in tasks if (task / "comm").read_text().startswith(named)]
    return {frozenset(os.sched_getaffinity(int(task.name))) for task in found}


@pytest.mark.slow
def test_an_object_stores_client_runs_on_any_core(tmp_path: Path, s3: S3Server) -> None:
    """It encrypts what it sends without the interpreter; the service's threads stay on one."""
    settings = {"PACKTRAIL_BLOB_STORE": s3.new_bucket(), **s3.environment}
    with Service(tmp_path, settings) as service:
        assert cores_of_threads(service.pid, "tokio") == {ALL}
        assert {len(cores) for cores in cores_of_threads(service.pid, "python")} >= {1}
