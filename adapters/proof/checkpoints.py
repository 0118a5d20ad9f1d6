"""Checkpoints: what the log was at a moment, signed, to be kept elsewhere.

The signature is over a few lines of plain text, so that any program that knows Ed25519 can
check it.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Self

import orjson

from adapters.event_store.chain import GENESIS, LAST_MOMENT
from adapters.proof.chain import body_of
from adapters.proof.findings import Check, Finding, Tell, shown
from adapters.proof.rows import LAST, Log, NothingToCheck, Row, Unreadable
from adapters.proof.signing import SigningKey, VerifyingKey
from projections.rows import moment_of

TITLE = "packtrail checkpoint 1"
MAX_LINE = 4096  # bytes
_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"
_FORMS = {
    "log": r"[!-~]{1,200}",
    "appended_at": _TIME,
    "hash": r"[0-9a-f]{64}",
    "signed_at": _TIME,
    "key": r"[0-9a-f]{16}",
    "signature": r"[A-Za-z0-9+/]{86}==",
}


class NoCheckpoint(ValueError):
    """A line is none."""


class UnsoundHead(Exception):
    """The newest event does not follow from the one before: this is not to be signed."""


@dataclass(frozen=True)
class Checkpoint:
    """The log with this identity had an event with this hash at this position."""

    log: str
    position: int
    appended_at: str  # RFC 3339, UTC, with microseconds; of that event
    hash: str  # hex
    signed_at: str
    key: str  # the id of the key that has signed
    signature: str = ""  # base64

    @property
    def statement(self) -> bytes:
        """What is signed: these lines, each with its newline."""
        named = [f"{f.name}: {getattr(self, f.name)}" for f in fields(self)[:-1]]
        return "".join(f"{line}\n" for line in (TITLE, *named)).encode()

    @property
    def line(self) -> str:
        return orjson.dumps(asdict(self)).decode()

    @classmethod
    def of_line(cls, line: bytes) -> Self:
        """Raises `NoCheckpoint`."""
        try:
            found = orjson.loads(line)
        except orjson.JSONDecodeError:
            raise NoCheckpoint("it is no JSON") from None
        if not isinstance(found, dict):
            raise NoCheckpoint("it is no JSON object")
        names = [f.name for f in fields(cls)]
        if sorted(found) != sorted(names):
            raise NoCheckpoint(f"its fields are not {', '.join(names)}")
        position = found["position"]
        if type(position) is not int or not 0 < position <= LAST:
            raise NoCheckpoint(f"its position {position!r} is no number above 0")
        for name, form in _FORMS.items():
            if not isinstance(found[name], str) or not re.fullmatch(form, found[name]):
                raise NoCheckpoint(f"its {name} {found[name]!r} has not the form {form}")
        return cls(**found)


def sign_head(log: Log, key: SigningKey) -> Checkpoint:
    """A checkpoint of the newest event. Raises `NothingToCheck`, `UnsoundHead`."""
    head = log.head()
    if not head:
        raise NothingToCheck("the log is empty: there is nothing to sign yet")
    row = log.at(head)
    if not isinstance(row, tuple):
        raise UnsoundHead(f"the newest event, at position {head}, can't be read")
    before = log.before(head)
    body, previous = body_of(row), before[6] if before else GENESIS
    is_sound = isinstance(previous, bytes) and body is not None
    if not is_sound or sha256(previous + (body or b"")).digest() != row[6]:
        raise UnsoundHead(
            f"the newest event, at position {head}, does not follow from the one before it: "
            "nothing is signed; packtrail verify tells more"
        )
    if not 0 <= row[1] <= LAST_MOMENT:
        raise UnsoundHead(
            f"the newest event, at position {head}, was appended at a time that is none "
            f"({row[1]}): nothing is signed"
        )
    unsigned = Checkpoint(
        log=log.identity,
        position=head,
        appended_at=_time(moment_of(row[1])),
        hash=row[6].hex(),
        signed_at=_time(datetime.now(UTC)),
        key=key.public.id,
    )
    signature = base64.b64encode(key.sign(unsigned.statement)).decode()
    return Checkpoint(**{**asdict(unsigned), "signature": signature})


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


class CheckpointCheck:
    """Whether the log still is what checkpoints say that it was."""

    def __init__(self, log: Log, keys: Mapping[str, VerifyingKey], head: int, tell: Tell) -> None:
        self._log = log
        self._keys = keys
        self._head = head
        self._tell = tell
        self.checked = 0

    def run(self, path: Path, file: BinaryIO) -> int:
        """How many checkpoints the file has."""
        before = self.checked
        for number, line in enumerate(_lines(file), 1):
            if not line.strip():
                continue
            self.checked += 1
            where = f"{path}, line {number}"
            try:
                checkpoint = Checkpoint.of_line(line)
            except NoCheckpoint as error:
                self._say(f"{shown(str(where))}", f"it is no checkpoint: {shown(str(error))}")
                continue
            what = self._fault_of(checkpoint)
            if what is not None:
                self._say(f"{shown(str(where))}", what, checkpoint.position)
        return self.checked - before

    def _fault_of(self, checkpoint: Checkpoint) -> str | None:
        key = self._keys.get(checkpoint.key)
        if key is None:
            return f"it is signed with the key {checkpoint.key}, and not with one that is given"
        try:
            signature = base64.b64decode(checkpoint.signature, validate=True)
        except binascii.Error:
            return "its signature is no base64"
        if not key.has_signed(checkpoint.statement, signature):
            return "its signature is wrong: it was changed"
        if checkpoint.log != self._log.identity:
            return f"it is of the log {checkpoint.log}, and this one is {self._log.identity}"
        return self._difference(checkpoint, self._log.at(checkpoint.position))

    def _difference(self, checkpoint: Checkpoint, row: Row | Unreadable | None) -> str | None:
        """What is other in the log than it was when the checkpoint was signed."""
        position, signed = checkpoint.position, checkpoint.signed_at
        if isinstance(row, Unreadable):
            return f"the event at position {position} can't be read: {row.why}"
        if row is None:
            if position > self._head:
                return (
                    f"the log ended at position {position} or later when this was signed "
                    f"({signed}), and ends at {self._head}: its tail was cut off"
                )
            return f"there was an event at position {position} ({signed}), and there is none"
        if row[6] != bytes.fromhex(checkpoint.hash):
            return (
                f"the event at position {position} has another hash than it had ({signed}): it "
                "was changed, or the log was rewritten from there or from an earlier position on"
            )
        return None

    def _say(self, where: str, what: str, position: int | None = None) -> None:
        self._tell(Finding(Check.CHECKPOINTS, where, what, position))


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """A file's lines; of one that is too long what is behind `MAX_LINE` is left out."""
    while line := file.readline(MAX_LINE):
        yield line
        while line and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE)
