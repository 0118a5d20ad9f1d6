"""`packtrail verify` names what was changed behind the log's back, and nothing else."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from eventsourcing.persistence import IntegrityError

from adapters.event_store.chain import link
from adapters.store import Store, open_sqlite
from tests.support.proof import COLUMNS, Desk, Saboteur, desk_of, ready_package


@pytest.fixture
def any_desk(any_store: Store, tmp_path: Path) -> Desk:
    """A log of ten packages, forty events, on either engine."""
    any_store.migrate()
    made = desk_of(any_store, tmp_path)
    made.fill(10)
    return made


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """The same in an SQLite file."""
    with closing(open_sqlite(tmp_path / "log.db")) as store:
        store.migrate()
        made = desk_of(store, tmp_path)
        made.fill(10)
        yield made


def test_a_log_that_nobody_touched_is_clean(any_desk: Desk) -> None:
    """Exit code 0, nothing on stdout, and what was looked at on stderr."""
    code, out, err = any_desk.run("verify")
    assert (code, out) == (0, "")
    assert "nothing is wrong: 40 events, 10 aggregates" in err
    assert "no checkpoint is given" in err


def test_an_empty_log_is_clean(tmp_path: Path) -> None:
    """There is nothing that could be wrong."""
    store = open_sqlite(tmp_path / "log.db")
    store.migrate()
    desk = Desk(store, f"sqlite:///{tmp_path / 'log.db'}", tmp_path)
    assert desk.verify().code == 0
    store.close()


CHANGES: dict[str, Any] = {
    "position": 1 << 40,
    "appended_at": 1,
    "originator_id": "package:nobody",
    "originator_version": 77,
    "topic": "package.deleted",
    "state": b"{}",
    "hash": b"x" * 32,
}


def test_a_changed_event_is_named_and_no_other_is(any_desk: Desk) -> None:
    """Whatever column it is, at the log's ends and in between."""
    for at in (1, 17, 40) if any_desk.on_sqlite else (17,):
        record = any_desk.records()[at - 1]
        for column in COLUMNS:
            any_desk.set(at, column, CHANGES[column])
            outcome = any_desk.verify()
            assert outcome.code == 1
            now = CHANGES["position"] if column == "position" else at
            assert outcome.named() == [now], column
            (finding,) = [f for f in outcome.findings if f["check"] == "chain"]
            guid, version = record.originator_id.partition(":")[2], record.originator_version
            if column not in ("originator_id", "originator_version"):
                assert finding["event"] == f"{guid}/{version}"
            any_desk.set(now, column, record[COLUMNS.index(column)])
    assert any_desk.verify().code == 0


def test_it_is_told_what_was_changed(desk: Desk) -> None:
    """A hash alone, or the place of an event, or else what it says."""
    desk.set(5, "hash", b"x" * 32)
    desk.set(9, "position", 99)
    desk.set(20, "topic", "package.expired")
    told = {f["position"]: f["what"] for f in desk.verify().findings if f["check"] == "chain"}
    assert sorted(told) == [5, 20, 99]
    assert told[5].startswith("its stored hash was changed")
    assert told[99] == "it was moved here: it belongs to position 9"
    assert told[20].startswith("its hash does not follow from its content")


def test_several_changes_in_a_row_are_each_named(any_desk: Desk) -> None:
    """Contents and hashes, one behind the other; the event behind them is not named."""
    any_desk.set(10, "state", b"{}")
    any_desk.set(11, "hash", b"x" * 32)
    any_desk.set(12, "hash", b"y" * 32)
    any_desk.set(13, "appended_at", 5)
    assert any_desk.verify().named() == [10, 11, 12, 13]


def test_a_removed_event_is_named_where_it_was(desk: Desk) -> None:
    """By the event behind it, and by its aggregate."""
    desk.remove(20)
    outcome = desk.verify()
    assert outcome.named("chain") == [21]
    assert "does not follow the event before it (position 19)" in outcome.findings[0]["what"]
    assert "version 2 is not there" in " ".join(outcome.told("versions"))


def test_a_removed_beginning_is_named(desk: Desk) -> None:
    """The chain begins with nothing but the first event."""
    for position in (1, 2, 3):
        desk.remove(position)
    outcome = desk.verify()
    assert outcome.named("chain") == [4]
    assert "the chain does not begin with it" in outcome.told("chain")[0]


def test_an_event_changed_with_its_hash_is_told_at_the_one_behind_it(desk: Desk) -> None:
    """The chain breaks there, and it is said that the event before may be the changed one."""
    before, record = desk.records()[18:20]
    state = record.state.replace(b'"actor":"', b'"actor":"x')
    desk.set(20, "state", state)
    desk.set(20, "hash", link(before.hash, *record[:-2], state))
    outcome = desk.verify()
    assert outcome.named() == [21]
    assert "the one before was changed with its hash" in outcome.told("chain")[0]


