"""Logs of earlier versions, as they were exported then, and what was said of them.

`python -m tests.support.fixture_logs NUMBER` makes the next one, with every type of event in
it; those that are there are never made again.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import select

from adapters.event_store.log import RecordedLog
from adapters.exports.files import opened
from adapters.exports.reading import Export
from adapters.exports.restoring import restore
from adapters.exports.writing import export
from adapters.history import aggregate_at
from adapters.store import Store, open_sqlite
from domain.package import Package
from domain.ports import LoggedEvent
from projections.audit import audit
from projections.directory import DirectoryReadModel
from projections.droplets import DropletReadModel
from projections.packages import PackageReadModel
from projections.representation import represent, represent_droplet, view_of
from projections.roles import RoleReadModel
from projections.unfinished import WorkReadModel
from tests.support.eventful import live

FOLDER = Path(__file__).resolve().parents[1] / "fixtures"
LOGS = sorted(FOLDER.glob("log-*.ndjson"))
PLACES = 4  # positions at which is asked, the last one among them
ALL = 10_000


class LogUpTo(RecordedLog):
    """The log as it was when it ended with a position."""

    def __init__(self, log: RecordedLog) -> None:
        vars(self).update(vars(log))
        self.last = 0

    def head(self) -> int:
        return min(self.last, super().head())

    def read(self, after: int, limit: int) -> list[LoggedEvent]:
        return [logged for logged in super().read(after, limit) if logged.position <= self.last]


def expected_of(path: Path) -> Path:
    return path.with_suffix(".expected.json")


@contextmanager
def imported(path: Path, folder: Path) -> Iterator[Store]:
    """A data folder into which a log was imported."""
    store = open_sqlite(folder / "packtrail.db")
    try:
        store.migrate()
        with opened(path) as file:
            restore(store, Export(file))
        yield store
    finally:
        store.close()


def replayed(store: Store) -> dict[str, Any]:
    """What is said when the log was replayed up to some positions, and to its end."""
    log = LogUpTo(store.log)
    projector = replace(store, log=log).projector()
    head = store.log.head()
    said = {}
    for place in range(1, PLACES + 1):
        log.last = head * place // PLACES
        projector.catch_up()
        assert projector.position == log.last
        answers = _plain(_answers(store, log.last))
        assert answers["packages"] == answers.pop("packages by their own events")
        if place < PLACES:  # it only grows
            del answers["who did what"]
        said[str(log.last)] = answers
    return said


def _answers(store: Store, position: int) -> dict[str, Any]:
    logged = store.log.read(0, ALL)
    guids: dict[str, list[str]] = {}
    for each in logged:
        known = guids.setdefault(each.event.originator_id.partition(":")[0], [])
        if each.event.guid not in known:
            known.append(each.event.guid)
    packages, droplets = PackageReadModel(store.reader), DropletReadModel(store.reader)
    directory, roles = DirectoryReadModel(store.reader), RoleReadModel(store.reader)
    work = WorkReadModel(store.reader)
    package_rows = [found for guid in guids["package"] if (found := packages.find(guid))]
    droplet_rows = [row for guid in guids["droplet"] if (row := droplets.find(guid))]
    return {
        "packages": [represent(row.view) for row in package_rows],
        "bits of packages": [
            [row.view.guid, row.blob_key, row.size, row.sha256, row.file_name, row.source_guid]
            for row in package_rows
        ],
        "packages by their own events": [
            represent(view_of(package))
            for guid in guids["package"]
            if (package := aggregate_at(store.log, Package, guid, position)) and not package.deleted
        ],
        "droplets": [represent_droplet(row.view, {}) for row in droplet_rows],
        "bits of droplets": [
            [row.view.guid, row.blob_key, row.size, row.sha256] for row in droplet_rows
        ],
        "apps": {guid: directory.app(guid) for guid in guids["app"]},
        "deleted apps": [guid for guid in guids["app"] if directory.is_deleted(guid)],
        "spaces": {guid: directory.space(guid) for guid in guids["space"]},
        "organizations": {guid: directory.organization(guid) for guid in guids["organization"]},
        "roles": roles.all(None),
        "unfinished": work.unfinished(),
        "dead letters": work.dead_letters(),
        "who did what": _audit(store),
    }


def _audit(store: Store) -> list[tuple[str, Any]]:
    """Of each audit event a line, and its data."""
    with store.reader.connect() as connection:
        return [
            (
                f"{row.guid} {row.created_at} {row.type} {row.actor} {row.target_type} "
                f"{row.target_guid} {row.space_guid} {row.organization_guid}",
                orjson.loads(row.data),
            )
            for row in connection.execute(select(audit).order_by(audit.c.number))
        ]


def _plain(value: Any) -> Any:
    """As JSON has it."""

    def other(found: Any) -> Any:
        return asdict(found) if is_dataclass(found) and not isinstance(found, type) else str(found)

    return orjson.loads(orjson.dumps(value, default=other, option=orjson.OPT_UTC_Z))


def breaches(expected: Any, found: Any, where: str = "") -> list[str]:
    """What is said otherwise than it was; a later version may say more, field by field."""
    if isinstance(expected, dict) and isinstance(found, dict):
        missing = [f"{where}/{name} is gone" for name in expected if name not in found]
        return missing + [
            breach
            for name, value in expected.items()
            if name in found
            for breach in breaches(value, found[name], f"{where}/{name}")
        ]
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = enumerate(zip(expected, found, strict=True))
        return [b for n, (one, other) in pairs for b in breaches(one, other, f"{where}/{n}")]
    return [] if expected == found else [f"{where} was {expected!r} and is {found!r}"]


def main(arguments: Sequence[str]) -> None:
    path = FOLDER / f"log-{int(arguments[0])}.ndjson"
    with tempfile.TemporaryDirectory() as folder:
        if not path.exists():
            store = open_sqlite(Path(folder) / "new.db")
            store.migrate()
            live(store)
            with path.open("xb") as file:
                export(store, file.write)
            store.close()
        with imported(path, Path(folder)) as store:
            said = replayed(store)
    with expected_of(path).open("x") as expected:
        json.dump(said, expected, indent=1, ensure_ascii=False)
        expected.write("\n")


if __name__ == "__main__":
    main(sys.argv[1:])
