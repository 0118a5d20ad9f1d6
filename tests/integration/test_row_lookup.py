"""Questions asked often: on each engine, by many at once, and across other tables' switch."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    Table,
    Text,
    bindparam,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.exc import SQLAlchemyError

from adapters.store import Store
from projections.row_lookup import Lookup, RowLookup, row_type

table = Table("looked_up", MetaData(), Column("number", Integer), Column("key", Text, unique=True))
row = row_type(table)


@pytest.fixture
def store(any_store: Store) -> Store:
    with any_store.writer.begin() as connection:
        table.create(connection)
        connection.execute(insert(table), [{"number": n, "key": f"key-{n}"} for n in range(3)])
    return any_store


@pytest.fixture
def lookup(store: Store) -> RowLookup:
    return RowLookup(store.reader, table, table.c.key)


def test_a_row_is_found_by_its_key(lookup: RowLookup) -> None:
    """All columns, in their order; nothing where no row has the key, or could."""
    assert lookup.find("key-1") == (1, "key-1")
    assert row(*(lookup.find("key-1") or ())).number == 1
    assert lookup.find("key-9") is None
    assert lookup.find("key-1\0") is None


def test_what_was_committed_is_found(store: Store, lookup: RowLookup) -> None:
    """Each time anew, with a connection that has looked before."""
    for number in (7, 8):
        with store.writer.begin() as connection:
            connection.execute(update(table).where(table.c.key == "key-1").values(number=number))
        assert lookup.find("key-1") == (number, "key-1")


def test_a_table_that_took_another_ones_place_is_read(store: Store, lookup: RowLookup) -> None:
    """As a read model does that was built anew."""
    assert lookup.find("key-1") == (1, "key-1")
    with store.writer.begin() as connection:
        connection.execute(text("CREATE TABLE beside (number INTEGER, key TEXT UNIQUE)"))
        connection.execute(text("INSERT INTO beside VALUES (10, 'key-1')"))
        connection.execute(text("DROP TABLE looked_up"))
        connection.execute(text("ALTER TABLE beside RENAME TO looked_up"))
    assert lookup.find("key-1") == (10, "key-1")


def test_a_database_that_fails_is_told_as_always(store: Store, lookup: RowLookup) -> None:
    """By SQLAlchemy's errors, which have an answer; and it is found again when it works."""
    assert lookup.find("key-1") == (1, "key-1")
    with store.writer.begin() as connection:
        connection.execute(text("ALTER TABLE looked_up RENAME TO away"))
    with pytest.raises(SQLAlchemyError):
        lookup.find("key-1")
    with store.writer.begin() as connection:
        connection.execute(text("ALTER TABLE away RENAME TO looked_up"))
    assert lookup.find("key-1") == (1, "key-1")


def test_many_look_at_once(lookup: RowLookup) -> None:
    """More threads than connections are kept, each of which gets its own row."""
    wrong: list[object] = []

    def look(number: int) -> None:
        for _ in range(20):
            found = lookup.find(f"key-{number % 3}")
            if found != (number % 3, f"key-{number % 3}"):
                wrong.append(found)

    threads = [threading.Thread(target=look, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_question_has_its_own_values_and_those_it_is_asked_with(store: Store) -> None:
    """Each time others, in whatever order the statement has them."""
    asked = (
        select(table.c.key)
        .where(table.c.number >= bindparam("least"), table.c.key != "key-1")
        .order_by(table.c.number.desc())
        .offset(bindparam("skipped"))
    )
    lookup = Lookup(store.reader, asked)
    assert lookup.rows(least=0, skipped=0) == [("key-2",), ("key-0",)]
    assert lookup.rows(skipped=1, least=0) == [("key-0",)]
    assert lookup.rows(least=2, skipped=0) == [("key-2",)]
    assert lookup.rows(least=3, skipped=0) == []
