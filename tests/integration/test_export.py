"""An exported log is restored as it was, on either engine; what is not right is not taken in."""

from __future__ import annotations

import gzip
import io
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
import zstandard

from adapters.event_store.chain import GENESIS, Record, link
from adapters.exports.files import FileExists, opened, written
from adapters.exports.lines import MAX_LINE, End, event_line
from adapters.exports.reading import Export, UnusableExport
from adapters.exports.restoring import LogNotEmpty, restore
from adapters.exports.writing import BrokenLog, export
from adapters.follower import KeptPosition
from adapters.schema import schema
from adapters.store import Store, open_sqlite
from domain.package import PackageType
from projections.packages import PackageReadModel
from projections.positions import Position
from tests.support.eventful import live
from tests.support.packages import BY

ALL = 10_000


@pytest.fixture
def store(any_store: Store) -> Store:
    """An empty one, on each engine."""
    any_store.migrate()
    return any_store


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A log in which all that can happen has happened. No test changes it."""
    store = open_sqlite(tmp_path_factory.mktemp("laptop") / "laptop.db")
    store.migrate()
    live(store)
    KeptPosition(store.writer, store.writing).save(Position.of(store.log.read(0, 50)[-1]))
    store.projector().catch_up()
    yield store
    store.close()


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Store]:
    store = open_sqlite(tmp_path / "empty.db")
    store.migrate()
    yield store
    store.close()


def exported(store: Store) -> bytes:
    written: list[bytes] = []
    export(store, written.append)
    return b"".join(written)


def take_in(store: Store, file: bytes) -> int:
    return restore(store, Export(io.BytesIO(file)))


def test_a_log_is_the_same_after_an_export_and_an_import(laptop: Store, store: Store) -> None:
    """Byte for byte: positions, times, ids, hashes, and the log's identity."""
    file = exported(laptop)
    assert take_in(store, file) == laptop.log.head()
    assert exported(store) == file
    assert store.identity == laptop.identity
    assert store.log.records(0, ALL) == laptop.log.records(0, ALL)


def test_a_restored_log_goes_on_behind_its_last_position(laptop: Store, store: Store) -> None:
    """New events follow, and are chained to what was there."""
    take_in(store, exported(laptop))
    head = store.log.head()
    committed = store.packages.create("app-9", PackageType.BITS, None, BY)
    assert committed.position == head + 1
    before, new = store.log.records(head - 1, 2)
    assert new.hash == link(before.hash, *new[:-1])
    assert new.appended_at >= before.appended_at


def test_a_restored_log_gets_its_read_models_by_itself(laptop: Store, store: Store) -> None:
    """A projector that is started builds them, also where it had begun without events."""
    projector = store.projector()
    projector.catch_up()
    take_in(store, exported(laptop))
    projector.catch_up()
    there = PackageReadModel(store.reader).page(None, 1, ALL)
    assert there == PackageReadModel(laptop.reader).page(None, 1, ALL)
    assert there.total > 5


def test_followers_go_on_where_they_were(laptop: Store, store: Store) -> None:
    """The relay does not publish everything once more."""
    take_in(store, exported(laptop))
    kept = KeptPosition(store.writer, store.writing).load()
    assert kept == KeptPosition(laptop.writer, laptop.writing).load()
    assert kept.position == 50 and kept.is_in(store.log)


def test_an_empty_log_has_an_export_too(laptop: Store, store: Store, empty: Store) -> None:
    """It has a first and a last line, and is taken in."""
    file = exported(empty)
    assert len(file.splitlines()) == 2
    assert take_in(store, file) == 0
    assert store.packages.create("app-9", PackageType.BITS, None, BY).position == 1
    with pytest.raises(LogNotEmpty, match="1 event"):
        take_in(store, exported(laptop))


def test_what_is_kept_beside_the_log_stays(laptop: Store, store: Store) -> None:
    """An import touches the log, its identity and its followers, and nothing else."""
    store.services.environments.keep("app:app-1", {"LANG": "C"})
    store.services.people.keep("user-1", "user@example.org")
    take_in(store, exported(laptop))
    assert store.services.environments.find("app:app-1") == {"LANG": "C"}
    assert store.services.people.find("user-1") == "user@example.org"


