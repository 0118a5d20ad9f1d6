"""What reads cost among 1,000,000 packages, beside the same among 1,000.

Nine tenths of the packages are of one app, whose list is asked for, too; the others are of 2,000
apps. Rows are those that the projection makes of a log, under other guids; what is measured are
the questions that the HTTP API asks of the read model, on either engine. The bars: show, and the
first and last hundred pages of a list, cost at most twice what they cost among 1,000; any other
page at most 50 ms.

Run by `make bench`, or `.venv/bin/python -m benchmarks.million [PACKAGES]`.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import select

from adapters.postgres import EVENTS_CHANNEL, MAINTENANCE_PATIENCE, PROJECTED_CHANNEL, Listener
from adapters.store import Store, open_postgres, open_sqlite
from benchmarks.logs import EVENTS_OF_A_PACKAGE, write_log
from benchmarks.report import Figure, at_most, report
from domain.processing import blob_key
from projections.packages import PackageReadModel, packages
from projections.rows import KeyedTable
from projections.totals import Totals, package_totals
from tests.support.postgres import PostgresServer

FEW, MANY = 1_000, 1_000_000
PER_PAGE = 50
EDGE = 100  # pages at either end of a list
ROUNDS, TRIES = 7, 100
PAGES = 400  # of any number, each asked for three times
LARGE_APP = "app-of-nine-tenths"
MOST = 50.0  # milliseconds that any page may take
TIMES_AS_LONG = 2  # as among few that a question may take


@dataclass(frozen=True)
class Filled:
    """A read model of so many packages, and the guids of some."""

    packages: PackageReadModel
    count: int
    guids: Sequence[str]

    def pages(self, app_guid: str | None) -> int:
        """How many whole pages a list has."""
        return self.packages.page(app_guid, 1, 1).total // PER_PAGE


def fill(store: Store, count: int) -> Filled:
    """Fills an empty store's read model, in its own way, with rows that it made of a log."""
    write_log(store, EVENTS_OF_A_PACKAGE * FEW)
    store.projector().catch_up()
    with store.reader.connect() as connection:
        made = [dict(row._mapping) for row in connection.execute(select(packages))]
    table, totals = KeyedTable(packages), Totals(package_totals)
    guids = []
    with store.writing, store.writer.begin() as connection:
        connection.execute(packages.delete())
        connection.execute(package_totals.delete())
    rows = multiplied(made, count)
    while some := {row["guid"]: row for row in islice(rows, 10_000)}:
        with store.writing, store.writer.begin() as connection:
            table.write(connection, {}, some)
            totals.change(connection, added=some.values(), gone=())
        guids.append(next(iter(some)))
        guids.append(next(reversed(some)))
    if store.writer.dialect.name == "postgresql":  # what autovacuum would do a little later
        with store.writer.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.exec_driver_sql("SET lock_timeout = '60s'")
            connection.exec_driver_sql("VACUUM (ANALYZE) packages, package_totals")
    return Filled(PackageReadModel(store.reader), count, guids)


def multiplied(made: Sequence[dict[str, Any]], count: int) -> Iterator[dict[str, Any]]:
    """As many rows like these, in creation order, as a longer log would have made."""
    chance = random.Random(count)
    for turn in range(count // len(made)):
        before = turn * EVENTS_OF_A_PACKAGE * len(made)
        for row in made:
            guid = str(UUID(int=chance.getrandbits(128), version=4))
            yield row | {
                "guid": guid,
                "number": before + row["number"],
                "app_guid": LARGE_APP if chance.random() < 0.9 else row["app_guid"],
                "blob_key": blob_key(guid),
            }


def milliseconds(act: Callable[[], object]) -> float:
    start = time.perf_counter()
    act()
    return (time.perf_counter() - start) * 1000


def show(filled: Filled, chance: random.Random) -> float:
    guid = chance.choice(filled.guids)
    return milliseconds(lambda: filled.packages.find(guid))


def page(filled: Filled, app_guid: str | None, number: int) -> float:
    found = None

    def ask() -> None:
        nonlocal found
        found = filled.packages.page(app_guid, number, PER_PAGE)

    taken = milliseconds(ask)
    assert found is not None
    assert len(found.packages) == PER_PAGE
    return taken


def first_page(filled: Filled, app_guid: str | None, chance: random.Random) -> float:
    """Any of the first hundred pages, or of all if there are fewer."""
    last = min(EDGE, filled.pages(app_guid))
    return page(filled, app_guid, chance.randint(1, last))


def last_page(filled: Filled, app_guid: str | None, chance: random.Random) -> float:
    last = filled.pages(app_guid)
    return page(filled, app_guid, chance.randint(max(1, last - EDGE + 1), last))


def total(filled: Filled, app_guid: str | None) -> float:
    """A page of one package: little but the total."""
    return milliseconds(lambda: filled.packages.page(app_guid, 1, 1))


def compare(engine: str, few: Filled, many: Filled) -> list[Figure]:
    chance = random.Random(1)
    questions: dict[str, Callable[[Filled], float]] = {
        "show": partial(show, chance=chance),
    }
    for name, app_guid in (("all", None), ("an app", LARGE_APP)):
        questions[f"first pages of {name}"] = partial(first_page, app_guid=app_guid, chance=chance)
        questions[f"last pages of {name}"] = partial(last_page, app_guid=app_guid, chance=chance)
        questions[f"total of {name}"] = partial(total, app_guid=app_guid)
    figures = []
    for name, question in questions.items():
        rounds = []
        for _ in range(ROUNDS):  # in turns: the machine is noisy
            medians = [
                statistics.median(question(filled) for _ in range(TRIES)) for filled in (few, many)
            ]
            rounds.append(medians)
        theirs, ours = zip(*rounds, strict=True)
        figures.append(
            Figure.of_rounds(f"{engine}: {name}", ours, f"among {few.count}", theirs, "ms",
                             None if name.startswith("total") else at_most(TIMES_AS_LONG))
        )  # fmt: skip
    for name, app_guid in (("all", None), ("an app", LARGE_APP)):
        times = []
        for _ in range(PAGES):
            number = chance.randint(1, many.pages(app_guid))
            # what other programs take is not the page's
            times.append(min(page(many, app_guid, number) for _ in range(3)))
        p99 = sorted(times)[len(times) * 99 // 100]
        for which, taken in (("p99", p99), ("slowest", max(times))):
            what = f"{engine}: any page of {name}, {which}"
            figures.append(
                Figure(what, taken, "allowed", MOST, "ms", PAGES, at_most(1), tuple(times))
            )
    return figures


@contextmanager
def sqlite_stores(folder: Path) -> Iterator[list[Store]]:
    stores = [open_sqlite(folder / name / "packtrail.db") for name in ("few", "many")]
    yield stores
    for store in stores:
        store.close()


@contextmanager
def postgres_stores() -> Iterator[list[Store]]:
    server = PostgresServer()
    with ExitStack() as stack:
        stack.callback(server.stop)
        server.start()
        stores = []
        for _ in range(2):
            url = server.new_database()
            listener = Listener(url, (EVENTS_CHANNEL, PROJECTED_CHANNEL))
            stack.callback(listener.close)
            stores.append(open_postgres(url, listener, MAINTENANCE_PATIENCE, 4))
            stack.callback(stores[-1].close)
        yield stores


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else MANY
    figures = []
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as name:
        for engine, opened in (
            ("SQLite", sqlite_stores(Path(name))),
            ("PostgreSQL", postgres_stores()),
        ):
            with opened as (few, many):
                figures += compare(engine, fill(few, FEW), fill(many, count))
    report("million", figures)


if __name__ == "__main__":
    main()
