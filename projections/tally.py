"""Counts of a growing table's rows, by kind and by stretch of the log, kept with the rows.

Rows are numbered by positions of the log. Totals are sums of these counts, and any page of
a list by number is found by passing over whole stretches: nothing counts rows one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import BigInteger, Column, Connection, Table, Text, func, select
from sqlalchemy.dialects import postgresql, sqlite

from projections.bulk import OnSQLite
from projections.positions import metadata

STRETCH = 4096  # positions that are counted together

Added = TypeVar("Added", postgresql.Insert, sqlite.Insert)
Counts = Mapping[tuple[str, int], int]  # by kind and stretch


def counts_table(name: str) -> Table:
    return Table(
        name,
        metadata,
        Column("kind", Text, primary_key=True),
        Column("stretch", BigInteger, primary_key=True, autoincrement=False),
        Column("rows", BigInteger, nullable=False),
    )


def stretch_of(number: int) -> int:
    return number // STRETCH


@dataclass(frozen=True)
class Seek:
    """Where a page begins: `skipped` rows behind what comes first from `number` on.

    In descending order `number` itself is the first that does not count.
    """

    number: int
    skipped: int


class Tally:
    def __init__(self, table: Table) -> None:
        self._table = table
        self._add = _adding(postgresql.insert(table), table)
        self._add_on_sqlite = OnSQLite(_adding(sqlite.insert(table), table))

    def add(self, connection: Connection, counts: Counts) -> None:
        """In the transaction that writes the rows."""
        if not counts:
            return
        rows = [
            {"kind": kind, "stretch": stretch, "rows": rows}
            for (kind, stretch), rows in counts.items()
        ]
        if connection.dialect.name == "sqlite":
            self._add_on_sqlite.execute(connection, rows)
        else:
            connection.execute(self._add, rows)

    def kinds(self, connection: Connection) -> set[str]:
        """Of which there are rows."""
        return set(connection.scalars(select(self._table.c.kind).distinct()))

    def stretches(
        self, connection: Connection, kinds: Sequence[str] | None = None
    ) -> list[tuple[int, int]]:
        """Each stretch that has rows of these kinds, or any, and how many; in order."""
        table = self._table
        query = select(table.c.stretch, func.sum(table.c.rows)).group_by(table.c.stretch)
        if kinds is not None:
            query = query.where(table.c.kind.in_(kinds))
        found = connection.execute(query.order_by(table.c.stretch))
        return [(stretch, int(rows)) for stretch, rows in found]


def _adding(added: Added, table: Table) -> Added:
    return added.on_conflict_do_update(
        index_elements=[table.c.kind, table.c.stretch],
        set_={"rows": table.c.rows + added.excluded.rows},
    )


def seek(stretches: Sequence[tuple[int, int]], offset: int, descending: bool) -> Seek | None:
    """Where the row with this offset (from 0) is to be looked for; None behind the last one."""
    left = offset
    for stretch, rows in reversed(stretches) if descending else stretches:
        if left < rows:
            return Seek((stretch + 1 if descending else stretch) * STRETCH, left)
        left -= rows
    return None
