"""The library's own `ProjectionRunner` keeping the same rows of packages, as its docs show it.

A view is a tracking recorder with a table beside its own; each event is handled in a transaction
that changes a row, and notes the event's position.
"""

from __future__ import annotations

import time
from typing import Any, cast
from urllib.parse import urlsplit

import psycopg
from eventsourcing.application import Application
from eventsourcing.persistence import Mapper, Tracking
from eventsourcing.postgres import PostgresDatastore, PostgresTrackingRecorder
from eventsourcing.projection import Projection, ProjectionRunner
from psycopg.sql import SQL

from adapters.event_store.transcoding import EventMapper
from benchmarks.logs import CLIENTS, EVENTS_OF_A_PACKAGE
from domain.package import Package, PackageState
from projections.rows import microseconds

_TABLE = """CREATE TABLE IF NOT EXISTS packages_of_the_runner (
    number bigint NOT NULL, guid text PRIMARY KEY, app_guid text NOT NULL, type text NOT NULL,
    url text, state text NOT NULL, error text, sha1 text, sha256 text, file_name text,
    source_guid text, blob_key text, size bigint, created_at bigint NOT NULL, updated_at bigint
)"""
_INDEXES = (
    "CREATE INDEX IF NOT EXISTS runner_in_order ON packages_of_the_runner (number)",
    "CREATE INDEX IF NOT EXISTS runner_of_app ON packages_of_the_runner (app_guid, number)",
    "CREATE INDEX IF NOT EXISTS runner_by_blob ON packages_of_the_runner (blob_key) "
    "WHERE blob_key IS NOT NULL",
)
_INSERT = """INSERT INTO packages_of_the_runner
    (number, guid, app_guid, type, url, state, created_at)
    VALUES (%(number)s, %(guid)s, %(app_guid)s, %(type)s, %(url)s, %(state)s, %(moment)s)
    ON CONFLICT (guid) DO NOTHING"""


class PackagesView(PostgresTrackingRecorder):
    def __init__(self, datastore: PostgresDatastore, **kwargs: Any) -> None:
        super().__init__(datastore, **kwargs)
        self.sql_create_statements += [SQL(text).format() for text in (_TABLE, *_INDEXES)]

    def change(self, statement: str, values: dict[str, Any], tracking: Tracking) -> None:
        with self.datastore.transaction(commit=True) as cursor:
            self._insert_tracking(cursor, tracking)
            cursor.execute(SQL(statement), values, prepare=True)


class PackagesOfTheRunner(Projection[PackagesView]):
    name = "packages"

    def process_event(self, domain_event: Any, tracking: Tracking) -> None:
        values = {"guid": domain_event.guid, "moment": microseconds(domain_event.timestamp)}
        match domain_event:
            case Package.Created():
                values |= {
                    "number": tracking.notification_id,
                    "app_guid": domain_event.app_guid,
                    "type": domain_event.type,
                    "url": domain_event.url,
                    "state": PackageState.AWAITING_UPLOAD.value,
                }
                self.view.change(_INSERT, values, tracking)
                return
            case Package.UploadStarted():
                values |= {
                    "state": PackageState.PROCESSING_UPLOAD.value,
                    "file_name": domain_event.file_name,
                }
            case Package.BitsStored():
                values |= {"blob_key": domain_event.blob_key, "size": domain_event.size}
            case Package.HashComputed():
                values |= {
                    "state": PackageState.READY.value,
                    "sha1": domain_event.sha1,
                    "sha256": domain_event.sha256,
                }
            case _:
                raise ValueError(f"{type(domain_event).__name__} is not among what is measured")
        columns = [name for name in values if name not in ("guid", "moment")]
        changes = ", ".join(f"{name} = %({name})s" for name in columns)
        self.view.change(
            f"UPDATE packages_of_the_runner SET {changes}, updated_at = %(moment)s "
            "WHERE guid = %(guid)s",
            values,
            tracking,
        )


class Log(Application[str]):
    name = "runner"

    def construct_mapper(self) -> Mapper[str]:
        return EventMapper()


def copy_log(url: str, events: int) -> int:
    """Gives the library's application the first events of our log; how many there are."""
    with psycopg.connect(url) as connection:
        connection.execute(
            "CREATE TABLE runner_events (originator_id text NOT NULL, originator_version bigint "
            "NOT NULL, topic text, state bytea, notification_id bigserial, "
            "PRIMARY KEY (originator_id, originator_version))"
        )
        done = connection.execute(
            "INSERT INTO runner_events SELECT originator_id, originator_version, topic, state, "
            "notification_id FROM events ORDER BY notification_id LIMIT %s",
            [events],
        )
        connection.execute("CREATE UNIQUE INDEX ON runner_events (notification_id)")
        return done.rowcount


def seconds_of_runner(url: str, events: int) -> float:
    """Seconds in which the runner handles so many events, from nothing, until its view has all."""
    address = urlsplit(url)
    with psycopg.connect(url) as connection:
        for table in ("packages_of_the_runner", "packages_tracking"):
            connection.execute(SQL(f"DROP TABLE IF EXISTS {table}"))  # of an earlier round
    environment = {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "POSTGRES_DBNAME": address.path[1:],
        "POSTGRES_HOST": cast(str, address.hostname),
        "POSTGRES_PORT": str(address.port),
        "POSTGRES_USER": cast(str, address.username),
        "POSTGRES_PASSWORD": "unused",
        "ORIGINATOR_ID_TYPE": "text",
    }
    start = time.perf_counter()
    with ProjectionRunner(
        application_class=Log,
        projection_class=PackagesOfTheRunner,
        view_class=PackagesView,
        env=environment,
    ) as runner:
        runner.wait(events, timeout=600)
        taken = time.perf_counter() - start
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT count(*) FROM packages_of_the_runner WHERE state = 'READY'"
        ).fetchone()
    assert row is not None
    assert row[0] > events // EVENTS_OF_A_PACKAGE - CLIENTS, "not all events were handled"
    return taken
