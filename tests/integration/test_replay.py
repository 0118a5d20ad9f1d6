"""Read models are built anew beside those that are read, and take their place, on either engine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, inspect, select, text, update
from sqlalchemy.exc import OperationalError

from adapters.metrics import Standings
from adapters.store import Store, projections
from domain.errors import NewerData, NothingRecorded, UnreadableEvent
from domain.package import Fault, PackageType
from domain.ports import LoggedEvent
from projections import builder
from projections.audit_list import AuditQuery, AuditReadModel, Places, Visible
from projections.builder import Builder, BuildTaken, Indigestible
from projections.engine import Projection
from projections.packages import PackageReadModel, PackagesProjection, packages
from projections.positions import NOWHERE, builds, positions, standings
from projections.unfinished import dead_letters, unfinished
from tests.support.packages import BY, DIGESTS, STAGED, STORED
from tests.support.waiting import eventually


@pytest.fixture
def store(any_store: Store) -> Store:
    any_store.migrate()
    return any_store


@pytest.fixture(autouse=True)
def _short_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "LONG", 5)
    monkeypatch.setattr(builder, "SHORT", 3)
    monkeypatch.setattr(builder, "NEAR", 3)
    monkeypatch.setattr("projections.replacing.ROWS", 2)
    monkeypatch.setattr(builder, "ROUNDS", 2)
    monkeypatch.setattr(builder, "QUIET", -1.0)
    monkeypatch.setattr(builder, "INDEXED", 10)


def create(store: Store, app: str = "app-1") -> str:
    return store.packages.create(app, PackageType.BITS, None, BY).aggregate.guid


def live(store: Store) -> None:
    """Packages in every state."""
    service = store.packages
    for number in range(6):
        guid = create(store)
        if number > 0:
            service.start_upload(guid, STAGED, "app.zip", BY)
        if number > 1:
            service.record_stored(guid, STORED, BY)
        if number == 3:
            service.record_hashes(guid, DIGESTS, BY)
            service.copy(guid, "app-2", BY)
        if number == 4:
            service.fail(guid, "our fault", Fault.SERVICE, BY)
        if number == 5:
            service.delete(guid, BY)


def rows(store: Store) -> dict[str, list[tuple[object, ...]]]:
    """All read models' rows, with where they stand."""
    tables = [table for projection in projections() for table in projection.tables]
    with store.reader.connect() as connection:
        return {
            table.name: sorted((tuple(row) for row in connection.execute(select(table))), key=repr)
            for table in [*tables, positions]
        }


def tables_of(store: Store) -> set[str]:
    with store.reader.connect() as connection:
        return set(inspect(connection).get_table_names())


def build_everything(store: Store, *names: str) -> int:
    building = store.builder()
    return building.build(names or building.names)


@pytest.fixture
def built(store: Store) -> Store:
    """A log of many packages, with its read models."""
    projector = store.projector()
    live(store)
    projector.catch_up()
    return store


def test_a_rebuild_gives_the_same_rows(built: Store) -> None:
    """And the same positions and tables; as often as one likes."""
    before, tables = rows(built), tables_of(built)
    assert before["packages"] and before["dead_letters"] and before["unfinished_packages"]
    for _ in range(3):
        assert build_everything(built) == built.log.head()
        assert rows(built) == before
        assert tables_of(built) == tables


@pytest.mark.slow
def test_a_rebuild_repairs_what_was_damaged(built: Store) -> None:
    """Only the named read model is built again."""
    before = rows(built)
    with built.writer.begin() as connection:
        connection.execute(update(packages).values(state="DAMAGED"))
        connection.execute(update(unfinished).values(since="damaged"))
    build_everything(built, "packages")
    after = rows(built)
    assert after["packages"] == before["packages"]
    assert after["unfinished_packages"] != before["unfinished_packages"]
    build_everything(built, "work")
    assert rows(built) == before


