"""Staging's port: every adapter passes these tests; and the rules for taking files."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from adapters.folders import FolderAway, NotOurFolder
from adapters.staging import local
from adapters.staging.local import LocalStaging
from adapters.staging.s3 import S3Staging
from domain.errors import BitsPathInvalid, StagedBitsMissing, UploadTooLarge
from domain.package import StagedBits
from domain.ports import Staging
from tests.support.packages import stage, take_file
from tests.support.waiting import eventually

LIMIT = 1 << 20


@dataclass(frozen=True)
class Desk:
    """A staging, and how bits get into it."""

    staging: Staging
    stage: Callable[..., StagedBits]

    def content(self, staged: StagedBits) -> bytes:
        with self.staging.open(staged) as bits:
            content = b"".join(bytes(chunk) for chunk in bits.chunks())
            assert bits.size == len(content)
        return content


@pytest.fixture(params=["local", "s3"])
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Desk:
    staging: LocalStaging | S3Staging
    if request.param == "local":
        staging = LocalStaging(tmp_path / "staging", tmp_path / "uploads")
    else:
        bucket = request.getfixturevalue("s3").bucket()
        staging = S3Staging(bucket, tmp_path / "receiving", tmp_path / "uploads")
    staging.prepare("identity-1")
    return Desk(staging, partial(stage, staging))


class TestStaging:
    @pytest.mark.parametrize("content", [b"", b"x", bytes(2_500_000)], ids=len)
    def test_staged_bits_are_read_back(self, desk: Desk, content: bytes) -> None:
        """To the byte."""
        assert desk.content(desk.stage(content)) == content

    def test_a_slice_is_read_alone(self, desk: Desk) -> None:
        """Not what is before and behind it in the body."""
        slice_ = desk.stage(b"0123456789", before=b"head", after=b"tail")
        assert desk.content(slice_) == b"0123456789"
        with desk.staging.open(slice_) as bits:
            assert (bits.size, bits.read_at(8, 100), bits.read_at(0, 2)) == (10, b"89", b"01")

    def test_two_stagings_are_two(self, desk: Desk) -> None:
        """No name is used twice."""
        one, other = desk.stage(b"one"), desk.stage(b"other")
        assert one.uri != other.uri
        desk.staging.discard(one.uri)
        assert desk.content(other) == b"other"

    def test_discarded_bits_are_missing(self, desk: Desk) -> None:
        """To discard them again is no error."""
        staged = desk.stage(b"x")
        desk.staging.discard(staged.uri)
        desk.staging.discard(staged.uri)
        with pytest.raises(StagedBitsMissing):
            desk.staging.open(staged)

    @pytest.mark.parametrize(
        "uri", ["", "staging:", "staging:../secret", "staging:/etc/passwd", "file:///etc/passwd"]
    )
    def test_only_staged_bits_are_opened(self, desk: Desk, uri: str) -> None:
        """Whatever a log might hold in place of a name."""
        with pytest.raises(StagedBitsMissing):
            desk.staging.open(StagedBits(uri, 0, 1))


@dataclass(frozen=True)
class Folders:
    """A local staging, the folder that a front server puts files into, and one beside it."""

    staging: LocalStaging
    uploads: Path
    outside: Path

    def put(self, content: bytes = b"PK", name: str = "app.zip") -> Path:
        path = self.uploads / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def take(self, path: Path | str, limit: int = LIMIT) -> StagedBits:
        return take_file(self.staging, str(path), limit)

    def content(self, staged: StagedBits) -> bytes:
        with self.staging.open(staged) as bits:
            return bits.read_at(0, bits.size)

    def staged_files(self) -> list[str]:
        return sorted(path.name for path in self.staging.folder.iterdir())

    def refuses(self, path: Path | str, reason: str) -> None:
        before = self.staged_files()
        with pytest.raises(BitsPathInvalid) as refused:
            self.take(path)
        assert refused.value.path == str(path)
        assert reason in refused.value.reason
        assert self.staged_files() == before


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    staging = LocalStaging(tmp_path / "staging", tmp_path / "uploads")
    staging.prepare("identity-1")
    outside = tmp_path / "outside"
    outside.mkdir()
    return Folders(staging, tmp_path / "uploads", outside)


@pytest.fixture(params=["one file system", "two file systems"])
def linked(
    request: pytest.FixtureRequest, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> Iterator[bool]:
    """Whether a file can be taken by another name; else it is copied."""
    can_link: bool = request.param == "one file system"
    if not can_link:

        def link(*args: object, **kwargs: object) -> None:
            raise OSError(18, "Invalid cross-device link")

        monkeypatch.setattr(os, "link", link)
    yield can_link


class TestTakingFiles:
    """A front server may name a file in the upload folder, and nothing else."""

    def test_a_consumed_file_lives_on_in_staging(self, folders: Folders, linked: bool) -> None:
        """Its own name is gone, and may be gone already; bits of a body have no such name."""
        path = folders.put(b"0123")
        staged = folders.take(path)
        folders.staging.consume(staged.uri)
        folders.staging.consume(staged.uri)
        assert not path.exists()
        assert folders.content(staged) == b"0123"
        body = folders.staging.create("guid-1")
        body.close()
        folders.staging.consume(body.uri)
        assert len(folders.staged_files()) == 2

    @pytest.mark.parametrize("name", ["app.zip", "d2015/app.zip", "with space & ü?#%.zip"])
    def test_a_file_is_taken(self, folders: Folders, linked: bool, name: str) -> None:
        """Its bits are staged as they are; it keeps its name until they are discarded."""
        path = folders.put(b"0123", name)
        staged = folders.take(path)
        assert (staged.offset, staged.length) == (0, 4)
        assert folders.content(staged) == b"0123"
        assert path.exists()
        folders.staging.discard(staged.uri)
        assert not path.exists()
        assert folders.staged_files() == []
        with pytest.raises(StagedBitsMissing):
            folders.staging.open(staged)

    def test_a_released_file_stays_where_it_was(self, folders: Folders, linked: bool) -> None:
        """After a refusal it can be named again."""
        path = folders.put()
        staged = folders.take(path)
        folders.staging.release(staged.uri)
        assert (path.read_bytes(), folders.staged_files()) == (b"PK", [])
        folders.staging.release(staged.uri)
        assert folders.content(folders.take(path)) == b"PK"

    def test_a_file_that_was_replaced_is_not_removed(self, folders: Folders, linked: bool) -> None:
        """A new upload under the same name is not the one that was consumed."""
        path = folders.put(b"first")
        staged = folders.take(path)
        path.unlink()
        another = folders.put(b"second", "another")
        another.rename(path)
        assert folders.content(staged) == b"first"
        folders.staging.discard(staged.uri)
        assert path.read_bytes() == b"second"
        assert folders.staged_files() == []

    def test_a_file_that_was_written_to_is_not_removed(
        self, folders: Folders, linked: bool
    ) -> None:
        """It is no longer what was taken."""
        path = folders.put(b"first")
        staged = folders.take(path)
        path.write_bytes(b"other")
        os.utime(path, (1, 1))
        folders.staging.discard(staged.uri)
        assert path.read_bytes() == b"other"

    def test_a_file_that_is_gone_is_no_error(self, folders: Folders, linked: bool) -> None:
        """A front server may tidy up, with folders and all."""
        path = folders.put(name="a/b/app.zip")
        staged = folders.take(path)
        path.unlink()
        path.parent.rmdir()
        path.parent.parent.rmdir()
        (folders.uploads / "a").write_bytes(b"a file by the folder's name")
        assert folders.content(staged) == b"PK"
        folders.staging.discard(staged.uri)
        assert folders.staged_files() == []

    def test_a_path_through_a_link_inside_is_followed(self, folders: Folders) -> None:
        """What counts is where it leads; the file is consumed, not the link."""
        path = folders.put()
        link = folders.uploads / "link.zip"
        link.symlink_to(path)
        staged = folders.take(link)
        assert folders.content(staged) == b"PK"
        folders.staging.discard(staged.uri)
        assert not path.exists()

    def test_the_upload_folder_may_be_a_link(self, tmp_path: Path) -> None:
        """An operator puts it where there is room."""
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "uploads").symlink_to(tmp_path / "elsewhere")
        staging = LocalStaging(tmp_path / "staging", tmp_path / "uploads")
        staging.prepare("identity-1")
        for name in ("uploads/a.zip", "elsewhere/b.zip"):
            (tmp_path / name).write_bytes(b"PK")
            staged = take_file(staging, str(tmp_path / name), LIMIT)
            staging.discard(staged.uri)
            assert not (tmp_path / name).exists()

    def test_the_limit_holds(self, folders: Folders) -> None:
        """A file of the limit is taken, one byte more is not; it stays where it is."""
        path = folders.put(b"x" * 100)
        assert folders.take(path, 100).length == 100
        larger = folders.put(b"x" * 101, "larger.zip")
        with pytest.raises(UploadTooLarge) as refused:
            folders.take(larger, 100)
        assert refused.value.limit == 100
        assert larger.exists()
        assert len(folders.staged_files()) == 1

    def test_uploads_of_one_package_may_take_the_same_file(self, folders: Folders) -> None:
        """One that was not answered may be tried again: the package decides which one counts."""
        path = folders.put(b"0123")
        first, second = folders.take(path), folders.take(path)
        with pytest.raises(BitsPathInvalid):
            take_file(folders.staging, str(path), guid="guid-2")
        folders.staging.release(second.uri)
        assert path.exists()
        folders.staging.make_private(first.uri)
        folders.staging.consume(first.uri)
        assert folders.content(first) == b"0123"

    def test_nobody_can_write_to_private_bits(self, folders: Folders, linked: bool) -> None:
        """Also not who has had the file open since before it was taken."""
        path = folders.put(b"0123")
        with path.open("r+b") as writer:
            staged = folders.take(path)
            folders.staging.make_private(staged.uri)
            folders.staging.make_private(staged.uri)
            writer.write(b"9999")
        assert folders.content(staged) == b"0123"
        folders.staging.consume(staged.uri)
        assert not path.exists() or path.read_bytes() == b"9999"
        assert len(folders.staged_files()) == 1

    def test_a_folder_that_is_away_says_nothing_of_its_files(self, folders: Folders) -> None:
        """Moved or unmounted, it is not as if the bits were lost; back again, they are there."""
        staged = folders.take(folders.put(b"0123"))
        away = folders.staging.folder.rename(folders.outside / "staging")
        for again in (False, True):
            with pytest.raises(FolderAway):
                folders.staging.open(staged)
            with pytest.raises(FolderAway):
                folders.staging.create("guid-1")
            if not again:
                folders.staging.folder.mkdir()
        folders.staging.folder.rmdir()
        away.rename(folders.staging.folder)
        assert folders.content(staged) == b"0123"

    def test_a_folder_belongs_to_one_log(self, folders: Folders) -> None:
        """Another log's is refused, and so is one with files in it that nobody has marked."""
        folders.staging.prepare("identity-1")
        with pytest.raises(NotOurFolder, match="another log"):
            folders.staging.prepare("identity-2")
        (folders.outside / "thesis.txt").touch()
        foreign = LocalStaging(folders.outside, folders.uploads)
        with pytest.raises(NotOurFolder, match="not ours"):
            foreign.prepare("identity-1")

    def test_a_file_is_taken_by_one_of_many(self, folders: Folders) -> None:
        """Two packages never share a consumed file."""
        for number in range(20):
            path = folders.put(name=f"{number}.zip")

            def try_to_take(turn: int, path: Path = path) -> StagedBits | None:
                try:
                    return take_file(folders.staging, str(path), guid=f"guid-{turn}")
                except BitsPathInvalid:
                    return None

            with ThreadPoolExecutor(4) as pool:
                taken = [staged for staged in pool.map(try_to_take, range(4)) if staged]
            assert len(taken) <= 1
            for staged in taken:
                assert folders.content(staged) == b"PK"
                folders.staging.discard(staged.uri)
            assert folders.staged_files() == []

    def test_a_path_outside_is_refused(self, folders: Folders) -> None:
        """However it gets there."""
        secret = folders.outside / "secret"
        secret.write_bytes(b"x")
        folders.refuses(secret, "outside the upload directory")
        folders.refuses("/etc/passwd", "outside the upload directory")
        folders.refuses(f"{folders.uploads}/../outside/secret", "outside the upload directory")
        neighbour = folders.uploads.with_name("uploads-2")
        neighbour.mkdir()
        (neighbour / "app.zip").write_bytes(b"x")
        folders.refuses(neighbour / "app.zip", "outside the upload directory")
        assert secret.exists()

    def test_staging_itself_is_outside(self, folders: Folders) -> None:
        """Nobody names the bits of another package."""
        theirs = folders.take(folders.put())
        name = folders.staging.name_of(theirs.uri)
        folders.refuses(folders.staging.folder / name, "outside the upload directory")

    def test_a_path_that_is_not_absolute_is_refused(self, folders: Folders) -> None:
        """It would mean something else in each process."""
        folders.put()
        for path in ("app.zip", "uploads/app.zip", "", ".", "~/app.zip"):
            folders.refuses(path, "not an absolute path")

    def test_a_path_that_leads_nowhere_is_refused(self, folders: Folders) -> None:
        """Missing, endless, too long, or with a NUL in it."""
        folders.refuses(folders.uploads / "missing.zip", "can't be followed")
        loop = folders.uploads / "loop"
        loop.symlink_to(loop)
        folders.refuses(loop, "can't be followed")
        folders.refuses(folders.uploads / ("x" * 300), "can't be followed")
        folders.refuses(f"{folders.uploads}/a\0b", "not an absolute path")
        folders.refuses(f"{folders.uploads}/\udcff", "can't be followed")
        folders.refuses(folders.put() / "below", "can't be followed")

    def test_a_link_that_leads_outside_is_refused(self, folders: Folders) -> None:
        """Itself, or a folder on the way."""
        secret = folders.outside / "secret"
        secret.write_bytes(b"x")
        link = folders.uploads / "link.zip"
        link.symlink_to(secret)
        folders.refuses(link, "outside the upload directory")
        (folders.uploads / "folder").symlink_to(folders.outside)
        folders.refuses(folders.uploads / "folder" / "secret", "outside the upload directory")
        assert secret.exists()

    def test_a_second_name_is_refused(self, folders: Folders) -> None:
        """A hard link would let somebody else's file be consumed, or changed later."""
        secret = folders.outside / "secret"
        secret.write_bytes(b"x")
        (folders.uploads / "link.zip").hardlink_to(secret)
        folders.refuses(folders.uploads / "link.zip", "not a regular file with one name")

    def test_what_is_no_file_is_refused_at_once(self, folders: Folders) -> None:
        """A FIFO without a writer does not hang the request; a folder is no zip."""
        os.mkfifo(folders.uploads / "fifo")
        folders.refuses(folders.uploads / "fifo", "not a regular file with one name")
        (folders.uploads / "folder").mkdir()
        folders.refuses(folders.uploads / "folder", "not a regular file with one name")
        folders.refuses(folders.uploads, "not a regular file with one name")