def test_swapped_events_are_named(desk: Desk) -> None:
    """Both of them, and not their neighbours."""
    for here, there in ((10, 1000), (30, 10), (1000, 30)):
        desk.set(here, "position", there)
    assert desk.verify().named() == [10, 30]


def test_swapped_contents_are_named(desk: Desk) -> None:
    """Where hashes stay where they were."""
    first, second = desk.records()[9], desk.records()[29]
    desk.set(10, "state", second.state)
    desk.set(30, "state", first.state)
    assert desk.verify().named() == [10, 30]


@pytest.mark.parametrize("at", [0, 41])
def test_an_added_event_is_named(desk: Desk, at: int) -> None:
    """Before the first and behind the last, with a hash that somebody has made up."""
    record = desk.records()[0]._replace(position=at, originator_id="package:x", hash=b"z" * 32)
    desk.insert(record)
    assert desk.verify().named() == [at]


def test_an_event_added_between_others_is_named(desk: Desk) -> None:
    """Room is made for it; those that were moved for it are named, too."""
    for position in range(40, 38, -1):
        desk.set(position, "position", position + 1)
    record = desk.records()[0]._replace(position=39, originator_id="package:x", hash=b"z" * 32)
    desk.insert(record)
    assert desk.verify().named() == [39, 40, 41]


def test_a_gap_that_a_refused_append_left_is_none_of_its_business(any_desk: Desk) -> None:
    """PostgreSQL gives no position twice."""
    with pytest.raises(IntegrityError):
        any_desk.store.events.put(ready_package("guid-1").collect_events())
    any_desk.fill(2, "late")
    outcome = any_desk.verify()
    assert (outcome.code, outcome.findings) == (0, [])


def test_a_chain_that_was_made_anew_is_found_by_what_it_can_not_hide(desk: Desk) -> None:
    """Versions that are gone, times that go back, events that nobody can read."""
    desk.remove(20)  # version 2 of some package
    desk.set(25, "appended_at", 7)
    desk.set(30, "topic", "package.unheard_of")
    desk.set(31, "state", b'{"timestamp": "2026-01-01T00:00:00Z"}')
    desk.set(32, "state", b'{"timestamp": ')
    desk.set(40, "appended_at", 2**62)
    desk.chain_anew(10)
    outcome = desk.verify()
    assert outcome.named("chain") == []
    assert outcome.named("times") == [25, 40]
    assert outcome.named("events") == [30, 31, 32]
    assert "package.unheard_of" in outcome.told("events")[0]
    assert "has no actor" in outcome.told("events")[1]
    (gap,) = outcome.told("versions")
    assert "version 2 is not there, and version 3 is" in gap


def test_versions_in_another_order_than_the_log_are_named(any_desk: Desk) -> None:
    """Each aggregate's versions grow with the positions."""
    first, second = any_desk.records()[0], any_desk.records()[2]
    assert first.originator_id == second.originator_id
    for position, version in ((1, 100), (3, 1), (1, 2)):
        any_desk.set(position, "originator_version", version)
    any_desk.chain_anew(0)
    (told,) = any_desk.verify().told("versions")
    assert "version 2 (position 1) was appended before version 1 (position 3)" in told


def test_a_running_writer_does_not_disturb(any_desk: Desk) -> None:
    """What comes behind the head at the start is not looked at."""
    with any_desk.store.writing, any_desk.store.writer.begin() as connection:
        connection.exec_driver_sql("UPDATE events SET topic = topic WHERE originator_version = 1")
        outcome = any_desk.verify()
    assert (outcome.code, outcome.summary["checked"]["events"]) == (0, 40)


def test_values_that_no_event_has_are_named(desk: Desk) -> None:
    """SQLite takes any type in any column, and texts that are no UTF-8."""
    record = desk.records()[8]
    for column, value, what in (
        ("state", "CAST(state AS TEXT)", "state has another type"),
        ("topic", "CAST(topic AS BLOB)", "topic has another type"),
        ("originator_id", "CAST(x'ff00fe' AS TEXT)", "its hash"),
        ("topic", "CAST(x'c328' AS TEXT)", "its hash"),
        ("appended_at", "'soon'", "its hash"),
        ("appended_at", "NULL", "its hash"),
        ("originator_version", "'two'", "its hash"),
        ("originator_version", "1.5", "its hash"),
        ("hash", "NULL", "its stored hash"),
        ("hash", "'text'", "its stored hash"),
        ("hash", "x'00'", "its stored hash"),
    ):
        desk.execute(f"UPDATE events SET {column} = {value} WHERE rowid = 9")
        outcome = desk.verify()
        assert outcome.named() == [9], value
        assert what in outcome.told("chain")[0]
        desk.set(9, column, record[COLUMNS.index(column)])
    assert desk.verify().code == 0


