"""The blob store's port: every adapter passes these tests."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import pytest

from adapters import object_store
from adapters.bits import FileBits, sync_folder
from adapters.blob_store.local import LocalBlobs
from adapters.blob_store.s3 import S3Blobs
from adapters.folders import FolderAway, NotOurFolder
from adapters.object_store import PART, Bucket
from adapters.staging.local import LocalStaging
from adapters.staging.s3 import S3Staging
from domain.errors import BlobMissing, StagedBitsMissing, StoreAway
from domain.package import StagedBits, StoredBits
from domain.ports import BlobStore
from domain.processing import blob_key
from tests.support.packages import stage
from tests.support.s3 import S3Server
from tests.support.waiting import eventually

KEY, OTHER = blob_key("guid-1"), blob_key("guid-2")
BITS = random.Random(1).randbytes(3 * (1 << 20) + 17)


@dataclass(frozen=True)
class Shelf:
    """A blob store and the staging that it takes bits from."""

    blobs: BlobStore
    stage: Callable[..., StagedBits]
    unstage: Callable[[StagedBits], None]
    staged: Callable[[StagedBits], bytes]

    def content(self, key: str) -> bytes:
        with self.blobs.open(key) as bits:
            content = b"".join(bytes(chunk) for chunk in bits.chunks())
            assert bits.size == len(content)
        return content


@pytest.fixture(params=["local", "s3"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Shelf:
    staging: LocalStaging | S3Staging
    blobs: LocalBlobs | S3Blobs
    if request.param == "local":
        staging = LocalStaging(tmp_path / "staging", tmp_path / "uploads")
        blobs = LocalBlobs(tmp_path / "blobs", staging)
    else:
        bucket = request.getfixturevalue("s3").bucket()
        staging = S3Staging(bucket, tmp_path / "receiving", tmp_path / "uploads")
        blobs = S3Blobs(bucket)
    staging.prepare("identity-1")
    blobs.prepare("identity-1")

    def staged(where: StagedBits) -> bytes:
        with staging.open(where) as bits:
            return bits.read_at(0, bits.size)

    return Shelf(blobs, partial(stage, staging), lambda where: staging.discard(where.uri), staged)


class TestBlobStore:
    @pytest.mark.parametrize("content", [b"", b"x", BITS], ids=["empty", "one byte", "3 MiB"])
    def test_stored_bits_are_read_back(self, shelf: Shelf, content: bytes) -> None:
        """To the byte, and their size is told."""
        assert shelf.blobs.store(KEY, shelf.stage(content)) == StoredBits(KEY, len(content))
        assert shelf.content(KEY) == content

    @pytest.mark.parametrize(
        ("offset", "length"), [(0, 100), (100, 1000), (1, len(BITS) - 1), (len(BITS), 0)]
    )
    def test_a_slice_of_a_body_is_stored(self, shelf: Shelf, offset: int, length: int) -> None:
        """The bits alone, not the form around them."""
        bits, end = BITS[offset : offset + length], offset + length
        staged = shelf.stage(bits, before=BITS[:offset], after=BITS[end:])
        assert shelf.blobs.store(KEY, staged).size == length
        assert shelf.content(KEY) == BITS[offset : offset + length]

    def test_storing_leaves_the_staged_bits(self, shelf: Shelf) -> None:
        """And they may be removed afterwards: the blob is its own."""
        staged = shelf.stage(BITS)
        shelf.blobs.store(KEY, staged)
        assert shelf.staged(staged) == BITS
        shelf.unstage(staged)
        assert shelf.content(KEY) == BITS

    def test_storing_again_replaces(self, shelf: Shelf) -> None:
        """The same bits or others; the last ones stay."""
        staged = shelf.stage(b"same")
        shelf.blobs.store(KEY, staged)
        shelf.blobs.store(KEY, staged)
        assert shelf.content(KEY) == b"same"
        shelf.blobs.store(KEY, shelf.stage(b"other"))
        assert shelf.content(KEY) == b"other"

    def test_staged_bits_that_are_missing_are_told(self, shelf: Shelf) -> None:
        """And what was stored before stays."""
        staged = shelf.stage(b"gone")
        shelf.unstage(staged)
        shelf.blobs.store(KEY, shelf.stage(b"before"))
        with pytest.raises(StagedBitsMissing):
            shelf.blobs.store(KEY, staged)
        assert shelf.content(KEY) == b"before"

    def test_a_blob_appears_whole_or_not_at_all(self, shelf: Shelf) -> None:
        """Staged bits that end too early make no blob, and harm none that is there."""
        staged = shelf.stage(b"short")
        with pytest.raises(OSError):
            shelf.blobs.store(KEY, StagedBits(staged.uri, 1, 100))
        with pytest.raises(BlobMissing):
            shelf.blobs.open(KEY)
        shelf.blobs.store(KEY, shelf.stage(b"before"))
        with pytest.raises(OSError):
            shelf.blobs.store(KEY, StagedBits(staged.uri, 1, 100))
        assert shelf.content(KEY) == b"before"

    def test_a_missing_blob_is_told(self, shelf: Shelf) -> None:
        """By opening and by copying it."""
        with pytest.raises(BlobMissing):
            shelf.blobs.open(KEY)
        with pytest.raises(BlobMissing):
            shelf.blobs.copy(KEY, OTHER)
        with pytest.raises(BlobMissing):
            shelf.blobs.open(OTHER)

    def test_deleting_removes_once_and_again(self, shelf: Shelf) -> None:
        """A blob that is not there is no error."""
        shelf.blobs.store(KEY, shelf.stage(b"x"))
        shelf.blobs.delete(KEY)
        with pytest.raises(BlobMissing):
            shelf.blobs.open(KEY)
        shelf.blobs.delete(KEY)
        shelf.blobs.store(KEY, shelf.stage(b"y"))
        assert shelf.content(KEY) == b"y"

    @pytest.mark.parametrize("content", [b"", BITS], ids=["empty", "3 MiB"])
    def test_a_copy_is_a_blob_of_its_own(self, shelf: Shelf, content: bytes) -> None:
        """It outlives the blob that it was made of, and the other way round."""
        shelf.blobs.store(KEY, shelf.stage(content))
        assert shelf.blobs.copy(KEY, OTHER) == StoredBits(OTHER, len(content))
        assert shelf.blobs.copy(KEY, OTHER) == StoredBits(OTHER, len(content))
        shelf.blobs.delete(KEY)
        assert shelf.content(OTHER) == content
        shelf.blobs.copy(OTHER, KEY)
        shelf.blobs.delete(OTHER)
        assert shelf.content(KEY) == content

    def test_replacing_a_blob_does_not_change_its_copies(self, shelf: Shelf) -> None:
        """Each is a blob of its own."""
        shelf.blobs.store(KEY, shelf.stage(b"before"))
        shelf.blobs.copy(KEY, OTHER)
        shelf.blobs.store(KEY, shelf.stage(b"behind"))
        assert (shelf.content(KEY), shelf.content(OTHER)) == (b"behind", b"before")

    @pytest.mark.parametrize(
        ("offset", "length", "found"),
        [
            (0, 3, b"012"),
            (7, 3, b"789"),
            (7, 100, b"789"),
            (10, 5, b""),
            (99, 5, b""),
            (3, 0, b""),
        ],
    )
    def test_bits_are_read_at_any_place(
        self, shelf: Shelf, offset: int, length: int, found: bytes
    ) -> None:
        """Fewer at the end, and never what lies behind the bits in a body."""
        shelf.blobs.store(KEY, shelf.stage(b"0123456789", before=b"head", after=b"tail"))
        with shelf.blobs.open(KEY) as bits:
            assert bits.read_at(offset, length) == found
            assert bits.size == 10

    def test_many_store_and_copy_at_a_time(self, shelf: Shelf) -> None:
        """The same key too: each blob is whole, of one of them."""
        contents = [bytes([number]) * 100_000 for number in range(8)]

        def work(number: int) -> None:
            staged = shelf.stage(contents[number])
            for _ in range(5):
                shelf.blobs.store(KEY, staged)
                shelf.blobs.copy(KEY, f"xy/{number}/copy")
                shelf.blobs.store(f"xy/{number}/own", staged)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        assert shelf.content(KEY) in contents
        for number in range(8):
            assert shelf.content(f"xy/{number}/copy") in contents
            assert shelf.content(f"xy/{number}/own") == contents[number]


@dataclass(frozen=True)
class LocalShelf:
    folder: Path
    staging: LocalStaging
    blobs: LocalBlobs
    stage: Callable[..., StagedBits]

    def files(self) -> set[str]:
        return {
            str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()
        }


@pytest.fixture
def folders(tmp_path: Path) -> LocalShelf:
    staging = LocalStaging(tmp_path / "staging", tmp_path / "uploads")
    staging.prepare("identity-1")
    blobs = LocalBlobs(tmp_path / "blobs", staging)
    blobs.prepare("identity-1")
    return LocalShelf(tmp_path / "blobs", staging, blobs, partial(stage, staging))


class NoLinks(LocalBlobs):
    """On a file system that can't make hard links."""

    def _link(self, source: str, target: str) -> None:
        with FileBits.of_file(source) as bits:
            self._copy(bits, 0, bits.size, target)