def test_folders_that_an_empty_log_had_claimed_are_claimed_anew(
    laptop: Store, store: Store
) -> None:
    """They were another log's: the restored one comes with its own."""
    with store.writing, store.writer.begin() as connection:
        connection.execute(schema.update().values(folders="a b"))
    take_in(store, exported(laptop))
    with store.reader.connect() as connection:
        assert connection.scalar(schema.select().with_only_columns(schema.c.folders)) is None


def test_state_that_is_written_in_another_way_is_kept_byte_for_byte(store: Store) -> None:
    """Spaces, an order of keys, escapes: what JSON would lose is in base64."""
    common = b'"caused_by":null,"request_id":"r","timestamp":"2026-01-01T00:00:00'
    states = [
        b'{"actor":"a", %sZ"}' % common,
        b'{"b":1,"a":"\\u00fc","actor":"a",%s+01:00"}' % common,
        b'{"actor":"a","big":123456789012345678901234567890,%sZ"}' % common,
    ]
    lines, previous = [], GENESIS
    for position, state in zip((3, 4, 12), states, strict=True):  # with gaps, as rollbacks leave
        fields = (position, 1_000_000, f"package:{position}", 1, "package.deleted", state)
        previous = link(previous, *fields)
        lines.append(event_line(Record(*fields, previous)))
    assert all(b"state_base64" in line for line in lines)
    head = b'{"format":"packtrail-log","version":1,"identity":"i","followers":[]}\n'
    file = head + b"".join(lines) + End("i", 3, 12, previous).line
    take_in(store, file)
    assert [record.state for record in store.log.records(0, ALL)] == states
    assert exported(store) == file
    assert store.packages.create("app-9", PackageType.BITS, None, BY).position == 13


def test_an_export_of_a_log_that_was_tampered_with_is_refused(laptop: Store, empty: Store) -> None:
    """It would be of no use: no import accepts it."""
    take_in(empty, exported(laptop))
    with empty.writing, empty.writer.begin() as connection:
        connection.exec_driver_sql("UPDATE events SET topic = 'app.deleted' WHERE rowid = 7")
    with pytest.raises(BrokenLog, match="position 7"):
        exported(empty)


# What is not right ------------------------------------------------------------------------


def changed(lines: list[bytes], number: int, **fields: Any) -> list[bytes]:
    """A file in which a line (they count from 1) says something else."""
    line = orjson.loads(lines[number - 1]) | fields
    return [*lines[: number - 1], orjson.dumps(line) + b"\n", *lines[number:]]


def without_a_hash(lines: list[bytes]) -> list[bytes]:
    line = orjson.loads(lines[4])
    del line["hash"]
    return [*lines[:4], orjson.dumps(line) + b"\n", *lines[5:]]


def chained_anew(lines: list[bytes], *events: Record) -> list[bytes]:
    """A file whose chain is right, of events that are not."""
    previous, made = GENESIS, []
    for event in events:
        previous = link(previous, *event[:-1])
        made.append(event._replace(hash=previous))
    head = orjson.loads(lines[0]) | {"followers": []}
    end = End(head["identity"], len(made), made[-1].position, previous)
    return [orjson.dumps(head) + b"\n", *map(event_line, made), end.line]


STATE = (
    b'{"actor":"a","app_guid":"a","caused_by":null,"originator_topic":"package","request_id":"r",'
    b'"timestamp":"2026-01-01T00:00:00Z","type":"bits","url":null}'
)
FIRST = Record(1, 5, "package:1", 1, "package.created", STATE, GENESIS)


def _with_state(state: bytes, lines: list[bytes]) -> list[bytes]:
    return chained_anew(lines, FIRST._replace(state=state))


