"""Follows the chain through the log, and tells each event at which it does not fit.

Behind an event that does not fit the chain goes on from the hash that is stored; where only
that hash was changed, from the one that the event's content gives; where the event does not
belong there, from the one before it. So what is named is what was changed, and not what
follows it. What can't be told at once, because events are gone or in other places, is
looked at again at the end, when all of them are known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from struct import Struct
from struct import error as StructError
from typing import Any

from adapters.event_store.chain import GENESIS, LAST_MOMENT
from adapters.proof.findings import Check, Finding, Tell
from adapters.proof.rows import Row, Unreadable, event_id_of

_HEAD = Struct(">qqqII")
_PATHS = 24  # ways in which the chain may go on that are followed at once
_RUN = 64  # events one behind the other that don't fit, until a new beginning is made
_KEPT = 20_000  # of which more is to be learned at the end
_TRIES = 4_000_000  # hashes made at the end at most
_GAP = 1000  # positions without an event that are looked for one by one
NO_MATCH = (
    "its hash does not follow from its content and the event before: it was changed, "
    "or events were added or removed before it, or the one before was changed with its hash"
)
WRONG_HASH = "its stored hash was changed: the event behind follows from what its content gives"
FOREIGN = "it does not belong here: the events before and behind it follow each other without it"


class _Verdict(Enum):
    CHANGED = NO_MATCH
    HASH = WRONG_HASH
    FOREIGN = FOREIGN


@dataclass
class _Suspect:
    row: Row
    before: int  # the position of the event before it; 0 for none
    base: bytes | None  # that one's hash
    verdict: _Verdict = _Verdict.CHANGED

    @property
    def gap(self) -> range:
        """The positions before it at which there is nothing."""
        return range(max(self.before, 0) + 1, self.row[0])

    @property
    def hash(self) -> bytes:
        return self.row[6] if isinstance(self.row[6], bytes) else b""


@dataclass(frozen=True)
class _Path:
    """A way in which the chain may go on: from this hash, if these are the verdicts."""

    hash: bytes
    verdicts: tuple[_Verdict, ...] = ()
    last_is_foreign: bool = False  # the event before the first suspect


class ChainCheck:
    """Is fed with all events in order, then finished. Holds no more than what doesn't fit.

    `fault_of` tells why an event that fits can't be used by this program; `text` is what the
    log reads texts as.
    """

    def __init__(self, tell: Tell, fault_of: Callable[[Row], str | None], text: type) -> None:
        self._tell = tell
        self._fault_of = fault_of
        self._types = {
            "appended_at": int, "originator_id": text, "originator_version": int,
            "topic": text, "state": bytes, "hash": bytes,
        }  # fmt: skip
        self._previous = GENESIS
        self._before: bytes | None = None  # what the previous event followed
        self._last: Row | None = None
        self._latest = 0  # appended_at
        self._known = True  # whether it is known what comes before
        self._run: list[_Suspect] = []
        self._paths: list[_Path] = []
        self._kept: list[_Suspect] = []
        self.named: set[int] = set()  # positions, of the first ones
        self.events = 0

    def feed(self, rows: Sequence[Row]) -> None:
        self.events += len(rows)
        pack, join, fault_of = _HEAD.pack, b"".join, self._fault_of
        text = self._types["topic"]
        for row in rows:
            position, appended_at, originator_id, version, topic, state, stored = row
            try:
                head = pack(position, appended_at, version, len(originator_id), len(topic))
                fits = (
                    sha256(join((self._previous, head, originator_id, topic, state))).digest()
                    == stored
                    and type(originator_id) is text
                    and type(topic) is text
                    and type(state) is bytes
                    and type(stored) is bytes
                    and not self._run
                )
            except (StructError, TypeError):  # of another type
                fits = False
            if not fits:
                self._doubt(row)
                continue
            if not self._latest <= appended_at <= LAST_MOMENT:
                self._tell_of(row, _fault_of_time(appended_at), Check.TIMES)
            self._latest = appended_at
            self._before = self._previous
            self._previous = stored
            self._last = row
            fault = fault_of(row)
            if fault is not None:
                self._tell_of(row, fault, Check.EVENTS)

    def skip(self, unreadable: Unreadable) -> None:
        """What comes behind can't be known to follow."""
        self._settle_all_changed()
        self._known = False
        self._tell(
            Finding(
                Check.CHAIN, str(unreadable), f"can't be read: {unreadable.why}", unreadable.first
            )
        )

    def finish(self) -> None:
        self._settle_all_changed()
        for suspect, what in _Reconciliation(self._kept).told():
            self._tell_of(suspect.row, what)
        self._kept = []

    def _doubt(self, row: Row) -> None:
        """An event that does not follow the one before as it should."""
        wrong_types = [
            name
            for value, (name, kind) in zip(row[1:], self._types.items(), strict=True)
            if type(value) is not kind
        ]
        stored = row[6] if isinstance(row[6], bytes) else b""
        if not self._known:
            self._known = True
            self._go_on(row, stored, None)
            return
        body, ways = body_of(row), self._ways()
        for path in ways:
            if stored and body is not None and sha256(path.hash + body).digest() == stored:
                self._settle(path)
                self._go_on(row, stored, path.hash)
                if wrong_types:
                    self._tell_of(row, f"{', '.join(wrong_types)} has another type than it had")
                return
        before = self._run[-1].row if self._run else self._last
        self._run.append(_Suspect(row, before[0] if before else 0, ways[0].hash))
        self._paths = _ways_behind(ways, body, stored)
        if len(self._run) > _RUN:
            self._settle_all_changed()
            self._go_on(row, stored, None)

    def _ways(self) -> list[_Path]:
        if self._run:
            return self._paths
        ways = [_Path(self._previous)]
        if self._before is not None:
            ways.append(_Path(self._before, last_is_foreign=True))
        return ways

    def _settle(self, path: _Path) -> None:
        """What does not fit is known, since an event behind it does."""
        if path.last_is_foreign and self._last is not None:
            self._keep(_Suspect(self._last, 0, None, _Verdict.FOREIGN))
        is_alone = len(self._run) == 1
        for suspect, verdict in zip(self._run, path.verdicts, strict=True):
            suspect.verdict = verdict
            if verdict is _Verdict.HASH or (
                verdict is _Verdict.CHANGED and is_alone and not suspect.gap
            ):
                self._tell_of(suspect.row, verdict.value)
            else:
                self._keep(suspect)
        self._run = []

    def _settle_all_changed(self) -> None:
        self._settle(_Path(b"", (_Verdict.CHANGED,) * len(self._run)))

    def _keep(self, suspect: _Suspect) -> None:
        if len(self._kept) < _KEPT:
            self._kept.append(suspect)
        else:
            self._tell_of(suspect.row, suspect.verdict.value)

    def _go_on(self, row: Row, stored: bytes, before: bytes | None) -> None:
        self._before, self._previous, self._last = before, stored, row

    def _tell_of(self, row: Row, what: str, check: Check = Check.CHAIN) -> None:
        if len(self.named) < _KEPT:
            self.named.add(row[0])
        event = event_id_of(row[2], row[3])
        where = f"position {row[0]}, event {event}"
        self._tell(Finding(check, where, what, row[0], event))


