"""A form on its way into staging: where its bits end up, however it is cut into pieces."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.blob_store.local import LocalBlobs
from adapters.http import multipart, received_form
from adapters.http.multipart import FilePart
from adapters.http.received_form import MAX_BEGINNING, ReceivedForm
from adapters.staging.local import LocalStaging
from domain.errors import NoBitsInForm
from domain.package import StagedBits
from tests.unit.adapters.test_multipart_properties import BITS, BOUNDARIES, pieces, reference

EDGE = b"edge"
HEAD = b"--edge\r\n" + BITS + b"\r\n"
TAIL = b"\r\n--edge--\r\n"


class MemoryFile:
    """A `StagedBody`, and the `Intake` that made it."""

    kept = False

    def __init__(self) -> None:
        self.content = b""

    @property
    def size(self) -> int:
        return len(self.content)

    def write(self, data: bytes | memoryview) -> None:
        self.content += data

    def read_at(self, offset: int, length: int) -> bytes:
        assert offset >= 0 and length >= 0
        return self.content[offset : offset + length]

    def wait_for_disk(self, then: Callable[[], None]) -> bool:
        return False

    def close(self) -> None: ...

    def abandon(self) -> None: ...

    def stage(
        self, body: Any, offset: int, length: int, guid: str, file_name: str | None
    ) -> StagedBits:
        assert body is self
        return StagedBits("staging:it", offset, length)


def receive(form: ReceivedForm, pieces: list[bytes]) -> None:
    """As the server does it: each piece is in a buffer that the next one overwrites."""
    buffer = bytearray(max(map(len, pieces), default=0))
    for piece in pieces:
        buffer[: len(piece)] = piece
        form.write(memoryview(buffer)[: len(piece)])
        buffer[:] = bytes(len(buffer))


def cut(body: bytes, size: int) -> list[bytes]:
    return [body[at : at + size] for at in range(0, len(body), size)]


@pytest.fixture(
    scope="module",
    params=[(1, 1), (60, 2), (MAX_BEGINNING, 1000)],
    ids=lambda limits: f"{limits[0]} bytes, {limits[1]} places",
)
def limits(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    """How much is kept in memory, and how many places are noted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(received_form, "MAX_BEGINNING", request.param[0])
        patch.setattr(multipart, "_MAX_NOTED", request.param[1])
        yield request.param


@settings(max_examples=60)
@given(st.data())
def test_any_form_in_any_pieces_is_read_as_the_simple_reader_reads_it(
    limits: tuple[int, int], data: st.DataObject
) -> None:
    """The same bits, or none."""
    boundary = data.draw(BOUNDARIES)
    body = b"".join(data.draw(st.lists(pieces(boundary), max_size=12)))
    if data.draw(st.booleans()):
        body = b"--" + boundary + b"\r\n" + BITS + b"\r\n" + body + b"\r\n--" + boundary + b"--"
    file = MemoryFile()
    form = ReceivedForm(file, boundary, 100)
    receive(form, cut(body, data.draw(st.integers(1, 40) | st.integers(41, 10_000))))
    expected = reference(body, boundary)
    assert (form.size, form.read_at(0, len(body) + 9)) == (len(body), body)
    if expected is None:
        with pytest.raises(NoBitsInForm):
            form.find_bits()
        return
    part = form.find_bits()
    assert (part.offset, part.length) == expected
    staged = form.stage(file, part, "guid-1")  # type: ignore[arg-type]
    end = staged.offset + staged.length
    assert file.content[staged.offset : end] == body[part.offset : part.offset + part.length]


@pytest.mark.parametrize("size", [1, 2, 17, 10_000])
@pytest.mark.parametrize("before", [b"", b"--edge\r\n\r\na field\r\n"], ids=["first", "second"])
def test_the_file_begins_with_the_bits(size: int, before: bytes) -> None:
    """So that it is theirs alone, when it is cut off behind them."""
    file = MemoryFile()
    form = ReceivedForm(file, EDGE, 100)
    receive(form, cut(before + HEAD + b"PK bits" + TAIL, size))
    staged = form.stage(file, form.find_bits(), "guid-1")  # type: ignore[arg-type]
    assert (staged.offset, staged.length) == (0, 7)
    assert file.content == b"PK bits" + TAIL


def test_behind_much_else_the_bits_are_a_slice() -> None:
    """Nobody's memory holds it."""
    file = MemoryFile()
    form = ReceivedForm(file, EDGE, 100)
    body = b"--edge\r\n\r\n" + b"x" * MAX_BEGINNING + b"\r\n" + HEAD + b"PK bits" + TAIL
    receive(form, cut(body, 1000))
    assert file.content == body
    staged = form.stage(file, form.find_bits(), "guid-1")  # type: ignore[arg-type]
    assert (staged.offset, staged.length) == (body.index(b"PK"), 7)


def test_a_form_that_drips_is_looked_at_a_few_times() -> None:
    """However many parts it has in front: the thread that receives it has others to receive."""

    class Watched(ReceivedForm):
        reads = 0

        def read_at(self, offset: int, length: int) -> bytes:
            self.reads += 1
            return super().read_at(offset, length)

    fields = b"--edge\r\n\r\n\r\n" * 99
    file = MemoryFile()
    form = Watched(file, EDGE, 100)
    receive(form, cut(fields + HEAD + b"PK bits" + TAIL, 1))
    assert form.reads < 2000
    staged = form.stage(file, form.find_bits(), "guid-1")  # type: ignore[arg-type]
    assert file.content[staged.offset : staged.offset + staged.length] == b"PK bits"


def test_a_form_that_is_short_and_has_no_bits_is_told() -> None:
    """It is in memory to its end."""
    form = ReceivedForm(MemoryFile(), EDGE, 100)
    receive(form, [b"--edge\r\n\r\nhello\r\n--edge--\r\n"])
    with pytest.raises(NoBitsInForm, match="no file part"):
        form.find_bits()


def test_received_bits_are_not_read_again() -> None:
    """What they are in front of is known from when they passed."""

    class Watched(MemoryFile):
        bytes_read = 0

        def read_at(self, offset: int, length: int) -> bytes:
            found = super().read_at(offset, length)
            self.bytes_read += len(found)
            return found

    file = Watched()
    form = ReceivedForm(file, EDGE, 100)
    receive(form, cut(HEAD + b"bits" * 100_000 + TAIL, 65_536))
    assert form.find_bits() == FilePart(len(HEAD), 400_000, "app.zip")
    assert file.bytes_read < 32_000  # the headers, and around the boundaries


def test_a_blob_of_the_usual_form_is_the_received_file(tmp_path: Path) -> None:
    """Another name for it, and no copy."""
    staging = LocalStaging(tmp_path / "staging", tmp_path / "uploads")
    blobs = LocalBlobs(tmp_path / "blobs", staging)
    staging.prepare("identity-1")
    blobs.prepare("identity-1")
    file = staging.create("guid-1")
    inode = os.fstat(file.descriptor).st_ino
    form = ReceivedForm(file, EDGE, 100)
    receive(form, [HEAD + b"PK bits" + TAIL])
    staged = form.stage(staging, form.find_bits(), "guid-1")
    form.close()
    blobs.store("ab/cd/guid-1", staged)
    blob = tmp_path / "blobs" / "ab" / "cd" / "guid-1"
    assert (blob.read_bytes(), blob.stat().st_ino) == (b"PK bits", inode)
