"""The corpus of hostile zips: each ends as documented, and costs little to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapters.bits import FileBits
from domain.archive import ArchiveLimits, check_archive
from domain.errors import BitsAtFault
from tests.support.hostile_zips import CORPUS, FAILED, READY, Item, archive, many_entries, table
from tests.support.memory import MIB, little_memory, little_work

LIMITS = ArchiveLimits(1 << 30)
DOCUMENT = Path(__file__).parents[3] / "docs" / "hostile-zips.md"
CASES: list[Any] = [
    pytest.param(name, marks=pytest.mark.slow) if case.large else name
    for name, case in CORPUS.items()
]


class CountingBits(FileBits):
    """Bits of a file that count what is read of them."""

    bytes_read = 0

    def read_at(self, offset: int, length: int) -> bytes:
        found = super().read_at(offset, length)
        self.bytes_read += len(found)
        return found


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_zip_ends_as_documented(name: str, tmp_path: Path) -> None:
    """READY or FAILED; with little memory and time, and read about once."""
    case = CORPUS[name]
    path = tmp_path / "package.zip"
    path.write_bytes(case.make())
    seconds = 20 if case.large else 5
    with CountingBits.of_file(path) as bits, little_memory(24 * MIB), little_work(seconds):
        try:
            check_archive(bits, LIMITS)
        except BitsAtFault as fault:
            assert case.outcome == FAILED, str(fault)
            assert case.sentence in str(fault)
            assert str(fault).startswith("The package") and str(fault).isprintable()
            assert len(str(fault)) < 300
        else:
            assert case.outcome == READY
    assert bits.bytes_read <= 3 * bits.size + 128 * 1024


@pytest.mark.slow
def test_a_million_entries_take_seconds_where_they_are_allowed(tmp_path: Path) -> None:
    """An operator may set the limit so high; the memory does not grow with the entries."""
    path = tmp_path / "package.zip"
    path.write_bytes(many_entries(1_000_000))
    with FileBits.of_file(path) as bits, little_memory(48 * MIB), little_work(30):
        check_archive(bits, ArchiveLimits(1 << 30, max_entries=1_000_000))


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    """Wherever the file breaks off."""
    whole = archive(Item(), Item(b"other"), zip64={}, comment=b"made by hand")
    path = tmp_path / "package.zip"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with FileBits.of_file(path) as bits, pytest.raises(BitsAtFault):
            check_archive(bits, LIMITS)


def test_the_documentation_has_the_corpus() -> None:
    """`python -m tests.support.hostile_zips` prints the table that belongs there."""
    assert DOCUMENT.read_text().endswith("\n\n" + table())
