"""What becomes of a droplet's bits: a builder's are stored, nobody's are removed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from domain.aggregate import Cause
from domain.credentials import holds_credentials
from domain.droplet import BuiltDroplet, Droplet
from domain.droplet_service import DropletService
from domain.errors import InvalidRequest, Refusal
from domain.hashing import digests_of
from domain.journal import Committed
from domain.package import StagedBits
from domain.ports import BlobStore, Environments, Staging
from domain.processing import droplet_blob_key, require_at_most

MAX_PROCESS_TYPES = 100
MAX_COMMAND = 4096  # characters
_PROCESS_TYPE = re.compile(r"[A-Za-z0-9_-]{1,255}")


@dataclass(frozen=True)
class BuildReport:
    """What a builder says of a droplet that it made."""

    sha1: str
    process_types: Mapping[str, str]
    buildpack: str | None


def faults_of_report(report: BuildReport) -> list[str]:
    """What is wrong with a report, as sentences; [] if nothing is."""
    faults = []
    if not re.fullmatch(r"[0-9a-f]{40}", report.sha1):
        faults.append("Sha1 must be 40 lower-case hexadecimal digits")
    if len(report.process_types) > MAX_PROCESS_TYPES:
        faults.append(f"Process types must not be more than {MAX_PROCESS_TYPES}")
    for name, command in report.process_types.items():
        if not _PROCESS_TYPE.fullmatch(name):
            faults.append("Process types must be named by letters, digits, _ and -")
        if not 1 <= len(command) <= MAX_COMMAND or not command.isprintable():
            faults.append(f"Commands must be one line of 1 to {MAX_COMMAND} characters")
    if report.buildpack is not None and not (
        1 <= len(report.buildpack) <= MAX_COMMAND and report.buildpack.isprintable()
    ):
        faults.append(f"Buildpack must be one line of 1 to {MAX_COMMAND} characters")
    elif report.buildpack is not None and holds_credentials(report.buildpack):
        faults.append("Buildpack must not hold credentials")
    return list(dict.fromkeys(faults))


class DropletProcessing:
    def __init__(
        self,
        droplets: DropletService,
        staging: Staging,
        blobs: BlobStore,
        environments: Environments,
    ) -> None:
        self._droplets = droplets
        self._staging = staging
        self._blobs = blobs
        self._environments = environments

    def under(self, droplets: DropletService) -> DropletProcessing:
        """The same, with other commands."""
        return DropletProcessing(droplets, self._staging, self._blobs, self._environments)

    def accept(
        self, guid: str, staged: StagedBits, report: BuildReport, by: Cause
    ) -> Committed[Droplet]:
        """Stores staged bits as the droplet's, if they are what the report says.

        Raises the droplet's refusals, `InvalidRequest`, `StagedBitsMissing`, `OSError`.
        """
        self._staging.make_private(staged.uri)
        with self._staging.open(staged) as bits:
            digests = digests_of(bits)
        if digests.sha1 != report.sha1:
            raise InvalidRequest(
                [f"Sha1 is '{report.sha1}', and the droplet's bits have '{digests.sha1}'"]
            )
        key = droplet_blob_key(guid, digests.sha256)
        stored = self._blobs.store(key, staged)
        built = BuiltDroplet(stored, digests, report.process_types, report.buildpack)
        try:
            return self._droplets.complete(guid, built, by)
        except Refusal:  # another answer was first, or it was deleted meanwhile
            droplet = self._droplets.load(guid)
            if droplet.stored != stored or not droplet.needs_blob:
                self._blobs.delete(key)
            raise

    def release(self, uri: str) -> None:
        """Removes staged bits that were accepted, and the file that they were taken from."""
        self._staging.discard(uri)

    def discard(self, guid: str, most: int | None = None) -> None:
        """Removes what the droplet, as the log has it, no longer needs.

        Raises `LargeBits`, and has done nothing, if that is more than `most` bytes.
        """
        droplet = self._droplets.load(guid)
        if droplet.stored is not None and not droplet.needs_blob:
            require_at_most(most, droplet.stored.size)
            self._blobs.delete(droplet.stored.key)
        if droplet.deleted:
            self._environments.forget(Droplet.ID_PREFIX + guid)
