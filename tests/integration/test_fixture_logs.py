"""Logs that earlier versions wrote: every later one takes them in, and says what was said then."""

from __future__ import annotations

import json
from pathlib import Path

import orjson
import pytest

from adapters.bus.asyncapi import event_classes
from domain.package import Package
from entrypoints.command import main
from tests.support.fixture_logs import LOGS, breaches, expected_of, imported, replayed


@pytest.mark.parametrize("log", LOGS, ids=lambda path: path.stem)
def test_an_old_log_is_taken_in_and_says_what_it_said(log: Path, tmp_path: Path) -> None:
    """Its chain is verified on the way in; read models say the same after each replay."""
    expected = json.loads(expected_of(log).read_text())
    with imported(log, tmp_path) as store:
        found = replayed(store)
    assert breaches(expected, found) == []


@pytest.mark.parametrize("log", LOGS, ids=lambda path: path.stem)
def test_an_old_log_is_found_to_be_whole(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its chain, its versions, and the read models that are made of it."""
    with imported(log, tmp_path) as store:
        replayed(store)
    with pytest.raises(SystemExit) as ended:
        main(["verify", "--read-models", "--data-dir", str(tmp_path)])
    assert ended.value.code == 0, capsys.readouterr().out


def test_each_type_and_version_of_event_is_in_a_fixture_log() -> None:
    """Whoever adds one makes the next log: python -m tests.support.fixture_logs NUMBER."""
    there = set()
    for log in LOGS:
        for line in log.read_bytes().splitlines()[1:-1]:
            event = orjson.loads(line)
            there.add((event["topic"], event["state"].get("class_version", 1)))
    known = {(kind.TOPIC, getattr(kind, "class_version", 1)) for kind in event_classes()}
    assert known - there == set()


def test_a_fixture_log_has_events_of_nothing_but_known_types() -> None:
    """What was written once stays readable: no type is taken away."""
    topics = {kind.TOPIC for kind in event_classes()}
    for log in LOGS:
        lines = log.read_bytes().splitlines()[1:-1]
        assert {orjson.loads(line)["topic"] for line in lines} <= topics


def test_a_failure_of_the_first_version_says_no_step(tmp_path: Path) -> None:
    """It was not recorded then, and the next version is read of it all the same."""
    with imported(LOGS[0], tmp_path) as store:
        events = [logged.event for logged in store.log.read(0, 1000)]
    failed = [event for event in events if isinstance(event, Package.ProcessingFailed)]
    assert len(failed) > 3 and {event.step for event in failed} == {None}