class TestLocalBlobs:
    """What only folders promise."""

    def test_a_reader_keeps_what_it_opened(self, folders: LocalShelf) -> None:
        """A download that runs while the package is deleted, or stored again, is finished."""
        folders.blobs.store(KEY, folders.stage(BITS))
        with folders.blobs.open(KEY) as bits:
            folders.blobs.store(KEY, folders.stage(b"other"))
            folders.blobs.delete(KEY)
            assert b"".join(bytes(chunk) for chunk in bits.chunks()) == BITS

    def test_no_key_leads_out_of_the_folder(self, folders: LocalShelf, tmp_path: Path) -> None:
        """Whatever somebody has written into the log, no other file is read or removed."""
        secret = tmp_path / "jwt.secret"
        secret.write_text("secret")
        for key in ("../jwt.secret", "ab/../../jwt.secret", str(secret), "a\0b"):
            with pytest.raises(BlobMissing):
                folders.blobs.open(key)
            with pytest.raises(BlobMissing):
                folders.blobs.store(key, folders.stage(BITS))
            folders.blobs.delete(key)
        assert secret.read_text() == "secret"

    def test_a_blobs_name_is_on_the_disk_and_all_folders_names_above_it(
        self, folders: LocalShelf, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is known to be there is not synced again; what was removed is made again."""
        synced: list[Path] = []

        def noting(folder: str) -> None:
            synced.append(Path(folder))
            sync_folder(folder)

        monkeypatch.setattr("adapters.blob_store.local.sync_folder", noting)
        root = folders.blobs.folder

        def stored(key: str) -> list[Path]:
            synced.clear()
            folders.blobs.store(key, folders.stage(BITS))
            return list(synced)

        assert stored("ab/cd/one") == [root, root / "ab", root / "ab" / "cd"]
        assert stored("ab/cd/two") == [root / "ab" / "cd"]
        assert stored("ab/ef/one") == [root / "ab", root / "ab" / "ef"]
        folders.blobs.delete("ab/ef/one")
        (root / "ab" / "ef").rmdir()
        assert stored("ab/ef/one") == [root / "ab", root / "ab" / "ef"]

    def test_a_whole_file_is_linked_and_a_slice_is_copied(self, folders: LocalShelf) -> None:
        """Storing a gigabyte that is a file of its own takes no second gigabyte."""
        staged = folders.stage(b"0123456789")
        origin = folders.staging.folder / folders.staging.name_of(staged.uri)
        folders.blobs.store(KEY, staged)
        assert (folders.folder / KEY).samefile(origin)
        folders.blobs.store(OTHER, StagedBits(staged.uri, 0, 9))
        assert not (folders.folder / OTHER).samefile(origin)
        folders.blobs.copy(KEY, OTHER)
        assert (folders.folder / OTHER).samefile(origin)

    def test_the_folders_are_for_the_owners_eyes_only(self, folders: LocalShelf) -> None:
        """Whatever the umask is: other users of the machine can't put blobs there."""
        before = os.umask(0)
        try:
            folders.blobs.store(KEY, folders.stage(BITS))
        finally:
            os.umask(before)
        made = [path for path in folders.folder.rglob("*") if path.is_dir()]
        assert {path.stat().st_mode & 0o777 for path in made} == {0o700}

    def test_without_hard_links_bits_are_copied(self, folders: LocalShelf) -> None:
        """Slower, with the same outcome."""
        blobs = NoLinks(folders.folder, folders.staging)
        blobs.store(KEY, folders.stage(BITS))
        blobs.copy(KEY, OTHER)
        assert (folders.folder / OTHER).read_bytes() == BITS
        assert not (folders.folder / OTHER).samefile(folders.folder / KEY)

    def test_nothing_is_left_behind(self, folders: LocalShelf) -> None:
        """Whether storing succeeds, is repeated, or fails."""
        staged = folders.stage(b"x")
        folders.blobs.store(KEY, staged)
        folders.blobs.store(KEY, staged)
        folders.blobs.copy(KEY, OTHER)
        folders.blobs.copy(KEY, OTHER)
        with pytest.raises(OSError):
            folders.blobs.store("zz/zz/never", StagedBits(staged.uri, 0, 100))
        assert folders.files() == {KEY, OTHER}

    def test_keys_are_those_of_blobs_older_than_a_moment(self, folders: LocalShelf) -> None:
        """However old the bits in them are; what is still being made is no blob."""
        folders.blobs.store(KEY, folders.stage(b"x"))
        (folders.folder / "incoming" / "half").write_bytes(b"x")
        assert list(folders.blobs.keys(time.time() - 60)) == []
        assert list(folders.blobs.keys(time.time() + 60)) == [KEY]

    def test_other_files_are_no_blobs(self, folders: LocalShelf) -> None:
        """Whatever somebody has put there is not ours to remove."""
        folders.blobs.store(KEY, folders.stage(b"x"))
        for name in ("thesis.txt", "ab/notes", "ab/cd/guid-1", "incoming/x"):
            path = folders.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
        assert list(folders.blobs.keys(time.time() + 60)) == [KEY]

    def test_a_folder_that_is_away_says_nothing_of_its_blobs(self, folders: LocalShelf) -> None:
        """Moved or unmounted, it is not as if they were lost."""
        staged = folders.stage(b"x")
        folders.blobs.store(KEY, staged)
        away = folders.folder.rename(folders.folder.with_name("away"))
        for act in (
            lambda: folders.blobs.open(KEY),
            lambda: folders.blobs.copy(KEY, OTHER),
            lambda: folders.blobs.store(OTHER, staged),
        ):
            with pytest.raises(FolderAway):
                act()
        away.rename(folders.folder)
        folders.blobs.open(KEY).close()

    def test_what_a_crash_left_is_cleared(self, folders: LocalShelf) -> None:
        """If it is old enough; blobs stay."""
        folders.blobs.store(KEY, folders.stage(b"x"))
        (folders.folder / "incoming" / "half").write_bytes(b"x")
        folders.blobs.clear_incoming(time.time() - 60)
        assert folders.files() == {KEY, "incoming/half"}
        folders.blobs.clear_incoming(time.time() + 60)
        assert folders.files() == {KEY}

    def test_a_blob_being_made_of_old_bits_is_not_cleared(self, folders: LocalShelf) -> None:
        """A copy of a blob of last year was begun just now, whatever the file's own time is."""
        folders.blobs.store(KEY, folders.stage(b"x"))
        age(folders.folder / KEY)
        (folders.folder / "incoming" / "now").hardlink_to(folders.folder / KEY)
        folders.blobs.clear_incoming(time.time() - 3600)
        assert folders.files() == {KEY, "incoming/now"}

    def test_clearing_does_not_mind_blobs_that_appear_meanwhile(self, folders: LocalShelf) -> None:
        """It runs beside workers, whose files come and go."""
        staged = folders.stage(b"x")
        stopping = threading.Event()

        def work() -> None:
            while not stopping.is_set():
                folders.blobs.store(KEY, staged)
                folders.blobs.copy(KEY, OTHER)

        with ThreadPoolExecutor(3) as pool:
            working = [pool.submit(work) for _ in range(3)]
            try:
                for _ in range(1000):
                    folders.blobs.clear_incoming(time.time() - 3600)
            finally:
                stopping.set()
            for worker in working:
                worker.result()
        assert folders.files() == {KEY, OTHER}


def age(path: Path) -> None:
    """Makes a file's content last written a year ago."""
    then = time.time() - 365 * 86_400
    os.utime(path, (then, then))


class TestS3Blobs:
    """What only a bucket promises."""

    @pytest.fixture
    def bucket(self, s3: S3Server) -> Bucket:
        return s3.bucket()

    @pytest.fixture
    def staging(self, bucket: Bucket, tmp_path: Path) -> S3Staging:
        staging = S3Staging(bucket, tmp_path / "receiving", tmp_path / "uploads")
        staging.prepare("identity-1")
        return staging

    def test_clients_download_from_the_bucket(self, bucket: Bucket, staging: S3Staging) -> None:
        """By a link that needs no token, under the file's name, for a blob and for its copy."""
        blobs = S3Blobs(bucket)
        body = staging.create("guid-1")
        body.write(BITS)
        staged = staging.stage(body, 0, len(BITS), "guid-1", "größe.zip")
        body.close()
        blobs.store(KEY, staged)
        blobs.copy(KEY, OTHER)
        for key in (KEY, OTHER):
            link = blobs.link(key)
            assert link is not None
            response = httpx.get(link)
            assert response.content == BITS
            assert "gr%C3%B6%C3%9Fe.zip" in response.headers["Content-Disposition"]
            assert response.headers["Content-Type"] == "application/zip"

    def test_large_bits_travel_in_parts(self, bucket: Bucket, staging: S3Staging) -> None:
        """And are whole at the other end."""
        bits = random.Random(2).randbytes(2 * PART + 12345)
        staged = stage(staging, bits, before=b"head", after=b"tail")
        with staging.open(staged) as opened:
            assert b"".join(bytes(chunk) for chunk in opened.chunks()) == bits
            assert opened.read_at(PART - 5, 10) == bits[PART - 5 : PART + 5]

    def test_what_is_too_large_for_the_store_to_copy_goes_through_here(
        self, bucket: Bucket, staging: S3Staging, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A piece at a time, with its name."""
        monkeypatch.setattr(object_store, "MAX_SERVER_COPY", 1000)
        blobs = S3Blobs(bucket)
        blobs.store(KEY, stage(staging, BITS))
        link = blobs.link(KEY)
        assert link is not None
        response = httpx.get(link)
        assert response.content == BITS
        assert "app.zip" in response.headers["Content-Disposition"]

    def test_a_prefix_belongs_to_one_log(self, bucket: Bucket) -> None:
        """Another log's is refused: its sweep would remove the first one's bits."""
        S3Blobs(bucket).prepare("identity-1")
        S3Blobs(bucket).prepare("identity-1")
        with pytest.raises(NotOurFolder, match="another log"):
            S3Blobs(bucket).prepare("identity-2")

    def test_what_is_there_can_be_listed_for_a_sweep(
        self, bucket: Bucket, staging: S3Staging
    ) -> None:
        """Blobs and staged bits older than a moment, and no other objects."""
        blobs = S3Blobs(bucket)
        staged = stage(staging, b"x")
        blobs.store(KEY, staged)
        bucket.put("blobs/notes", iter([b"x"]), {})
        assert list(blobs.keys(time.time() + 60)) == [KEY]
        assert list(blobs.keys(time.time() - 60)) == []
        name = staging.name_of(staged.uri)
        assert list(staging.names(time.time() + 60)) == [name]
        staging.remove(name)
        assert list(staging.names(time.time() + 60)) == []

    def test_a_bucket_that_was_away_at_the_start_is_claimed_before_a_sweep(
        self,
    ) -> None:
        """Nothing is listed, and so removed, before it is known whose the bits are."""
        server = S3Server()
        url = "s3://bucket-1/pack/trail"
        bucket = server.reopen(url)
        S3Blobs(bucket).prepare("identity-1")
        with pytest.raises(StoreAway):
            list(S3Blobs(bucket).keys(time.time()))
        server.start()
        server.make_bucket(url)
        server.reopen(url).claim("identity-2")

        def is_refused() -> bool:
            try:
                raise AssertionError(list(S3Blobs(bucket).keys(time.time())))
            except StoreAway:
                return False  # it is not asked again in the same moment
            except NotOurFolder:
                return True

        eventually(is_refused)
        server.stop()

    def test_a_store_that_is_away_says_nothing_of_its_bits(self) -> None:
        """It is not as if they were lost: it is waited for."""
        server = S3Server()
        server.start()
        blobs = S3Blobs(server.bucket())
        server.stop()
        for act in (lambda: blobs.open(KEY), lambda: blobs.copy(KEY, OTHER), blobs.check):
            with pytest.raises(StoreAway):
                act()
