"""RabbitMQ by TLS: nothing is said to a server that does not prove its name."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from adapters.bus.bus import STORAGE, BrokerAway, Consumer, Lane
from adapters.bus.messages import Message
from adapters.bus.rabbit import RabbitBus
from tests.support.issuer import ec_key
from tests.support.rabbit import RabbitServer
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow


def certificate(folder: Path, name: str) -> Path:
    """A file with a key, and a certificate for a name that it has signed itself."""
    key, now = ec_key(), datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / f"{name}.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(private + signed.public_bytes(Encoding.PEM))
    return file


@contextmanager
def tls_before(port: int, pem: Path) -> Iterator[int]:
    """Takes TLS on a port, and passes on what comes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)

    def forward(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve(raw: socket.socket) -> None:
        with contextlib.suppress(OSError), raw:
            raw.settimeout(10)
            client = context.wrap_socket(raw, server_side=True)
            client.settimeout(None)
            with client, socket.create_connection(("127.0.0.1", port)) as server:
                back = threading.Thread(target=forward, args=(server, client), daemon=True)
                back.start()
                forward(client, server)
                back.join()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=accept, daemon=True).start()
        yield listening.getsockname()[1]


def test_messages_travel_by_tls(
    rabbit: RabbitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sent and received, if the certificate is one that the machine trusts."""
    rabbit.forget_queues()
    pem = certificate(tmp_path, "localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    with tls_before(rabbit.port, pem) as port:
        bus = RabbitBus(f"amqps://guest:guest@localhost:{port}//")
        bus.declare()
        heard: list[str] = []
        consumer = Consumer(bus, Lane(STORAGE, lambda message: heard.append(message.id), 1))
        consumer.start()
        for number in range(20):
            bus.send(STORAGE, Message(f"message-{number}", "some.type", b"{}" * 1000))
        eventually(lambda: len(heard) == 20)
        assert consumer.stop(10)
        bus.close()


@pytest.mark.parametrize("trusted", [True, False])
def test_a_server_that_cannot_prove_its_name_is_told_nothing(
    rabbit: RabbitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    """With another's certificate, or one that nobody trusts."""
    pem = certificate(tmp_path, "elsewhere" if trusted else "localhost")
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    with tls_before(rabbit.port, pem) as port:
        bus = RabbitBus(f"amqps://guest:guest@localhost:{port}//")
        with pytest.raises(BrokerAway, match="certificate verify failed"):
            bus.connect()


def test_a_server_without_tls_is_told_nothing() -> None:
    """Not even that it would be AMQP."""
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def hear() -> None:
            connection, _ = listening.accept()
            with connection:
                received.append(connection.recv(4096))

        listener = threading.Thread(target=hear, daemon=True)
        listener.start()
        port = listening.getsockname()[1]
        with pytest.raises(BrokerAway):
            RabbitBus(f"amqps://trail:hunter2@localhost:{port}//").connect()
        listener.join(10)
    assert received
    assert b"AMQP" not in received[0] and b"hunter2" not in received[0]
