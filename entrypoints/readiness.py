"""What `/readyz` tells of: the parts that a process depends on."""

from __future__ import annotations

from collections.abc import Callable

from adapters.blob_store.local import LocalBlobs
from adapters.blob_store.s3 import S3Blobs
from adapters.http.freshness import Freshness
from adapters.http.health import Degraded, Part
from adapters.staging.local import LocalStaging
from adapters.staging.s3 import S3Staging
from adapters.store import Store
from projections.positions import standings, troubles


def store_parts(store: Store, freshness: Freshness) -> dict[str, Part]:
    """The log and the read models; one that has stopped is read as it is, and told."""

    def event_store() -> None:
        store.log.head()
        if store.breaker.is_away:
            raise ConnectionError("the log could not be written to, the last time")

    def projections() -> None:
        with store.reader.connect() as connection:
            found = troubles(standings(connection))
        if found:
            raise Degraded("; ".join(found))

    return {
        "event_store": Part(event_store, essential=True),
        "read_models": Part(freshness.require, essential=True),
        "projections": Part(projections, essential=False),
    }


def bits_parts(staging: LocalStaging | S3Staging, blobs: LocalBlobs | S3Blobs) -> dict[str, Part]:
    """The stores of bits; without a bucket there are still packages to be read."""
    return {
        "staging": Part(staging.check, essential=isinstance(staging, LocalStaging)),
        "blob_store": Part(blobs.check, essential=False),
    }


def follower_parts(
    relay_failed: Callable[[], bool], policies_failed: Callable[[], bool]
) -> dict[str, Part]:
    """What follows the log in this process."""

    def broker() -> None:
        if relay_failed():
            raise ConnectionError("the last events could not be published")

    def policies() -> None:
        if policies_failed():
            raise RuntimeError("what follows from the last events could not be done")

    return {
        "broker": Part(broker, essential=False),
        "policies": Part(policies, essential=False),
    }
