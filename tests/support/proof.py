"""A log on either engine, people who change it behind its back, and `packtrail verify`."""

from __future__ import annotations

import contextlib
import io
import json
import random
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import psycopg
from sqlalchemy import text

from adapters.event_store.chain import GENESIS, Record, link
from adapters.event_store.sqlite import SQLiteRecorder
from adapters.store import Store
from domain.package import Digests, Package, PackageType, StagedBits, StoredBits
from domain.processing import blob_key
from entrypoints.command import main
from tests.support.packages import BY

COLUMNS = (
    "position", "appended_at", "originator_id", "originator_version", "topic", "state", "hash",
)  # fmt: skip
TEXTS = ("originator_id", "topic")


@dataclass(frozen=True)
class Outcome:
    """What a run of `packtrail verify --json` has told."""

    code: int
    findings: list[dict[str, Any]]
    summary: dict[str, Any]
    stderr: str

    def named(self, *checks: str) -> list[int]:
        """The positions that were named, by these checks, in order."""
        wanted = checks or ("chain", "times", "events")
        return sorted(f["position"] for f in self.findings if f["check"] in wanted)

    def told(self, check: str) -> list[str]:
        return [f"{f['where']}: {f['what']}" for f in self.findings if f["check"] == check]


@dataclass
class Desk:
    """A log, with whoever audits it and whoever changes it."""

    store: Store
    url: str  # of the event store, as it is set
    data_dir: Path
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def on_sqlite(self) -> bool:
        return self.url.startswith("sqlite")

    @property
    def position(self) -> str:
        return "rowid" if self.on_sqlite else "notification_id"

    def run(
        self, *arguments: str, settings: Mapping[str, str] | None = None
    ) -> tuple[int, str, str]:
        """The command's exit code, stdout and stderr."""
        environment = {
            "PACKTRAIL_DATA_DIR": str(self.data_dir),
            "PACKTRAIL_EVENT_STORE": self.url,
            **self.settings,
            **(settings or {}),
        }
        out, err = io.StringIO(), io.StringIO()
        with (
            patch.dict("os.environ", environment),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                main(arguments)
            except SystemExit as end:
                code = end.code
        assert isinstance(code, int)
        return code, out.getvalue(), err.getvalue()

    def verify(self, *arguments: str) -> Outcome:
        code, out, err = self.run("verify", "--json", *arguments)
        *findings, last = [json.loads(line) for line in out.splitlines()] or [{"summary": {}}]
        assert "Traceback" not in err
        return Outcome(code, findings, last["summary"], err)

    def checkpoint(self, path: Path) -> Path:
        """Signs the head, and adds it to a file."""
        code, out, err = self.run("checkpoint")
        assert code == 0, err
        with path.open("a") as file:
            file.write(out)
        return path

    def fill(self, packages: int, prefix: str = "guid") -> None:
        """Packages with four events each, two packages at a time."""
        for first in range(0, packages, 2):
            pair = [ready_package(f"{prefix}-{n}") for n in range(first, min(first + 2, packages))]
            events = [package.collect_events() for package in pair]
            self.store.events.put([e for turn in zip(*events, strict=True) for e in turn])

    def records(self) -> list[Record]:
        return list(self.store.log.records(-(1 << 63), 1_000_000))

    def execute(self, statement: str, **values: Any) -> None:
        """`{position}` in the statement is the column's name."""
        with self.store.writing, self.store.writer.begin() as connection:
            connection.execute(text(statement.replace("{position}", self.position)), values)

    def set(self, position: int, column: str, value: Any) -> None:
        """Changes one column of one event, and nothing else."""
        name = self.position if column == "position" else column
        self.execute(f"UPDATE events SET {name} = :value WHERE {{position}} = :at",
                     value=value, at=position)  # fmt: skip

    def remove(self, position: int) -> None:
        self.execute("DELETE FROM events WHERE {position} = :at", at=position)

    def insert(self, record: Record) -> None:
        self.execute(
            "INSERT INTO events ({position}, appended_at, originator_id, originator_version, "
            "topic, state, hash) VALUES (:position, :appended_at, :originator_id, "
            ":originator_version, :topic, :state, :hash)",
            **record._asdict(),
        )

    def chain_anew(self, after: int) -> None:
        """Makes every hash behind a position fit, as somebody can who knows how."""
        previous = GENESIS
        for record in self.records():
            if record.position > after:
                computed = link(previous, *record[:-1])
                if computed != record.hash:
                    self.set(record.position, "hash", computed)
                previous = computed
            else:
                previous = record.hash


def desk_of(store: Store, folder: Path) -> Desk:
    """A desk for a store of either engine."""
    if isinstance(store.recorder, SQLiteRecorder):
        with store.reader.connect() as connection:
            path = connection.exec_driver_sql("PRAGMA database_list").one()[2]
        return Desk(store, f"sqlite:///{path}", folder / "data")
    with store.reader.connect() as connection:
        driver = cast(psycopg.Connection[Any], connection.connection.driver_connection)
        info = driver.info
        url = f"postgresql://{info.user}@{info.host}:{info.port}/{info.dbname}"
    return Desk(store, url, folder / "data")


def ready_package(guid: str) -> Package:
    package = Package.create(guid, "app-1", PackageType.BITS, None, BY)
    package.start_upload(StagedBits(f"staging:{guid}", 100, 2000), "app.zip", BY)
    package.record_stored(StoredBits(blob_key(guid), 2000), BY)
    package.record_hashes(Digests("a" * 40, "b" * 64), BY)
    return package


class Saboteur:
    """Flips single bits of a log, each in an event of its own, in SQL."""

    def __init__(self, desk: Desk, seed: int) -> None:
        self._desk = desk
        self._chance = random.Random(seed)

    def flip(self, count: int) -> set[int]:
        """Flips so many bits. Returns the positions at which the broken events are now."""
        records = {record.position: record for record in self._desk.records()}
        untouched = self._chance.sample(sorted(records), len(records))
        broken: set[int] = set()
        with self._connection() as connection:
            while len(broken) < count:
                at = untouched.pop()
                column = self._chance.choice(COLUMNS)
                value = self._flipped(records[at][COLUMNS.index(column)])
                if column == "position" and value in records:
                    continue  # where there is an event nobody can put another
                if self._update(connection, at, column, value):
                    broken.add(value if column == "position" else at)
        return broken

    def _flipped(self, value: Any) -> Any:
        if isinstance(value, int):
            flipped = (value ^ (1 << self._chance.randrange(64))) & ((1 << 64) - 1)
            return flipped - (1 << 64) if flipped >> 63 else flipped
        raw = bytearray(value.encode() if isinstance(value, str) else value)
        bit = self._chance.randrange(len(raw) * 8)
        raw[bit // 8] ^= 1 << bit % 8
        return bytes(raw)

    def _update(self, connection: Any, at: int, column: str, value: Any) -> bool:
        """Whether the database has taken it: it wants unique versions, and may want UTF-8."""
        name = self._desk.position if column == "position" else column
        mark = "?" if self._desk.on_sqlite else "%s"
        given = mark
        if column in TEXTS:
            given = "CAST(? AS TEXT)" if self._desk.on_sqlite else "convert_from(%s, 'UTF8')"
        try:
            connection.execute(
                f"UPDATE events SET {name} = {given} WHERE {self._desk.position} = {mark}",
                (value, at),
            )
        except (sqlite3.IntegrityError, psycopg.IntegrityError, psycopg.DataError):
            return False
        return True

    @contextlib.contextmanager
    def _connection(self) -> Iterator[Any]:
        if self._desk.on_sqlite:
            path = self._desk.url.removeprefix("sqlite:///")
            with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
                connection.execute("PRAGMA synchronous=OFF")
                yield connection
        else:
            with psycopg.connect(self._desk.url, autocommit=True) as connection:
                yield connection


def positions_of(records: Sequence[Record]) -> list[int]:
    return [record.position for record in records]
