"""What Prometheus is told: of this process, and of where the log's followers stand.

Several API processes on one port count together (prometheus_client's multiprocess mode, in
the folder that `PROMETHEUS_MULTIPROC_DIR` names).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from sqlalchemy import Engine, func, select
from sqlalchemy.pool import QueuePool

from adapters.follower import KeptPosition
from domain.ports import EventLog
from projections.droplets import DropletReadModel
from projections.positions import builds, standings
from projections.unfinished import dead_letters, unfinished

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


class Metrics:
    """The counters of a process, and what they are shown with."""

    def __init__(self) -> None:
        own = CollectorRegistry()
        self._registry = own
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            self._registry = CollectorRegistry()
            MultiProcessCollector(self._registry)  # type: ignore[no-untyped-call]
        self.requests = Counter(
            "packtrail_http_requests", "Requests that were answered.",
            ["method", "route", "status"], registry=own,
        )  # fmt: skip
        self.request_seconds = Histogram(
            "packtrail_http_request_seconds", "Seconds from a request to its answer.",
            ["route"], buckets=_SECONDS, registry=own,
        )  # fmt: skip
        # looked up once: as many as there are labels
        self._known_requests: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self.received_bytes = Counter(
            "packtrail_received_bytes", "Bytes of bits that were accepted.", registry=own
        )
        self.sent_bytes = Counter(
            "packtrail_sent_bytes", "Bytes of bits in downloads that were begun.", registry=own
        )
        self.ready_seconds = Histogram(
            "packtrail_time_to_ready_seconds",
            "Seconds from an accepted upload, or a copy, until the package was READY.",
            buckets=_SECONDS, registry=own,
        )  # fmt: skip
        self.work = Counter(
            "packtrail_work",
            "Work by how it went: done, waits (tried again: something is away), "
            "defect (tried again: we are wrong), given_up, sent_on (large: it waits elsewhere).",
            ["step", "outcome"], registry=own,
        )  # fmt: skip
        self._known_work: dict[tuple[str, str], Counter] = {}
        self.commands = Counter(
            "packtrail_commands", "Commands by message that were answered.",
            ["type", "outcome"], registry=own,
        )  # fmt: skip

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request that was answered: `seconds` after it came."""
        known = self._known_requests.get((method, route, status))
        if known is None:
            known = (
                self.requests.labels(method, route, status),
                self.request_seconds.labels(route),
            )
            self._known_requests[method, route, status] = known
        known[0].inc()
        known[1].observe(seconds)

    def count_work(self, step: str, outcome: str) -> None:
        """A piece of work that went so."""
        known = self._known_work.get((step, outcome))
        if known is None:
            known = self._known_work[step, outcome] = self.work.labels(step, outcome)
        known.inc()

    def show(self, collector: Collector) -> None:
        """From here on what the collector collects is told as well."""
        self._registry.register(collector)

    def exposition(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self._registry)


class Standings(Collector):
    """Where relay and projections stand in the log, what is unfinished, and the pools in use."""

    def __init__(
        self,
        log: EventLog,
        reader: Engine,
        followers: Sequence[KeptPosition],
        pools: Mapping[str, QueuePool],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._log = log
        self._reader = reader
        self._droplets = DropletReadModel(reader)
        self._followers = followers
        self._pools = pools
        self._now = now

    def collect(self) -> Iterable[Metric]:
        up = GaugeMetricFamily("packtrail_database_up", "Whether the database answers.")
        try:
            found = list(self._of_database())
        except Exception:  # noqa: BLE001 - whatever it is, this is how it is told
            found = []
            up.add_metric([], 0)
        else:
            up.add_metric([], 1)
        yield up
        yield from found
        connections = GaugeMetricFamily(
            "packtrail_database_connections", "Connections to the database.",
            labels=["pool", "state"],
        )  # fmt: skip
        for name, pool in self._pools.items():
            connections.add_metric([name, "in_use"], pool.checkedout())
            connections.add_metric([name, "idle"], pool.checkedin())
        yield connections

    def describe(self) -> Iterable[Metric]:
        """Nothing: to register it must not ask the database."""
        return []

    def _of_database(self) -> Iterable[Metric]:
        head = self._log.head()
        positions = {
            # the relay was the first, and keeps its position under another name
            "relay" if kept.name == "events" else kept.name: kept.load().position
            for kept in self._followers
        }
        with self._reader.connect() as connection:
            for name, standing in standings(connection).items():
                positions[f"projection {name}"] = standing.at.position
            for row in connection.execute(select(builds.c.name, builds.c.position)):
                positions[f"build of {row.name}"] = row.position
            count = connection.scalar(select(func.count()).select_from(unfinished)) or 0
            oldest = connection.scalar(select(func.min(unfinished.c.since)))
            dead = connection.scalar(select(func.count()).select_from(dead_letters)) or 0
        yield _gauge("packtrail_log_position", "The newest event's position.", head)
        at = GaugeMetricFamily(
            "packtrail_position", "How far a follower of the log is.", labels=["follower"]
        )
        lag = GaugeMetricFamily(
            "packtrail_lag", "Positions that a follower is behind the log.", labels=["follower"]
        )
        for name, position in positions.items():
            at.add_metric([name], position)
            lag.add_metric([name], max(0, head - position))
        yield at
        yield lag
        yield _gauge("packtrail_unfinished_packages", "Packages whose work is unfinished.", count)
        age = (self._now() - datetime.fromisoformat(oldest)).total_seconds() if oldest else 0
        yield _gauge(
            "packtrail_oldest_unfinished_seconds",
            "For how long the oldest unfinished package has waited for its step.", age,
        )  # fmt: skip
        yield _gauge("packtrail_dead_letters", "Packages given up by a defect of ours.", dead)
        waiting = self._droplets.waiting()
        yield _gauge(
            "packtrail_waiting_droplets", "Droplets that wait for a builder.", len(waiting)
        )
        since = waiting[0].since if waiting else self._now()
        yield _gauge(
            "packtrail_oldest_waiting_droplet_seconds",
            "For how long the oldest of them has waited.",
            (self._now() - since).total_seconds() if waiting else 0,
        )


def _gauge(name: str, text: str, value: float) -> Metric:
    metric = GaugeMetricFamily(name, text)
    metric.add_metric([], value)
    return metric
