"""The lines of an export: JSON, each on its own, the first and the last of kinds of their own.

    {"format": "packtrail-log", "version": 1, "identity": …,
     "followers": [{"name": …, "position": …, "event_id": …}, …]}
    {"position": 1, "appended_at": …, "originator_id": "package:…", "originator_version": 1,
     "topic": "package.created", "state": {…}, "hash": …}
    …
    {"events": how many, "position": of the last, "hash": of the last, "identity": …}

An event's `state` is what the log keeps, as JSON: its bytes are those of orjson with sorted
keys. Where they are others they are in `state_base64` instead. So nothing is lost, and the
same log always gives the same lines.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import Any

import orjson

from adapters.event_store.chain import GENESIS, LAST_MOMENT, Record
from adapters.event_store.transcoding import OrjsonTranscoder

FORMAT = "packtrail-log"
VERSION = 1
MAX_LINE = 64 << 20  # bytes
MAX_IDENTITY = 200  # characters
_LAST = 2**63 - 1
_LAST_POSITION = 2**62  # behind which a log has room to go on
_FIELDS = ("position", "appended_at", "originator_id", "originator_version", "topic", "hash")
_STATES = ("state", "state_base64")
_canonical = OrjsonTranscoder()


@dataclass(frozen=True)
class FollowerAt:
    """How far a follower of the log is through: behind which event."""

    name: str
    position: int
    event_id: str | None


@dataclass(frozen=True)
class Header:
    """Of which log it is, and how far its followers were."""

    identity: str
    followers: tuple[FollowerAt, ...] = ()

    @property
    def line(self) -> bytes:
        return _line(
            {
                "format": FORMAT,
                "version": VERSION,
                "identity": self.identity,
                "followers": [vars(follower) for follower in self.followers],
            }
        )

    @classmethod
    def of(cls, line: bytes) -> Header:
        """Raises `ValueError`."""
        fields = _object(line)
        if fields.get("format") != FORMAT:
            raise ValueError(
                f'it is no export of a log: that begins with {{"format":"{FORMAT}", …}}'
            )
        version = fields.get("version")
        if version != VERSION:
            raise ValueError(
                f"it is an export of version {version!r}, and this program knows {VERSION}: "
                "upgrade it"
            )
        followers = fields.get("followers")
        if not isinstance(followers, list):
            raise ValueError(f"followers is no list: {_shown(followers)}")
        found = tuple(map(_follower, followers))
        if len({follower.name for follower in found}) < len(found):
            raise ValueError("followers names one twice")
        return cls(_identity(fields), found)


@dataclass(frozen=True)
class End:
    """What an export has to end with: else it is cut off."""

    identity: str
    events: int = 0
    position: int = 0
    hash: bytes = GENESIS

    @property
    def line(self) -> bytes:
        return _line(
            {
                "events": self.events,
                "position": self.position,
                "hash": self.hash.hex(),
                "identity": self.identity,
            }
        )


def event_line(record: Record) -> bytes:
    state = record.state
    fields: dict[str, Any] = {
        "position": record.position,
        "appended_at": record.appended_at,
        "originator_id": record.originator_id,
        "originator_version": record.originator_version,
        "topic": record.topic,
    }
    if is_canonical(state):
        fields["state"] = orjson.Fragment(state)
    else:
        fields["state_base64"] = b64encode(state).decode()
    fields["hash"] = record.hash.hex()
    return _line(fields)


def event_or_end(line: bytes) -> Record | End:
    """Raises `ValueError`."""
    fields = _object(line)
    if "events" in fields:
        events, position = _number(fields, "events", 0), _number(fields, "position", 0)
        return End(_identity(fields), events, position, _hash(fields))
    missing = [name for name in _FIELDS if name not in fields]
    if missing:
        raise ValueError(f"it is no event: {', '.join(missing)} missing")
    unknown = [name for name in fields if name not in _FIELDS and name not in _STATES]
    if unknown:
        raise ValueError(f"it says more than an event does: {', '.join(map(_shown, unknown))}")
    return Record(
        _number(fields, "position", 1, _LAST_POSITION),
        _number(fields, "appended_at", 0, LAST_MOMENT),
        _text(fields, "originator_id"),
        _number(fields, "originator_version", 1),
        _text(fields, "topic"),
        _state(fields),
        _hash(fields),
    )


def is_canonical(state: bytes) -> bool:
    """Whether the same bytes come back when they are parsed and written again."""
    try:
        return _canonical.encode(orjson.loads(state)) == state
    except orjson.JSONDecodeError:
        return False


def _line(fields: dict[str, Any]) -> bytes:
    return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)


def _object(line: bytes) -> dict[str, Any]:
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise ValueError("it is no JSON object")
    return fields


def _follower(fields: Any) -> FollowerAt:
    if not isinstance(fields, dict):
        raise ValueError(f"a follower is no object: {_shown(fields)}")
    position, event_id = _number(fields, "position", 0), fields.get("event_id")
    if position and not isinstance(event_id, str):
        raise ValueError(f"a follower's event_id is no text: {_shown(event_id)}")
    return FollowerAt(_text(fields, "name"), position, event_id if position else None)


def _identity(fields: dict[str, Any]) -> str:
    found = _text(fields, "identity")
    if not 1 <= len(found) <= MAX_IDENTITY:
        raise ValueError(f"identity has not 1 to {MAX_IDENTITY} characters: {_shown(found)}")
    return found


def _number(fields: dict[str, Any], name: str, least: int, most: int = _LAST) -> int:
    found = fields.get(name)
    if type(found) is not int or not least <= found <= most:
        raise ValueError(f"{name} is no number from {least} to {most}: {_shown(found)}")
    return found


def _text(fields: dict[str, Any], name: str) -> str:
    found = fields.get(name)
    if not isinstance(found, str):
        raise ValueError(f"{name} is no text: {_shown(found)}")
    if "\0" in found:
        raise ValueError(f"{name} has a NUL character, which no log keeps: {_shown(found)}")
    return found


def _hash(fields: dict[str, Any]) -> bytes:
    found = _text(fields, "hash")
    try:
        digest = bytes.fromhex(found)
    except ValueError:
        digest = b""
    if len(digest) != len(GENESIS) or digest.hex() != found:
        raise ValueError(f"hash has not 64 lower-case hexadecimal digits: {_shown(found)}")
    return digest


def _state(fields: dict[str, Any]) -> bytes:
    if ("state" in fields) == ("state_base64" in fields):
        raise ValueError("it has not one of state and state_base64")
    if "state" in fields:
        return _canonical.encode(fields["state"])
    encoded = _text(fields, "state_base64")
    try:
        return b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise ValueError(f"state_base64 is not base64: {error}") from None


def _shown(value: Any) -> str:
    """A value of a file, short enough for a message."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