FAULTS: dict[str, tuple[Callable[[list[bytes]], list[bytes]], str]] = {
    "nothing": (lambda f: [], "it is empty"),
    "another file": (lambda f: [b'{"apps": []}\n'], "line 1: it is no export of a log"),
    "no JSON": (lambda f: [b"PK\3\4\n"], "line 1: it is not JSON"),
    "gzip under another name": (lambda f: [gzip.compress(f[0])], "line 1: it is gzip"),
    "zstd under another name": (lambda f: [zstandard.compress(f[0])], "line 1: it is zstd"),
    "a later format": (lambda f: changed(f, 1, version=2), "line 1: .*version 2.*upgrade it"),
    "no identity": (lambda f: changed(f, 1, identity=None), "line 1: identity is no text: None"),
    "two files in one": (
        lambda f: changed(f, 1, identity="x"),
        r"line \d+, after position \d+: .*put together of two",
    ),
    "a follower elsewhere": (
        lambda f: changed(
            f, 1, followers=[{"name": "events", "position": 7, "event_id": "guid/1"}]
        ),
        "line 8, position 7: .*'events' stands at position 7 with event guid/1",
    ),
    "a follower ahead": (
        lambda f: changed(
            f, 1, followers=[{"name": "events", "position": 700, "event_id": "guid/1"}]
        ),
        r"line \d+, .*position 700.*there is no such event",
    ),
    "a follower twice": (
        lambda f: changed(f, 1, followers=[{"name": "events", "position": 0}] * 2),
        "line 1: followers names one twice",
    ),
    "a field too many": (
        lambda f: changed(f, 5, note="!"), "line 5.*says more than an event does: 'note'"
    ),
    "a changed state": (
        lambda f: [*f[:4], f[4].replace(b"operator", b"somebody"), *f[5:]],
        "line 5, position 4: the chain is broken",
    ),
    "a changed hash": (
        lambda f: changed(f, 5, hash="0" * 64), "line 5, position 4: the chain is broken"
    ),
    "half a hash": (
        lambda f: changed(f, 5, hash="00"), "line 5, after position 3: hash has not 64"
    ),
    "a changed time": (
        lambda f: changed(f, 5, appended_at=3), "line 5, position 4: appended_at is 3"
    ),
    "a time that is none": (
        lambda f: changed(f, 5, appended_at="now"), "appended_at is no number from 0 to .*: 'now'"
    ),
    "an enormous position": (
        lambda f: changed(f, 5, position=2**63), "position is no number from 1 to"
    ),
    "a position that leaves no room": (
        lambda f: changed(f, 5, position=2**63 - 1), "position is no number from 1 to"
    ),
    "a time that no calendar has": (
        lambda f: changed(f, 5, appended_at=2**62), "appended_at is no number from 0 to"
    ),
    "no hash": (without_a_hash, "line 5, after position 3: it is no event: hash missing"),
    "no state": (
        lambda f: changed(f, 5, state_base64="AA=="), "has not one of state and state_base64"
    ),
    "a NUL": (lambda f: changed(f, 5, topic="a\0"), "topic has a NUL"),
    "an event gone": (lambda f: [*f[:4], *f[5:]], "line 5, position 5: the chain is broken"),
    "events swapped": (
        lambda f: [*f[:4], f[5], f[4], *f[6:]], "line 5, position 5: the chain is broken"
    ),
    "an event twice": (
        lambda f: [*f[:5], f[4], *f[5:]], "line 6, position 4: it comes after position 4"
    ),
    "cut between lines": (lambda f: f[:50], "cut off: it ends after line 50 .position 49"),
    "cut in a line": (
        lambda f: [*f[:49], f[49][:60]], "line 50, after position 48: the file is cut off in it"
    ),
    "only a first line": (lambda f: f[:1], "cut off: it ends after line 1 .position 0"),
    "another last line": (
        lambda f: changed(f, len(f), events=7),
        r"line \d+, .*says 7 events up to position (\d+), and \1 up to \1",
    ),
    "something behind it": (lambda f: [*f, b"\n"], r"line \d+, .*something follows"),
    "a huge line": (
        lambda f: [*f[:4], b'"' + b"x" * MAX_LINE + b'"\n'], "line 5, .*more than 67108864 bytes"
    ),
    "a version twice": (
        lambda f: chained_anew(f, FIRST, FIRST._replace(position=2)), "line 3.* is there already"
    ),
    "an event of later": (
        lambda f: chained_anew(f, FIRST._replace(topic="package.teleported")),
        "line 2, position 1: .*'package.teleported' that this program does not know: upgrade it",
    ),
    "an event by a module's name": (
        lambda f: chained_anew(f, FIRST._replace(topic="domain.package:Package.Created")),
        "line 2, position 1: .*'domain.package:Package.Created' that this program does not know",
    ),
    **{
        f"a state that is none ({state.decode()})": (
            partial(_with_state, state),
            "line 2, position 1: its state is none of package.created",
        )
        for state in (
            b"{}", b"null", b'"text"', b"[1]", STATE.replace(b'{"actor"', b'{"author"'),
            STATE.replace(b"{", b'{"class_version":0,'),
            STATE.replace(b"2026-01-01T00:00:00Z", b"0001-01-01T00:00:00+14:00"),
        )
    },
}  # fmt: skip


