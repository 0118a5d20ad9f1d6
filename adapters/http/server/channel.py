"""A client's connection: waitress's channel, with the decision at the headers.

Everything here runs in the I/O thread unless it says otherwise.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from waitress.buffers import OverflowableBuffer
from waitress.channel import ClientDisconnected, HTTPChannel

from adapters.http.answers import UNKNOWN_ERROR, unparsable
from adapters.http.server.answering import RefusalTask, Task
from adapters.http.server.body import UploadBody
from adapters.http.server.parser import Admitted, Refused, RequestParser
from adapters.http.server.sending import FileEndsEarly, SentFile

if TYPE_CHECKING:
    from adapters.http.server.server import Server

logger = logging.getLogger("packtrail.http")

LINGER = 10.0  # seconds that a refused client may go on sending before it is cut off

READS_IN_A_TURN = 4  # of one upload, before others have theirs
AT_ONCE = 128 * 1024  # bytes in one read of what may be many requests, or a small upload
AT_ONCE_CHUNKED = 64 * 1024  # bytes of chunks in one read: tiny ones take their time
AT_ONCE_COARSE = 256 * 1024  # where those before were large
DRIP = 16 * 1024  # bytes a second up to which an upload drips
LINGER_BYTES = 64 << 20  # that are thrown away meanwhile
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_DISCONNECTED = frozenset(
    (errno.ECONNRESET, errno.ENOTCONN, errno.ESHUTDOWN, errno.ECONNABORTED, errno.EPIPE)
)


class Decision:
    """The task of deciding about one upload, on a worker thread."""

    def __init__(self, channel: Channel, request: RequestParser) -> None:
        self.channel = channel
        self._request = request

    def service(self) -> None:
        channel, request = self.channel, self._request
        outcome: Admitted | Refused
        try:
            outcome = channel.server.admission.decide(request.head())
        except Exception:
            logger.exception("an upload could not be decided about")
            outcome = Refused(UNKNOWN_ERROR, None)
        if isinstance(outcome, Admitted):
            channel.admitted(request, outcome)
        else:
            channel.refused(request, outcome)

    def cancel(self) -> None:
        self.channel.cancel()


class Channel(HTTPChannel):  # type: ignore[misc]
    server: Server
    request: RequestParser | None
    requests: list[RequestParser]
    parser_class = RequestParser
    sent_continue: bool

    deciding = False
    _whole = b""  # an answer that is sent when its request is done with
    _held = b""  # received, and not looked at before what it waits for is over
    _lingers = False
    lingering_until: float | None = None
    _lingered = 0  # bytes
    due: float | None = None  # until when the client must have sent what is awaited of it
    _waits_for_disk = False
    _came = 0  # bytes, since `due` was set
    _seen: int | None = None  # of them, when the channel was looked at last
    unwatched = False  # whether nobody looks for what is sent meanwhile
    drips = False  # whether an upload comes slowly, and may wait for others that do

    @property
    def idle(self) -> bool:
        """Whether nothing is going on: no request begun, running, or being answered."""
        return not (
            self.requests
            or self.deciding
            or self._held
            or self.request is not None
            or self.total_outbufs_len
            or self._whole
        )

    def readable(self) -> bool:
        if self.lingering_until is not None:
            return not self.will_close
        return not (
            self.requests
            or self.deciding
            or self._held
            or self._waits_for_disk
            or self.total_outbufs_len
            or self.will_close
            or self.close_when_flushed
        )

    def handle_read(self) -> None:
        if self.lingering_until is not None:
            self._lingered += self._receive_into_shared(len(self.server.buffer))
            if self._lingered > LINGER_BYTES:
                self.handle_close()
            return
        for _ in range(READS_IN_A_TURN):
            most = self._most_at_once(self.request)
            count = self._receive_into_shared(most)
            if count >= DRIP:
                self.drips = False
            if count:
                self.last_activity = time.time()
                self.received(self.server.buffer[:count])
                self._let_disk_catch_up()
            if count < most or most < len(self.server.buffer) or not self.readable():
                break  # only of an upload that comes fast there is more

    def _most_at_once(self, request: RequestParser | None) -> int:
        """How many bytes are read in one turn, before others have theirs."""
        if request is None or not request.receives_upload:
            return AT_ONCE
        if not request.chunked:
            return len(self.server.buffer)
        return AT_ONCE_COARSE if request.body_rcv.coarse else AT_ONCE_CHUNKED

    def _receive_into_shared(self, most: int) -> int:
        """Reads into a buffer that all channels share: it is used up before the next one reads."""
        try:
            count: int = self.socket.recv_into(self.server.buffer, most)
        except BlockingIOError:
            return 0
        except OSError:
            count = 0
        if not count:
            self.handle_close()
        return count

    def received(self, data: Any) -> bool:
        self._came += len(data)
        with self.requests_lock:
            if self.will_close or self.close_when_flushed:
                return False
            self._consume(data)
        return True

    def _consume(self, data: Any) -> None:
        """Takes received bytes as parts of requests, up to an upload to be decided about.

        A request is begun when the one before it is answered and its answer is sent: else a
        client that does not read could fill worker threads and buffers.
        """
        while data and not self.deciding:
            if self.request is None:
                if self.requests or self.total_outbufs_len:
                    self._held = bytes(data)
                    return
                self.request = self.parser_class(self.adj)
                self.request.admission = self.server.admission
                self.request.limits = self.server.limits
                self.due = time.monotonic() + self.server.limits.header_timeout
            request = self.request
            in_head = not request.headers_finished
            count = request.received(data)
            data = data[count:]
            if in_head and request.headers_finished:
                self._await_body()
            if request.completed:
                self._finish(request)
                if request.ends_connection:
                    return
            elif request.awaits_decision:
                self.deciding = True
                self.due = None
                self._held = bytes(data)
                self.server.add_task(Decision(self, request))
            elif request.expect_continue and request.headers_finished:
                self._send_continue_in_turn()

    def proceed(self) -> None:
        """Goes on with what was held back, if what it waited for is over."""
        if not self._held or self.deciding or self.requests or self.total_outbufs_len:
            return
        held, self._held = self._held, b""
        self.received(held)

    def _send_continue_in_turn(self) -> None:
        """A client that has gone is closed by the event that tells it, and not while it is read."""
        if self.requests or self.sent_continue or self.request is None:
            return
        self.request.expect_continue = False
        self.sent_continue = True
        with self.outbuf_lock:
            self._keep(CONTINUE)
            self._flush_exception(self._flush_some, do_close=False)

    def _finish(self, request: RequestParser) -> None:
        """The request is whole, or refused: it is answered behind those before it."""
        self.request = self.due = None
        self.drips = False
        self.sent_continue = False
        if request.empty:
            return
        if request.ends_connection:
            self._lingers = True
        self.requests.append(request)
        if len(self.requests) == 1:
            self.server.add_task(self)

    def refused(self, request: RequestParser, refused: Refused) -> None:
        """The upload is decided against: answers that. Runs in a worker thread."""
        request.refuse(refused)
        self._lingers = True
        self._held = b""
        self._answer_decided(request)

    def admitted(self, request: RequestParser, admitted: Admitted) -> None:
        """The upload may come. Runs in a worker thread, which goes on if all of it is here."""
        if request.chunked or len(self._held) < request.content_length:
            self.server.call_soon(lambda: self._receive(request, admitted))
            return
        request.admit(admitted)
        self._held = self._held[request.received(self._held) :]
        if request.ends_connection:
            self._lingers = True
        self._answer_decided(request)

    def _answer_decided(self, request: RequestParser) -> None:
        """Before this the I/O thread leaves the request alone, for `deciding`."""
        self.request = None
        self.requests = [request]
        self.deciding = False
        self.service()

    def _receive(self, request: RequestParser, admitted: Admitted) -> None:
        self.server.look_at(self)
        held, self._held = self._held, b""
        self.deciding = False
        if not self.connected:
            self.request = None
            admitted.body.close()
            return
        with self.requests_lock:
            request.admit(admitted)
            self._await_body()
            if request.expect_continue:
                self._send_continue_in_turn()
            self._consume(held)

    def _await_body(self) -> None:
        """From here on the client is held to a rate, a window after another."""
        self._came = 0
        self._seen = None
        rate = self.server.limits.min_upload_rate
        self.due = time.monotonic() + self.server.rate_window if rate else None

    def _let_disk_catch_up(self) -> None:
        """Reads no more of an upload while too much of it is not on the disk."""
        if self.request is not None and self.request.receives_upload:
            body: UploadBody = self.request.body_rcv.getbuf()
            if body.wait_for_disk(lambda: self.server.call_soon(self._go_on)):
                self._waits_for_disk = True
                self.due = None  # the time is not the client's

    def _go_on(self) -> None:
        self._waits_for_disk = False
        if self.connected and self.request is not None:
            self._await_body()
            self.server.look_at(self)

    def check_due(self, now: float, held_up: float) -> None:
        """Cuts the client off if it is too slow.

        `held_up`: seconds that the server did not read in; they are not the client's.
        """
        request = self.request
        if request is None or self.due is None:
            return
        self.due += held_up
        if now < self.due:
            if request.receives_upload:
                if self._seen is not None:
                    self.drips = self._came - self._seen < DRIP
                self._seen = self._came
            return
        limits, window = self.server.limits, self.server.rate_window
        if not request.headers_finished:
            seconds = limits.header_timeout
            self._time_out(request, f"the headers were not in within {seconds} seconds")
        elif self.total_outbufs_len or self._came >= limits.min_upload_rate * window:
            self._await_body()
        else:
            self._time_out(
                request,
                f"the body came at {self._came / window:.0f} bytes a second, and "
                f"{limits.min_upload_rate} are the least",
            )

    def _time_out(self, request: RequestParser, reason: str) -> None:
        with self.requests_lock:
            request.fail(unparsable(reason, status=408))
            self._finish(request)

    def handle_write(self) -> None:
        if not (self._lingers and self.close_when_flushed):
            super().handle_write()
            return
        self._flush_exception(self._flush_some)
        if self.will_close:
            self.handle_close()
        elif self.connected and not self.total_outbufs_len:
            self._linger()

    def service(self) -> None:
        """Answers the request that waits. Runs in a worker thread.

        The I/O thread is woken only if there is something for it to do.
        """
        request = self.requests[0]
        task = RefusalTask(self, request) if request.error else Task(self, request)
        try:
            self._answer(task, request)
        except ClientDisconnected:
            task.close_on_finish = True
        request.close()
        with self.requests_lock:
            self.requests = []
            if self._whole:
                with contextlib.suppress(ClientDisconnected):
                    self.write_soon(self._whole)
                self._whole = b""
            self.close_when_flushed = task.close_on_finish
        self.last_activity = time.time()
        if self.connected and (
            self.close_when_flushed
            or self.will_close
            or self._held
            or self.total_outbufs_len
            or self.unwatched
            or self.server.drains
        ):
            self.server.call_soon(self._look_at)

    def _answer(self, task: Task | RefusalTask, request: RequestParser) -> None:
        if not self.connected:
            raise ClientDisconnected
        try:
            task.service()
        except ClientDisconnected:
            raise
        except Exception:
            logger.exception("a request failed outside of the application")
            task.close_on_finish = True
            if not task.wrote_header:
                request.error = UNKNOWN_ERROR
                RefusalTask(self, request).service()

    def _look_at(self) -> None:
        self.server.look_at(self)

    def write_at_the_end(self, answer: bytes) -> None:
        """Keeps an answer until nothing else is to be done for its request.

        A client that sends the next one at once would else find this one still running.
        """
        self._whole = answer

    def write_soon(self, data: Any) -> int:
        """Sends what the socket takes at once, and the rest when it takes more.

        Runs in worker threads. Raises `ClientDisconnected`.
        """
        size: int = data.__len__()
        if not size:
            return 0
        with self.outbuf_lock:
            if not self.connected:
                raise ClientDisconnected
            left, failed = data, False
            if isinstance(data, bytes) and not self.total_outbufs_len:
                send = partial(self.send, data)
                count, failed = self._flush_exception(send, do_close=False)
                left = data[count:]
            if left.__len__() and not failed:
                self._keep(left)
                _, failed = self._flush_exception(self._flush_some, do_close=False)
            if self.total_outbufs_len or failed:
                self.server.call_soon(self._look_at)
        return size

    def _keep(self, data: Any) -> None:
        """Adds to what is to be sent."""
        if isinstance(data, SentFile):
            self.outbufs += [data, OverflowableBuffer(self.adj.outbuf_overflow)]
        else:
            self.outbufs[-1].append(data)
        self.total_outbufs_len += data.__len__()

    def _flush_some(self, do_close: bool = True) -> bool:
        """Sends what there is, up to what a turn may have, files by the kernel.

        Runs in worker threads, too, whose answer may still be leaving when its request has ended.
        """
        with self.outbuf_lock:
            return self._flush_in_turn(do_close)

    def _flush_in_turn(self, do_close: bool) -> bool:
        sent, most = 0, self.server.sent_at_once
        while sent < most:
            outbuf = self.outbufs[0]
            if not outbuf.__len__():
                if len(self.outbufs) == 1:
                    self._let_go_of(outbuf)
                    break
                self.outbufs.pop(0).close()
                continue
            if isinstance(outbuf, SentFile):
                count = self._send_file(outbuf, most - sent, do_close)
            elif count := self.send(outbuf.get(self.sendbuf_len), do_close=do_close):
                outbuf.skip(count, True)
            if not count:
                break
            self.total_outbufs_len -= count
            sent += count
        if sent:
            self.last_activity = time.time()
        return bool(sent)

    def _let_go_of(self, outbuf: OverflowableBuffer) -> None:
        """A buffer that was large keeps its memory, or its file, though it is empty."""
        if outbuf.buf is not None:
            outbuf.close()
            self.outbufs = [OverflowableBuffer(self.adj.outbuf_overflow)]

    def _send_file(self, file: SentFile, most: int, do_close: bool) -> int:
        """As `send`, and the connection ends if the file is shorter than it was."""
        try:
            return file.send_to(self.socket.fileno(), most)
        except BlockingIOError:
            return 0
        except FileEndsEarly as error:
            logger.error("a download was cut off: %s", error)
            self.will_close = True
            return 0
        except OSError as error:
            if error.errno not in _DISCONNECTED:
                raise
            if do_close:
                self.handle_close()
            return 0

    def _linger(self) -> None:
        """Lets the client read its answer: closing on unread bytes would reset the connection."""
        self.close_when_flushed = False
        self.lingering_until = time.monotonic() + LINGER
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def handle_close(self) -> None:
        self.due = None
        if not self.deciding:  # else whoever decides about the request ends it
            request, self.request = self.request, None
            if request is not None:
                request.close()  # an upload that broke off leaves nothing in staging
        super().handle_close()

    def add_channel(self, map: Any = None) -> None:
        super().add_channel(map)
        self.server.watch(self)

    def del_channel(self, map: Any = None) -> None:
        self.server.unwatch(self)
        super().del_channel(map)
