"""The work between a received upload and a READY package: store the bits, then hash them.

Each step looks at the package first and does only what is still to be done, so that a
repeated or late message changes nothing. Whoever makes a package READY removes its staged bits.
"""

from __future__ import annotations

import contextlib
import hashlib
import re

from domain.aggregate import Cause
from domain.archive import ArchiveLimits, check_archive
from domain.errors import (
    BitsAtFault,
    BlobMissing,
    LargeBits,
    PackageNotFound,
    StagedBitsMissing,
)
from domain.hashing import digests_of
from domain.journal import Committed
from domain.package import Digests, Fault, Package, PackageState, StoredBits
from domain.package_service import PackageService
from domain.ports import BlobStore, Staging

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")


def blob_key(guid: str) -> str:
    """Where a package's blob is kept: `ab/cd/<guid>`.

    The two levels are from the guid's SHA-256.

    A guid that is no plain file name is replaced by its hash.
    """
    digest = hashlib.sha256(guid.encode("utf-8", "surrogatepass")).hexdigest()
    name = guid if _PLAIN_NAME.fullmatch(guid) else f"~{digest}"
    return f"{digest[:2]}/{digest[2:4]}/{name}"


def droplet_blob_key(guid: str, sha256: str) -> str:
    """Where a droplet's blob is kept: of two answers for one droplet each has its own."""
    return blob_key(f"{guid}.{sha256[:16]}")


def guid_of_blob(key: str) -> str | None:
    """The guid of the package that a key is for; None where the key holds its hash alone."""
    name = key.rpartition("/")[2]
    return None if name.startswith("~") else name


def droplet_of_blob(key: str) -> str | None:
    """The guid of the droplet that a key is for; None if it is for none."""
    guid, dot, _ = key.rpartition("/")[2].rpartition(".")
    return guid if dot else None


def is_blob_key(key: str) -> bool:
    """Whether a key is one that `blob_key` makes."""
    guid = guid_of_blob(key)
    if guid is not None:
        return blob_key(guid) == key
    match = re.fullmatch(r"([0-9a-f]{2})/([0-9a-f]{2})/~([0-9a-f]{64})", key)
    return match is not None and match[3].startswith(match[1] + match[2])


def require_at_most(most: int | None, size: int) -> None:
    """Raises `LargeBits` for bits of more than `most` bytes, if it is said how many."""
    if most is not None and size > most:
        raise LargeBits(size)


