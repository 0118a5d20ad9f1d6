"""Takes bits that a command names instead of carrying: a file, or an object (claim check)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from adapters.cores import on_all_cores
from adapters.metrics import Metrics
from adapters.staging.found import FoundObject
from adapters.staging.intake import Intake
from adapters.staging.local import FoundFile
from domain.aggregate import Cause
from domain.droplet import Droplet
from domain.droplet_processing import BuildReport, DropletProcessing, faults_of_report
from domain.droplet_service import DropletService
from domain.errors import InvalidRequest, NoBitsInForm
from domain.journal import Committed, surely_not_recorded
from domain.package import Package, StagedBits
from domain.package_service import PackageService


@dataclass(frozen=True)
class Claim:
    """Where bits are: a path in the upload directory, or a URL in the object store."""

    path: str | None = None
    url: str | None = None


class Claims:
    def __init__(
        self,
        intake: Intake,
        processing: DropletProcessing,
        max_package_size: int,
        max_droplet_size: int,
        metrics: Metrics,
    ) -> None:
        """Sizes are in bytes."""
        self._intake = intake
        self._processing = processing
        self._max_package_size = max_package_size
        self._max_droplet_size = max_droplet_size
        self._metrics = metrics
        self._unsettled: dict[str, Callable[[], None]] = {}

    def settle(self, guid: str) -> None:
        """The log has it after all, though its answer was lost: what was taken in may go."""
        settle = self._unsettled.pop(guid, None)
        if settle is not None:
            settle()

    def upload(
        self,
        packages: PackageService,
        guid: str,
        claim: Claim,
        file_name: str | None,
        by: Cause,
    ) -> Committed[Package]:
        """Starts a package's upload.

        Raises `NoBitsInForm`, `BitsPathInvalid`, `UploadTooLarge`, and the package's refusals.
        """
        with self._find(claim, self._max_package_size, guid) as found:
            packages.check_upload(guid)
            staged = self._intake.take(found, guid, file_name)
            try:
                committed = packages.start_upload(guid, staged, file_name, by)
            except Exception as error:
                if surely_not_recorded(error):
                    self._intake.release(staged.uri)
                else:
                    self._unsettled[guid] = lambda: self._intake.accepted(found)
                raise
            self._intake.accepted(found)
        self._metrics.received_bytes.inc(staged.length)
        return committed

    def droplet(
        self, droplets: DropletService, guid: str, claim: Claim, report: BuildReport, by: Cause
    ) -> Committed[Droplet]:
        """Takes in the droplet that a builder has made.

        Raises `InvalidRequest`, `NoBitsInForm`, `BitsPathInvalid`, `UploadTooLarge`, and the
        droplet's refusals.
        """
        faults = faults_of_report(report)
        if faults:
            raise InvalidRequest(faults)
        with self._find(claim, self._max_droplet_size, guid) as found:
            droplets.check_waiting(guid)
            staged = self._intake.take(found, guid, f"{guid}.tgz")
            try:
                with on_all_cores():  # a droplet is large
                    committed = self._processing.under(droplets).accept(guid, staged, report, by)
            except Exception as error:
                # whether it is in the log or not: the blob was made, and these are not needed
                self._intake.release(staged.uri)
                if not surely_not_recorded(error):
                    self._unsettled[guid] = lambda: self._consume(found, staged)
                raise
            self._consume(found, staged)
        return committed

    def _consume(self, found: FoundFile | FoundObject, staged: StagedBits) -> None:
        self._intake.accepted(found)
        self._processing.release(staged.uri)

    def _find(self, claim: Claim, limit: int, guid: str) -> FoundFile | FoundObject:
        if claim.path:
            return self._intake.find_file(claim.path, limit, guid)
        if claim.url:
            return self._intake.find_object(claim.url, limit)
        raise NoBitsInForm("neither a path nor a URL is named")
