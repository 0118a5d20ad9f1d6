"""Hands unfinished work out again: what the log says is unfinished, whatever became of messages.

What stays unfinished for long is handed out again, and again; not while messages wait in its
queue, for then its own may be among them. Where the queues died with the last process,
everything is handed out at the start.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from adapters.bus.bus import Bus
from adapters.bus.messages import message_of, staging_request_of
from adapters.bus.work import HANDED_OUT_AGAIN, QUEUES, queues_of
from domain.ports import EventLog
from projections.droplets import DropletReadModel
from projections.unfinished import Step, UnfinishedWork, WorkReadModel

logger = logging.getLogger("packtrail.redispatch")

INTERVAL = 5.0  # seconds between looks
FIRST_WAIT, MAX_WAIT = 30.0, 60.0  # seconds until work is handed out again; doubled each time
PATIENCE = 600.0  # seconds that work waits for a queue to be empty


@dataclass
class _Plan:
    """When a piece of work is handed out next, and how long to wait after that."""

    since: float
    due: float
    wait: float


class Redispatcher:
    """Looks at the unfinished packages on a thread."""

    def __init__(
        self,
        work: WorkReadModel,
        droplets: DropletReadModel,
        log: EventLog,
        bus: Bus,
        queues_are_new: bool,
        clock: Callable[[], float] = time.monotonic,
        level: Callable[[], bool] = lambda: True,
    ) -> None:
        """`level`: whether the read models have all that the log has; else nobody looks."""
        self._level = level
        self._work = work
        self._droplets = droplets
        self._log = log
        self._bus = bus
        self._queues_are_new = queues_are_new
        self._clock = clock
        self._plans: dict[UnfinishedWork, _Plan] = {}
        self._lost: set[UnfinishedWork] = set()  # droplets that were begun before the start
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="redispatch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float | None = None) -> bool:
        """Whether the thread has ended within `timeout` seconds."""
        self._stopping.set()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def look(self, first: bool = False) -> int:
        """Hands out what is due; how many pieces of work that were."""
        now = self._clock()
        plans: dict[UnfinishedWork, _Plan] = {}
        handed_out = 0
        busy: dict[Step, bool] = {}
        for work in self._work.unfinished() + self._droplets_to_hand_out(first):
            plan = self._plans.get(work) or _Plan(
                now, now if first or work in self._lost else now + FIRST_WAIT, FIRST_WAIT
            )
            if plan.due <= now:
                if work.step not in busy:
                    busy[work.step] = any(self._bus.waiting(name) for name in queues_of(work.step))
                if not busy[work.step] or now - plan.since >= PATIENCE:
                    self._hand_out(work)
                    self._lost.discard(work)
                    handed_out += 1
                    plan = _Plan(now, now + plan.wait, min(plan.wait * 2, MAX_WAIT))
            plans[work] = plan
        self._plans = plans
        return handed_out

    def _droplets_to_hand_out(self, first: bool) -> list[UnfinishedWork]:
        """What no builder has begun; what one has is its own, unless it was lost with the queue."""
        begun_too = self._droplets.to_hand_out(begun_too=True) if first or self._lost else []
        pending = self._droplets.to_hand_out(begun_too=False)
        if first:
            self._lost = set(begun_too).difference(pending)
        wanted = {*pending, *(work for work in begun_too if work in self._lost)}
        return sorted(wanted, key=lambda work: work.position)

    def _hand_out(self, work: UnfinishedWork) -> None:
        asked = self._log.read(work.position - 1, 1)[0]
        message = (staging_request_of if work.step is Step.STAGING else message_of)(asked)
        self._bus.send(QUEUES[work.step], replace(message, headers={HANDED_OUT_AGAIN: True}))
        logger.info(
            "handed out again",
            extra={"step": work.step, "guid": work.guid, "request_id": asked.event.request_id},
        )

    def _run(self) -> None:
        first = self._queues_are_new
        while not self._stopping.is_set():
            try:
                if self._level():
                    self.look(first)
                    first = False
            except Exception:
                logger.exception("could not look for unfinished work")
            self._stopping.wait(INTERVAL)
