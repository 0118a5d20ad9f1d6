"""One client, one package at a time: how soon it is READY, and what a large one costs.

Run by `make bench`, or `.venv/bin/python -m benchmarks.one_package`.
"""

from __future__ import annotations

import http.client
import os
import shutil
import statistics
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.report import Figure, report
from tests.support.memory import MIB, anonymous_memory
from tests.support.service import Client, Service, bearer
from tests.support.zips import large_zip, random_zip

SMALL_ROUNDS = 200
LARGE_ROUNDS = 3
LARGE = 1024 * MIB - 8 * MIB  # the default limit leaves room for the form and the directory


def time_to_ready(client: Client) -> float:
    """Milliseconds from the upload's 200 until the package is READY, the median."""
    bits = random_zip(64 * 1024)
    times = []
    for _ in range(SMALL_ROUNDS):
        guid = client.create()
        assert client.upload(guid, bits).status_code == 200
        start = time.perf_counter()
        while client.show(guid)["state"] != "READY":
            pass
        times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times)


def upload_file(service: Service, guid: str, path: Path) -> float:
    """Seconds of a multipart upload of a file, until its 200."""
    head = b'--edge\r\nContent-Disposition: form-data; name="bits"; filename="a.zip"\r\n\r\n'
    tail = b"\r\n--edge--\r\n"
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=600)
    start = time.perf_counter()
    connection.putrequest("POST", f"/v3/packages/{guid}/upload")
    for name, value in {
        **bearer(),
        "Content-Type": "multipart/form-data; boundary=edge",
        "Content-Length": str(len(head) + path.stat().st_size + len(tail)),
    }.items():
        connection.putheader(name, value)
    connection.endheaders()
    with path.open("rb") as file:
        connection.send(head)
        connection.sock.sendfile(file)
        connection.send(tail)
    assert connection.getresponse().status == 200
    seconds = time.perf_counter() - start
    connection.close()
    return seconds


def copy_and_sync(source: Path, target: Path) -> float:
    """Seconds to copy a file and to wait until the copy is on the disk: the limit."""
    start = time.perf_counter()
    shutil.copyfile(source, target)
    descriptor = os.open(target, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    seconds = time.perf_counter() - start
    target.unlink()
    return seconds


class Peak:
    """The most anonymous memory that a process has while this is entered, above the first look."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._first = self.most = anonymous_memory(pid)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    @property
    def growth(self) -> float:
        return self.most - self._first

    def _watch(self) -> None:
        while not self._done.wait(0.01):
            self.most = max(self.most, anonymous_memory(self._pid))


def main() -> None:
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as temporary:
        folder = Path(temporary)
        large = folder / "large.zip"
        large_zip(large, LARGE)
        with Service(folder) as service:
            client = service.client()
            soon = time_to_ready(client)
            ours, limit = [], []
            with Peak(service.pid) as peak:
                for _ in range(LARGE_ROUNDS):
                    limit.append(copy_and_sync(large, folder / "copy"))
                    guid = client.create()
                    ours.append(upload_file(service, guid, large))
                    assert client.settled(guid, within=120)["state"] == "READY"
        report(
            "one_package",
            [
                Figure("64 KiB: from the 200 to READY", soon, "our bound", 100, "ms", SMALL_ROUNDS),
                Figure(
                    "1 GiB: upload until its 200", statistics.median(ours),
                    "copying the file, fsync", statistics.median(limit), "s", LARGE_ROUNDS,
                ),
                Figure(
                    "1 GiB: anonymous memory until READY", peak.growth / MIB,
                    "our bound", 64, "MiB", LARGE_ROUNDS,
                ),
            ],
        )  # fmt: skip


if __name__ == "__main__":
    main()
