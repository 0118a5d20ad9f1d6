"""The server: waitress's, on an epoll loop, that drains before it stops.

The stock loop asks every connection on every turn what it waits for. Here a connection
is asked when something happened to it: an event, or a worker thread that had its request.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.server import TcpWSGIServer

from adapters.http.server.channel import Channel, Decision
from adapters.http.server.parser import Admission
from adapters.http.server.sending import SENT_ALONE, SENT_AT_ONCE
from adapters.http.server.workers import Workers
from adapters.limits import Limits

logger = logging.getLogger("packtrail.http")

RECEIVE_BUFFER = 512 * 1024  # bytes of an upload taken in one read
TURN = 1.0  # seconds that the loop waits at most
ACCEPTED_AT_ONCE = 64
PAUSE = 0.02  # seconds between two looks at uploads that drip
CHECKED_AT_ONCE = 50  # channels in a turn of the loop
RATE_WINDOW = 30.0  # seconds over which a body's rate is measured


class Server(TcpWSGIServer):  # type: ignore[misc]
    """Serves a WSGI application; uploads are decided about by `admission` at their headers."""

    channel_class = Channel

    def __init__(
        self,
        application: Any,
        admission: Admission,
        adjustments: Adjustments,
        limits: Limits,
        listening: socket.socket | None = None,
        rate_window: float = RATE_WINDOW,
    ) -> None:
        """`listening`: a socket that is bound already, and shared with other processes."""
        self.admission = admission
        self.limits = limits
        self.rate_window = rate_window
        self.buffer = memoryview(bytearray(RECEIVE_BUFFER))
        self.sent_at_once = SENT_AT_ONCE
        self._epoll = select.epoll()
        self._slow_epoll = select.epoll()  # of channels whose upload drips
        self._slow: set[int] = set()  # their descriptors
        self._slow_at = 0.0  # when they are looked at next
        self._interests: dict[int, int] = {}
        self._touched: set[Channel] = set()
        self._tasks: list[Channel | Decision] = []  # for workers, who are not woken yet
        self._lingering: set[Channel] = set()
        self._awaited: set[Channel] = set()  # a client must send something by some time
        self._to_check: list[Channel] = []  # of those, who is still to be looked at this time
        self._held_up = 0.0  # seconds in which we looked at nobody, which are not theirs
        self._looked_at = self._turned_at = time.monotonic()
        self._drain_deadline: float | None = None
        self._drain_timeout: float | None = None
        self._ending = threading.RLock()  # a signal handler may interrupt whoever has it
        self._ended = False
        self._opened = False
        shared: dict[str, Any] = {}
        if listening is not None:
            info = (listening.family, listening.type, listening.proto, listening.getsockname())
            shared = {"_sock": listening, "sockinfo": info, "bind_socket": False}
        workers = Workers(adjustments.threads)
        super().__init__(
            application, map={}, adj=adjustments, dispatcher=workers, _start=False, **shared
        )
        for dispatcher in (self, self.trigger):
            self._interests[dispatcher._fileno] = 0
            self._epoll.register(dispatcher._fileno, 0)

    @property
    def port(self) -> int:
        return int(self.effective_port)

    def open(self) -> None:
        """From here on a client can connect; it is answered once `run` runs."""
        self.accept_connections()
        self._opened = True

    def run(self) -> None:
        """Serves until `drain` was called and everything is done, or its time is over."""
        if not self._opened:
            self.open()
        self._watch_for(self.trigger)
        while not self._finished():
            self._turn()
        self._close_all()

    @property
    def drains(self) -> bool:
        return self._drain_timeout is not None

    def drain(self, timeout: float) -> None:
        """Stops accepting; `run` returns when what is running is done, or in `timeout` s.

        May be called from a signal handler or any thread.
        """
        self._drain_timeout = timeout
        self.pull_trigger()

    def call_soon(self, function: Callable[[], None]) -> None:
        """Runs a function in the I/O thread. May be called from any thread."""
        self.pull_trigger(function)

    def pull_trigger(self, function: Callable[[], None] | None = None) -> None:
        """Wakes the I/O thread; does nothing when it has ended: its pipe is another's then."""
        with self._ending:
            if not self._ended:
                self.trigger.pull_trigger(function)

    def add_task(self, task: Channel | Decision) -> None:
        """Has a worker do it once this thread turns to another event, or to waiting for one.

        Called in the I/O thread: a worker that is woken earlier can but wait for the interpreter.
        """
        self._tasks.append(task)

    def _hand_out(self) -> None:
        for task in self._tasks:
            super().add_task(task)
        self._tasks.clear()

    def watch(self, channel: Channel) -> None:
        self._interests[channel._fileno] = 0
        self._epoll.register(channel._fileno, 0)
        self._touched.add(channel)

    def look_at(self, channel: Channel) -> None:
        """Asks a channel anew what it waits for; in the I/O thread."""
        if channel._fileno is not None:
            self._touched.add(channel)

    def unwatch(self, channel: Channel) -> None:
        if self._interests.pop(channel._fileno, None) is not None:
            with contextlib.suppress(OSError):
                self._epoll_of(channel._fileno).unregister(channel._fileno)
            self._slow.discard(channel._fileno)
        for channels in (self._touched, self._lingering, self._awaited):
            channels.discard(channel)

    def handle_accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            before = len(self.active_channels)
            super().handle_accept()
            if len(self.active_channels) == before:
                return

    def maintenance(self, now: float) -> None:
        """Closes channels on which nothing has happened for long."""
        super().maintenance(now)
        self._touched.update(c for c in self.active_channels.values() if c.will_close)

    def _turn(self) -> None:
        changed, self._touched = self._touched, set()  # a set that was large stays slow
        for channel in changed:
            try:
                self._look(channel)
            except Exception:
                logger.exception("a connection is closed")
                channel.handle_close()
        if self.socket is not None:
            self._watch_for(self)
        self._hand_out()
        events = self._events()
        self.sent_at_once = SENT_ALONE if len(events) == 1 else SENT_AT_ONCE
        for descriptor, flags in events:
            self._hand_out()
            dispatcher = self._map.get(descriptor)
            if dispatcher is None:
                continue
            if descriptor in self._slow and flags == select.EPOLLIN:
                wasyncore.readwrite(dispatcher, flags)
                if dispatcher.drips:
                    continue  # as before: there is nothing else to look at
            elif flags == select.EPOLLIN and not dispatcher.readable():
                pass  # more has come while a request is answered: it has to wait
            else:
                wasyncore.readwrite(dispatcher, flags)
                if flags == select.EPOLLIN and is_answering(dispatcher):
                    continue  # nothing is to be looked for, until a worker says so
            if isinstance(dispatcher, Channel) and dispatcher._fileno is not None:
                self._touched.add(dispatcher)
                if dispatcher.lingering_until is not None:
                    self._lingering.add(dispatcher)
        self._cut_off_slow()
        self._drain()

    def _look(self, channel: Channel) -> None:
        """Goes on with a channel, and finds out what it waits for now."""
        channel.proceed()
        self._sort(channel)
        channel.unwatched = True  # who ends a request while this is found out says so
        self._watch_for(channel)
        channel.unwatched = not self._interests.get(channel._fileno, 0) & select.EPOLLIN
        if channel.due is not None:
            self._awaited.add(channel)

    def _events(self) -> list[tuple[int, int]]:
        """Waits for what happens. Uploads that drip are looked at together, a pause apart.

        A thousand of them would else wake this thread as often as they send.
        """
        longest = PAUSE if self._to_check else TURN
        if not self._slow:
            return self._epoll.poll(longest)
        events = self._epoll.poll(min(longest, max(0.0, self._slow_at - time.monotonic())))
        now = time.monotonic()
        if now >= self._slow_at:
            self._slow_at = now + PAUSE
            events += self._slow_epoll.poll(0)
        return events

    def _epoll_of(self, descriptor: int) -> select.epoll:
        return self._slow_epoll if descriptor in self._slow else self._epoll

    def _sort(self, channel: Channel) -> None:
        """Moves a channel to where it belongs by how fast its upload comes."""
        descriptor = channel._fileno
        if descriptor is None or channel.drips == (descriptor in self._slow):
            return
        self._epoll_of(descriptor).unregister(descriptor)
        if channel.drips:
            self._slow.add(descriptor)
        else:
            self._slow.remove(descriptor)
        self._epoll_of(descriptor).register(descriptor, self._interests[descriptor])

    def _watch_for(self, dispatcher: Any) -> None:
        descriptor = dispatcher._fileno
        if descriptor is None:
            return
        interest = 0
        if dispatcher.readable():
            interest |= select.EPOLLIN
        if dispatcher.writable():
            interest |= select.EPOLLOUT
        if self._interests.get(descriptor) != interest:
            self._epoll_of(descriptor).modify(descriptor, interest)
            self._interests[descriptor] = interest

    def _cut_off_slow(self) -> None:
        """Once in a while: who sends too slowly, and who lingers for too long.

        A few of them in each turn, so that a thousand don't hold up whoever else there is.
        """
        now = time.monotonic()
        passed, self._turned_at = now - self._turned_at, now
        if passed > 2 * TURN:
            # we were held up: all get that time back, and who is still to get some gets both
            self._begin_check(now, passed + (self._held_up if self._to_check else 0.0))
        for channel in self._to_check[:CHECKED_AT_ONCE]:
            if channel not in self._awaited:
                continue  # it has ended meanwhile
            channel.check_due(now, self._held_up)
            self._sort(channel)
            if channel.due is None:
                self._awaited.discard(channel)
        del self._to_check[:CHECKED_AT_ONCE]
        if not self._to_check and now - self._looked_at >= TURN:
            self._begin_check(now, 0.0)

    def _begin_check(self, now: float, held_up: float) -> None:
        self._looked_at = now
        self._held_up = held_up
        self._to_check = list(self._awaited)
        for channel in list(self._lingering):
            if channel.lingering_until is not None and channel.lingering_until < now:
                channel.handle_close()

    def _drain(self) -> None:
        if self._drain_timeout is None:
            return
        if self._drain_deadline is None:
            self._drain_deadline = time.monotonic() + self._drain_timeout
            self._epoll.unregister(self._fileno)
            wasyncore.dispatcher.close(self)
            logger.info("draining", extra={"connections": len(self.active_channels)})
        self._drain_deadline = min(self._drain_deadline, time.monotonic() + self._drain_timeout)
        for channel in list(self.active_channels.values()):
            if channel.idle:
                channel.handle_close()

    def _finished(self) -> bool:
        if self._drain_deadline is None:
            return False
        return not self.active_channels or time.monotonic() >= self._drain_deadline

    def _close_all(self) -> None:
        if self.active_channels:
            logger.warning(
                "cut off at the deadline", extra={"connections": len(self.active_channels)}
            )
        for channel in list(self.active_channels.values()):
            channel.handle_close()
        self._hand_out()
        self.task_dispatcher.shutdown(cancel_pending=True, timeout=1)
        self.trigger.handle_read()  # what workers still had for this thread, or files would stay
        with self._ending:
            self._ended = True
            self.trigger.close()
            self._epoll.close()
            self._slow_epoll.close()


def is_answering(dispatcher: Any) -> bool:
    """Whether a worker thread has a channel's request, and the channel waits for nothing else."""
    return isinstance(dispatcher, Channel) and bool(dispatcher.requests or dispatcher.deciding)
