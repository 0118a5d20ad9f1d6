"""The read models of work: unfinished until READY or FAILED, a dead letter if we were at fault."""

from __future__ import annotations

import pytest

from adapters.bus.work import WORK
from adapters.store import Store
from domain.package import Fault, PackageType, StagedBits
from projections.unfinished import Step
from tests.support.packages import BY, DIGESTS, STORED, LocalStore


@pytest.fixture
def store(any_store: Store) -> LocalStore:
    return LocalStore.of(any_store)


def uploaded(store: LocalStore, uri: str = "staging:a") -> str:
    guid = store.service.create("app-1", PackageType.BITS, None, BY).aggregate.guid
    store.service.start_upload(guid, StagedBits(uri, 0, 1), "app.zip", BY)
    return guid


def fail_by_us(store: LocalStore, guid: str) -> None:
    store.service.fail(guid, "our fault", Fault.SERVICE, BY, "RuntimeError: x")


def steps(store: LocalStore) -> list[tuple[str, Step]]:
    store.projector.catch_up()
    return [(work.guid, work.step) for work in store.work.unfinished()]


def dead(store: LocalStore) -> list[tuple[str, Step, str | None]]:
    store.projector.catch_up()
    return [(letter.guid, letter.step, letter.detail) for letter in store.work.dead_letters()]


def test_a_package_without_bits_is_no_work(store: LocalStore) -> None:
    """It waits for its client, not for us; nor is there work on a docker package or its copy."""
    store.service.create("app-1", PackageType.BITS, None, BY)
    image = store.service.create("app-1", PackageType.DOCKER, "image", BY).aggregate.guid
    store.service.copy(image, "app-2", BY)
    assert steps(store) == []


def test_an_upload_waits_for_storing_then_for_hashing(store: LocalStore) -> None:
    """And for nothing once it is READY."""
    guid = uploaded(store)
    assert steps(store) == [(guid, Step.STORAGE)]
    store.service.record_stored(guid, STORED, BY)
    assert steps(store) == [(guid, Step.HASHING)]
    store.service.record_hashes(guid, DIGESTS, BY)
    assert (steps(store), dead(store)) == ([], [])


def test_work_knows_the_event_that_asked_for_it(store: LocalStore) -> None:
    """Its position moves on with the step."""
    guid = uploaded(store)
    store.service.create("app-1", PackageType.BITS, None, BY)
    store.projector.catch_up()
    assert [work.position for work in store.work.unfinished()] == [2]
    store.service.record_stored(guid, STORED, BY)
    store.projector.catch_up()
    assert [work.position for work in store.work.unfinished()] == [4]


def test_a_copy_waits_for_storing(store: LocalStore) -> None:
    """It has no staged bits of its own."""
    source = uploaded(store)
    store.service.record_stored(source, STORED, BY)
    store.service.record_hashes(source, DIGESTS, BY)
    copy = store.service.copy(source, "app-2", BY).aggregate.guid
    assert steps(store) == [(copy, Step.STORAGE)]
    assert list(store.work.staged_uris()) == []


def test_bits_at_fault_end_the_work(store: LocalStore) -> None:
    """Nobody needs to look at it: it is no dead letter."""
    guid = uploaded(store)
    store.service.fail(guid, "no zip", Fault.BITS, BY)
    assert (steps(store), dead(store)) == ([], [])
    assert (list(store.work.staged_uris()), store.work.guids()) == ([], set())


def test_a_fault_of_ours_makes_a_dead_letter(store: LocalStore) -> None:
    """With what the client was told, what an operator needs, and the step that failed."""
    guid = uploaded(store)
    fail_by_us(store, guid)
    assert steps(store) == []
    assert dead(store) == [(guid, Step.STORAGE, "RuntimeError: x")]
    letter = store.work.dead_letters()[0]
    assert (letter.error, letter.request_id) == ("our fault", "request-1")
    assert letter.failed_at.startswith("20")


@pytest.mark.parametrize("step", WORK)
def test_a_resumed_package_waits_for_the_step_that_failed(store: LocalStore, step: Step) -> None:
    """It is unfinished again, and a dead letter no more; it may become one again."""
    guid = uploaded(store)
    if step is Step.HASHING:
        store.service.record_stored(guid, STORED, BY)
    fail_by_us(store, guid)
    store.service.resume(guid, BY)
    assert (steps(store), dead(store)) == ([(guid, step)], [])
    fail_by_us(store, guid)
    assert (steps(store), dead(store)) == ([], [(guid, step, "RuntimeError: x")])


def test_a_deleted_package_is_no_work(store: LocalStore) -> None:
    """Neither unfinished nor dead, wherever it was."""
    in_work, given_up = uploaded(store), uploaded(store)
    fail_by_us(store, given_up)
    store.projector.catch_up()
    store.service.delete(in_work, BY)
    store.service.delete(given_up, BY)
    assert (steps(store), dead(store)) == ([], [])


def test_the_oldest_work_comes_first(store: LocalStore) -> None:
    """In the order in which the steps were asked for; dead letters in the order of failing."""
    first, second = uploaded(store), uploaded(store)
    store.service.record_stored(first, STORED, BY)
    assert steps(store) == [(second, Step.STORAGE), (first, Step.HASHING)]
    fail_by_us(store, second)
    fail_by_us(store, first)
    assert [letter[0] for letter in dead(store)] == [second, first]


def test_what_work_and_dead_letters_name_is_known(store: LocalStore) -> None:
    """A sweep asks this before it removes anything."""
    in_work, given_up = uploaded(store, "staging:a"), uploaded(store, "staging:b")
    finished = uploaded(store, "staging:c")
    fail_by_us(store, given_up)
    store.service.record_stored(finished, STORED, BY)
    store.service.record_hashes(finished, DIGESTS, BY)
    store.projector.catch_up()
    assert set(store.work.staged_uris()) == {"staging:a", "staging:b"}
    assert store.work.guids() == {in_work, given_up}
