"""Rows written in bulk: as if they were inserted one by one."""

from __future__ import annotations

import pytest
from sqlalchemy import BigInteger, Boolean, Column, MetaData, Table, Text, func, select
from sqlalchemy.exc import IntegrityError

from adapters.store import Store
from projections.bulk import COPIED, BulkInsert
from projections.rows import KeyedTable

things = Table(
    "things in bulk",  # a name that has to be quoted
    MetaData(),
    Column("guid", Text, primary_key=True),
    Column("order", BigInteger),
    Column("held", Boolean, nullable=False),
)

named = Table("named", MetaData(), Column("guid", Text, primary_key=True), Column("name", Text))


def rows_of(count: int) -> list[dict[str, object]]:
    texts = ["tab\t", "line\n", "back\\slash", "\\N", "", "quote'\"", "é\N{PACKAGE}"]
    return [
        {
            "order": None if number % 3 else number - 2**40,
            "guid": f"{number} {texts[number % len(texts)]}",
            "held": number % 2 == 0,
        }
        for number in range(count)
    ]


@pytest.mark.parametrize("count", [1, COPIED - 1, COPIED, 3 * COPIED])
def test_rows_are_read_as_they_were_written(any_store: Store, count: int) -> None:
    """Few or many, whatever is in them."""
    rows = rows_of(count)
    with any_store.writing, any_store.writer.begin() as connection:
        things.create(connection)
        BulkInsert(things).execute(connection, rows)
        found = [dict(row._mapping) for row in connection.execute(select(things))]
    assert sorted(found, key=str) == sorted(
        ({name: row[name] for name in ("guid", "order", "held")} for row in rows), key=str
    )


@pytest.mark.parametrize("count", [2, 2 * COPIED])
def test_what_the_database_refuses_is_told_alike(any_store: Store, count: int) -> None:
    """A row that is there already: an `IntegrityError`, and nothing of the batch is there."""
    rows = rows_of(count)
    with any_store.writing, any_store.writer.begin() as connection:
        things.create(connection)
    with (
        any_store.writing,
        pytest.raises(IntegrityError),
        any_store.writer.begin() as connection,
    ):
        BulkInsert(things).execute(connection, [*rows, rows[0]])
    with any_store.reader.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(things)) == 0


def test_a_row_that_is_stored_as_it_was_is_left_alone(any_store: Store) -> None:
    """NUL characters are not stored: a text that has one is not what is read of it."""
    table, row = KeyedTable(named), {"guid": "1", "name": "a\0b"}
    stored = {"1": {"guid": "1", "name": "a\N{REPLACEMENT CHARACTER}b"}}
    with any_store.writing, any_store.writer.begin() as connection:
        named.create(connection)
        table.write(connection, {}, {"1": dict(row)})
        found = table.rows(connection, ["1"])
        table.write(connection, found, {"1": dict(row)})
        assert found == table.rows(connection, ["1"]) == stored
