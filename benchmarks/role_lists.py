"""What a list costs a caller of three spaces: among 300 packages, and among 100,000.

The limit is the same list where there is nothing else: three spaces with a hundred packages each.
The log is written by the aggregates themselves, and read models are built by the projector.

Run by `make bench`, or `.venv/bin/python -m benchmarks.role_lists`.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import httpx
from eventsourcing.domain import CanMutateAggregate

from adapters.postgres import EVENTS_CHANNEL, MAINTENANCE_PATIENCE, PROJECTED_CHANNEL, Listener
from adapters.store import Store, open_postgres, open_sqlite
from benchmarks.report import Figure, report
from domain.aggregate import Aggregate, Cause
from domain.directory import App, Organization, Space
from domain.package import Package, PackageType
from domain.role import Grant, Role, RoleType
from projections.packages import PackageReadModel
from projections.roles import RoleReadModel
from tests.support.metrics import metrics_at
from tests.support.postgres import PostgresServer
from tests.support.service import Service, bearer, token
from tests.support.waiting import eventually

BY = Cause("benchmark", "benchmark")
SPACES, PACKAGES = 1000, 100  # packages in each space, of one app
MINE = (100, 500, 900)  # the caller's spaces
ROUNDS, TRIES = 7, 40
BATCH = 2000


def history(spaces: range) -> Iterator[Aggregate]:
    yield Organization.create("org", "org", BY)
    for number in spaces:
        yield Space.create(f"space-{number}", f"space-{number}", "org", BY)
        yield App.create(f"app-{number}", f"app-{number}", f"space-{number}", None, BY)
    for number in MINE:
        yield Role.assign(Grant("caller", RoleType.SPACE_AUDITOR, f"space-{number}"), BY)
    for turn in range(PACKAGES):
        for number in spaces:
            guid = f"package-{number}-{turn}"
            yield Package.create(guid, f"app-{number}", PackageType.BITS, None, BY)


def fill(store: Store, everything: bool) -> None:
    """All spaces, or the caller's own alone."""
    store.migrate()
    spaces = range(SPACES)
    waiting: list[CanMutateAggregate[str]] = []
    for aggregate in history(spaces):
        place = aggregate.guid.split("-")[1] if "-" in aggregate.guid else ""
        if not everything and place.isdigit() and int(place) not in MINE:
            continue
        waiting += aggregate.collect_events()
        if len(waiting) >= BATCH:
            store.events.put(waiting)
            waiting = []
    store.events.put(waiting)
    store.projector().catch_up()


def median_ms(act: Callable[[], None]) -> float:
    times = []
    for _ in range(TRIES):
        start = time.perf_counter()
        act()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1000


def is_level(url: str) -> bool:
    """Whether nothing of what was written is still to be published or looked at."""
    found = metrics_at(f"{url}/metrics")
    return not any(value for name, value in found.items() if name[0] == "packtrail_lag")


def ask(store: Store) -> float:
    """Milliseconds of the query alone."""
    packages, roles = PackageReadModel(store.reader), RoleReadModel(store.reader)

    def page() -> None:
        found = packages.page_of_apps(roles.apps_of("caller"), 1, 50)
        assert (found.total, len(found.packages)) == (len(MINE) * PACKAGES, 50)

    return median_ms(page)


def ask_by_http(service: Service) -> float:
    with httpx.Client(base_url=service.url, headers=bearer(token("caller"))) as client:

        def page() -> None:
            answer = client.get("/v3/packages")
            assert answer.json()["pagination"]["total_results"] == len(MINE) * PACKAGES

        return median_ms(page)


def alternating(
    few: Callable[[], float], many: Callable[[], float]
) -> tuple[list[float], list[float]]:
    """Those of several rounds, in turns: the machine is noisy."""
    rounds = [(few(), many()) for _ in range(ROUNDS)]
    return [a for a, _ in rounds], [b for _, b in rounds]


def main() -> None:
    figures = []

    def add(name: str, few: Sequence[float], many: Sequence[float]) -> None:
        what = f"{name}, among {SPACES * PACKAGES} packages"
        figures.append(Figure.of_rounds(what, many, "among the 300 alone", few, "ms"))

    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as name:
        folder = Path(name)
        services = []
        for everything in (False, True):
            service = Service(folder / str(everything), {"PACKTRAIL_AUTHORIZATION": "roles"})
            service.data_dir.mkdir(parents=True)
            store = open_sqlite(service.data_dir / "packtrail.db")
            fill(store, everything)
            store.close()
            services.append(service)
        few, many = services
        with few, many:
            for service in services:
                eventually(partial(is_level, service.url), 300, 0.5)
            add(
                "SQLite, by HTTP", *alternating(lambda: ask_by_http(few), lambda: ask_by_http(many))
            )
        postgres = PostgresServer()
        try:
            postgres.start()
            stores = []
            for everything in (False, True):
                url = postgres.new_database()
                listener = Listener(url, (EVENTS_CHANNEL, PROJECTED_CHANNEL))
                opened = open_postgres(url, listener, MAINTENANCE_PATIENCE, 4)
                fill(opened, everything)
                stores.append((opened, listener))
            small, large = stores[0][0], stores[1][0]
            add("PostgreSQL, the query", *alternating(lambda: ask(small), lambda: ask(large)))
            for opened, listener in stores:
                opened.close()
                listener.close()
        finally:
            postgres.stop()
    report("role_lists", figures)


if __name__ == "__main__":
    main()
