"""Does what the work queues ask for, and decides what becomes of work that fails.

Three things can go wrong, and they are not the same. Bits at fault end the package (the
domain does that). An environment that is away is waited for, however long it takes. A
defect of ours gets five tries; then the package is given up with its bits kept.

Work on large bits has a queue of its own, so that small packages overtake them. Events do not
know of it: whoever finds that bits are large sends the message on.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, replace
from enum import Enum

from eventsourcing.persistence import DatabaseError, InterfaceError, OperationalError
from sqlalchemy import exc

from adapters.bus.bus import (
    HASHING,
    HASHING_LARGE,
    STAGING,
    STORAGE,
    STORAGE_LARGE,
    Bus,
    Consumer,
    Lane,
    Unreadable,
)
from adapters.bus.messages import Heard, Message
from adapters.context import request_context
from adapters.cores import ALL
from adapters.metrics import Metrics
from adapters.tracing import Tracing
from domain.droplet_processing import DropletProcessing
from domain.errors import LargeBits, NewerData, NothingRecorded
from domain.processing import Processing
from projections.unfinished import Step

logger = logging.getLogger("packtrail.work")

WORK = (Step.STORAGE, Step.HASHING)  # the steps that are done here
QUEUES = {Step.STORAGE: STORAGE, Step.HASHING: HASHING, Step.STAGING: STAGING}
LARGE_QUEUES = {Step.STORAGE: STORAGE_LARGE, Step.HASHING: HASHING_LARGE}
LARGE = 16 << 20  # bytes; smaller ones are stored, hashed or removed in some 10 ms
MOST_LARGE_AT_ONCE = 4  # hashed in one process, each with two buffers
MAX_TRIES = 5  # of work that fails by a defect
FIRST_DELAY, MAX_DELAY = 0.25, 60.0  # seconds between tries; doubled each time
STEP_EVENTS = frozenset(
    (
        "package.upload_started",
        "package.copy_started",
        "package.bits_stored",
        "package.processing_resumed",
    )
)

ATTEMPT = "x-packtrail-attempt"
DEFECTS = "x-packtrail-defects"
HANDED_OUT_AGAIN = "x-packtrail-handed-out-again"


class Failure(Enum):
    ENVIRONMENT = "environment"
    DEFECT = "defect"


def classify(error: Exception) -> Failure:
    """Whether an error says that something is away, or that we are wrong."""
    if isinstance(error, OSError | MemoryError | OperationalError | InterfaceError):
        return Failure.ENVIRONMENT
    if isinstance(error, exc.OperationalError | exc.InterfaceError | exc.TimeoutError):
        return Failure.ENVIRONMENT
    if isinstance(error, NewerData):
        return Failure.ENVIRONMENT  # until we are upgraded, or a program that is gets it
    if isinstance(error, NothingRecorded):
        return Failure.ENVIRONMENT
    if type(error) is DatabaseError:  # not its subclasses: those say that our SQL is wrong
        return Failure.ENVIRONMENT
    return Failure.DEFECT


def delay_before(attempt: int) -> float:
    """Seconds to wait before try number `attempt` (the second try is number 1)."""
    return float(min(FIRST_DELAY * 2 ** min(attempt - 1, 20), MAX_DELAY))


def queues_of(step: Step) -> list[str]:
    """Where messages that ask for a step may wait."""
    return [QUEUES[step], *([LARGE_QUEUES[step]] if step in LARGE_QUEUES else [])]


def large_at_once(step: Step, concurrency: int) -> int:
    """How many large ones a process works on: to hash one takes two cores."""
    if step is not Step.HASHING:
        return concurrency
    return max(1, min(len(ALL) // 2, MOST_LARGE_AT_ONCE))


@dataclass(frozen=True)
class Worker:
    """The consumers of the given steps' queues."""

    bus: Bus
    processing: Processing
    droplets: DropletProcessing
    metrics: Metrics
    tracing: Tracing
    steps: tuple[Step, ...] = WORK
    small_at_once: int = 4  # of each step: most of the time each waits for the disk
    large_at_once: int = 2

    def consumers(self) -> list[Consumer]:
        return [
            Consumer(
                self.bus,
                Lane(
                    QUEUES[step],
                    self._handler(step, LARGE),
                    self.small_at_once,
                    prefetch=2 * self.small_at_once,  # whoever is done need not wait for the next
                ),
                Lane(
                    LARGE_QUEUES[step],
                    self._handler(step, None),
                    large_at_once(step, self.large_at_once),
                    computes=True,
                ),
            )
            for step in self.steps
        ]

    def _handler(self, step: Step, most: int | None) -> WorkHandler:
        return WorkHandler(
            self.bus, self.processing, self.droplets, step, self.metrics, self.tracing, most
        )


