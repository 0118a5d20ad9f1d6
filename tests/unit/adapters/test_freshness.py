"""You read what you wrote: reads wait for the read model, and are refused rather than stale."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import cast

import pytest

from adapters.http.faults import ReadModelBehind
from adapters.http.freshness import Freshness
from domain.ports import EventLog


@dataclass
class Log:
    at: int = 0

    def head(self) -> int:
        return self.at


@dataclass
class ScriptedProgress:
    """Read models that come as far as they are told while somebody waits."""

    at: int = 0
    comes_to: int = 0
    waits: list[tuple[int, float]] = field(default_factory=list)
    error: Exception | None = None

    @property
    def position(self) -> int:
        if self.error is not None:
            raise self.error
        return self.at

    def wait_for(self, position: int, timeout: float) -> bool:
        self.waits.append((position, timeout))
        self.at = max(self.at, self.comes_to)
        return self.at >= position


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def progress() -> ScriptedProgress:
    return ScriptedProgress()


@pytest.fixture
def freshness(log: Log, progress: ScriptedProgress) -> Freshness:
    return Freshness(progress, cast(EventLog, log), bound=0.5)


def test_a_read_model_that_is_level_is_read_at_once(
    log: Log, progress: ScriptedProgress, freshness: Freshness
) -> None:
    """Also one that is ahead of the head that was asked for."""
    log.at, progress.at = 5, 6
    freshness.require()
    freshness.after(6)
    freshness.after(None)
    assert progress.waits == []


def test_a_read_waits_for_what_the_log_had(
    log: Log, progress: ScriptedProgress, freshness: Freshness
) -> None:
    """Within the bound."""
    log.at, progress.comes_to = 5, 5
    freshness.require()
    assert progress.waits == [(5, 0.5)]


def test_a_read_that_would_be_stale_is_refused(
    log: Log, progress: ScriptedProgress, freshness: Freshness
) -> None:
    """The next ones are refused at once, until what the first waited for is there."""
    log.at, progress.comes_to = 5, 4
    for _ in range(3):
        with pytest.raises(ReadModelBehind):
            freshness.require()
    freshness.after(6)
    assert len(progress.waits) == 1
    progress.at, log.at, progress.comes_to = 5, 7, 7
    freshness.require()
    assert progress.waits[1:] == [(7, 0.5)]


def test_a_command_that_is_committed_succeeds(
    progress: ScriptedProgress, freshness: Freshness, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether the read model comes, does not come, or can not be asked."""
    freshness.after(5)
    progress.error = OSError("the database is away")
    with caplog.at_level(logging.WARNING):
        freshness.after(6)
    assert "committed" in caplog.text