def refused(fault: str, laptop: Store, store: Store) -> None:
    damage, told = FAULTS[fault]
    lines = exported(laptop).splitlines(keepends=True)
    assert len(lines) == laptop.log.head() + 2
    identity = store.identity
    with pytest.raises(UnusableExport, match=told):
        take_in(store, b"".join(damage(lines)))
    assert store.log.head() == 0 and store.identity == identity


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_is_not_right_is_not_taken_in(fault: str, laptop: Store, empty: Store) -> None:
    """It is told in which line, at which position, and what is wrong."""
    refused(fault, laptop, empty)


def test_what_was_refused_leaves_the_log_empty(laptop: Store, store: Store) -> None:
    """On either engine: the right file is taken in afterwards."""
    for fault in ("a version twice", "two files in one", "cut in a line"):
        refused(fault, laptop, store)
    take_in(store, exported(laptop))


# Files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["log.ndjson", "log.ndjson.gz", "log.ndjson.zst"])
def test_a_file_is_compressed_as_its_name_says(name: str, laptop: Store, tmp_path: Path) -> None:
    """Only its owner may read it; it is read by the same rule."""
    path = tmp_path / name
    with written(path, force=False) as file:
        export(laptop, file.write)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [found.name for found in tmp_path.glob("*log.ndjson*")] == [name]
    with opened(path) as file:
        assert file.read() == exported(laptop)


@pytest.mark.parametrize("name", ["log.ndjson.gz", "log.ndjson.zst"])
@pytest.mark.parametrize("damage", ["cut off", "damaged", "not compressed"])
def test_a_damaged_compressed_file_is_told_of(
    name: str, damage: str, laptop: Store, empty: Store, tmp_path: Path
) -> None:
    """By the line up to which it could be read, or by that it has no end."""
    path = tmp_path / name
    with written(path, force=False) as file:
        export(laptop, file.write)
    content = path.read_bytes()
    path.write_bytes(
        {
            "cut off": content[: len(content) // 2],
            "damaged": content[:3000] + bytes(20) + content[3020:],
            "not compressed": exported(laptop),
        }[damage]
    )
    told = r"line \d+|it is empty, or cut off"
    with opened(path) as file, pytest.raises(UnusableExport, match=told):
        restore(empty, Export(file))
    assert empty.log.head() == 0


def test_a_file_that_is_there_is_replaced_only_by_force(tmp_path: Path) -> None:
    """And then whole, or not at all."""
    path = tmp_path / "log"
    path.write_text("before")
    with pytest.raises(FileExists, match="--force replaces it"), written(path, force=False):
        pass
    with pytest.raises(ZeroDivisionError), written(path, force=True) as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert path.read_text() == "before"
    with written(path, force=True) as file:
        file.write(b"after")
    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_came_meanwhile_stays(tmp_path: Path) -> None:
    """Two exports to one name: the first one counts."""
    path = tmp_path / "log"
    with pytest.raises(FileExists, match="is there by now"), written(path, force=False):
        path.write_text("first")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_only_files_are_replaced(tmp_path: Path) -> None:
    """No device, and no folder."""
    for path in (tmp_path, Path("/dev/null")):
        with pytest.raises(FileExists, match="is no file"), written(path, force=True):
            pass
