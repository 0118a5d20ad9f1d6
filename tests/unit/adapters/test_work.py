"""What becomes of work that fails: waited for, tried again, or given up."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from eventsourcing.persistence import (
    DatabaseError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    ProgrammingError,
)

from adapters.bus.bus import BINDINGS, HASHING, STORAGE, BrokerAway, Unreadable
from adapters.bus.memory import MemoryBus
from adapters.bus.messages import Message, message_of
from adapters.bus.work import (
    HANDED_OUT_AGAIN,
    LARGE,
    LARGE_QUEUES,
    MAX_TRIES,
    QUEUES,
    STEP_EVENTS,
    WORK,
    Failure,
    WorkHandler,
    classify,
    delay_before,
)
from adapters.metrics import Metrics
from adapters.tracing import NoTracing
from domain.aggregate import Cause
from domain.droplet_processing import DropletProcessing
from domain.errors import BlobMissing, LargeBits, StagedBitsMissing
from domain.ports import LoggedEvent
from domain.processing import Processing
from projections.unfinished import Step
from tests.support.packages import created, fail_by_bits, upload
from tests.support.packages import delete as delete_package


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        PermissionError(),
        ConnectionRefusedError(),
        TimeoutError(),
        MemoryError(),
        OperationalError("database is locked"),
        InterfaceError("connection is closed"),
        DatabaseError("disk I/O error"),
    ],
    ids=repr,
)
def test_what_is_away_is_waited_for(error: Exception) -> None:
    """Disk, network, memory, database: none of it is the package's fault, or ours."""
    assert classify(error) is Failure.ENVIRONMENT


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(),
        KeyError("x"),
        AssertionError(),
        TypeError(),
        BlobMissing("x"),
        StagedBitsMissing("x"),
        ProgrammingError("no such table"),
        IntegrityError("x"),
    ],
    ids=repr,
)
def test_what_nobody_expected_is_a_defect(error: Exception) -> None:
    """Trying for ever would not help."""
    assert classify(error) is Failure.DEFECT


