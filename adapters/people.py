"""Addresses of people, in a table beside the log, by the user's guid.

Events name users by guid alone. So an address can be removed, for ever, and the log stays
whole. Like `adapters.environments` this is no read model: what is lost here is not in the
log.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager

from sqlalchemy import (
    BigInteger,
    Column,
    Engine,
    MetaData,
    Table,
    Text,
    delete,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite

from adapters.environments import LOOKUP, overwrite_what_is_deleted
from adapters.tokens import Caller

logger = logging.getLogger("packtrail.people")

MAX_EMAIL = 254  # characters, by RFC 5321
REMEMBERED = 5.0  # seconds until it is looked up again whether an address is kept
MAX_REMEMBERED = 10_000  # users
ERASE_TRIES = 10  # each as long as a writer waits for the file

metadata = MetaData()
people = Table(
    "people",
    metadata,
    Column("guid", Text, primary_key=True),
    Column("email", Text, nullable=False),
    Column("seen_at", BigInteger, nullable=False),  # seconds since the epoch, when it was kept
)


class NotErased(Exception):
    """What was removed can still be read in the database's files."""


class People:
    """The addresses, in the database that the log is in."""

    def __init__(
        self, reader: Engine, writer: Engine, writing: AbstractContextManager[object]
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._writing = writing

    def keep(self, guid: str, email: str) -> None:
        """Instead of the one that was kept before."""
        postgres = self._writer.dialect.name == "postgresql"
        kept = (postgresql.insert if postgres else sqlite.insert)(people).values(
            guid=guid, email=email, seen_at=int(time.time())
        )
        kept = kept.on_conflict_do_update(
            index_elements=[people.c.guid],
            set_={"email": kept.excluded.email, "seen_at": kept.excluded.seen_at},
        )
        with self._writing, self._writer.begin() as connection:
            overwrite_what_is_deleted(connection)
            connection.execute(kept)

    def find(self, guid: str) -> str | None:
        return self.find_all([guid]).get(guid)

    def find_all(self, guids: Iterable[str]) -> dict[str, str]:
        """The address of each of the users of whom one is kept."""
        wanted = list(guids)
        found: dict[str, str] = {}
        with self._reader.connect() as connection:
            for start in range(0, len(wanted), LOOKUP):
                some = wanted[start : start + LOOKUP]
                query = select(people.c.guid, people.c.email).where(people.c.guid.in_(some))
                found.update({row.guid: row.email for row in connection.execute(query)})
        return found

    def forget(self, guids: Sequence[str]) -> list[str]:
        """Removes the addresses of users; of which of them there was one.

        Nothing of them is in an SQLite file afterwards, nor in the files beside it. Raises
        `NotErased` if somebody reads for so long that this could not be made sure.
        """
        with self._writing, self._writer.begin() as connection:
            overwrite_what_is_deleted(connection)
            had = [
                guid
                for guid in dict.fromkeys(guids)
                if connection.execute(delete(people).where(people.c.guid == guid)).rowcount
            ]
        self._empty_the_journal()
        return had

    def _empty_the_journal(self) -> None:
        """SQLite's write-ahead log has the pages as they were before."""
        if self._writer.dialect.name != "sqlite":
            return
        connection = self._writer.raw_connection()
        try:
            cursor = connection.cursor()
            for _ in range(ERASE_TRIES):
                with self._writing:
                    busy, *_ = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                if not busy:
                    return
        finally:
            connection.close()
        raise NotErased(
            "the addresses are removed, but the write-ahead log, which still has them, is in use: "
            "do the same again"
        )


class AddressBook:
    """Keeps the addresses of those who write, as their tokens tell them.

    It remembers for a moment whose are kept, so that someone who writes much is not looked up
    each time. An address that was forgotten and comes again is kept again after that moment.
    """

    def __init__(self, kept: People, clock: Callable[[], float] = time.monotonic) -> None:
        self._kept = kept
        self._clock = clock
        self._remembered: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self._lock = threading.Lock()

    def note(self, caller: Caller) -> None:
        """Who has written something. Never raises: an address is worth no failed request."""
        guid, email = caller.guid, caller.email
        if email is None or not _is_plain(email):
            return
        if not self._is_news(guid, email):
            return
        try:
            if self._kept.find(guid) != email:
                self._kept.keep(guid, email)
        except Exception as error:  # noqa: BLE001 - whatever it is; its text may have the address
            logger.warning(
                "an address could not be kept: %s", type(error).__name__, extra={"user": guid}
            )

    def _is_news(self, guid: str, email: str) -> bool:
        """Whether nobody has noted this address just now; it is noted then."""
        now = self._clock()
        with self._lock:
            known, until = self._remembered.get(guid, (None, 0.0))
            if known == email and now < until:
                return False
            self._remembered[guid] = (email, now + REMEMBERED)
            self._remembered.move_to_end(guid)
            if len(self._remembered) > MAX_REMEMBERED:
                self._remembered.popitem(last=False)
        return True


def _is_plain(email: str) -> bool:
    return len(email) <= MAX_EMAIL and "@" in email and email.isprintable()