class _Reconciliation:
    """What is learned of all events together that did not fit where they are."""

    def __init__(self, suspects: Sequence[_Suspect]) -> None:
        self._suspects = suspects
        self._by_hash = {suspect.hash: suspect for suspect in suspects if suspect.hash}
        self._tries = _TRIES

    def told(self) -> list[tuple[_Suspect, str]]:
        """Each event that is not as it was, or where it was, in order."""
        self._find_followers()
        from_where = self._find_places()
        found = []
        for suspect in self._suspects:
            if id(suspect) in self._intact:
                continue
            what = suspect.verdict.value
            if id(suspect) in from_where:
                what = f"it was moved here: it belongs to position {from_where[id(suspect)]}"
            elif id(suspect) in self._wrong_hash:
                what = WRONG_HASH
            elif suspect.verdict is _Verdict.CHANGED and suspect.gap:
                what = (
                    f"it does not follow the event before it (position {suspect.before}): events "
                    "between them were removed, or it was changed, or moved here"
                    if suspect.before > 0
                    else "it is the first, and the chain does not begin with it: events before it "
                    "were removed, or it was changed"
                )
            found.append((suspect, what))
        return found

    def _find_followers(self) -> None:
        """Events that follow one that is in another place now are as they were."""
        self._intact: set[int] = set()
        self._wrong_hash: set[int] = set()
        before: tuple[_Suspect, bytes] | None = None
        for suspect in self._suspects:
            body = body_of(suspect.row)
            if body is None or suspect.verdict is not _Verdict.CHANGED:
                before = None
                continue
            for found in self._by_hash:
                if not self._may_try():
                    return
                if sha256(found + body).digest() == suspect.hash:
                    self._intact.add(id(suspect))
                    break
                if before is not None and before[0].row[0] == suspect.before:
                    computed = sha256(found + before[1]).digest()
                    if sha256(computed + body).digest() == suspect.hash:
                        self._intact.add(id(suspect))
                        self._wrong_hash.add(id(before[0]))
                        break
            before = suspect, body

    def _find_places(self) -> dict[int, int]:
        """The positions at which events fit that are in other ones now."""
        found: dict[int, int] = {}
        for suspect in self._suspects:
            gap, base = suspect.gap, suspect.base
            if base is None or len(gap) > _GAP:
                continue
            for position in gap:
                for moved in self._suspects:
                    if not self._may_try():
                        return found
                    body = body_of((position, *moved.row[1:]))
                    if body is not None and sha256(base + body).digest() == moved.hash:
                        found[id(moved)] = position
                        base = moved.hash
                        break
        return found

    def _may_try(self) -> bool:
        self._tries -= 1
        return self._tries > 0


def _fault_of_time(appended_at: int) -> str:
    if appended_at > LAST_MOMENT:
        return f"the time at which it was appended is none: {appended_at}"
    return "it was appended before the event before it"


def body_of(row: Row | tuple[Any, ...]) -> bytes | None:
    """What an event's hash covers besides the hash before; None for what no event can have."""
    position, appended_at, originator_id, version, topic, state, _ = row
    try:
        head = _HEAD.pack(position, appended_at, version, len(originator_id), len(topic))
        return b"".join((head, originator_id, topic, state))
    except (StructError, TypeError):
        return None


def _ways_behind(ways: Sequence[_Path], body: bytes | None, stored: bytes) -> list[_Path]:
    """The ways in which the chain may go on behind an event that fits none of these ways."""
    found = [_Path(stored, (*ways[0].verdicts, _Verdict.CHANGED))]
    for way in ways:
        if body is not None:
            computed = sha256(way.hash + body).digest()
            found.append(_Path(computed, (*way.verdicts, _Verdict.HASH), way.last_is_foreign))
        found.append(_Path(way.hash, (*way.verdicts, _Verdict.FOREIGN), way.last_is_foreign))
    if len(found) <= _PATHS:
        return found
    none_belongs = (_Verdict.FOREIGN,) * len(found[0].verdicts)
    return [*found[: _PATHS - 1], next(path for path in found if path.verdicts == none_belongs)]
