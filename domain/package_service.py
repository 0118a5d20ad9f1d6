"""The commands on packages: each lets a package decide, and appends what it decided."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace

from domain.aggregate import Cause
from domain.directory_service import DirectoryService
from domain.errors import PackageNotFound, Refusal
from domain.journal import Committed, Journal
from domain.package import Digests, Fault, Package, PackageType, StagedBits, StoredBits
from domain.ports import PackageQuota


class PackageService:
    """The commands on packages. Every method may raise the package's refusals."""

    def __init__(
        self,
        journal: Journal,
        directory: DirectoryService | None = None,
        quota: PackageQuota | None = None,
    ) -> None:
        self._journal = journal
        self._directory = directory or DirectoryService(journal)
        self._quota = quota

    def create(
        self,
        app_guid: str,
        type: PackageType,
        url: str | None,
        by: Cause,
        key: str | None = None,
    ) -> Committed[Package]:
        """With a `key` that its actor sent before, what was created then.

        Raises `AppNotFound`, `KeyReused`, `TooManyPackages`.
        """

        def begin(guid: str) -> Package:
            package = Package.create(guid, app_guid, type, url, by)
            self._check_app(app_guid)
            return package

        def same(first: Package) -> bool:
            wanted = Package.create(first.guid, app_guid, type, url, by)
            return first.source_guid is None and (first.app_guid, first.type, first.url) == (
                wanted.app_guid,
                wanted.type,
                wanted.url,
            )

        return self._journal.begin(Package, begin, same, by, key)

    def copy(
        self, source_guid: str, app_guid: str, by: Cause, key: str | None = None
    ) -> Committed[Package]:
        """With a `key` that its actor sent before, what was created then.

        Raises `AppNotFound`, `KeyReused`, `TooManyPackages`.
        """

        def begin(guid: str) -> Package:
            self._check_app(app_guid)
            return Package.copy(self.get(source_guid), guid, app_guid, by)

        def same(first: Package) -> bool:
            return (first.app_guid, first.source_guid) == (app_guid, source_guid)

        return self._journal.begin(Package, begin, same, by, key)

    def _check_app(self, app_guid: str) -> None:
        """Whether an app may have one more package. Raises `AppNotFound`, `TooManyPackages`."""
        self._directory.app(app_guid)
        if self._quota is not None:
            self._quota.check(app_guid)

    def check_upload(self, guid: str) -> Package:
        """The package, if it may be uploaded to; raises what refuses that.

        It may be an old one, that can't be uploaded to any more: `start_upload` decides.
        """
        known = self._known(guid)
        if known is not None:
            with contextlib.suppress(Refusal):
                known.check_upload()
                return known
        package = self.get(guid)
        package.check_upload()
        return package

    def start_upload(
        self, guid: str, staged: StagedBits, file_name: str | None, by: Cause
    ) -> Committed[Package]:
        return self._change(guid, lambda package: package.start_upload(staged, file_name, by))

    def record_stored(self, guid: str, stored: StoredBits, by: Cause) -> Committed[Package]:
        return self._change(guid, lambda package: package.record_stored(stored, by))

    def record_hashes(self, guid: str, digests: Digests, by: Cause) -> Committed[Package]:
        return self._change(guid, lambda package: package.record_hashes(digests, by))

    def record_stored_and_hashed(
        self, guid: str, stored: StoredBits, digests: Digests, by: Cause
    ) -> Committed[Package]:
        """What was one step of the work: both events, or neither. The second follows the first."""

        def decide(package: Package) -> None:
            package.record_stored(stored, by)
            package.record_hashes(digests, replace(by, caused_by=package.event_id))

        return self._change(guid, decide)

    def record_copied(
        self, guid: str, stored: StoredBits, digests: Digests, by: Cause
    ) -> Committed[Package]:
        """A copy takes its source's bits and checksums: both events, or neither."""

        def decide(package: Package) -> None:
            package.record_stored(stored, by)
            package.record_hashes(digests, by)

        return self._change(guid, decide)

    def fail(
        self, guid: str, error: str, fault: Fault, by: Cause, detail: str | None = None
    ) -> Committed[Package]:
        return self._change(guid, lambda package: package.fail(error, fault, by, detail))

    def resume(self, guid: str, by: Cause) -> Committed[Package]:
        return self._change(guid, lambda package: package.resume(by))

    def expire(
        self, guid: str, by: Cause, in_use: Callable[[], bool] = lambda: False
    ) -> Committed[Package]:
        """Unless it is `in_use`, which is asked when the package was loaded.

        Should somebody ask for a droplet of it meanwhile, both are asked again.
        """

        def decide(package: Package) -> None:
            if not in_use():
                package.expire(by)

        return self._change(guid, decide)

    def delete(self, guid: str, by: Cause) -> Committed[Package]:
        return self._change(guid, lambda package: package.delete(by))

    def load(self, guid: str) -> Package:
        """The package as the log has it, deleted or not. Raises `PackageNotFound`."""
        package = self._journal.find(Package, guid)
        if package is None:
            raise PackageNotFound(guid)
        return package

    def apps_of(self, guid: str) -> list[str]:
        """The package's app and, of a copy, its source's: neither ever changes.

        Not the app of a package that is known to be deleted. Raises `PackageNotFound`.
        """
        package = self._journal.known(Package, guid) or self.load(guid)
        found = [] if package.deleted else [package.app_guid]
        if package.source_guid is not None:
            source = package.source_guid
            found.append((self._journal.known(Package, source) or self.load(source)).app_guid)
        return found

    def get(self, guid: str) -> Package:
        """The package. Raises `PackageNotFound` also for one that was deleted."""
        package = self.load(guid)
        if package.deleted:
            raise PackageNotFound(guid)
        return package

    def _change(self, guid: str, decide: Callable[[Package], None]) -> Committed[Package]:
        return self._journal.change(lambda: self.get(guid), decide, lambda: self._known(guid))

    def _known(self, guid: str) -> Package | None:
        known = self._journal.known(Package, guid)
        return None if known is None or known.deleted else known
