"""`packtrail log`, `show` and `diff`: the trail on a terminal."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import orjson
import pytest

from adapters.postgres import EVENTS_CHANNEL, PROJECTED_CHANNEL, WORK_PATIENCE, Listener
from adapters.store import Store, open_postgres, open_sqlite
from domain.package import PackageType
from entrypoints.command import main
from tests.support.command import Packtrail
from tests.support.fixture_logs import FOLDER
from tests.support.packages import BY
from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.slow

LOG = FOLDER / "log-1.ndjson"
EVENTS = [orjson.loads(line) for line in LOG.read_bytes().splitlines()[1:-1]]


def guid_of(topic: str) -> str:
    """Of the first that something happened to."""
    found = next(event for event in EVENTS if event["topic"] == topic)
    return str(found["originator_id"]).partition(":")[2]


def position_of(topic: str, guid: str) -> int:
    found = (e for e in EVENTS if e["topic"] == topic and e["originator_id"].endswith(guid))
    return int(next(found)["position"])


@pytest.fixture(scope="module")
def packtrail(tmp_path_factory: pytest.TempPathFactory) -> Packtrail:
    """On a data folder with a log in it; nothing runs there."""
    found = Packtrail(tmp_path_factory.mktemp("data"))
    found.prints("import", str(LOG))
    return found


def test_the_trail_of_a_package(packtrail: Packtrail) -> None:
    """One line an event, without colours where it is no terminal."""
    guid = guid_of("package.expired")
    lines = packtrail.prints("log", guid).splitlines()
    types = [line.split()[2] for line in lines]
    assert types[0] == "package.created" and types[-1] == "package.expired"
    assert all(line.isprintable() for line in lines)


@pytest.mark.slow
def test_a_package_as_it_was(packtrail: Packtrail) -> None:
    """Rendered as GET does it, also where it was deleted since."""
    guid = guid_of("package.deleted")
    deleted = position_of("package.deleted", guid)
    shown = orjson.loads(packtrail.prints("show", guid, "--at", str(deleted - 1)))
    assert (shown["guid"], shown["state"]) == (guid, "READY")
    assert packtrail.refuses("show", guid).endswith(f"it was deleted at position {deleted}")


@pytest.mark.slow
def test_what_differs_between_two_moments(packtrail: Packtrail) -> None:
    """Fields old -> new, and the events in between; a time counts as in show."""
    guid = guid_of("package.processing_resumed")
    resumed = position_of("package.processing_resumed", guid)
    told = packtrail.prints("diff", guid, str(resumed - 1), str(resumed))
    assert "state: FAILED -> PROCESSING_UPLOAD\n" in told
    assert "-> null\n" in told and "links" not in told
    (line,) = told[told.index("in between:") :].splitlines()[1:]
    assert "package.processing_resumed" in line


@pytest.mark.slow
def test_diff_as_json(packtrail: Packtrail) -> None:
    """From before it was created to the end: every field is new, and all its events are there."""
    guid = guid_of("package.expired")
    told = orjson.loads(packtrail.prints("diff", guid, "2026-03-02T08:00:00Z", "93", "--json"))
    assert told["from"]["package"] is None and "created later" in told["from"]["absence"]
    assert told["to"]["package"]["state"] == "EXPIRED"
    assert {"field": "state", "before": None, "after": "EXPIRED"} in told["changes"]
    lines = packtrail.prints("log", guid, "--json").splitlines()
    assert told["events"] == [orjson.loads(line) for line in lines]
    backwards = packtrail.prints("diff", guid, "93", "0")
    assert "state: EXPIRED -> null" in backwards and "there was none" in backwards
    same = packtrail.prints("diff", guid, "93", "93")
    assert "nothing differs" in same and "in between" not in same


@pytest.mark.slow
def test_from_and_up_to_a_time_or_a_position(packtrail: Packtrail) -> None:
    """What was appended at --since or later; up to --until, a position's own event included."""

    def positions(*options: str) -> list[int]:
        lines = packtrail.prints("log", "--json", *options).splitlines()
        return [orjson.loads(line)["position"] for line in lines]

    moment = orjson.loads(packtrail.prints("log", "--json", "--until", "40", "-n", "1"))
    assert positions("--since", "38", "--until", "40") == [38, 39, 40]
    assert positions("--since", moment["appended_at"], "-n", "200") == list(range(40, 94))
    assert positions("--until", moment["appended_at"], "-n", "2") == [38, 39]
    assert positions("--type", "space.*", "--actor", "operator", "-n", "1") == [92]


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """The exit code and the one line that the command says; run here, since it prints nothing."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    printed = capsys.readouterr()
    assert printed.out == ""
    if isinstance(ended.value.code, str):
        return 1, ended.value.code
    (*_, line) = printed.err.splitlines()
    assert isinstance(ended.value.code, int)
    return ended.value.code, line


def test_bad_input_is_told_in_one_line(
    packtrail: Packtrail,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With the value, and what would be right."""
    monkeypatch.setenv("PACKTRAIL_DATA_DIR", str(packtrail.data_dir))
    guid = guid_of("package.expired")
    for arguments, code, told in (
        (("log", "--type", "package.creatd"), 2, "no type of event 'package.creatd', only app."),
        (("log", "--since", "noon"), 2, "'noon' is no time such as 20"),
        (("log", "--since", "94"), 2, "position 94 is beyond the newest event, which is at 93"),
        (("log", "--follow", "--until", "3"), 2, "not both"),
        (("log", "-n", "0"), 2, "'0' is not a number from 1 on"),
        (("show", guid, "--at", "2999-01-01T00:00:00Z"), 2, "in the future"),
        (("show", "nobody's"), 1, 'there is no package "nobody\'s", and never was'),
        (("show", guid, "--at", "3"), 1, "it was created later, at position"),
        (("diff", "nobody's", "1", "2"), 1, "there is no package"),
        (("diff", guid, "1", "x"), 2, "'x' is no time such as 20"),
    ):
        found, line = refusal(capsys, *arguments)
        assert found == code and told in line
    monkeypatch.setenv("PACKTRAIL_DATA_DIR", str(tmp_path / "nothing"))
    for command in (["log"], ["show", guid], ["diff", guid, "1", "2"], ["export"]):
        code, line = refusal(capsys, *command)
        assert code == 1 and line.startswith("packtrail: there is no log at ")
    assert not (tmp_path / "nothing").exists()


