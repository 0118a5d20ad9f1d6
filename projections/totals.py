"""How many packages an app has, and how many there are: kept with them, so that nobody counts.

Totals are kept by buckets: of the packages whose numbers (positions in the log) are close to each
other. An app has as many packages as its buckets say together; and the packages before any page
are those of the buckets before it, and of a part of one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Connection,
    Table,
    Text,
    bindparam,
    cast,
    column,
    delete,
    func,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite

from projections.bulk import OnSQLite
from projections.positions import metadata
from projections.rows import Selection

ALL = ""  # in the place of an app's guid: no app has that one
BUCKET = 1 << 16  # positions: so many rows at most are passed over to find a page

package_totals = Table(
    "package_totals",
    metadata,
    Column("app_guid", Text, primary_key=True),
    Column("bucket", BigInteger, primary_key=True, autoincrement=False),
    Column("count", BigInteger, nullable=False),
)


# changes as one value: PostgreSQL takes its time with many
_NEW_ON_POSTGRESQL = select(
    func.json_to_recordset(bindparam("changes", type_=JSON))
    .table_valued(
        column("app_guid", Text), column("bucket", BigInteger), column("count", BigInteger)
    )
    .render_derived("new", with_types=True)
)


class Totals:
    """Keeps the totals in a table, of which there is nothing where there are no packages."""

    def __init__(self, table: Table) -> None:
        self.table = table
        key, count = table.primary_key.columns, table.c.count
        one = sqlite.insert(table)
        self._add_on_sqlite = OnSQLite(
            one.on_conflict_do_update(
                index_elements=key, set_={"count": count + one.excluded.count}
            )
        )
        all_ = postgresql.insert(table).from_select(
            [column.name for column in table.columns], _NEW_ON_POSTGRESQL
        )
        self._add_on_postgresql = all_.on_conflict_do_update(
            index_elements=key, set_={"count": count + all_.excluded.count}
        )
        self._emptied = delete(table).where(
            table.c.app_guid == bindparam("_app_guid"),
            table.c.bucket == bindparam("_bucket"),
            count == 0,
        )

    def change(
        self,
        connection: Connection,
        added: Iterable[Mapping[str, Any]],
        gone: Iterable[Mapping[str, Any]],
    ) -> None:
        """Counts rows of packages that were added, and those that are gone."""
        counts = Counter((row["app_guid"], row["number"] // BUCKET) for row in added)
        counts.subtract((row["app_guid"], row["number"] // BUCKET) for row in gone)
        of_all: Counter[tuple[str, int]] = Counter()
        for (_, bucket), count in counts.items():
            of_all[ALL, bucket] += count
        counts.update(of_all)
        changed = [(key, count) for key, count in counts.items() if count]
        if changed:
            self._add(
                connection,
                [
                    {"app_guid": app_guid, "bucket": bucket, "count": count}
                    for (app_guid, bucket), count in changed
                ],
            )
        lower = [
            {"_app_guid": app_guid, "_bucket": bucket}
            for (app_guid, bucket), count in changed
            if count < 0
        ]
        if lower:
            connection.execute(self._emptied, lower)

    def _add(self, connection: Connection, changes: Sequence[dict[str, Any]]) -> None:
        if connection.dialect.name == "sqlite":
            self._add_on_sqlite.execute(connection, changes)
        else:
            connection.execute(self._add_on_postgresql, {"changes": changes})


def total_of(connection: Connection, app_guid: str) -> int:
    """How many packages an app has, or there are of `ALL`."""
    return connection.scalar(_TOTAL, {"app_guid": app_guid}) or 0


def total_of_apps(connection: Connection, apps: Selection) -> int:
    """How many packages these apps have together."""
    theirs = package_totals.c.app_guid.in_(apps) & (package_totals.c.app_guid != ALL)
    return connection.scalar(select(_SUM).where(theirs)) or 0


@dataclass(frozen=True)
class Place:
    """Where rows are found: `skipped` behind those of a number, or before it, backwards."""

    number: int
    skipped: int
    backwards: bool


def place_of(connection: Connection, app_guid: str, start: int, end: int) -> Place:
    """Where the packages from `start` to before `end` are, in creation order, that there are."""
    asked = {"app_guid": app_guid, "start": start, "end": end}
    first, before, last, upto = connection.execute(_PLACE, asked).one()
    if start - before <= upto - end:
        return Place(first * BUCKET, start - before, backwards=False)
    return Place((last + 1) * BUCKET, upto - end, backwards=True)


_SUM = cast(func.sum(package_totals.c.count), BigInteger)
_TOTAL = select(_SUM).where(package_totals.c.app_guid == bindparam("app_guid"))
_BUCKETS = (
    select(
        package_totals.c.bucket,
        package_totals.c.count,
        cast(
            func.sum(package_totals.c.count).over(order_by=package_totals.c.bucket), BigInteger
        ).label("upto"),
    )
    .where(package_totals.c.app_guid == bindparam("app_guid"))
    .subquery()
)
_BEFORE = _BUCKETS.c.upto - _BUCKETS.c.count
_PLACE = select(
    func.min(_BUCKETS.c.bucket),
    func.min(_BEFORE),
    func.max(_BUCKETS.c.bucket),
    func.max(_BUCKETS.c.upto),
).where(_BUCKETS.c.upto > bindparam("start"), bindparam("end") > _BEFORE)
