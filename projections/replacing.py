"""Tables that are filled beside others, and then take their names."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable

from sqlalchemy import Connection, Table, column, inspect, select, table
from sqlalchemy.schema import CreateTable

from projections.positions import TOKEN_LENGTH, builds
from projections.turns import Turns

_SCHEMA = table("sqlite_master", *(column(n) for n in ("type", "name", "tbl_name", "sql")))
ROWS = 2_000  # rows of an old table that are removed in one transaction


def create(connection: Connection, made: Table) -> None:
    """On SQLite without the indexes that no build needs: they cost less when made afterwards."""
    if connection.dialect.name != "sqlite":
        made.create(connection)
        return
    connection.execute(CreateTable(made))
    for index in made.indexes:
        if index.unique:
            index.create(connection)


def take_the_place(connection: Connection, old: Table, new: Table, token: str) -> None:
    """Names `new` as `old` is named, which is dropped, or (on SQLite) renamed by the token."""
    if inspect(connection).has_table(old.name):
        if connection.dialect.name == "sqlite":
            aside = f"{old.name}_old_{token}"
            connection.exec_driver_sql(f"ALTER TABLE {old.name} RENAME TO {aside}")
        else:
            old.drop(connection)
    connection.exec_driver_sql(f"ALTER TABLE {new.name} RENAME TO {old.name}")


def clear_away(turns: Turns, tables: Iterable[Table]) -> None:
    """Removes tables whose place was taken, a little at a time; and what no build names."""
    with turns.transaction() as connection:
        left = _left_over(connection, tables)
    for name in left:
        if turns.on_sqlite:  # to drop a large table at once would hold the file for long
            while held := turns.persistently(_drop_an_index, turns, name):
                turns.let_in(held)
            while held := turns.persistently(_remove_rows, turns, name):
                turns.let_in(held)
        turns.persistently(_drop, turns, name)


def _left_over(connection: Connection, tables: Iterable[Table]) -> list[str]:
    names = inspect(connection).get_table_names()  # before the builds: none is begun without
    tokens = set(connection.scalars(select(builds.c.token)))
    known = "|".join(re.escape(known.name) for known in tables)
    pattern = re.compile(f"(?:{known})_(old_)?([0-9a-f]{{{TOKEN_LENGTH}}})")
    found = [match for name in names if (match := pattern.fullmatch(name))]
    return [match[0] for match in found if match[1] or match[2] not in tokens]


def _drop_an_index(turns: Turns, name: str) -> float:
    """Drops one: rows cost less without; how long that has taken, or 0 if there was none."""
    began = time.monotonic()
    with turns.transaction() as connection:
        found = connection.execute(
            select(_SCHEMA.c.name).where(
                _SCHEMA.c.type == "index", _SCHEMA.c.tbl_name == name, _SCHEMA.c.sql.is_not(None)
            )
        ).first()
        if found is None:
            return 0
        connection.exec_driver_sql(f"DROP INDEX {found.name}")
    return time.monotonic() - began


def _remove_rows(turns: Turns, name: str) -> float:
    """Removes some rows; how long that has taken, in seconds, or 0 if there were none."""
    some = f"SELECT rowid FROM {name} LIMIT {ROWS}"  # noqa: S608 - a name of ours
    began = time.monotonic()
    with turns.transaction() as connection:
        if not inspect(connection).has_table(name):
            return 0
        removed = connection.exec_driver_sql(
            f"DELETE FROM {name} WHERE rowid IN ({some})"  # noqa: S608
        ).rowcount
    return time.monotonic() - began if removed else 0


def _drop(turns: Turns, name: str) -> None:
    with turns.transaction() as connection:
        connection.exec_driver_sql(f"DROP TABLE IF EXISTS {name}")
