"""Commands by message when something goes wrong: each is done once, or refused, and never lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import pytest
from eventsourcing.persistence import InterfaceError, OperationalError
from sqlalchemy import Connection
from sqlalchemy.event import listen
from sqlalchemy.exc import OperationalError as StatementFailed

from adapters.bus import work
from adapters.bus.bus import Abandoned, BrokerAway
from adapters.bus.messages import Message
from adapters.object_store import ObjectStoreAway
from adapters.store import Store
from adapters.tokens import Scope
from domain.droplet_service import Wanted
from domain.package import StagedBits, StoredBits
from tests.support.commands import ADMIN, REPLIES, WRITER, CommandDesk, Reply, body_of
from tests.support.packages import BY
from tests.support.service import token
from tests.support.waiting import eventually
from tests.support.zips import random_zip, sha1

BITS = random_zip(5000)
CREATE = {"app_guid": "app-1", "type": "bits"}
UNKNOWN_ERROR = (500, 10001, "UnknownError", "An unknown error occurred.")
ONCE = ["package.created", "command.executed"]


@pytest.fixture
def desk(
    any_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CommandDesk]:
    monkeypatch.setattr(work, "FIRST_DELAY", 0.001)
    monkeypatch.setattr(work, "MAX_DELAY", 0.005)
    desk = CommandDesk.open(any_store, tmp_path, monkeypatch)
    yield desk
    desk.bus.close()


def message(**fields: Any) -> Message:
    body = body_of("package.create", CREATE, "command-1")
    headers = {"authorization": f"bearer {WRITER}"}
    return Message("message-1", "package.create", body, headers, REPLIES, "c-1", **fields)


class TestWhatIsAway:
    """It is waited for, however long it takes."""

    @pytest.mark.parametrize(
        "away", [OperationalError("gone"), InterfaceError("closed"), ObjectStoreAway("no route")]
    )
    def test_a_database_that_is_away_is_waited_for(
        self, desk: CommandDesk, away: Exception
    ) -> None:
        """Far beyond the tries that a defect gets."""
        desk.troubles.before += [away] * 30
        reply = desk.send("package.create", CREATE)
        assert desk.topics() == ONCE
        assert (reply.data["position"], desk.bus.parked) == (2, [])

    def test_a_database_that_fails_beside_the_log_is_waited_for(self, desk: CommandDesk) -> None:
        """Where a droplet's environment is kept is the same database, through another library."""
        guid = desk.ready()
        errors = [StatementFailed("BEGIN", {}, OSError("server closed the connection"))] * 7

        def on_begin(connection: Connection) -> None:
            if errors:
                raise errors.pop()

        listen(desk.store.writer, "begin", on_begin)
        reply = desk.send("package.stage", {"guid": guid})
        assert reply.type == "command.accepted", reply
        assert errors == []
        assert desk.topics()[-1] == "command.executed"
        assert desk.topics().count("droplet.created") == 1

    def test_an_answer_that_is_lost_is_given_again(self, desk: CommandDesk) -> None:
        """Nobody waits for an answer to leave; who sends the command again gets it."""
        desk.bus.errors.append(BrokerAway("the queue is full"))
        desk.handler(message())
        assert (desk.topics(), desk.bus.sent) == (ONCE, [])
        desk.handler(message())
        ((_, reply),) = desk.bus.sent
        assert Reply.of(reply).guid == desk.events()[0].guid
        assert desk.topics() == ONCE

    def test_a_folder_that_is_away_is_waited_for(self, desk: CommandDesk) -> None:
        """An upload goes on when staging is mounted again."""
        guid, path = desk.awaiting(), desk.put(BITS)
        away = desk.staging.folder.rename(desk.staging.folder.with_name("elsewhere"))
        with ThreadPoolExecutor(1) as pool:
            data = {"guid": guid, "bits_path": str(path)}
            replied = pool.submit(desk.send, "package.upload", data)
            assert not replied.done()
            away.rename(desk.staging.folder)
            assert replied.result(20).guid == guid
        desk.process(guid)
        assert desk.store.service.get(guid).digests is not None

    def test_a_stop_ends_the_waiting(
        self, desk: CommandDesk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """At once, and the message comes again: to the next handler, which does it once."""
        monkeypatch.setattr(work, "FIRST_DELAY", 60.0)
        monkeypatch.setattr(work, "MAX_DELAY", 60.0)
        desk.troubles.before += [OperationalError("gone")] * 2
        with ThreadPoolExecutor(1) as pool:
            handling = pool.submit(desk.handler, message())
            eventually(lambda: desk.troubles.tries)
            desk.handler.stop()
            with pytest.raises(Abandoned):
                handling.result(8)
        desk.troubles.before.clear()
        assert (desk.bus.sent, desk.bus.parked) == ([], [])
        desk.another_handler()(message(deliveries=1))
        ((_, reply),) = desk.bus.sent
        assert Reply.of(reply).guid == desk.events()[0].guid
        assert desk.topics() == ONCE

    def test_a_stopped_handler_leaves_what_is_behind(self, desk: CommandDesk) -> None:
        """So that the next one has them in order."""
        desk.handler.stop()
        with pytest.raises(Abandoned):
            desk.handler(message())
        assert (desk.topics(), desk.bus.sent) == ([], [])


class TestOnce:
    """A command is done once, whatever is lost."""

    def test_an_answer_of_the_database_that_is_lost_for_long(self, desk: CommandDesk) -> None:
        """The record is found when the database is back."""
        desk.troubles.after.append(OperationalError("gone"))
        desk.troubles.before += [OperationalError("gone")] * 5
        reply = desk.send("package.create", CREATE)
        assert desk.topics() == ONCE
        assert reply.guid == desk.events()[0].guid

    def test_bits_of_an_upload_whose_answer_was_lost_are_kept(self, desk: CommandDesk) -> None:
        """The log names them: they are stored, and the file is consumed."""
        guid, path = desk.awaiting(), desk.put(BITS)
        desk.troubles.after.append(OperationalError("gone"))
        desk.troubles.before.append(OperationalError("gone"))
        data = {"guid": guid, "bits_path": str(path), "bits_name": "folder/größe.zip"}
        assert desk.send("package.upload", data).guid == guid
        assert desk.store.service.get(guid).file_name == "größe.zip"
        desk.process(guid)
        assert desk.store.service.get(guid).digests is not None
        assert not path.exists()

    def test_two_handlers_at_once(self, desk: CommandDesk) -> None:
        """A message that was handed out twice is done once, and answered twice alike."""
        handlers = [desk.handler, desk.another_handler(), desk.another_handler()]
        start = threading.Barrier(len(handlers))

        def handle(number: int) -> None:
            start.wait(10)
            handlers[number](message())

        with ThreadPoolExecutor(len(handlers)) as pool:
            list(pool.map(handle, range(len(handlers))))
        replies = [Reply.of(reply) for _, reply in desk.bus.sent]
        assert [reply.guid for reply in replies] == [desk.events()[0].guid] * 3
        assert desk.topics() == ONCE

    def test_two_builders_at_once(self, desk: CommandDesk, monkeypatch: pytest.MonkeyPatch) -> None:
        """One droplet is accepted, and its bits are what the log says, not the other's."""
        droplets = desk.store.store.services.droplets
        guid = droplets.stage(desk.ready(), Wanted(), BY).aggregate.guid

        def staged(bits: bytes) -> dict[str, Any]:
            path = desk.put(bits, f"{sha1(bits)}.tgz")
            types = {"web": "rackup"}
            return {
                "guid": guid,
                "bits_path": str(path),
                "sha1": sha1(bits),
                "process_types": types,
            }

        store, replies = desk.blobs.store, []

        def store_second(key: str, bits: StagedBits) -> StoredBits:
            monkeypatch.setattr(desk.blobs, "store", store)
            replies.append(desk.send("droplet.staged", staged(b"of the first")))
            return store(key, bits)

        monkeypatch.setattr(desk.blobs, "store", store_second)
        late = body_of("droplet.staged", staged(b"of the second"))
        desk.handler(Message("m", "droplet.staged", late, _bearer(WRITER), "others"))
        assert [reply.guid for reply in replies] == [guid]
        assert Reply.of(desk.bus.sent[-1][1]).type == "command.refused"
        droplet = droplets.get(guid)
        assert droplet.digests is not None and droplet.stored is not None
        with desk.blobs.open(droplet.stored.key) as bits:
            assert sha1(bits.read_at(0, bits.size)) == droplet.digests.sha1


class TestDefects:
    """Five tries, then 500."""

    def test_a_defect_gets_five_tries_and_is_parked(self, desk: CommandDesk) -> None:
        """With its body, to be looked at; without any header. Nothing has changed."""
        desk.troubles.before += [RuntimeError("a defect")] * 50
        reply = desk.send("package.create", CREATE, "command-1")
        assert reply.error == UNKNOWN_ERROR
        assert (reply.data["command_id"], desk.troubles.tries) == ("command-1", 5)
        assert desk.store.log.head() == 0
        (parked,) = desk.bus.parked
        assert parked.headers == {}
        assert parked.body == body_of("package.create", CREATE, "command-1")
        assert (parked.reply_to, parked.correlation_id) == (REPLIES, "c-1")
        desk.troubles.before.clear()
        assert desk.send("package.create", CREATE, "command-1").guid

    def test_a_defect_that_goes_away_in_time_is_forgotten(self, desk: CommandDesk) -> None:
        """Nor do failures of the environment count."""
        defect, away = RuntimeError("a defect"), OperationalError("gone")
        desk.troubles.before += [defect, away, away, away, away] * 4
        assert desk.send("package.create", CREATE).guid
        assert (desk.topics(), desk.bus.parked) == (ONCE, [])

    def test_what_a_defect_stopped_is_parked_when_the_broker_is_back(
        self, desk: CommandDesk
    ) -> None:
        """And answered then."""
        desk.troubles.before += [RuntimeError("a defect")] * 5
        desk.bus.errors += [BrokerAway("gone")] * 9
        assert desk.send("package.create", CREATE).error == UNKNOWN_ERROR
        assert len(desk.bus.parked) == 1


SPEC = {"specversion": "1.0", "id": "command-1", "source": "s", "type": "package.create"}


def without(name: str, **more: object) -> bytes:
    event = {key: value for key, value in {**SPEC, "data": CREATE}.items() if key != name}
    return orjson.dumps({**event, **more})


UNREADABLE = [
    b"", b"nonsense", b"[]", b"null", b"\xff\xfe", b"[" * 30_000 + b"]" * 30_000,
    without("specversion"), without("id"), without("source"), without("type"), without("data"),
    without("", data=[]), without("", data="{}"), without("", specversion="0.3"),
    without("", id=7), without("", id=""), without("", id="x" * 256), without("", id="a\0b"),
    without("", source="x" * 256), without("", type=None), without("", more="ü" * 33_000),
]  # fmt: skip


class TestUnreadable:
    """What nobody will ever be able to carry out."""

    def test_it_is_parked_and_refused(self, desk: CommandDesk) -> None:
        """As it came, but for its headers; the answer says what is wrong."""
        for body in UNREADABLE:
            headers = {"authorization": f"bearer {WRITER}", "x-copy": WRITER}
            reply = desk.deliver(body, headers=headers)
            status, code, error_code, description = reply.error
            assert (status, code, error_code) == (400, 1001, "CF-MessageParseError"), body[:200]
            assert description.startswith("Request invalid due to parse error: ")
            assert (reply.data["command_id"], reply.correlation_id) == (None, "c-1")
            if len(body) <= 64 * 1024:
                assert (desk.bus.parked[-1].body, desk.bus.parked[-1].headers) == (body, {})
        assert (len(desk.bus.parked), desk.store.log.head()) == (len(UNREADABLE) - 1, 0)

    def test_what_nobody_in_particular_sends_is_not_kept(self, desk: CommandDesk) -> None:
        """Without a good token it is refused, and parked nowhere."""
        reply = desk.deliver(b"nonsense", headers={"authorization": "bearer nobody"})
        assert reply.error[:2] == (401, 1000)
        assert desk.bus.parked == []

    def test_no_answer_goes_to_a_queue_of_ours(self, desk: CommandDesk) -> None:
        """A sender can't have us write into the queues of work."""
        for queue in ("packtrail.storage", "packtrail.commands", "packtrail.parked"):
            desk.handler(Message("m", "t", b"nonsense", _bearer(WRITER), queue))
        assert desk.bus.sent == []

    def test_as_much_as_the_limit_is_read(self, desk: CommandDesk) -> None:
        """64 KiB, to the byte; what is larger is not even parked."""
        body = without("", more="")
        headers = {"authorization": f"bearer {WRITER}"}
        full = without("", more="x" * (64 * 1024 - len(body)))
        assert len(full) == 64 * 1024
        assert desk.deliver(full, headers=headers).guid
        over = without("", more="x" * (64 * 1024 - len(body) + 1))
        assert desk.deliver(over, headers=headers).error[0] == 400
        assert desk.bus.parked == []

    def test_nobody_is_answered_who_wants_no_answer(self, desk: CommandDesk) -> None:
        """It is parked all the same."""
        desk.handler(Message("message-1", "", b"nonsense", _bearer(WRITER)))
        assert (len(desk.bus.parked), desk.bus.sent) == (1, [])

    def test_a_command_that_was_handed_out_too_often_is_parked(self, desk: CommandDesk) -> None:
        """Its handler may have died of it: after fifteen times it is refused, and not tried."""
        headers = {"authorization": f"bearer {WRITER}"}
        body = body_of("package.create", CREATE, "command-1")
        reply = desk.deliver(body, headers=headers, deliveries=16)
        assert (reply.error, desk.troubles.tries) == (UNKNOWN_ERROR, 0)
        (parked,) = desk.bus.parked
        assert (parked.body, parked.headers) == (body, {})
        assert desk.deliver(body, headers=headers, deliveries=15).guid


def test_no_token_is_left_anywhere(desk: CommandDesk, caplog: pytest.LogCaptureFixture) -> None:
    """Not in a log line of any level, an event, an answer, or what is parked; however it ends."""
    caplog.set_level(1)
    lacking = token("u", (Scope.READ,))
    expired = token("v", expires_in=-9)
    for used in (WRITER, ADMIN, lacking, expired, WRITER[:-3]):
        desk.send("package.create", CREATE, token=used)
        desk.send("app.created", {"guid": "app-1", "name": "one"}, token=used)
        desk.send("package.delete", {"guid": "nobody"}, token=used)
        desk.troubles.before += [OperationalError("gone")] * 4
        desk.bus.errors += [BrokerAway("gone")] * 2
        desk.handler(message())
        desk.bus.errors.clear()
        desk.troubles.before[:] = [RuntimeError("a defect")] * 5
        desk.send("package.create", CREATE, token=used)
        desk.troubles.before.clear()
        headers = {"Authorization": f"bearer {used}", "x-copy": used, "authorization": used}
        for body in (b"nonsense", b"x" * 70_000, body_of("nothing", {}), without("id")):
            desk.deliver(body, headers=headers)
        desk.deliver(body_of("package.create", CREATE), headers=headers, deliveries=99)
        desk.troubles.before.append(OperationalError("gone"))
        desk.troubles.before.append(OperationalError("gone"))
        stopped = desk.another_handler()
        stopped.stop()
        with pytest.raises(Abandoned):
            stopped(Message("m", "t", body_of("app.deleted", {"guid": "a"}), _bearer(ADMIN)))
        desk.troubles.before.clear()
    told = desk.everything_told(caplog.records)
    for expected in ("command accepted", "a command waits", "is parked", "a defect", "Traceback"):
        assert expected in told
    for used in (WRITER, ADMIN, lacking, expired):
        _, claims, signature = used.split(".")
        assert claims not in told
        assert signature not in told


def _bearer(text: str) -> dict[str, Any]:
    return {"authorization": f"bearer {text}"}
