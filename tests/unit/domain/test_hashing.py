"""Checksums of bits, in a thread or in two: of every byte once, however the bits come."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from adapters import bits as bits_module
from adapters.bits import FileBits
from domain.beside import Beside, one_ahead
from domain.hashing import INLINE, digests_of
from domain.package import Digests
from tests.support.memory import MIB, little_memory
from tests.support.zips import sha1, sha256
from tests.unit.domain.test_archive import BytesBits


class BrokenBits(BytesBits):
    """The disk fails after the first chunks."""

    def chunks(self) -> Iterator[memoryview]:
        for _ in range(3):
            yield from super().chunks()
        raise OSError("the disk fails")


def threads_of_hashing() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "sha256"]


@pytest.mark.parametrize("size", [0, 1, INLINE, INLINE + 1, INLINE + 2 * MIB + 17])
@pytest.mark.parametrize("piece", [60_000, 4 * MIB])
def test_checksums_are_those_of_the_slice(
    tmp_path: Path, size: int, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not of what is around it; in pieces of any size, which share two buffers."""
    monkeypatch.setattr(bits_module, "CHUNK", piece)
    content = random.Random(size).randbytes(size)
    path = tmp_path / "body"
    path.write_bytes(b"head" + content + b"tail")
    with path.open("rb") as file:
        found = digests_of(FileBits(file.fileno(), 4, size))
    assert found == Digests(sha1(content), sha256(content))
    assert threads_of_hashing() == []


@pytest.mark.parametrize("size", [1000, INLINE + 1])
def test_what_reading_raises_is_raised(size: int) -> None:
    """Small or large; and no thread is left behind."""
    with pytest.raises(OSError, match="the disk fails"):
        digests_of(BrokenBits(bytes(size)))
    assert threads_of_hashing() == []


def test_a_file_that_is_cut_off_is_no_crash(tmp_path: Path) -> None:
    """Somebody may truncate a file of a shared folder while it is read."""
    path = tmp_path / "blob"
    path.write_bytes(bytes(INLINE * 2))
    with FileBits.of_file(path) as bits:
        with path.open("r+b") as file:
            file.truncate(INLINE + 5)
        with pytest.raises(OSError, match=f"ends {INLINE - 5} bytes too early"):
            digests_of(bits)


def test_a_thread_too_many_is_no_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the machine lacks just now is waited for, as when the disk fails."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(OSError, match="can't start new thread"):
        digests_of(BytesBits(bytes(INLINE + 1)))


def test_hashing_takes_little_memory(tmp_path: Path) -> None:
    """However large the bits."""
    path = tmp_path / "blob"
    with path.open("wb") as file:
        file.truncate(48 * MIB)
    with FileBits.of_file(path) as bits, little_memory(16 * MIB):
        found = digests_of(bits)
    assert found.sha1 == hashlib.sha1(bytes(48 * MIB), usedforsecurity=False).hexdigest()


def test_what_a_call_beside_raises_is_raised_with_its_result() -> None:
    """And the next call is made all the same."""
    with Beside[int]("test") as beside:
        beside.begin(lambda: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            beside.result()
        beside.begin(lambda: 2)
        assert beside.result() == 2


def test_the_next_call_is_made_while_the_last_result_is_used() -> None:
    """One ahead, not more; in order."""
    made = [threading.Event() for _ in range(4)]

    def call(number: int) -> int:
        made[number].set()
        return number

    outcomes = one_ahead((partial(call, number) for number in range(4)), "test")
    assert next(outcomes) == 0
    assert made[1].wait(10)
    assert not made[2].is_set()
    assert list(outcomes) == [1, 2, 3]
    assert list(one_ahead([], "test")) == []


def test_calls_that_are_not_waited_for_any_more_end() -> None:
    """Whoever breaks off leaves no thread behind."""
    outcomes = one_ahead([lambda: 1, lambda: 2, lambda: 3], "broken off")
    assert next(outcomes) == 1
    del outcomes
    assert "broken off" not in [thread.name for thread in threading.enumerate()]
