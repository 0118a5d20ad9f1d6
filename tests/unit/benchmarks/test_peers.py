"""Peers that benchmarks compare with."""

from __future__ import annotations

import urllib.request
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.peers import Hello, Peer, program, started


class Absent(Peer):
    name = "absent"

    def tell_version(self) -> str:
        return program("a-program-that-nobody-has")

    def command(self) -> Sequence[str]:
        raise NotImplementedError

    def clear(self) -> None:
        raise NotImplementedError


def test_who_is_not_installed_is_missed_loudly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others run all the same, and whoever reads is told how to get the one that is missing."""
    with started(tmp_path, Absent, Hello) as peers:
        assert peers.missing == ["absent"]
        assert "make bench-peers" in capsys.readouterr().err
        hello = peers.of(Hello)
        assert hello is not None
        with urllib.request.urlopen(f"http://127.0.0.1:{hello.port}/") as answer:
            assert answer.status == 200
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{hello.port}/")
