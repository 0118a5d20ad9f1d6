"""Whether each aggregate's versions are 1, 2, 3 and so on, in the order of their positions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from adapters.proof.findings import Check, Finding, Tell, shown
from adapters.proof.rows import Unreadable, Versioned, event_id_of


class VersionCheck:
    """Is fed with all events by originator id and version, in that order.

    `named` are the positions of events that are wrong anyway: nothing more is told of them.
    """

    def __init__(self, tell: Tell, named: Collection[int]) -> None:
        self._tell = tell
        self._named = named
        self._last: Versioned | tuple[None, int, int] = (None, 0, 0)
        self.aggregates = 0

    def run(self, batches: Iterable[Sequence[Versioned] | Unreadable]) -> Iterable[int]:
        """How many events each step has looked at."""
        for batch in batches:
            if isinstance(batch, Unreadable):
                self._tell(
                    Finding(
                        Check.VERSIONS,
                        f"behind {shown(self._last[0] or 'the beginning')}",
                        f"the index of aggregates and versions can't be read: {batch.why}",
                    )
                )
                return
            self._feed(batch)
            yield len(batch)

    def _feed(self, rows: Sequence[Versioned]) -> None:
        originator_id, version, position = self._last
        for row in rows:
            if row[0] == originator_id:
                if row[1] != version + 1 or row[2] < position:
                    self._complain(row, version, position)
            else:
                self.aggregates += 1
                if row[1] != 1:
                    self._complain(row, 0, 0)
            originator_id, version, position = row
            if type(version) is not int or version < 1:
                version = 0
        self._last = (originator_id, version, position)

    def _complain(self, row: Versioned, before: int, position_before: int) -> None:
        originator_id, version, position = row
        if position in self._named:
            return
        where = shown(originator_id)
        if isinstance(version, int) and version > before + 1:
            missing = f"version {before + 1} is"
            if version > before + 2:
                missing = f"versions {before + 1} to {version - 1} are"
            what = f"{missing} not there, and version {version} is (position {position})"
        elif isinstance(version, int) and version == before + 1:
            if position_before in self._named:
                return
            what = (
                f"version {version} (position {position}) was appended before "
                f"version {before} (position {position_before})"
            )
        else:
            what = f"{shown(version)} is no version (position {position})"
        self._tell(
            Finding(Check.VERSIONS, where, what, position, event_id_of(originator_id, version))
        )
