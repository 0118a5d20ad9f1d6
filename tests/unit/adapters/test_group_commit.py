"""Appends that come at the same time are committed together, and each gets its own outcome."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from eventsourcing.persistence import IntegrityError, OperationalError, StoredEvent

from adapters.event_store.chain import GENESIS, link
from adapters.event_store.group_commit import Append, GroupCommit
from adapters.store import open_sqlite
from domain.package import PackageType
from tests.support.packages import BY, STAGED
from tests.support.waiting import eventually


class Refused(Exception):
    pass


class Disk:
    """Commits when it is let, and remembers what was committed together."""

    def __init__(self, patience: float = 20.0) -> None:
        self.let = threading.Event()
        self.began = threading.Semaphore(0)
        self.commits: list[list[str]] = []
        self.failure: Exception | None = None
        self.group = GroupCommit(self.commit, self.turn, Refused, patience)
        self._turn = threading.Lock()

    @contextmanager
    def turn(self, timeout: float) -> Iterator[None]:
        if not self._turn.acquire(timeout=timeout):
            raise Refused
        try:
            yield
        finally:
            self._turn.release()

    def commit(self, appends: Sequence[Append]) -> None:
        self.began.release()
        assert self.let.wait(20)
        if self.failure is not None:
            raise self.failure
        self.commits.append([append.events[0].topic for append in appends])
        for append in appends:
            if append.events[0].topic == "conflict":
                append.error = IntegrityError("it is there already")
            else:
                append.positions = [len(append.events)]

    def append(self, topic: str) -> list[int]:
        return self.group.append([StoredEvent("package:1", 1, topic, b"{}")])

    def are_waiting(self, count: int) -> bool:
        return len(self.group._waiting) == count


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(10) as pool:
        yield pool


def begin(disk: Disk, pool: ThreadPoolExecutor, *topics: str) -> list[Future[list[int]]]:
    """The first one commits, and the others wait for it."""
    first, *others = topics
    futures = [pool.submit(disk.append, first)]
    assert disk.began.acquire(timeout=20)
    for count, topic in enumerate(others, start=1):
        futures.append(pool.submit(disk.append, topic))
        eventually(partial(disk.are_waiting, count))
    return futures


def test_who_comes_alone_does_not_wait_for_others() -> None:
    """There is nothing to gather."""
    disk = Disk()
    disk.let.set()
    assert disk.append("one") == [1]
    assert disk.append("two") == [1]
    assert disk.commits == [["one"], ["two"]]


def test_who_comes_during_a_commit_shares_the_next(pool: ThreadPoolExecutor) -> None:
    """Two transactions for seven appends, in the order in which they came."""
    disk = Disk()
    futures = begin(disk, pool, *"abcdefg")
    disk.let.set()
    assert [future.result(20) for future in futures] == [[1]] * 7
    assert disk.commits == [["a"], list("bcdefg")]


def test_a_conflict_is_only_whose_it_is(pool: ThreadPoolExecutor) -> None:
    """The others in the transaction have succeeded."""
    disk = Disk()
    futures = begin(disk, pool, "a", "b", "conflict", "d")
    disk.let.set()
    with pytest.raises(IntegrityError):
        futures[2].result(20)
    assert [futures[n].result(20) for n in (0, 1, 3)] == [[1]] * 3


def test_a_failed_commit_is_everybodys(pool: ThreadPoolExecutor) -> None:
    """Each raises an error of its own; and the next append is committed again."""
    disk = Disk()
    disk.failure = OperationalError("the disk is full")
    futures = begin(disk, pool, "a", "b", "c")
    disk.let.set()
    errors = [future.exception(20) for future in futures]
    assert [type(error) for error in errors] == [OperationalError] * 3
    assert len({id(error) for error in errors}) == 3
    disk.failure = None
    assert disk.append("d") == [1]


def test_a_failure_of_any_kind_is_told_to_all(pool: ThreadPoolExecutor) -> None:
    """Nobody takes it for success, though the error can't be made anew of what it says."""

    class Odd(Exception):
        def __init__(self, position: int, reason: str) -> None:
            super().__init__(f"{position}: {reason}")

    disk = Disk()
    disk.failure = Odd(7, "no reason")
    futures = begin(disk, pool, "a", "b", "c")
    disk.let.set()
    assert [type(future.exception(20)) for future in futures] == [Odd] * 3


def test_who_waits_in_vain_is_not_appended_later(pool: ThreadPoolExecutor) -> None:
    """What is refused has changed nothing."""
    disk = Disk(patience=0.05)
    futures = begin(disk, pool, "a")
    with pytest.raises(Refused):
        disk.append("b")
    disk.let.set()
    assert futures[0].result(20) == [1]
    disk.append("c")
    assert disk.commits == [["a"], ["c"]]


def test_who_gets_no_turn_leaves_the_lead_to_others(pool: ThreadPoolExecutor) -> None:
    """Somebody else writes for long: all are refused, and who comes later is not."""
    disk = Disk(patience=0.05)
    disk.let.set()
    with disk.turn(20):
        futures = [pool.submit(disk.append, topic) for topic in "abc"]
        assert [type(future.exception(20)) for future in futures] == [Refused] * 3
    assert disk.append("d") == [1]
    assert disk.commits == [["d"]]


def test_of_appends_that_share_a_transaction_each_is_whole(
    tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    """In a file: one that meets another's event leaves nothing, and the chain has no gap."""
    log = open_sqlite(tmp_path / "log.db")
    log.migrate()
    guid = log.packages.create("app-1", PackageType.BITS, None, BY).aggregate.guid
    rivals = [log.packages.get(guid) for _ in range(8)]
    for number, rival in enumerate(rivals):
        rival.start_upload(STAGED, str(number), BY)
        rival.delete(BY)
    with log.writing:  # nobody commits before all are there
        racing = [pool.submit(log.events.put, rival.collect_events()) for rival in rivals]
        group = log.recorder._group  # type: ignore[attr-defined]
        eventually(lambda: len(group._waiting) == len(rivals))
    errors = [future.exception(20) for future in racing]
    assert [type(error) for error in errors if error] == [IntegrityError] * 7
    last = GENESIS
    records = log.recorder.records(0, 10)
    for record in records:
        last = link(last, *record[:-1])
        assert record.hash == last
    assert [(record.position, record.topic) for record in records] == [
        (1, "package.created"),
        (2, "package.upload_started"),
        (3, "package.deleted"),
    ]
    log.close()