def test_an_empty_log_has_empty_read_models(store: Store) -> None:
    """They can be built, with or without a projector that made them before."""
    assert build_everything(store) == 0
    store.projector().catch_up()
    assert build_everything(store) == 0
    assert not any(found for name, found in rows(store).items() if name != positions.name)


@pytest.mark.slow
def test_readers_see_the_old_rows_until_the_new_ones_are_there(built: Store) -> None:
    """Never an empty or half-built read model."""
    before = rows(built)
    seen: list[bool] = []
    building = built.builder()
    building.build(building.names, lambda position: seen.append(rows(built) == before))
    assert len(seen) > 4
    assert all(seen)


def test_a_rebuild_goes_on_where_it_was_interrupted(built: Store) -> None:
    """It tells the position that it had, and ends with the same rows."""
    before, reached = rows(built), list[int]()

    def interrupt(position: int) -> None:
        reached.append(position)
        if len(reached) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        built.builder().build(["packages", "work"], interrupt)
    assert rows(built) == before
    assert position_told(built, "build of work") == reached[-1]
    assert built.builder().begun() == ["packages", "work"]
    again: list[int] = []
    built.builder().build(["packages", "work"], again.append)
    assert again[0] == reached[-1] > 0
    assert rows(built) == before
    assert built.builder().begun() == []


def position_told(store: Store, follower: str) -> float:
    """What Prometheus is told of how far a follower is."""
    told = Standings(store.log, store.reader, [], {})
    samples = [sample for metric in told.collect() for sample in metric.samples]
    return next(
        sample.value
        for sample in samples
        if sample.name == "packtrail_position" and sample.labels["follower"] == follower
    )


@pytest.mark.slow
def test_builds_that_stand_at_different_positions_are_brought_together(built: Store) -> None:
    """Each event is applied to each of them once."""
    before = rows(built)

    def interrupt(position: int) -> None:
        if position > 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        built.builder().build(["packages"], interrupt)
    build_everything(built)
    assert rows(built) == before


@pytest.mark.slow
def test_an_interrupted_build_of_another_version_or_history_is_begun_anew(built: Store) -> None:
    """What it has left is removed."""
    before, tables = rows(built), tables_of(built)
    for left in ({"version": 0}, {"event_id": "lost/1"}, {"position": 10_000}):

        def interrupt(position: int) -> None:
            if position > 5:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            built.builder().build(["packages"], interrupt)
        with built.writer.begin() as connection:
            connection.execute(update(builds).values(left))
        reached: list[int] = []
        built.builder().build(["packages"], reached.append)
        assert reached[0] == 0
        assert rows(built) == before
        assert tables_of(built) == tables


