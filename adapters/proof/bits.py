"""Whether the bits of each READY package and STAGED droplet are those that the log tells of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256

from sqlalchemy import select

from adapters.object_store import ObjectDenied
from adapters.proof.findings import Check, Finding, Tell, shown
from adapters.proof.reference import Reference
from adapters.proof.rows import Log
from domain.droplet import Droplet, DropletState
from domain.errors import BlobMissing, StoreAway
from domain.package import Package, PackageState
from domain.ports import BlobStore
from projections.droplets import droplets
from projections.packages import packages

_KINDS = (
    (packages, Package.ID_PREFIX, PackageState.READY.value),
    (droplets, Droplet.ID_PREFIX, DropletState.STAGED.value),
)
_LOSES_BITS = frozenset(
    (Package.Expired.TOPIC, Package.Deleted.TOPIC, Droplet.Expired.TOPIC, Droplet.Deleted.TOPIC)
)


@dataclass(frozen=True)
class _Recorded:
    """A blob as the log tells of it."""

    originator_id: str
    key: str
    sha256: str
    size: int  # bytes


class BitsCheck:
    """`head` is the position up to which the reference has the log."""

    def __init__(
        self, log: Log, reference: Reference, head: int, blobs: BlobStore, tell: Tell
    ) -> None:
        self._log = log
        self._reference = reference
        self._head = head
        self._blobs = blobs
        self._tell = tell
        self.blobs = 0
        self.bytes = 0

    def total(self) -> int:
        """Bytes that all recorded blobs have together."""
        return sum(recorded.size for recorded in self._recorded())

    def run(self, progress: Callable[[int], object]) -> None:
        """Tells `progress` how many bytes were read. Raises `StoreAway` if the store is away."""
        for recorded in self._recorded():
            what = self._fault_of(recorded, progress)
            self.blobs += 1
            if what is not None and not self._was_given_up(recorded):
                where = f"{recorded.originator_id}, blob {recorded.key}"
                self._tell(Finding(Check.BITS, shown(where), what))

    def _recorded(self) -> Iterator[_Recorded]:
        for table, prefix, state in _KINDS:
            query = select(table.c.guid, table.c.blob_key, table.c.sha256, table.c.size)
            having_bits = query.where(table.c.state == state, table.c.blob_key.is_not(None))
            for row in self._reference.select(having_bits.order_by(table.c.guid)):
                yield _Recorded(f"{prefix}{row.guid}", row.blob_key, row.sha256, row.size)

    def _fault_of(self, recorded: _Recorded, progress: Callable[[int], object]) -> str | None:
        try:
            with self._blobs.open(recorded.key) as bits:
                if bits.size != recorded.size:
                    return f"it has {bits.size} bytes, and the log recorded {recorded.size}"
                digest = sha256()
                for chunk in bits.chunks():
                    digest.update(chunk)
                    self.bytes += len(chunk)
                    progress(len(chunk))
        except (BlobMissing, FileNotFoundError):
            return "it is not there"
        except ObjectDenied as error:
            return f"it can't be read: {shown(str(error))}"
        except StoreAway:
            raise
        except OSError as error:
            return f"it can't be read: {shown(str(error))}"
        if digest.hexdigest() != recorded.sha256:
            return f"its SHA-256 is {digest.hexdigest()}, and the log recorded {recorded.sha256}"
        return None

    def _was_given_up(self, recorded: _Recorded) -> bool:
        """Whether somebody has deleted or expired it meanwhile, as the log tells."""
        topics = self._log.topics_of(recorded.originator_id, self._head)
        return not _LOSES_BITS.isdisjoint(topics)