def test_delays_double_up_to_a_minute() -> None:
    """However long it takes."""
    delays = [delay_before(attempt) for attempt in range(1, 12)]
    assert delays == [0.25, 0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert delay_before(1_000_000) == 60


def test_every_step_event_is_told_to_a_work_queue() -> None:
    """And every event after which bits may be needed no more is told to storage."""
    assert set(BINDINGS[STORAGE]) | set(BINDINGS[HASHING]) >= STEP_EVENTS
    assert set(BINDINGS[STORAGE]) >= {
        "package.processing_failed",
        "package.expired",
        "package.deleted",
    }


@dataclass
class ScriptedDroplets(DropletProcessing):
    """Notes what it was asked to do."""

    done: list[tuple[str, str]] = field(default_factory=list)

    def discard(self, guid: str, most: int | None = None) -> None:
        self.done.append(("discard droplet", guid))


@dataclass
class ScriptedProcessing(Processing):
    """Notes what it was asked to do; raises what it was told to, then works."""

    errors: list[Exception] = field(default_factory=list)
    done: list[tuple[str, str]] = field(default_factory=list)
    tries: int = 0
    given_up: list[str] = field(default_factory=list)
    log_errors: list[Exception] = field(default_factory=list)
    meanwhile: Callable[[], object] = lambda: None

    def store(self, guid: str, by: Cause, most: int | None = None) -> None:
        self._do("store", guid)

    def hash(self, guid: str, by: Cause, most: int | None = None) -> None:
        self._do("hash", guid)

    def discard(self, guid: str, most: int | None = None) -> None:
        self._do("discard", guid)

    def fail_by_defect(self, guid: str, defect: BaseException, by: Cause) -> None:
        if self.log_errors:
            raise self.log_errors.pop(0)
        self.given_up.append(repr(defect))

    def _do(self, what: str, guid: str) -> None:
        self.tries += 1
        self.meanwhile()
        if self.errors:
            raise self.errors.pop(0)
        self.done.append((what, guid))


class PatientBus(MemoryBus):
    """Keeps what is to be sent later until the test takes it."""

    def __init__(self) -> None:
        super().__init__()
        self.later: list[tuple[str, Message, float]] = []
        self.sent: list[tuple[str, Message]] = []
        self.away = 0  # how many messages it will not take

    def send(self, queue: str, message: Message) -> None:
        if self.away:
            self.away -= 1
            raise BrokerAway("away")
        self.sent.append((queue, message))

    def send_later(self, queue: str, message: Message, delay: float) -> None:
        self.later.append((queue, message, delay))


@dataclass(frozen=True)
class Bench:
    """A handler whose later tries are made when the test says so."""

    bus: PatientBus
    processing: ScriptedProcessing
    handle: WorkHandler
    queue: str

    def try_again(self) -> float:
        """Makes the next try; the seconds that it would have waited for."""
        queue, message, delay = self.bus.later.pop(0)
        assert queue == self.queue
        self.handle(message)
        return delay

    def run(self, message: Message) -> list[float]:
        """Handles the message and all its later tries; the seconds before each of those."""
        self.handle(message)
        delays = []
        while self.bus.later:
            delays.append(self.try_again())
        return delays


@pytest.fixture(params=list(WORK))
def step(request: pytest.FixtureRequest) -> Step:
    return Step(request.param)


@pytest.fixture
def bench(step: Step) -> Iterator[Bench]:
    bus = PatientBus()
    processing = ScriptedProcessing()
    yield Bench(
        bus,
        processing,
        WorkHandler(bus, processing, ScriptedDroplets(), step, Metrics(), NoTracing(), LARGE),
        QUEUES[step],
    )
    bus.close()


def message(headers: dict[str, Any] | None = None) -> Message:
    package = created()
    upload(package)
    plain = message_of(LoggedEvent(2, package.pending_events[-1]))  # type: ignore[arg-type]
    return Message(plain.id, plain.type, plain.body, headers or {})


def clean_up_message(act: Callable[[Any], None]) -> Message:
    package = created()
    upload(package)
    act(package)
    return message_of(LoggedEvent(3, package.pending_events[-1]))  # type: ignore[arg-type]


WORD = {Step.STORAGE: "store", Step.HASHING: "hash"}


def test_a_message_is_worked_on_once(bench: Bench, step: Step) -> None:
    """Each queue does its own step."""
    bench.handle(message())
    assert bench.processing.done == [(WORD[step], "guid-1")]
    assert bench.bus.later == []


@pytest.mark.parametrize("act", [delete_package, fail_by_bits])
def test_the_end_of_a_package_is_cleaned_up(bench: Bench, act: Callable[[Any], None]) -> None:
    """What asks for no step may leave bits that nobody needs."""
    bench.handle(clean_up_message(act))
    assert bench.processing.done == [("discard", "guid-1")]


def test_what_is_no_message_of_ours_is_not_tried(bench: Bench) -> None:
    """It would never become one: the broker may park it."""
    with pytest.raises(Unreadable):
        bench.handle(Message("x", "y", b"nonsense"))
    assert (bench.processing.tries, bench.bus.later) == (0, [])


def test_an_environment_that_is_away_is_waited_for(bench: Bench, step: Step) -> None:
    """Far more often than a defect is tried; nothing is given up."""
    bench.processing.errors = [OSError("away")] * 30
    delays = bench.run(message())
    assert len(delays) == 30
    assert delays[:4] == [0.25, 0.5, 1, 2]
    assert delays[-1] == 60
    assert bench.processing.done == [(WORD[step], "guid-1")]
    assert bench.processing.given_up == []


def test_a_defect_is_tried_five_times(bench: Bench) -> None:
    """Then the package is given up, for this defect."""
    bench.processing.errors = [RuntimeError(str(number)) for number in range(100)]
    assert bench.run(message()) == [0.25, 0.5, 1, 2]
    assert bench.processing.tries == MAX_TRIES == 5
    assert bench.processing.given_up == ["RuntimeError('4')"]
    assert bench.processing.done == []


def test_only_defects_count_as_defects(bench: Bench, step: Step) -> None:
    """Four of them among any number of times that something was away are not the end."""
    errors: list[Exception] = []
    for _ in range(4):
        errors += [OSError("away"), OSError("away"), RuntimeError("defect")]
    bench.processing.errors = errors
    bench.run(message())
    assert bench.processing.given_up == []
    assert bench.processing.done == [(WORD[step], "guid-1")]


def test_a_package_is_given_up_when_the_log_is_back(bench: Bench) -> None:
    """A log that is away when the fifth try has failed is waited for as well."""
    bench.processing.errors = [RuntimeError("defect")] * 100
    bench.processing.log_errors = [OperationalError("away")] * 3
    bench.run(message())
    assert len(bench.processing.given_up) == 1


def test_a_second_copy_of_work_in_hand_is_let_go(bench: Bench) -> None:
    """While it is being done; later it is done again, harmlessly."""
    copies: list[int] = []

    def copy_arrives() -> None:
        bench.processing.meanwhile = lambda: None
        bench.handle(message())
        copies.append(bench.processing.tries)

    bench.processing.meanwhile = copy_arrives
    bench.processing.errors = [OSError("away")]
    bench.handle(message())
    assert copies == [1], "a copy that arrives in the middle of the work starts none"
    bench.try_again()
    assert bench.processing.tries == 2
    bench.handle(message())
    assert bench.processing.tries == 3


def test_work_handed_out_again_does_not_pile_up(bench: Bench) -> None:
    """While something is away, it is handed out again anyway: it keeps no tries of its own."""
    bench.processing.errors = [OSError("away")] * 3
    for _ in range(3):
        bench.handle(message({HANDED_OUT_AGAIN: True}))
        assert bench.bus.later == []
    bench.handle(message({HANDED_OUT_AGAIN: True}))
    assert len(bench.processing.done) == 1


def test_a_defect_in_work_handed_out_again_is_tried_five_times_too(bench: Bench) -> None:
    """Or a package with a defect would never be given up after a restart."""
    bench.processing.errors = [RuntimeError("defect")] * 100
    bench.run(message({HANDED_OUT_AGAIN: True}))
    assert bench.processing.tries == 5
    assert len(bench.processing.given_up) == 1


def test_work_on_large_bits_is_sent_on(bench: Bench, step: Step) -> None:
    """As it came, to where the large ones wait; it was no failure."""
    bench.processing.errors = [LargeBits(LARGE + 1)]
    sent = message({HANDED_OUT_AGAIN: True})
    bench.handle(sent)
    assert bench.bus.sent == [(LARGE_QUEUES[step], sent)]
    assert (bench.bus.later, bench.processing.done) == ([], [])


def test_a_broker_that_is_away_is_waited_for_to_send_it_on(bench: Bench, step: Step) -> None:
    """Where it was, as other work is tried again; it is no defect."""
    bench.bus.away = 30
    bench.processing.errors = [LargeBits(LARGE + 1) for _ in range(31)]
    assert len(bench.run(message())) == 30
    assert [queue for queue, _ in bench.bus.sent] == [LARGE_QUEUES[step]]
    assert bench.processing.given_up == []


def test_what_fails_among_the_large_ones_is_tried_again_there(step: Step) -> None:
    """It is not looked at a second time how large it is."""
    bus = PatientBus()
    processing = ScriptedProcessing(errors=[OSError("away")])
    handle = WorkHandler(bus, processing, ScriptedDroplets(), step, Metrics(), NoTracing(), None)
    bench = Bench(bus, processing, handle, LARGE_QUEUES[step])
    assert len(bench.run(message())) == 1
    assert processing.done == [(WORD[step], "guid-1")]
    bus.close()
