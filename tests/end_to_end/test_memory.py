"""Memory does not grow with the package: what counts is anonymous memory."""

from __future__ import annotations

import http.client
import io
import zipfile
from collections.abc import Iterator

import pytest

from tests.support.memory import MIB, anonymous_memory
from tests.support.service import Service, bearer

SIZE = 320 * MIB


def multipart(size: int) -> Iterator[bytes]:
    """A form with a zip that has one stored entry of `size` bytes, a MiB at a time."""
    block = bytes(range(256)) * (MIB // 256)

    class Pieces(io.RawIOBase):
        def __init__(self) -> None:
            self.pieces: list[bytes] = []

        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            self.pieces.append(bytes(data))  # type: ignore[call-overload]
            return len(self.pieces[-1])

    pieces = Pieces()
    yield b'--edge\r\nContent-Disposition: form-data; name="bits"; filename="big.zip"\r\n\r\n'
    with zipfile.ZipFile(pieces, "w") as archive:
        with archive.open("big.bin", "w") as entry:
            for _ in range(size // MIB):
                entry.write(block)
                yield from pieces.pieces
                pieces.pieces.clear()
    yield from pieces.pieces
    yield b"\r\n--edge--\r\n"


@pytest.mark.slow
def test_memory_does_not_grow_with_the_package(own_service: Service) -> None:
    """A large upload, its storing, hashing and download move RssAnon by less than 64 MiB."""
    with own_service as service:
        client = service.client()
        small = client.create()
        assert client.upload(small, b"".join(multipart(MIB))).status_code == 200
        client.settled(small)
        before = anonymous_memory(service.pid)
        peak = before

        guid = client.create()
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
        connection.putrequest("POST", f"/v3/packages/{guid}/upload")
        for name, value in {
            **bearer(),
            "Content-Type": "multipart/form-data; boundary=edge",
            "Transfer-Encoding": "chunked",
        }.items():
            connection.putheader(name, value)
        connection.endheaders()
        for piece in filter(None, multipart(SIZE)):
            connection.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            peak = max(peak, anonymous_memory(service.pid))
        connection.send(b"0\r\n\r\n")
        assert connection.getresponse().status == 200

        while (package := client.show(guid))["state"] == "PROCESSING_UPLOAD":
            peak = max(peak, anonymous_memory(service.pid))
        assert package["state"] == "READY"
        received = 0
        with client.http.stream("GET", f"/v3/packages/{guid}/download") as download:
            for chunk in download.iter_bytes(MIB):
                received += len(chunk)
                peak = max(peak, anonymous_memory(service.pid))
        assert received > SIZE
        assert peak - before < 64 * MIB
