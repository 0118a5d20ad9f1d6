"""The chain of hashes that makes the log tamper-evident.

Each event's hash covers its own fields and the hash of the event before it in the log. So
nothing in the log can be changed, removed, moved or added without every later hash being
another one.
"""

from __future__ import annotations

from hashlib import sha256
from struct import Struct
from typing import NamedTuple

GENESIS = bytes(32)  # what stands for the hash before the first event
LAST_MOMENT = 253_402_300_799_999_999  # microseconds since the epoch: the year 9999 ends behind it
_HEAD = Struct(">qqqII")


class Record(NamedTuple):
    """An event as the log keeps it.

    `appended_at` is in microseconds since the epoch, UTC, and never lower than that of the
    event before.
    """

    position: int
    appended_at: int
    originator_id: str
    originator_version: int
    topic: str
    state: bytes
    hash: bytes


def link(
    previous: bytes,
    position: int,
    appended_at: int,
    originator_id: str,
    originator_version: int,
    topic: str,
    state: bytes,
) -> bytes:
    """The hash of an event behind one with the hash `previous`: SHA-256, 32 bytes.

    It is that of these bytes, one after the other: the previous hash; position, time and
    version as signed integers of 8 bytes; the lengths in bytes of originator id and topic, of
    4 bytes each (all big-endian); originator id, topic (UTF-8), and state.
    """
    id_bytes, topic_bytes = originator_id.encode(), topic.encode()
    head = _HEAD.pack(position, appended_at, originator_version, len(id_bytes), len(topic_bytes))
    return sha256(previous + head + id_bytes + topic_bytes + state).digest()
