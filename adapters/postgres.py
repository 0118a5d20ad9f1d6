"""PostgreSQL: connections that never wait without a bound, and what the server tells unasked.

A server that hangs, or a network that swallows its answers, breaks no connection: nothing
but a clock of ours ends the wait. An answer that did not come in time may be lost, and not
what it was about; whoever needs to know asks again.
"""

from __future__ import annotations

import logging
import os
import queue
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import psycopg
from eventsourcing import persistence
from eventsourcing.persistence import (
    DatabaseError,
    InterfaceError,
    OperationalError,
    PersistenceError,
)
from eventsourcing.postgres import PostgresDatastore
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import DictRow, dict_row
from psycopg.sql import SQL
from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from adapters.breaker import Breaker
from domain.errors import NothingRecorded

logger = logging.getLogger("packtrail.postgres")

T = TypeVar("T")

EVENTS_CHANNEL = "packtrail_events"
PROJECTED_CHANNEL = "packtrail_projected"

# Seconds. A request may ask twice (the second time to learn what became of the first), and
# its client is told within two seconds.
REQUEST_PATIENCE = 0.8
WORK_PATIENCE = 5.0
MAINTENANCE_PATIENCE = 600.0
CONNECT_TIMEOUT = 2  # of one address; psycopg waits no less
CONNECT_SECONDS = 1.0  # of a new connection for a pool
LOCK_TIMEOUT = 0.6
RETRY = 1.0  # between tries to connect again, and between looks at a lock


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that is closed if the server does not answer within `patience` seconds."""

    patience = REQUEST_PATIENCE

    def wait(self, gen: PQGen[T], *args: Any, **kwargs: Any) -> T:
        if kwargs.get("timeout") is not None:
            return super().wait(gen, *args, **kwargs)
        return super().wait(self._bounded(gen), *args, **kwargs)

    def _bounded(self, gen: PQGen[T]) -> PQGen[T]:
        deadline = time.monotonic() + self.patience
        try:
            state = next(gen)
            while True:
                ready = yield state
                if not ready and time.monotonic() > deadline:
                    self.pgconn.finish()
                    raise psycopg.OperationalError(f"no answer in {self.patience} s")
                state = gen.send(ready)
        except StopIteration as stop:
            result: T = stop.value
            return result


def connection_class(seconds: float) -> type[BoundedConnection]:
    """Connections that wait for so long."""
    return type("BoundedConnection", (BoundedConnection,), {"patience": seconds})


def options(url: str, patience: float) -> dict[str, Any]:
    """libpq's parameters: what the URL says, and bounds for what it does not."""
    milliseconds = int(patience * 1000)
    return {
        "connect_timeout": CONNECT_TIMEOUT,
        "tcp_user_timeout": milliseconds,
        "application_name": "packtrail",
        "options": f"-c statement_timeout={milliseconds} "
        f"-c lock_timeout={min(int(LOCK_TIMEOUT * 1000), milliseconds)} "
        f"-c idle_in_transaction_session_timeout={max(milliseconds, 10_000)}",
        **conninfo_to_dict(url),
    }


def seems_closed(connection: psycopg.Connection[Any]) -> bool:
    """Whether the server has said something unasked: an idle one does so to say good-bye."""
    try:
        if connection.closed:
            return True
        looking = select.poll()  # select can't look at descriptors above 1023
        looking.register(connection.fileno(), select.POLLIN)
        return bool(looking.poll(0))
    except psycopg.Error:
        return True


class DatabaseAway(DatabaseError, NothingRecorded):
    """There is no connection to the database."""


class PostgresDatabase(PostgresDatastore):
    """The library's datastore, on bounded connections. Opens none before one is needed."""

    def __init__(self, url: str, patience: float, size: int) -> None:
        super().__init__("", "", "", "", "", originator_id_type="text")
        self.pool.close()
        self.connections = pool_of(url, patience, size, autocommit=True, row_factory=dict_row)
        self.breaker = Breaker(
            (OperationalError, InterfaceError, DatabaseAway),
            lambda: DatabaseAway("the database did not answer just now"),
        )

    @contextmanager
    def get_connection(self) -> Iterator[psycopg.Connection[DictRow]]:
        """Raises `DatabaseAway` if there is none; else what the library makes of psycopg's."""
        with self.breaker():
            try:
                pooled = self.connections.connect()
            except (psycopg.Error, SQLAlchemyError) as error:
                raise DatabaseAway(str(error)) from error
            try:
                with _as_the_librarys():
                    yield cast(psycopg.Connection[DictRow], pooled.dbapi_connection)
            finally:
                if cast(psycopg.Connection[DictRow], pooled.dbapi_connection).closed:
                    pooled.invalidate()
                pooled.close()

    def register_type_adapters(self) -> None:
        """Nothing: rows are written without the library's composite type."""

    def close(self) -> None:
        if hasattr(self, "connections"):  # not while the library's constructor runs
            self.connections.dispose()


def pool_of(url: str, patience: float, size: int, **how: Any) -> QueuePool:
    """Bounded connections; one that the server has closed meanwhile is not handed out."""
    kind = connection_class(patience)
    parameters = options(url, patience)

    def connect() -> Any:
        return _connect_within(CONNECT_SECONDS, lambda: kind.connect(**parameters, **how))

    pool = QueuePool(
        connect,
        pool_size=size,
        max_overflow=0,
        timeout=min(0.5, patience),
        reset_on_return=None if how.get("autocommit") else "rollback",
    )
    event.listen(pool, "checkout", _refuse_closed)
    return pool


