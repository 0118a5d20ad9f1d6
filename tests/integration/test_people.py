"""Addresses of people: kept beside the log, and gone for ever when they are forgotten."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters import people as module
from adapters.people import AddressBook, NotErased, People
from adapters.store import Store, open_sqlite
from adapters.tokens import Caller
from domain.package import PackageType
from tests.support.packages import BY

ADDRESS = "ada.lovelace@example.org"


def caller(email: str | None = ADDRESS, guid: str = "ada") -> Caller:
    return Caller(guid, frozenset(), email)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def kept(any_store: Store) -> People:
    any_store.migrate()
    return any_store.services.people


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Store]:
    store = open_sqlite(tmp_path / "log.db")
    store.migrate()
    yield store
    store.close()


def events_of(store: Store) -> list[tuple[object, ...]]:
    with store.reader.connect() as connection:
        rows = connection.exec_driver_sql("SELECT * FROM events ORDER BY 1")
        return [tuple(bytes(v) if isinstance(v, memoryview) else v for v in row) for row in rows]


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_an_address_is_found_by_the_users_guid(kept: People) -> None:
    """Of many at once, too, and a later address takes the place of the earlier."""
    kept.keep("ada", "before@example.org")
    kept.keep("ada", ADDRESS)
    kept.keep("grace", "grace@example.org")
    assert kept.find("ada") == ADDRESS
    assert kept.find("nobody") is None
    asked = ["ada", "grace", *(f"user-{n}" for n in range(1000))]
    assert kept.find_all(asked) == {"ada": ADDRESS, "grace": "grace@example.org"}


def test_forgetting_tells_whose_address_there_was(kept: People) -> None:
    """Once each; the others' stay."""
    kept.keep("ada", ADDRESS)
    kept.keep("grace", "grace@example.org")
    assert kept.forget(["ada", "nobody", "ada"]) == ["ada"]
    assert kept.find_all(["ada", "grace"]) == {"grace": "grace@example.org"}
    assert kept.forget(["ada"]) == []


def test_the_log_is_the_same_before_and_after(any_store: Store) -> None:
    """Byte for byte: no event has an address."""
    any_store.migrate()
    for _ in range(3):
        any_store.packages.create("app-1", PackageType.BITS, None, BY)
    any_store.services.people.keep(BY.actor, ADDRESS)
    before = events_of(any_store)
    any_store.services.people.forget([BY.actor])
    assert events_of(any_store) == before
    assert len(before) == 3


def test_nothing_of_a_forgotten_address_is_left_in_the_file(file: Store, tmp_path: Path) -> None:
    """Nor beside it, nor of the addresses before it; with many users and other readers."""
    people = file.services.people
    for number in range(300):
        people.keep(f"user-{number}", f"somebody.{number}@example.org")
    for address in ("old.address@example.org", f"{'x' * 200}@example.org", ADDRESS):
        people.keep("user-150", address)
    with file.reader.connect() as reader:
        reader.exec_driver_sql("SELECT count(*) FROM people").all()
    assert ADDRESS.encode() in everything_in(tmp_path)
    assert people.forget(["user-150", "user-151"]) == ["user-150", "user-151"]
    left = everything_in(tmp_path)
    for address in (ADDRESS, "old.address@", "x" * 20, "somebody.150@", "somebody.151@"):
        assert address.encode() not in left
    assert b"somebody.152@" in left


def test_a_reader_that_stays_is_told_of(
    file: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row is gone, but not from the journal: that is no success, and can be done again."""
    monkeypatch.setattr(module, "ERASE_TRIES", 1)
    people = file.services.people
    people.keep("ada", ADDRESS)
    reader = sqlite3.connect(tmp_path / "log.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM people").fetchall()
    with pytest.raises(NotErased, match="do the same again"):
        people.forget(["ada"])
    reader.close()
    assert people.forget(["ada"]) == []
    assert ADDRESS.encode() not in everything_in(tmp_path)


def test_who_writes_is_kept_with_the_newest_address(kept: People) -> None:
    """As the token tells it."""
    book = AddressBook(kept)
    book.note(caller())
    assert kept.find("ada") == ADDRESS
    book.note(caller("ada@example.com"))
    assert kept.find("ada") == "ada@example.com"


def test_an_address_that_comes_again_after_it_was_forgotten_is_kept_again(kept: People) -> None:
    """A running service looks again after a moment, and not each time."""
    clock = Clock()
    book = AddressBook(kept, clock)
    book.note(caller())
    kept.forget(["ada"])
    book.note(caller())
    assert kept.find("ada") is None
    clock.now += module.REMEMBERED
    book.note(caller())
    assert kept.find("ada") == ADDRESS


def test_only_so_many_users_are_remembered(file: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was not seen for the longest time is looked up again."""
    monkeypatch.setattr(module, "MAX_REMEMBERED", 2)
    people = file.services.people
    book = AddressBook(people, Clock())
    for guid in ("ada", "grace", "barbara"):
        book.note(caller(guid=guid))
    people.forget(["ada", "grace"])
    book.note(caller(guid="grace"))
    assert people.find("grace") is None
    book.note(caller(guid="ada"))
    assert people.find("ada") == ADDRESS


@pytest.mark.parametrize(
    "email",
    [None, "", "no at sign", "a\0b@example.org", "a\nb@example.org", "\ud800@example.org",
     f"{'x' * 250}@example.org", "a\u2028b@example.org"],
)  # fmt: skip
def test_what_is_no_plain_address_is_not_kept(kept: People, email: str | None) -> None:
    """And nothing is said of it."""
    AddressBook(kept).note(caller(email))
    assert kept.find("ada") is None


def test_an_address_that_cannot_be_kept_fails_nothing(
    any_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning tells whose, and not the address."""
    any_store.migrate()
    with any_store.writer.begin() as connection:
        connection.exec_driver_sql("DROP TABLE people")
    with caplog.at_level(logging.WARNING):
        AddressBook(any_store.services.people).note(caller())
    (record,) = caplog.records
    assert record.getMessage().startswith("an address could not be kept: ")
    assert vars(record)["user"] == "ada"
    assert "lovelace" not in f"{record.getMessage()} {vars(record)!r}"


def test_a_caller_is_shown_without_the_address() -> None:
    """Who logs a caller logs no address."""
    assert "lovelace" not in repr(caller())
