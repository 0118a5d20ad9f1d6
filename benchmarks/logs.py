"""Makes long logs in seconds: rows as the program itself would have written them.

The packages of eight clients who upload at once, to 2,000 apps: each is created, uploaded to,
stored and hashed, so a package has four events, with those of others between them. The same
seed gives the same log.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from sqlalchemy import Connection

from adapters.event_store.chain import GENESIS, Record, link
from adapters.store import Store
from domain.package import StagedBits
from domain.processing import blob_key

APPS = 2000
USERS = 50
CLIENTS = 8
EVENTS_OF_A_PACKAGE = 4
START = datetime(2026, 1, 1, 8, tzinfo=UTC)
BATCH = 20_000  # rows

_COLUMNS = "appended_at, originator_id, originator_version, topic, state, hash"
_TYPES = ("int8", "int8", "text", "int8", "text", "bytea", "bytea")
_TOPICS = (
    "package.created",
    "package.upload_started",
    "package.bits_stored",
    "package.hash_computed",
)


def write_log(store: Store, events: int, seed: int = 1) -> None:
    """Fills the log of an empty store, which is migrated here; no read model is built.

    `events` is rounded up to whole packages.
    """
    store.migrate()
    rows = rows_of_log(events, seed)
    while batch := list(islice(rows, BATCH)):
        with store.writing, store.writer.begin() as connection:
            _insert(connection, batch)
    if store.writer.dialect.name == "postgresql":
        with store.writer.begin() as connection:
            connection.exec_driver_sql("SET LOCAL lock_timeout = '60s'")  # autovacuum may be at it
            connection.exec_driver_sql("ANALYZE events")


def rows_of_log(events: int, seed: int = 1) -> Iterator[Record]:
    """The rows of the table, in order."""
    previous = GENESIS
    chance = random.Random(seed)
    clock = int(START.timestamp()) * 1_000_000
    for position, (guid, version, text) in enumerate(_interleaved(events, chance), 1):
        clock += chance.randrange(400, 4000)
        moment = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=clock)
        state = (text % moment.isoformat().replace("+00:00", "Z")).encode()
        topic = _TOPICS[version - 1]
        fields = (position, clock + 150, f"package:{guid}", version, topic, state)
        previous = link(previous, *fields)
        yield Record(*fields, previous)


def _interleaved(events: int, chance: random.Random) -> Iterator[tuple[str, int, str]]:
    """The events of all packages, as their clients come to them: guid, version, and fields."""
    apps = [_guid(chance) for _ in range(APPS)]
    users = [_guid(chance) for _ in range(USERS)]
    waiting = -(-events // EVENTS_OF_A_PACKAGE)  # packages that nobody has begun
    clients: list[Iterator[tuple[str, int, str]]] = []
    while waiting or clients:
        while waiting and len(clients) < CLIENTS:
            clients.append(_life(_guid(chance), chance.choice(apps), chance.choice(users), chance))
            waiting -= 1
        client = chance.choice(clients)
        event = next(client)
        yield event
        if event[1] == EVENTS_OF_A_PACKAGE:
            clients.remove(client)


def _life(
    guid: str, app_guid: str, actor: str, chance: random.Random
) -> Iterator[tuple[str, int, str]]:
    """A package's events; `%s` in the fields is for the time. Keys are sorted, as in the log."""
    actor = f'{{"actor":"{actor}"'
    time = '"timestamp":"%s"'
    request = f'"request_id":"{_guid(chance)}"'
    yield (
        guid,
        1,
        (
            f'{actor},"app_guid":"{app_guid}","caused_by":null,"originator_topic":"package",'
            f'{request},{time},"type":"bits","url":null}}'
        ),
    )
    request = f'"request_id":"{_guid(chance)}"'
    size = chance.randrange(2_000, 50_000_000)
    staged = StagedBits(f"staging:{chance.getrandbits(128):032x}-{guid}", 214, size)
    yield (
        guid,
        2,
        (
            f'{actor},"caused_by":null,"file_name":"app-{size % 1000}.zip",{request},'
            f'"staged_length":{staged.length},"staged_offset":{staged.offset},'
            f'"staged_uri":"{staged.uri}",{time}}}'
        ),
    )
    yield (
        guid,
        3,
        (
            f'{actor},"blob_key":"{blob_key(guid)}","caused_by":"{guid}/2",{request},'
            f'"size":{size},{time}}}'
        ),
    )
    yield (
        guid,
        4,
        (
            f'{actor},"caused_by":"{guid}/3",{request},"sha1":"{chance.getrandbits(160):040x}",'
            f'"sha256":"{chance.getrandbits(256):064x}",{time}}}'
        ),
    )


def _guid(chance: random.Random) -> str:
    digits = f"{chance.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def _insert(connection: Connection, rows: Sequence[Record]) -> None:
    driver: Any = connection.connection.driver_connection
    if connection.dialect.name == "sqlite":
        driver.executemany(f"INSERT INTO events (rowid, {_COLUMNS}) VALUES (?,?,?,?,?,?,?)", rows)
        return
    copying = f"COPY events (notification_id, {_COLUMNS}) FROM STDIN (FORMAT BINARY)"
    with driver.cursor() as cursor, cursor.copy(copying) as copy:
        copy.set_types(_TYPES)
        for row in rows:
            copy.write_row(row)
    connection.exec_driver_sql(f"SELECT setval('events_notification_id_seq', {rows[-1].position})")
