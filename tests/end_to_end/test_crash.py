"""What a kill -9 can't break: promise by promise, on a real process."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from domain.processing import blob_key
from tests.support.service import ROOT, Service, bearer
from tests.support.waiting import eventually
from tests.support.zips import random_zip, sha1


@pytest.mark.slow
def test_an_upload_that_was_answered_becomes_ready_after_a_kill(own_service: Service) -> None:
    """kill -9 right behind the 200: the next start makes the package READY by itself."""
    bits = random_zip(3_000_000)
    with own_service as service:
        guids = []
        for _ in range(5):
            client = service.client()
            guid = client.create()
            assert client.upload(guid, bits).status_code == 200
            service.kill()
            guids.append(guid)
            service.start()
        client = service.client()
        for guid in guids:
            package = client.settled(guid)
            assert (package["state"], package["hash"]["value"]) == ("READY", sha1(bits))
        eventually(lambda: service.staged_files() == [])


@pytest.mark.slow
def test_uploads_survive_a_server_that_dies_every_second(own_service: Service) -> None:
    """4 clients push while the server is killed again and again: no answered upload is lost."""
    uploads_each, kills_wanted = 8, 5
    kills = 0
    accepted: dict[str, str] = {}
    faults: list[BaseException] = []
    done = threading.Event()
    with own_service as service:

        def push(number: int) -> None:
            try:
                with httpx.Client(base_url=service.url, headers=bearer(), timeout=10) as http:
                    round_ = 0
                    while round_ < uploads_each or kills < kills_wanted:
                        seed = number * 10_000 + round_
                        size = random.Random(seed).randint(10_000, 4_000_000)
                        push_until_accepted(http, random_zip(size, seed), accepted)
                        round_ += 1
            except BaseException as fault:
                faults.append(fault)
                raise

        clients = [threading.Thread(target=push, args=(number,)) for number in range(4)]
        for client in clients:
            client.start()

        def kill_and_start() -> None:
            nonlocal kills
            while not done.wait(1.0):
                service.kill()
                service.start()
                kills += 1

        killer = threading.Thread(target=kill_and_start)
        killer.start()
        for client in clients:
            client.join()
        done.set()
        killer.join()
        assert not faults
        service.kill()
        service.start()
        reader = service.client()
        assert kills >= kills_wanted
        assert len(accepted) >= 4 * uploads_each
        for guid, digest in accepted.items():
            package = reader.settled(guid)
            assert (package["state"], package["hash"]["value"]) == ("READY", digest)
        eventually(lambda: service.staged_files() == [])


def push_until_accepted(http: httpx.Client, bits: bytes, accepted: dict[str, str]) -> None:
    """As a client with retries does: a new package until one upload got its 200."""
    pause = threading.Event()
    while True:
        try:
            created = http.post("/v3/apps/app-1/packages", json={"type": "bits"})
            if created.status_code == 201:
                guid = created.json()["guid"]
                answer = http.post(f"/v3/packages/{guid}/upload", files={"bits": ("app.zip", bits)})
                if answer.status_code == 200:
                    accepted[guid] = sha1(bits)
                    return
        except httpx.TransportError:
            pause.wait(0.05)


@pytest.mark.slow
def test_what_no_package_names_is_swept_at_a_start(own_service: Service) -> None:
    """Staged files and blobs that a crash left without an owner are gone after the start."""
    with own_service as service:
        package = service.client().push(random_zip(10_000))
        service.kill()
        (service.data_dir / "staging" / "feedfeed").write_bytes(b"left over")
        lost = service.data_dir / "blobs" / blob_key("nobody")
        lost.parent.mkdir(parents=True)
        lost.write_bytes(b"left over")
        service.start()
        assert service.staged_files() == []
        eventually(lambda: [path.name for path in service.blobs()] == [package["guid"]])


@pytest.mark.slow
def test_a_consumed_file_is_gone_after_a_kill(own_service: Service, tmp_path: Path) -> None:
    """A bits_path upload that was answered consumes its file, also when the server died since."""
    bits = random_zip(50_000)
    with own_service as service:
        client = service.client()
        guid = client.create()
        path = service.upload_dir / "app.zip"
        path.write_bytes(bits)
        answer = client.http.post(
            f"/v3/packages/{guid}/upload",
            data={"bits_name": "app.zip", "bits_path": str(path)},
        )
        assert answer.status_code == 200
        service.kill()
        service.start()
        assert service.client().settled(guid)["hash"]["value"] == sha1(bits)
        eventually(lambda: not path.exists())
        eventually(lambda: service.staged_files() == [])


@pytest.mark.slow
@pytest.mark.parametrize("signal_sent", ["SIGTERM", pytest.param("SIGINT", marks=pytest.mark.slow)])
def test_a_stop_finishes_what_is_running(own_service: Service, signal_sent: str) -> None:
    """SIGTERM and Ctrl-C: a running upload is answered, the exit code is 0."""
    bits = random_zip(200_000)
    with own_service as service:
        client = service.client()
        guid = client.create()
        boundary = "frontier"
        body = (
            (
                f'--{boundary}\r\nContent-Disposition: form-data; name="bits"; '
                f'filename="a.zip"\r\n\r\n'
            ).encode()
            + bits
            + f"\r\n--{boundary}--\r\n".encode()
        )
        head = (
            f"POST /v3/packages/{guid}/upload HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: {bearer()['Authorization']}\r\n"
            f"Content-Type: multipart/form-data; boundary={boundary}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode()
        with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
            connection.sendall(head + body[:100_000])
            eventually(lambda: service.staged_files() != [])
            service.signal(getattr(signal, signal_sent))
            eventually(lambda: refuses_connections(service.port))
            connection.sendall(body[100_000:])
            answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert service.wait() == 0
        service.start()
        assert service.client().settled(guid)["hash"]["value"] == sha1(bits)


def refuses_connections(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        return False  # it was in the queue when the socket was closed
    return False


@pytest.mark.slow
def test_a_second_signal_does_not_wait(own_service: Service) -> None:
    """The process ends at once; what it was doing is done by the next start."""
    bits = random_zip(50_000)
    with own_service as service:
        client = service.client()
        guid = client.create()
        assert client.upload(guid, bits).status_code == 200
        waiting = client.create()
        with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
            connection.sendall(
                f"POST /v3/packages/{waiting}/upload HTTP/1.1\r\nHost: x\r\n"
                f"Authorization: {bearer()['Authorization']}\r\n"
                "Content-Type: multipart/form-data; boundary=x\r\n"
                "Content-Length: 1000000\r\n\r\n--x\r\n".encode()
            )
            eventually(lambda: "draining" not in service.log.read_text())
            service.signal(signal.SIGTERM)
            eventually(lambda: "draining" in service.log.read_text())
            service.signal(signal.SIGTERM)
            assert service.wait(within=10) == 1
        service.start()
        assert service.client().settled(guid)["hash"]["value"] == sha1(bits)
        assert service.staged_files() == []


@pytest.mark.slow
def test_a_signal_while_it_starts_ends_the_start(own_service: Service) -> None:
    """Nothing runs yet: the exit code is 0, and the next start is whole."""
    process = subprocess.Popen(
        [sys.executable, "-m", "entrypoints", "serve"],
        cwd=ROOT, env=own_service.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    eventually((own_service.data_dir / "serve.lock").exists)
    process.terminate()
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert b"Traceback" not in errors
    with own_service as service:
        assert service.client().push(random_zip(1000))["state"] == "READY"