class Processing:
    """The steps of the work, each for one package by its guid.

    Content faults end the package as FAILED here. What else goes wrong is raised: the
    caller tells an environment that is away from a defect, and tries again. Each step can be
    told to take bits of at `most` so many bytes: of larger ones it raises `LargeBits`, and has
    done nothing.
    """

    def __init__(
        self,
        packages: PackageService,
        staging: Staging,
        blobs: BlobStore,
        limits: ArchiveLimits,
        small: int = 0,
    ) -> None:
        """Bits of up to `small` bytes are hashed as they are stored: one step, and one append."""
        self._small = small
        self._packages = packages
        self._staging = staging
        self._blobs = blobs
        self._limits = limits

    def store(self, guid: str, by: Cause, most: int | None = None) -> float | None:
        """Checks the staged bits and makes them a blob; for a copy, copies its source's blob.

        Returns the seconds since the work on the package began, if its bits were small ones and
        this made it READY.
        """
        package = self._unless_gone(guid)
        if package is None or not package.needs_storing:
            self._discard_staged(package, most)
            return None
        try:
            if package.state is not PackageState.COPYING:
                return self._store_upload(package, by, most)
            self._store_copy(package, by, most)
        except BitsAtFault as fault:
            self._fail(guid, str(fault), by)
        return None

    def hash(self, guid: str, by: Cause, most: int | None = None) -> float | None:
        """Computes SHA-1 and SHA-256 of the stored bits in one pass over them.

        Returns the seconds since the work on the package began, if this made it READY.
        """
        package = self._unless_gone(guid)
        if package is None or not package.needs_hashing or package.stored is None:
            self._discard_staged(package, most)
            return None
        require_at_most(most, package.stored.size)
        try:
            with self._blobs.open(package.stored.key) as bits:
                digests = digests_of(bits)
            ready = self._packages.record_hashes(guid, digests, by)
        except (BlobMissing, PackageNotFound):
            current = self._unless_gone(guid)
            if current is not None and current.needs_hashing:
                raise
            return None
        self._discard_staged(ready.aggregate)
        return _seconds_to(ready)

    def discard(self, guid: str, most: int | None = None) -> None:
        """Removes the bits that the package, as the log has it, no longer needs."""
        package = self._packages.load(guid)
        if package.stored is not None:
            require_at_most(most, package.stored.size)
        self._discard_staged(package, most)
        if not package.needs_blob:
            self._blobs.delete(blob_key(guid))

    def fail_by_defect(self, guid: str, defect: BaseException, by: Cause) -> None:
        """Gives a package up for a fault of the service: its bits stay, so it can be resumed."""
        try:
            self._packages.fail(
                guid,
                "The service could not process the package; its bits are kept. "
                f"An operator can resume it (request {by.request_id}).",
                Fault.SERVICE,
                by,
                detail=f"{type(defect).__name__}: {defect}"[:1000],
            )
        except PackageNotFound:
            return

    def _discard_staged(self, package: Package | None, most: int | None = None) -> None:
        """Removes staged bits that a package needs no more.

        Where this fails the step is tried again, or its message comes again: so whoever finds
        the step done looks for them, too.
        """
        if package is not None and package.staged is not None and not package.needs_staged_bits:
            require_at_most(most, package.staged.length)
            self._staging.discard(package.staged.uri)

    def _unless_gone(self, guid: str) -> Package | None:
        try:
            return self._packages.get(guid)
        except PackageNotFound:
            return None

    def _fail(self, guid: str, error: str, by: Cause) -> None:
        try:
            self._packages.fail(guid, error, Fault.BITS, by)
        except PackageNotFound:
            return

    def _store_upload(self, package: Package, by: Cause, most: int | None) -> float | None:
        assert package.staged is not None
        require_at_most(most, package.staged.length)
        key = blob_key(package.guid)
        try:
            self._staging.make_private(package.staged.uri)
            with self._staging.open(package.staged) as bits:
                # Now, while the log still calls the package unfinished: should we die, whoever
                # works on it next does this again. What fails here `discard` tries again.
                with contextlib.suppress(OSError):
                    self._staging.consume(package.staged.uri)
                check_archive(bits, self._limits)
            stored = self._blobs.store(key, package.staged)
        except StagedBitsMissing:
            current = self._unless_gone(package.guid)
            if current is not None and current.needs_storing:
                raise
            return None  # another worker stored them, and they were discarded since
        try:
            digests = self._digests_if_small(stored)
            if digests is not None:
                ready = self._packages.record_stored_and_hashed(package.guid, stored, digests, by)
                self._discard_staged(ready.aggregate)
                return _seconds_to(ready)
            self._packages.record_stored(package.guid, stored, by)
        except PackageNotFound:
            self._blobs.delete(key)  # deleted while we stored
        return None

    def _digests_if_small(self, stored: StoredBits) -> Digests | None:
        if stored.size > self._small:
            return None
        try:
            with self._blobs.open(stored.key) as bits:
                return digests_of(bits)
        except BlobMissing:
            return None  # that is found out, and dealt with, where hashing is a step of its own

    def _store_copy(self, package: Package, by: Cause, most: int | None) -> None:
        assert package.source_guid is not None
        source = self._unless_gone(package.source_guid)
        if source is None:
            raise BitsAtFault("failed to copy - the source package was deleted")
        if source.stored is None or source.digests is None or not source.needs_blob:
            raise BitsAtFault(f"failed to copy - the source package is {source.state}")
        require_at_most(most, source.stored.size)
        key = blob_key(package.guid)
        try:
            stored = self._blobs.copy(source.stored.key, key)
        except BlobMissing:
            current = self._unless_gone(package.source_guid)
            if current is None or not current.needs_blob:
                raise BitsAtFault("failed to copy - the source package was deleted") from None
            raise
        try:
            self._packages.record_copied(package.guid, stored, source.digests, by)
        except PackageNotFound:
            self._blobs.delete(key)


def _seconds_to(ready: Committed[Package]) -> float | None:
    """How long the work took; None where another worker was first."""
    began = ready.aggregate.work_began_at
    if ready.position is None or began is None:
        return None
    return (ready.aggregate.modified_on - began).total_seconds()
