"""The reader of chunked bodies: however a stream is cut, its body is the same."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from adapters.http.server.body import UploadBody
from adapters.http.server.chunks import ChunkReceiver
from domain.errors import UploadTooLarge

LIMIT = 10_000


class Kept:
    """A staged body in memory."""

    kept = False

    def __init__(self) -> None:
        self.data = b""

    @property
    def size(self) -> int:
        return len(self.data)

    @size.setter
    def size(self, size: int) -> None:
        raise AssertionError

    def write(self, data: bytes | memoryview) -> None:
        self.data += bytes(data)

    def read_at(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]

    def wait_for_disk(self, then: Callable[[], None]) -> bool:
        return False

    def close(self) -> None: ...

    def abandon(self) -> None: ...


@dataclass(frozen=True)
class Outcome:
    body: bytes
    completed: bool
    broken: bool
    left: bytes  # what belongs to the next request


def received(stream: bytes, cuts: list[int]) -> Outcome:
    """What comes of a stream that arrives in pieces. Raises `UploadTooLarge`."""
    kept = Kept()
    receiver = ChunkReceiver(UploadBody(kept, LIMIT, 0))
    at = 0
    for start, end in pairwise([0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]):
        piece = stream[start:end]
        while piece and not receiver.completed and receiver.error is None:
            count = receiver.received(piece)
            assert 0 < count <= len(piece)
            at += count
            piece = piece[count:]
    return Outcome(kept.data, receiver.completed, receiver.error is not None, stream[at:])


CUTS = st.lists(st.integers(0, 1 << 20), max_size=12)
CHUNKS = st.lists(st.binary(min_size=1, max_size=40) | st.just(b"x" * 5000), max_size=2)
MANY = st.lists(st.binary(min_size=1, max_size=3), max_size=30)
EXTENSIONS = st.sampled_from(["", ";a", ";a=b", ';a="b c"', ";" + "x" * 500])
TRAILERS = st.lists(st.sampled_from(["X-A: b", "X-B: " + "c" * 100, "X-C:"]), max_size=3)


@given(
    CHUNKS | MANY, EXTENSIONS, TRAILERS, st.booleans(), CUTS,
    st.binary(max_size=20) | st.just(b"GET / HTTP/1.1\r\n\r\n"),
)  # fmt: skip
def test_a_good_stream_gives_its_body(
    chunks: list[bytes],
    extension: str,
    trailers: list[str],
    upper: bool,
    cuts: list[int],
    behind: bytes,
) -> None:
    """In whatever pieces it comes; and what is behind it is left for the next request."""
    size = "{:X}" if upper else "0{:x}"
    stream = b"".join(
        (size.format(len(chunk)) + extension).encode() + b"\r\n" + chunk + b"\r\n"
        for chunk in chunks
    )
    ending = "".join(f"{line}\r\n" for line in trailers)
    stream += f"0{extension}\r\n{ending}\r\n".encode()
    expected = Outcome(b"".join(chunks), True, False, behind)
    assert received(stream + behind, cuts) == expected


PIECES = st.lists(
    st.sampled_from(
        [b"0", b"1", b"a", b"5\r\n", b"3\r\nabc", b"\r\n", b"\r", b"\n", b";", b" ", b"0\r\n\r\n",
         b"-1", b"0x5", b"+5", b"f" * 16, b"1_0", b"\0", b"X: y", b"1\r\na\r\n", b"x" * 1100]
    )
    | st.binary(max_size=4),
    max_size=12,
)  # fmt: skip


@given(PIECES.map(b"".join), CUTS)
def test_any_stream_ends_the_same_however_it_is_cut(stream: bytes, cuts: list[int]) -> None:
    """With a body, with an error, or before its end; no other error comes of it."""

    def outcome(cuts: list[int]) -> Outcome | None:
        try:
            return received(stream, cuts)
        except UploadTooLarge:
            return None

    whole, cut = outcome([]), outcome(cuts)
    if whole is None or cut is None:
        assert whole is None and cut is None
        return
    assert (whole.completed, whole.broken) == (cut.completed, cut.broken)
    assert not (whole.completed and whole.broken)
    if not whole.broken:
        assert whole == cut
    single = outcome(list(range(len(stream))))
    assert single is not None
    assert (single.completed, single.broken) == (whole.completed, whole.broken)


def test_tiny_chunks_hold_up_nobody_for_long() -> None:
    """A read of nothing but chunks of one byte takes milliseconds of the I/O thread."""
    stream = b"1\r\na\r\n" * (65536 // 6)
    took = []
    for _ in range(5):
        receiver = ChunkReceiver(UploadBody(Kept(), len(stream), 0))
        began = time.thread_time()
        assert receiver.received(stream) == len(stream)
        took.append(time.thread_time() - began)
        assert len(receiver) == len(stream) // 6
    assert min(took) < 0.015, took
