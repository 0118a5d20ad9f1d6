"""Whether the read models are what the log gives: compared row by row with a rebuild."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

from sqlalchemy import Table

from adapters.proof.findings import Check, Finding, Tell, shown
from adapters.proof.reference import Reference
from adapters.proof.rows import Log, Snapshot, UnreadableRows, event_id_of
from adapters.proof.sqlite import SQLiteSnapshot, open_read_only
from projections.engine import Projection
from projections.positions import builds, positions, stops

Standing = tuple[int, int, str | None]  # version, position, and the id of the event there
_SHOWN = 60  # characters of a value


class ReadModelCheck:
    """Compares what the snapshot has with what the reference has at the same position."""

    def __init__(
        self, log: Log, reference: Reference, projections: Sequence[Projection], tell: Tell
    ) -> None:
        self._log = log
        self._reference = reference
        self._projections = projections
        self._tell = tell
        self.rows = 0
        self.being_built: list[str] = []  # those that could not be compared because of that

    def run(self, building: Callable[[int], object], comparing: Callable[[int], object]) -> None:
        """The long build is made before the snapshot that counts, and the rest within it."""
        standing = [table.name for table in (positions, stops, builds)]
        with self._log.snapshot(standing) as earlier:
            targets = self._targets(_standings(earlier))
        self._reference.advance(self._log, targets, building)
        read = [table.name for projection in self._projections for table in projection.tables]
        with self._log.snapshot([*standing, *read]) as snapshot:
            found, stopped, building_now = _standings(snapshot), _stops(snapshot), _builds(snapshot)
            for name, why in stopped.items():
                self._say(f"read model {name}", why)
            self._reference.advance(self._log, self._targets(found), building)
            with closing(open_read_only(self._reference.path)) as connection:
                for projection in self._projections:
                    versions = building_now.get(projection.name, ())
                    if projection.version in versions and not self._is_of(projection, found):
                        self.being_built.append(projection.name)
                    elif self._can_be_compared(projection, found, snapshot):
                        for table in projection.tables:
                            self._compare(table, snapshot, SQLiteSnapshot(connection), comparing)

    def _targets(self, found: Mapping[str, Standing]) -> dict[str, int]:
        return {
            projection.name: found[projection.name][1]
            for projection in self._projections
            if self._is_of(projection, found)
        }

    @staticmethod
    def _is_of(projection: Projection, found: Mapping[str, Standing]) -> bool:
        """Whether the read model was built by this version of its projection."""
        standing = found.get(projection.name)
        return (
            standing is not None
            and standing[0] == projection.version
            and isinstance(standing[1], int)
        )

    def _can_be_compared(
        self, projection: Projection, found: dict[str, Standing], snapshot: Snapshot
    ) -> bool:
        where = f"read model {projection.name}"
        standing = found.get(projection.name)
        if standing is None:
            self._say(where, "it was not built yet")
            return False
        version, position, event_id = standing
        if version != projection.version:
            self._say(
                where,
                f"it was built by version {version} of its projection, and this program's is "
                f"{projection.version}: it can't be compared",
            )
            return False
        if not isinstance(position, int):
            self._say(where, f"it stands at {shown(position)}, which is no position")
            return False
        row = self._log.at(position) if position else None
        there = event_id_of(row[2], row[3]) if isinstance(row, tuple) else None
        if position and there != event_id:
            self._say(
                where,
                f"it stands behind event {event_id} at position {position}, where the log has "
                f"{there or 'nothing'}: it is of another history",
            )
            return False
        missing = [table.name for table in projection.tables if not snapshot.has(table.name)]
        for name in missing:
            self._say(where, f"its table {name} is not there")
        return not missing

    def _compare(
        self, table: Table, live: Snapshot, built: Snapshot, progress: Callable[[int], object]
    ) -> None:
        columns = [column.name for column in table.columns]
        keys = [column.name for column in table.primary_key.columns]
        places = [columns.index(key) for key in keys]
        pairs = _merged(live.rows(table), built.rows(table), places)
        seen = 0
        try:
            for ours, theirs in pairs:
                seen += 1
                if ours != theirs:
                    row = dict(zip(columns, theirs or ours or (), strict=True))
                    where = f"{table.name}, row {_name_of(row, keys)}"
                    self._say(where, _difference(columns, ours, theirs))
                if not seen % 1000:
                    progress(1000)
        except UnreadableRows as error:
            self._say(table.name, f"its rows can't be read: {shown(str(error))}")
        progress(seen % 1000)
        self.rows += seen

    def _say(self, where: str, what: str) -> None:
        self._tell(Finding(Check.READ_MODELS, where, what))


def _standings(snapshot: Snapshot) -> dict[str, Standing]:
    if not snapshot.has(positions.name):
        return {}
    return {
        shown(name): (version, position, None if event_id is None else shown(event_id))
        for name, version, position, event_id in snapshot.rows(positions)
    }


def _stops(snapshot: Snapshot) -> dict[str, str]:
    """Read models that have stopped, and why."""
    if not snapshot.has(stops.name):
        return {}
    return {
        shown(name): f"it stays before event {shown(event_id)} at position {position}: "
        f"{shown(reason)}"
        for name, position, event_id, reason in snapshot.rows(stops)
    }


def _builds(snapshot: Snapshot) -> dict[str, tuple[int, ...]]:
    """The versions of read models that are being built."""
    if not snapshot.has(builds.name):
        return {}
    return {shown(name): (version,) for name, version, *_ in snapshot.rows(builds)}


def _merged(
    live: Iterator[tuple[Any, ...]], built: Iterator[tuple[Any, ...]], places: Sequence[int]
) -> Iterator[tuple[tuple[Any, ...] | None, tuple[Any, ...] | None]]:
    """Rows of the same key side by side; None where one has none."""
    ours, theirs = next(live, None), next(built, None)
    while ours is not None or theirs is not None:
        if ours == theirs:
            yield ours, theirs
            ours, theirs = next(live, None), next(built, None)
            continue
        here = None if ours is None else [_sortable(ours[place]) for place in places]
        there = None if theirs is None else [_sortable(theirs[place]) for place in places]
        if here == there:
            yield ours, theirs
            ours, theirs = next(live, None), next(built, None)
        elif there is None or (here is not None and here < there):
            yield ours, None
            ours = next(live, None)
        else:
            yield None, theirs
            theirs = next(built, None)


def _sortable(value: Any) -> tuple[int, Any]:
    """In the order that SQLite has for values of any type."""
    if value is None:
        return 0, 0
    if isinstance(value, int | float):
        return 1, value
    return (2 if isinstance(value, bytearray) else 3), value


def _name_of(row: Mapping[str, Any], keys: Sequence[str]) -> str:
    """A row's key, and the guid that it is of where that is not its key."""
    key = ", ".join(shown(row[name]) for name in keys)
    return f"{key} ({shown(row['guid'])})" if "guid" in row and "guid" not in keys else key


def _difference(
    columns: Sequence[str], ours: tuple[Any, ...] | None, theirs: tuple[Any, ...] | None
) -> str:
    if ours is None:
        return "it is missing"
    if theirs is None:
        return "it is one too many: the log does not give it"
    return "; ".join(
        f"{name} is {_brief(here)}, and the log gives {_brief(there)}"
        for name, here, there in zip(columns, ours, theirs, strict=True)
        if here != there
    )


def _brief(value: Any) -> str:
    if value is None:
        return "nothing"
    text = shown(int(value) if isinstance(value, bool) else value)  # as SQLite has them
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")