class WorkHandler:
    """Handles the messages of one work queue.

    `most`: bytes of bits that are worked on here; messages about larger ones are sent on. None
    where they are sent to.
    """

    def __init__(
        self,
        bus: Bus,
        processing: Processing,
        droplets: DropletProcessing,
        step: Step,
        metrics: Metrics,
        tracing: Tracing,
        most: int | None,
    ) -> None:
        self._most = most
        self._queue = QUEUES[step] if most is not None else LARGE_QUEUES[step]
        self._metrics = metrics
        self._tracing = tracing
        self._bus = bus
        self._processing = processing
        self._droplets = droplets
        self._step = step
        self._in_hand: set[str] = set()  # ids of events being worked on
        self._lock = threading.Lock()

    def __call__(self, message: Message) -> None:
        try:
            heard = Heard.of(message.body)
        except ValueError as error:
            raise Unreadable(str(error)) from None
        with request_context(heard.cause.request_id):
            if not self._take(heard):
                return
            try:
                with self._tracing.span(
                    f"work {self._step}",
                    heard.cause.request_id,
                    package=heard.guid,
                    trigger=heard.type,
                ):
                    self._do(heard)
            except LargeBits as large:
                again = self._send_on(heard, message, large)
            except Exception as error:  # noqa: BLE001 - classified, retried, and logged there
                again = self._after_failure(heard, message, error)
            else:
                again = None
            with self._lock:
                self._in_hand.discard(heard.event_id)
            if again is not None:
                self._bus.send_later(self._queue, *again)

    def _take(self, heard: Heard) -> bool:
        """Whether to work on it: not if it is in hand already and this is a second copy."""
        with self._lock:
            if heard.event_id in self._in_hand:
                return False
            self._in_hand.add(heard.event_id)
            return True

    def _do(self, heard: Heard) -> None:
        if heard.type.startswith("droplet."):
            self._droplets.discard(heard.guid, self._most)
        elif heard.type not in STEP_EVENTS:
            self._processing.discard(heard.guid, self._most)
        else:
            storing = self._step is Step.STORAGE
            step = self._processing.store if storing else self._processing.hash
            seconds = step(heard.guid, heard.cause, self._most)
            if seconds is not None:
                self._metrics.ready_seconds.observe(seconds)
                if storing:
                    self._metrics.count_work(Step.HASHING, "done")  # as part of this step
        self._count("done")
        logger.info(
            "work done",
            extra={"step": self._step, "trigger": heard.type, "package": heard.guid},
        )

    def _send_on(
        self, heard: Heard, message: Message, large: LargeBits
    ) -> tuple[Message, float] | None:
        """Has the work done where large bits are; what to try again, if that fails."""
        try:
            self._bus.send(LARGE_QUEUES[self._step], message)
        except Exception as error:  # noqa: BLE001 - classified, retried, and logged there
            return self._after_failure(heard, message, error)
        self._count("sent_on")
        logger.info(
            "work on large bits sent on",
            extra={"step": self._step, "package": heard.guid, "bytes": large.size},
        )
        return None

    def _count(self, outcome: str) -> None:
        self._metrics.count_work(self._step, outcome)

    def _after_failure(
        self, heard: Heard, message: Message, error: Exception
    ) -> tuple[Message, float] | None:
        """What to try again and after how many seconds; None if it ends here."""
        failure = classify(error)
        self._count("defect" if failure is Failure.DEFECT else "waits")
        attempt = int(message.headers.get(ATTEMPT, 0)) + 1
        defects = int(message.headers.get(DEFECTS, 0)) + (failure is Failure.DEFECT)
        if failure is Failure.DEFECT:
            logger.error(
                "work failed by a defect, try %d of %d",
                defects,
                MAX_TRIES,
                exc_info=error,
                extra={"step": self._step, "package": heard.guid},
            )
        else:
            logger.warning(
                "work waits: %s: %s",
                type(error).__name__,
                error,
                extra={"step": self._step, "package": heard.guid, "attempt": attempt},
            )
        if defects >= MAX_TRIES:
            try:
                self._processing.fail_by_defect(heard.guid, error, heard.cause)
                self._count("given_up")
                return None
            except Exception as unwritten:
                if classify(unwritten) is Failure.DEFECT:
                    logger.exception("package %s can't be given up", heard.guid)
                    return None
                defects -= 1  # give it up when the log is back
        if failure is Failure.ENVIRONMENT and message.headers.get(HANDED_OUT_AGAIN):
            return None  # it is handed out again anyway, until it is done
        headers = {**message.headers, ATTEMPT: attempt, DEFECTS: defects}
        return replace(message, headers=headers), delay_before(attempt)