class TestLocalStaging:
    """What only a folder promises."""

    def test_whoever_reads_keeps_what_is_discarded(self, folders: Folders) -> None:
        """Work that runs is not disturbed."""
        staged = stage(folders.staging, b"x")
        with folders.staging.open(staged) as bits:
            folders.staging.discard(staged.uri)
            assert bits.read_at(0, 1) == b"x"

    def test_an_abandoned_file_leaves_nothing(self, folders: Folders) -> None:
        """A body that never came to its end."""
        file = folders.staging.create("guid-1")
        file.write(b"half")
        file.abandon()
        assert folders.staged_files() == []

    def test_what_is_written_can_be_read_before_it_is_sealed(self, folders: Folders) -> None:
        """The form is searched while it lies there."""
        file = folders.staging.create("guid-1")
        file.write(b"0123")
        file.write(memoryview(b"4567"))
        assert (file.size, file.read_at(2, 4)) == (8, b"2345")
        file.abandon()

    def test_the_disk_writes_what_has_come_while_more_comes(
        self, folders: Folders, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is left for the end is little."""
        monkeypatch.setattr(local, "WRITE_BACK", 10)
        synced: list[int] = []
        monkeypatch.setattr(os, "fdatasync", lambda it: synced.append(os.fstat(it).st_size))
        file = folders.staging.create("guid-1")
        file.write(bytes(9))
        file.write(b"x")
        eventually(lambda: synced == [10])
        file.abandon()

    def test_a_sender_waits_for_a_disk_that_is_slower(
        self, folders: Folders, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is not on the disk yet has a bound; the sender is told when it may go on."""
        monkeypatch.setattr(local, "WRITE_BACK", 10)
        monkeypatch.setattr(local, "MOST_AHEAD", 30)
        may_sync, may_go_on = threading.Event(), threading.Event()
        monkeypatch.setattr(os, "fdatasync", lambda _: may_sync.wait(10))
        file = folders.staging.create("guid-1")
        for _ in range(3):
            assert not file.wait_for_disk(may_go_on.set)
            file.write(bytes(10))
        file.write(bytes(10))
        assert file.wait_for_disk(may_go_on.set)
        assert not may_go_on.is_set()
        may_sync.set()
        assert may_go_on.wait(10)
        file.write(b"x")
        assert not file.wait_for_disk(may_go_on.set)
        file.abandon()

    def test_what_the_disk_refused_meanwhile_is_told_at_the_end(
        self, folders: Folders, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The system tells it once, to whoever syncs first: a sync afterwards succeeds."""
        monkeypatch.setattr(local, "WRITE_BACK", 10)
        failures = [OSError(errno.EIO, "the disk is broken")]
        tried: list[int] = []

        def fdatasync(descriptor: int) -> None:
            tried.append(descriptor)
            if failures:
                raise failures.pop()

        monkeypatch.setattr(os, "fdatasync", fdatasync)
        for more in (b"", bytes(10)):  # it is told to the last write, or to the seal
            failures[:] = [OSError(errno.EIO, "the disk is broken")]
            file = folders.staging.create("guid-1")
            file.write(bytes(10))
            eventually(lambda: not failures)
            with pytest.raises(OSError, match="the disk is broken"):
                file.write(more)
                file.seal()
            file.abandon()
        assert folders.staged_files() == []

    def test_a_file_that_is_closed_while_the_disk_writes_it_is_closed(
        self, folders: Folders, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nobody waits for the disk then, and no descriptor is left."""
        monkeypatch.setattr(local, "WRITE_BACK", 10)
        begun, may_end = threading.Event(), threading.Event()

        def fdatasync(descriptor: int) -> None:
            begun.set()
            assert may_end.wait(10)

        monkeypatch.setattr(os, "fdatasync", fdatasync)
        before = set(Path("/proc/self/fd").iterdir())
        files = [folders.staging.create(f"guid-{number}") for number in range(2)]
        for file in files:  # the second one's sync waits for its turn
            file.write(bytes(10))
        assert begun.wait(10)
        for file in files:
            file.abandon()
        may_end.set()
        eventually(lambda: set(Path("/proc/self/fd").iterdir()) == before)

    def test_received_bits_are_for_the_owners_eyes_only(self, folders: Folders) -> None:
        """Other users of the machine can't read them."""
        file = folders.staging.create("guid-1")
        assert file.path.stat().st_mode & 0o777 == 0o600
        assert folders.staging.folder.stat().st_mode & 0o777 == 0o700
        file.abandon()

    def test_names_are_those_of_files_older_than_a_moment(self, folders: Folders) -> None:
        """For a sweep."""
        file = folders.staging.create("guid-1")
        file.write(b"x")
        file.close()
        assert list(folders.staging.names(time.time() - 60)) == []
        assert list(folders.staging.names(time.time() + 60)) == [file.path.name]
        folders.staging.remove(file.path.name)
        folders.staging.remove(file.path.name)
        assert folders.staged_files() == []

    def test_an_old_file_that_was_just_taken_is_young(self, folders: Folders) -> None:
        """A front server may hand over what was written long ago: its upload begins now."""
        path = folders.put()
        last_year = time.time() - 365 * 86_400
        os.utime(path, (last_year, last_year))
        folders.take(path)
        assert list(folders.staging.names(time.time() - 3600)) == []
