"""What an upload costs on PostgreSQL and RabbitMQ, with one API process and with two.

Rates alone say little on two cores that the clients and the engines share: the processor's
seconds of the API processes stand beside them.

Run by `make bench`, or `.venv/bin/python -m benchmarks.api_processes`.
"""

from __future__ import annotations

import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.report import Figure, report
from tests.support.cluster import Cluster
from tests.support.postgres import PostgresServer
from tests.support.rabbit import RabbitServer
from tests.support.waiting import eventually
from tests.support.zips import random_zip

CLIENTS = 8
UPLOADS = 400
BITS = random_zip(16 * 1024)


def processor_seconds(pid: int) -> float:
    """User and system time of a process and its children that live."""
    ticks = 0
    for one in [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]:
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def push(cluster: Cluster, count: int) -> None:
    with cluster.client("api-1") as client:
        for _ in range(count):
            created = client.post("/v3/apps/app-1/packages", json={"type": "bits"})
            guid = created.json()["guid"]
            answer = client.post(f"/v3/packages/{guid}/upload", files={"bits": ("app.zip", BITS)})
            assert answer.status_code == 200, answer.text


def measure(
    folder: Path, postgres: PostgresServer, broker: str, workers: int
) -> tuple[float, float]:
    """Uploads a second, and the API's processor milliseconds for each."""
    folder.mkdir()
    with Cluster(folder, postgres.new_database(), broker) as cluster:
        cluster.start("projector-1", "relay-1", "worker-1")
        cluster.start("api-1", options=("--workers", str(workers)))
        cluster.until_ready("api-1")
        push(cluster, 20)
        pid = cluster.pid("api-1")
        before, start = processor_seconds(pid), time.monotonic()
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(lambda _: push(cluster, UPLOADS // CLIENTS), range(CLIENTS)))
        seconds, used = time.monotonic() - start, processor_seconds(pid) - before
        with cluster.client("api-1") as client:

            def finished() -> bool:
                page = client.get("/v3/packages?per_page=5000").json()
                return all(package["state"] == "READY" for package in page["resources"])

            eventually(finished, within=120, every=0.5)
        return UPLOADS / seconds, used / UPLOADS * 1000


def main() -> None:
    postgres, rabbit = PostgresServer(), RabbitServer()
    try:
        postgres.start()
        rabbit.start()
        with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder:
            one = measure(Path(folder, "one"), postgres, rabbit.url, 1)
            two = measure(Path(folder, "two"), postgres, rabbit.url, 2)
        report(
            "api_processes",
            [
                Figure.of_rounds(what, [ours], "one", [theirs], unit)
                for what, ours, theirs, unit in (
                    ("create + upload, two API processes", two[0], one[0], "1/s"),
                    ("API processor time, two processes", two[1], one[1], "ms"),
                )
            ],
        )
    finally:
        rabbit.stop()
        postgres.stop()


if __name__ == "__main__":
    main()