@pytest.mark.slow
def test_whoever_reads_may_have_enough(packtrail: Packtrail) -> None:
    """A closed pipe ends it without a word."""
    for command in (["log"], ["log", "--json"], ["export"]):
        process = packtrail.start(*command)
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.wait(30) == -signal.SIGPIPE
        assert process.stderr.read() == ""
        process.stderr.close()


@contextmanager
def on_engine(
    engine: str, folder: Path, request: pytest.FixtureRequest
) -> Iterator[tuple[Packtrail, Store]]:
    """The command, and what else writes to the log."""
    with ExitStack() as stack:
        if engine == "sqlite":
            command = Packtrail(folder)
            store = open_sqlite(folder / "packtrail.db")
        else:
            server: PostgresServer = request.getfixturevalue("postgres")
            url = server.new_database()
            command = Packtrail(folder, {"PACKTRAIL_EVENT_STORE": url})
            listener = Listener(url, (EVENTS_CHANNEL, PROJECTED_CHANNEL))
            stack.callback(listener.close)
            store = open_postgres(url, listener, WORK_PATIENCE, 8)
        stack.callback(store.close)
        store.migrate()
        yield command, store


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_following_the_log(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """What another process appends comes by itself; Ctrl-C ends it, with 0."""
    with on_engine(engine, tmp_path, request) as (command, store):
        store.packages.create("app-1", PackageType.BITS, None, BY)
        process = command.start("log", "--follow", "--type", "package.created", "-n", "5")
        assert process.stdout is not None and process.stderr is not None
        for app in ("app-1", "app-2", "app-3"):
            if app != "app-1":
                store.packages.create(app, PackageType.BITS, None, BY)
            assert f"app_guid={app}" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert process.stdout.read() + process.stderr.read() == ""
        process.stdout.close()
        process.stderr.close()