@pytest.mark.slow
def test_what_is_written_meanwhile_is_in_the_new_read_model(
    built: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By services that run while it is built, up to the last moment."""
    monkeypatch.setattr(builder, "SHORT", 1000)
    monkeypatch.setattr(builder, "NEAR", 200)
    projector = built.projector()
    projector.start()
    stopping, written = threading.Event(), list[str]()

    def write() -> None:
        while not stopping.wait(0.005):
            with suppress(NothingRecorded):  # no turn just now
                written.append(create(built))

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(3):
            build_everything(built)
            there = len(written)
            eventually(partial(written.__getitem__, slice(there, None)))
    finally:
        stopping.set()
        for writer in writers:
            writer.join()
        assert projector.wait_for(built.log.head(), 10)
        projector.stop()
    with built.reader.connect() as connection:
        assert set(connection.scalars(select(packages.c.guid))) >= set(written)
    followed = rows(built)
    build_everything(built)
    assert rows(built) == followed


def test_who_reads_in_the_moment_of_the_switch_reads_all_there_is(
    built: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old read model, or the new one with what came into it last."""
    monkeypatch.setattr(builder, "LONG", 100)
    monkeypatch.setattr(builder, "NEAR", 100)  # so that all comes into it last
    packages_read, audit_read = PackageReadModel(built.reader), AuditReadModel(built.reader)
    seen = select(packages.c.app_guid)
    theirs = AuditQuery(visible=Visible(seen, Places([], [])))
    readings: list[Callable[[], object]] = [
        lambda: packages_read.page(None, 1, 50),
        lambda: packages_read.page_of_apps(seen, 1, 50),
        lambda: audit_read.page(AuditQuery(), 1, 50),
        lambda: audit_read.page(theirs, 1, 50),
    ]
    before = [read() for read in readings]
    with ThreadPoolExecutor(len(readings)) as readers:
        futures: list[Future[object]] = []

        def switching(connection: Connection, position: int) -> None:
            futures.extend(readers.submit(read) for read in readings)
            eventually(lambda: all(f.done() for f in futures) or waiting(built) == len(readings))

        building = Builder(built.log, built.writer, projections, built.writing, switching)
        building.build(building.names)
        assert [future.result(10) for future in futures] == before


def waiting(store: Store) -> int:
    """How many wait for a table."""
    if store.writer.dialect.name == "sqlite":
        return 0
    with store.reader.connect() as connection:
        asked = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'relation'")
        return connection.scalar(asked) or 0


@pytest.mark.slow
def test_two_builds_at_once_do_not_spoil_each_other(built: Store) -> None:
    """The one that comes second takes over, and the first says so."""
    before, told = rows(built), list[int]()

    def another(position: int) -> None:
        told.append(position)
        if len(told) == 2:
            build_everything(built, "packages")

    with pytest.raises(BuildTaken, match="another process builds read model packages"):
        built.builder().build(["packages"], another)
    assert rows(built) == before
    assert built.builder().begun() == []


def test_two_builds_that_end_at_once_do_not_spoil_each_other(built: Store) -> None:
    """Where the log is at rest there is nothing left to apply by which the first would know."""
    before, head = rows(built), built.log.head()

    def another(position: int) -> None:
        if position == head and built.builder().begun():
            build_everything(built, "packages")

    with pytest.raises(BuildTaken, match="another process builds read model packages"):
        built.builder().build(["packages"], another)
    assert rows(built) == before


@pytest.mark.slow
def test_what_a_crash_left_of_an_old_read_model_is_removed(built: Store) -> None:
    """By the next build; tables that are nobody's stay."""
    tables = tables_of(built)
    with built.writer.begin() as connection:
        for name in ("packages_old_0123abcd", "packages_89abcdef", "packages_of_others"):
            connection.execute(text(f"CREATE TABLE {name} (guid text)"))
            connection.execute(text(f"INSERT INTO {name} VALUES ('a'), ('b'), ('c')"))
    build_everything(built, "roles")
    assert tables_of(built) == {*tables, "packages_of_others"}


@pytest.mark.slow
def test_a_table_whose_place_was_taken_keeps_no_other_from_being_made(
    built: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its indexes have their names still, where a crash came before it was removed."""
    before = rows(built)
    with monkeypatch.context() as crashing:
        crashing.setattr(builder, "clear_away", lambda turns, tables: None)
        build_everything(built)
    with built.writing, built.writer.begin() as connection:
        connection.execute(update(positions).values(event_id="lost/1"))
    built.projector().catch_up()
    assert rows(built) == before


# An event that can't be digested --------------------------------------------------------


class Choking(PackagesProjection):
    """Can't digest that bits were stored, until it is mended."""

    mended = False
    error: Callable[[], Exception] = lambda: LookupError("secret\nof an event")

    def apply(self, connection: Connection, events: Sequence[LoggedEvent]) -> None:
        for logged in events:
            if logged.event.TOPIC == "package.bits_stored" and not Choking.mended:
                raise Choking.error()
            super().apply(connection, [logged])


@pytest.fixture
def choking(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[Projection]]:
    monkeypatch.setattr(Choking, "mended", False)

    def make(suffix: str = "") -> list[Projection]:
        return [
            Choking(suffix) if projection.name == "packages" else projection
            for projection in projections(suffix)
        ]

    return make


def poison_of(store: Store) -> LoggedEvent:
    return next(e for e in store.log.read(0, 100) if e.event.TOPIC == "package.bits_stored")


def found_standings(store: Store) -> dict[str, Any]:
    with store.reader.connect() as connection:
        return standings(connection)


def test_a_read_model_stops_before_what_it_can_not_digest(
    store: Store, choking: Callable[[], list[Projection]], caplog: pytest.LogCaptureFixture
) -> None:
    """Loudly, with all that came before; the others go on, and nobody waits for it."""
    projector = store.projector(choking())
    live(store)
    poison = poison_of(store)
    projector.catch_up()
    found = found_standings(store)
    stop = found.pop("packages").stop
    assert stop.at.position == poison.position and stop.at.event_id == poison.event.event_id
    assert stop.reason == "LookupError: secret"
    assert {standing.at.position for standing in found.values()} == {store.log.head()}
    assert (
        f"can't digest event {poison.event.event_id} at position {poison.position}" in caplog.text
    )
    before = [e for e in store.log.read(0, 100) if e.position < poison.position]
    model = PackageReadModel(store.reader)
    states = {e.event.guid: e.event.TOPIC for e in before}
    assert model.page(None, 1, 50).total == len(states)
    create(store)
    projector.catch_up()
    assert projector.wait_for(store.log.head(), 0)
    assert model.page(None, 1, 50).total == len(states)


@pytest.mark.slow
def test_it_goes_on_at_the_next_start_of_a_mended_program(
    store: Store, choking: Callable[[], list[Projection]]
) -> None:
    """Behind what it has; where it was not mended it stops at the same event."""
    projector = store.projector(choking())
    live(store)
    projector.catch_up()
    stop = found_standings(store)["packages"].stop
    again = store.projector(choking())
    again.catch_up()
    assert found_standings(store)["packages"].stop == stop
    mended = store.projector()
    mended.catch_up()
    followed = rows(store)
    assert {standing.stop for standing in found_standings(store).values()} == {None}
    build_everything(store)
    assert rows(store) == followed


def test_it_goes_on_by_itself_when_it_can(
    store: Store, choking: Callable[[], list[Projection]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again from time to time."""
    monkeypatch.setattr("projections.engine.AGAIN", 0.0)
    monkeypatch.setattr("projections.engine.PATIENCE", 0.02)
    projector = store.projector(choking())
    live(store)
    projector.start()
    try:
        eventually(lambda: found_standings(store)["packages"].stop)
        Choking.mended = True
        create(store)
        eventually(lambda: found_standings(store)["packages"].at.position == store.log.head())
        assert found_standings(store)["packages"].stop is None
    finally:
        projector.stop()


@pytest.mark.slow
def test_a_failing_database_stops_no_read_model(
    store: Store, choking: Callable[[], list[Projection]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no event's fault: all wait, and it is tried again."""
    monkeypatch.setattr(
        Choking, "error", lambda: OperationalError("UPDATE", {}, Exception("disk I/O error"))
    )
    projector = store.projector(choking())
    live(store)
    with pytest.raises(OperationalError):
        projector.catch_up()
    assert {standing.stop for standing in found_standings(store).values()} == {None}
    Choking.mended = True
    projector.catch_up()
    assert projector.position == store.log.head()


def test_a_build_that_meets_it_leaves_the_old_read_model(
    built: Store, choking: Callable[[str], list[Projection]]
) -> None:
    """The event is named; mended, the build goes on."""
    before, poison = rows(built), poison_of(built)
    building = built.builder(choking)
    with pytest.raises(Indigestible, match=rf"{poison.event.event_id} at position") as told:
        building.build(["packages"])
    assert told.value.stop.at.position == poison.position
    assert rows(built) == before
    problem = found_standings(built)["packages"].problem
    assert problem.startswith(f"event {poison.event.event_id} at position {poison.position}")
    Choking.mended = True
    building.build(["packages"])
    assert rows(built) == before
    assert found_standings(built)["packages"].problem is None


@pytest.mark.slow
def test_a_build_frees_a_read_model_that_has_stopped(
    store: Store, choking: Callable[[], list[Projection]]
) -> None:
    """The projector that runs follows the new one."""
    projector = store.projector(choking())
    live(store)
    projector.catch_up()
    assert found_standings(store)["packages"].stop
    Choking.mended = True
    build_everything(store, "packages")
    create(store)
    projector.catch_up()
    assert found_standings(store)["packages"].stop is None
    assert found_standings(store)["packages"].at.position == store.log.head()


def damage(store: Store, position: int, state: bytes) -> None:
    column = "notification_id" if store.writer.dialect.name == "postgresql" else "rowid"
    with store.writing, store.writer.begin() as connection:
        connection.execute(
            text(f"UPDATE events SET state = :state WHERE {column} = :position"),
            {"state": state, "position": position},
        )


@pytest.mark.parametrize(
    "state",
    [b"{", *(pytest.param(s, marks=pytest.mark.slow)
             for s in (b"[1]", b"{}", b'{"timestamp": 7}', b"\xff"))],
)  # fmt: skip
def test_an_event_that_can_not_be_read_stops_all_that_follow(store: Store, state: bytes) -> None:
    """They have what came before it, serve that, and go on when it can be read again."""
    projector = store.projector()
    live(store)
    position = poison_of(store).position
    original = store.log.records(position - 1, 1)[0].state
    damage(store, position, state)
    projector.catch_up()
    found = found_standings(store)
    assert {s.at.position for s in found.values()} == {position - 1}
    assert {s.stop.at.position for s in found.values()} == {position}
    assert projector.wait_for(store.log.head(), 0)
    with pytest.raises(Indigestible):
        build_everything(store)
    with pytest.raises(UnreadableEvent, match=f"at position {position} can't be read"):
        store.log.read(position - 1, 10)
    assert [e.position for e in store.log.read(0, 100)] == list(range(1, position))
    damage(store, position, original)
    mended = store.projector()
    mended.catch_up()
    followed = rows(store)
    build_everything(store)
    assert rows(store) == followed
    assert followed[dead_letters.name]


def test_what_can_not_be_read_any_more_stops_no_read_model_that_had_it(
    store: Store, choking: Callable[[], list[Projection]]
) -> None:
    """Only those that stand before it; the others go on with what comes."""
    projector = store.projector(choking())
    live(store)
    projector.catch_up()
    stopped_at = found_standings(store)["packages"].at.position
    damage(store, stopped_at + 2, b"{")
    Choking.mended = True
    create(store)
    again = store.projector(choking())
    again.catch_up()
    found = found_standings(store)
    assert found.pop("packages").stop.at.position == stopped_at + 2
    assert {(s.stop, s.at.position) for s in found.values()} == {(None, store.log.head())}


@pytest.mark.parametrize("position", [2, 6, 7, 11])
def test_what_can_not_be_read_any_more_takes_nothing_from_a_read_model(
    built: Store, position: int
) -> None:
    """That had it already, wherever it is in a batch: nothing shorter takes its place."""
    before = rows(built)
    damage(built, position, b"{")
    with pytest.raises(Indigestible, match=f"at position {position}"):
        build_everything(built)
    assert rows(built) == before


# A newer program ------------------------------------------------------------------------


class NewerPackages(PackagesProjection):
    """Of a later version, which shows all packages' files under another name."""

    version = PackagesProjection.version + 1

    def apply(self, connection: Connection, events: Sequence[LoggedEvent]) -> None:
        super().apply(connection, events)
        table = self.tables[0]
        connection.execute(update(table).values(file_name="newer"))


def newer(suffix: str = "") -> list[Projection]:
    return [
        NewerPackages(suffix) if projection.name == "packages" else projection
        for projection in projections(suffix)
    ]


def test_a_newer_program_serves_the_old_read_model_until_its_own_is_built(built: Store) -> None:
    """The old one is followed meanwhile; a second start does not begin anew."""
    before = rows(built)
    projector = built.projector(newer())
    assert rows(built) == before
    building: Builder = built.builder(newer)
    assert building.begun() == ["packages"]
    interrupted: list[int] = []

    def interrupt(position: int) -> None:
        interrupted.append(position)
        if position > 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        building.build(["packages"], interrupt)
    again = built.projector(newer())
    guid = create(built)
    again.catch_up()
    projector.catch_up()
    assert projector.position == again.position == built.log.head()
    model = PackageReadModel(built.reader)
    assert model.find(guid) is not None
    reached: list[int] = []
    building.build(building.begun(), reached.append)
    assert reached[0] == interrupted[-1]
    assert {row.file_name for row in model.page(None, 1, 50).packages} == {"newer"}
    assert found_standings(built)["packages"].version == NewerPackages.version


def test_an_older_program_leaves_alone_what_a_newer_one_builds(built: Store) -> None:
    """Else its replay would end the newer one's build, which nobody would begin again."""
    before = rows(built)
    built.projector(newer())
    with pytest.raises(NewerData, match="is being built by version"):
        built.builder().build(["packages"])
    building = built.builder(newer)
    assert building.begun() == ["packages"]
    assert rows(built) == before
    building.build(building.begun())
    assert found_standings(built)["packages"].version == NewerPackages.version


@pytest.mark.slow
def test_what_a_newer_program_can_not_read_is_built_anew_before_it_is_read(built: Store) -> None:
    """Where a column is missing the old read model can't serve it."""
    before = rows(built)
    with built.writing, built.writer.begin() as connection:
        connection.execute(text("ALTER TABLE packages DROP COLUMN file_name"))
        connection.execute(update(positions).values(version=0))
    projector = built.projector()
    names = [name for name in projector.names if name != "packages"]
    assert built.builder().begun() == names, "the others' can be read"
    assert found_standings(built)["packages"].at.position == 0
    projector.catch_up()
    build_everything(built)
    assert rows(built) == before


def test_a_build_of_what_is_missing_goes_on_at_the_next_start(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often a start is interrupted, it comes further; also when another one leads."""
    monkeypatch.setattr("projections.engine.LONG", 3)
    live(store)
    reached: list[int] = []

    def interrupt(position: int) -> None:
        reached.append(position)
        if position > 5:
            raise KeyboardInterrupt

    store.projector()
    with pytest.raises(KeyboardInterrupt):
        store.builder().build(store.builder().missing(), interrupt)
    store.projector()
    again: list[int] = []
    store.builder().build(store.builder().missing(), again.append)
    assert again[0] == reached[-1] > 0
    followed = rows(store)
    build_everything(store)
    assert rows(store) == followed


@pytest.mark.slow
def test_a_long_log_is_not_followed_from_its_beginning(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not there is built; nobody reads before it is, and then it is followed."""
    monkeypatch.setattr("projections.engine.LONG", 3)
    monkeypatch.setattr("projections.engine.PATIENCE", 0.02)
    live(store)
    projector = store.projector()
    building = store.builder()
    assert building.begun() == building.missing() == projector.names
    projector.catch_up()
    assert projector.position == NOWHERE
    projector.start()
    try:
        building.build([name for name in building.missing() if name != "packages"])
        create(store)
        eventually(lambda: found_standings(store)["work"].at.position == store.log.head())
        assert not projector.wait_for(1, 0.1)
        assert building.missing() == ["packages"]
        building.build(building.missing())
        guid = create(store)
        assert projector.wait_for(store.log.head(), 10)
        assert PackageReadModel(store.reader).find(guid) is not None
    finally:
        projector.stop()
    followed = rows(store)
    build_everything(store)
    assert rows(store) == followed