def test_events_that_can_not_be_read_are_named_and_passed_over(tmp_path: Path) -> None:
    """A page in the middle of the file is rubbish: what is on others is checked all the same."""
    path = tmp_path / "log.db"
    store = open_sqlite(path)
    store.migrate()
    desk = Desk(store, f"sqlite:///{path}", tmp_path / "data")
    desk.fill(250)
    desk.set(1000, "state", b"{}")
    store.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        size = connection.execute("PRAGMA page_size").fetchone()[0]
        connection.execute("PRAGMA journal_mode=DELETE")
    content = path.read_bytes()
    page = content.index(b'guid-100"', content.index(b"package.created")) // size
    with path.open("r+b") as file:
        file.seek(page * size)
        file.write(b"\xff" * size)
    outcome = desk.verify()
    assert outcome.code == 1
    unreadable = [f for f in outcome.findings if "can't be read" in f["what"]]
    assert unreadable and "malformed" in unreadable[0]["what"]
    assert outcome.named()[-1] == 1000
    assert outcome.summary["checked"]["events"] > 900


def test_a_file_that_is_cut_in_half_is_told(tmp_path: Path) -> None:
    """Findings, or that it can't be checked; no stack trace."""
    path = tmp_path / "log.db"
    store = open_sqlite(path)
    store.migrate()
    desk = Desk(store, f"sqlite:///{path}", tmp_path / "data")
    desk.fill(250)
    store.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    assert desk.verify().code in (1, 2)


def test_random_flips_are_all_named_and_nothing_else_is(any_desk: Desk) -> None:
    """One bit in each of a dozen events of forty, all at once."""
    broken = Saboteur(any_desk, 5).flip(12)
    assert any_desk.verify().named() == sorted(broken)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_hundreds_of_random_flips_are_all_named(any_desk: Desk, seed: int) -> None:
    """One bit in every tenth event of two thousand, over all columns."""
    any_desk.fill(490, "more")
    broken = Saboteur(any_desk, seed).flip(200)
    outcome = any_desk.verify()
    assert outcome.named() == sorted(broken)
    assert outcome.summary["checked"]["events"] == 2000


def test_what_keeps_it_from_checking_has_an_exit_code_of_its_own(tmp_path: Path) -> None:
    """No log, no chain in it, no such file, a wrong setting, a wrong option: 2, in one line."""
    desk = Desk(None, f"sqlite:///{tmp_path / 'log.db'}", tmp_path)  # type: ignore[arg-type]
    assert desk.run("verify")[::2] == (2, f"packtrail: there is no log at {tmp_path}/log.db\n")
    assert not (tmp_path / "log.db").exists()
    sqlite3.connect(tmp_path / "log.db").execute("CREATE TABLE events (rowid)").connection.close()
    code, _, err = desk.run("verify")
    assert code == 2 and "packtrail migrate" in err and err.count("\n") == 1
    assert desk.run("verify", "--checkpoint", str(tmp_path / "none"))[0] == 2
    assert desk.run("verify", settings={"PACKTRAIL_EVENT_STORE": "mysql://"})[0] == 2
    assert desk.run("verify", "--bit-by-bit")[0] == 2
    away = {"PACKTRAIL_EVENT_STORE": "postgresql://nobody@127.0.0.1:1/none"}
    assert desk.run("verify", settings=away)[0] == 2


def test_findings_are_lines_for_people_and_objects_for_programs(desk: Desk) -> None:
    """One a line, with the position and the event's id."""
    desk.set(17, "state", b"{}")
    event = f"{desk.records()[16].originator_id.partition(':')[2]}/1"
    code, out, err = desk.run("verify")
    assert (code, out.count("\n")) == (1, 1)
    assert out.startswith(f"chain: position 17, event {event}: its hash does not follow")
    assert "1 things are wrong (1 by chain)" in err
    finding, last = map(json.loads, desk.run("verify", "--json")[1].splitlines())
    assert (finding["check"], finding["position"], finding["event"]) == ("chain", 17, event)
    assert last["summary"]["by_check"] == {"chain": 1}


@pytest.mark.parametrize(
    ("position", "flipped", "told"),
    [
        (200, 200 + (1 << 13), "positions 200 to 400: can't be read: keys in the table"),
        (400, 400 + (1 << 13), "position 8592, event guid-99/4: "),
        (200, 200 ^ 1, "position 201, event "),
    ],
)
def test_a_key_flipped_in_the_file_hides_nothing(
    position: int, flipped: int, told: str, tmp_path: Path
) -> None:
    """The database finds no row behind one whose key is out of order, and says nothing of it."""
    path = tmp_path / "log.db"
    store = open_sqlite(path)
    store.migrate()
    desk = Desk(store, f"sqlite:///{path}", tmp_path / "data")
    desk.fill(100)
    originator = desk.records()[position - 1].originator_id.encode()
    digest = desk.records()[position - 1].hash
    store.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(path.read_bytes())
    begins = content.rindex(originator, 0, content.index(digest))
    was, becomes = (bytes((0x80 | key >> 7, key & 0x7F)) for key in (position, flipped))
    at = content.rindex(was, begins - 16, begins)
    content[at : at + 2] = becomes
    path.write_bytes(content)
    outcome = desk.verify()
    assert outcome.code == 1
    assert any(line.startswith(told) for line in outcome.told("chain")), outcome.findings