def _connect_within(seconds: float, connect: Callable[[], BoundedConnection]) -> BoundedConnection:
    """psycopg waits for two seconds at least; who asks for less has it done by a thread."""
    done: queue.SimpleQueue[BoundedConnection | Exception] = queue.SimpleQueue()
    given_up = threading.Event()

    def run() -> None:
        try:
            connection = connect()
        except Exception as error:  # noqa: BLE001 - handed over
            done.put(error)
            return
        done.put(connection)
        if given_up.is_set():
            connection.close()

    threading.Thread(target=run, name="postgres-connect", daemon=True).start()
    try:
        result = done.get(timeout=seconds)
    except queue.Empty:
        given_up.set()
        if not done.empty() and isinstance(late := done.get(), BoundedConnection):
            late.close()
        raise psycopg.OperationalError(f"no connection in {seconds} s") from None
    if isinstance(result, Exception):
        raise result
    return result


def _refuse_closed(connection: Any, entry: ConnectionPoolEntry, proxy: Any) -> None:
    if seems_closed(connection):
        raise DisconnectionError("the server has closed the connection")


@contextmanager
def _as_the_librarys() -> Iterator[None]:
    """psycopg's errors as those of the library's interface, which have the same names."""
    try:
        yield
    except psycopg.Error as error:
        for kind in type(error).__mro__:
            theirs = getattr(persistence, kind.__name__, None)
            if kind.__module__.startswith("psycopg") and theirs is not None:
                raise theirs(str(error)) from error
        raise PersistenceError(str(error)) from error


class Listener:
    """Counts what the server notifies of, on a connection of its own, and wakes who waits.

    While the connection is away everybody is woken every now and then, to look.
    """

    def __init__(self, url: str, channels: Sequence[str]) -> None:
        self._url = url
        self._channels = channels
        self._counts: Counter[str] = Counter()
        self._condition = threading.Condition()
        self._has_listened = False
        self._descriptor: int | None = None  # of the connection, while there is one
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="postgres-listener", daemon=True)
        self._thread.start()

    def count(self, channel: str) -> int:
        return self._counts[channel]

    def wait(self, channel: str, seen: int, timeout: float) -> bool:
        """Whether there were more than `seen` notifications, within `timeout` seconds."""
        with self._condition:
            return self._condition.wait_for(lambda: self._counts[channel] > seen, timeout)

    def wake(self, channel: str) -> None:
        with self._condition:
            self._counts[channel] += 1
            self._condition.notify_all()

    def close(self) -> None:
        self._stopping.set()
        with self._condition:
            if self._descriptor is not None:  # ends the thread's wait for the server
                with socket.socket(fileno=os.dup(self._descriptor)) as ending:
                    ending.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._listen()
            except psycopg.Error as error:
                if self._stopping.is_set():
                    return
                if self._has_listened:  # before, whoever starts says what is wrong
                    logger.warning("not listening to PostgreSQL: %s", error)
            for channel in self._channels:
                self.wake(channel)
            self._stopping.wait(RETRY)

    def _listen(self) -> None:
        with BoundedConnection.connect(
            **options(self._url, REQUEST_PATIENCE), autocommit=True
        ) as connection:
            self._set_descriptor(connection.fileno())
            self._has_listened = True
            try:
                self._hear(connection)
            finally:
                self._set_descriptor(None)

    def _set_descriptor(self, descriptor: int | None) -> None:
        with self._condition:
            self._descriptor = descriptor

    def _hear(self, connection: psycopg.Connection[Any]) -> None:
        for channel in self._channels:
            connection.execute(SQL("LISTEN {}").format(SQL(channel)))
            self.wake(channel)
        asked = time.monotonic()
        while not self._stopping.is_set():
            for notice in connection.notifies(timeout=0.5, stop_after=1):
                self.wake(notice.channel)
            if time.monotonic() - asked > 5:
                connection.execute("SELECT 1")  # does it live?
                asked = time.monotonic()


class AdvisoryLock:
    """A lock of the whole database cluster, held as long as its session lives.

    Should its holder hang, the server ends the session, so that another can take over.
    """

    def __init__(self, url: str, key: int, idle_timeout: int = 10) -> None:
        """`idle_timeout`: seconds that its holder may be silent; 0 for as long as it lives."""
        self._url = url
        self._key = key
        self._idle_timeout = idle_timeout
        self._session: psycopg.Connection[Any] | None = None

    def acquire(self) -> bool:
        """Whether the lock is ours now. False while another has it, or the server is away."""
        try:
            if self._session is None:
                self._session = BoundedConnection.connect(
                    **options(self._url, REQUEST_PATIENCE), autocommit=True
                )
                self._session.execute(f"SET idle_session_timeout = '{self._idle_timeout}s'")
            row = self._session.execute("SELECT pg_try_advisory_lock(%s)", [self._key]).fetchone()
            if row is not None and row[0]:
                return True
        except psycopg.Error as error:
            logger.warning("no lock from PostgreSQL: %s", error)
            self.release()
        return False

    def held(self) -> bool:
        """Whether it is still ours. To be asked every few seconds: that keeps it, too."""
        try:
            if self._session is None:
                return False
            self._session.execute("SELECT 1")
        except psycopg.Error as error:
            logger.warning("a lock of PostgreSQL is lost: %s", error)
            self.release()
            return False
        return True

    def release(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None


class ProjectorNotices:
    """A listener's notices of a projector's progress."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def count(self) -> int:
        return self._listener.count(PROJECTED_CHANNEL)

    def wait(self, seen: int, timeout: float) -> bool:
        return self._listener.wait(PROJECTED_CHANNEL, seen, timeout)
