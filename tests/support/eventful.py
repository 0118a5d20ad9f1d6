"""A log with every type of event in it, made by the services themselves.

The fixture logs are made with this; a type that is added here is in the next one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from uuid import uuid4

from adapters.policies import RETENTION, STAGING_TIMEOUT
from adapters.store import Services, Store
from domain.aggregate import Cause
from domain.command import Receipt
from domain.download import BitsOf, Downloaded
from domain.droplet import BuiltDroplet
from domain.droplet_service import Wanted
from domain.package import Digests, Fault, PackageType, StagedBits, StoredBits
from domain.processing import blob_key, droplet_blob_key
from domain.role import Grant, RoleType

SHOP, BLOG, ODD = "5b1f7a52-33a9-4b0e-9d0c-2f6f3c1e7a10", "blog", "odd/app ü"
ALICE, BOB, OPERATOR = "uaa-id-1", "uaa-id-2", "operator"


def by(actor: str = ALICE, caused_by: str | None = None, request_id: str | None = None) -> Cause:
    return Cause(actor, request_id or str(uuid4()), caused_by)


@dataclass(frozen=True)
class Told:
    """What the log tells of, by guid."""

    ready: str  # after an upload, staged twice since
    deleted: str
    docker: str
    failed: str  # by its bits
    resumed: str  # failed by us, and READY since
    expired: str


def live(store: Store) -> Told:
    """Everything that can happen, happens."""
    services = store.services
    _announce(services)
    told = Told(
        ready=_push(services, SHOP, "shop-1.zip", size=41_322),
        deleted=_push(services, SHOP, None, size=512),
        docker=_docker(services),
        failed=_fail(services),
        resumed=_resume(services),
        expired=_push(services, BLOG, "blog — final (2).zip", size=7_340_032),
    )
    _copy(services, told)
    _stage(services, told)
    _download(services, told)
    _message(store)
    services.packages.expire(told.expired, by(RETENTION, f"{told.ready}/4"))
    services.packages.delete(told.deleted, by(BOB))
    services.packages.create(SHOP, PackageType.BITS, None, by(BOB), key="deploy-17")
    _end(services)
    return told


def _announce(services: Services) -> None:
    directory = services.directory
    directory.announce_organization("org-1", "Retail", by(OPERATOR))
    directory.announce_organization("org-2", "Lab", by(OPERATOR), suspended=True)
    directory.announce_organization("org-2", "Laboratory", by(OPERATOR), suspended=False)
    directory.rename_organization("org-1", "Retail & Online", by(OPERATOR))
    directory.announce_organization("org-3", "Nobody's", by(OPERATOR))
    directory.announce_space("space-1", "production", "org-1", by(OPERATOR))
    directory.announce_space("space-2", "nowhere", None, by(OPERATOR))
    directory.announce_space("space-2", "playground", "org-2", by(OPERATOR))
    directory.rename_space("space-2", "Spielwiese ✓", by(OPERATOR))
    directory.announce_space("space-3", "old", "org-3", by(OPERATOR))
    directory.announce_app(SHOP, "shop", "space-1", "procfile", by(OPERATOR))
    directory.announce_app(BLOG, "blog", None, None, by(OPERATOR))
    directory.announce_app(BLOG, "blog", "space-2", "https://git.example/pack.git", by(OPERATOR))
    directory.announce_app(ODD, "odd", "space-2", None, by(OPERATOR))
    directory.rename_app(ODD, "odd one", by(OPERATOR))
    for grant in _grants():
        directory.assign_role(grant, by(OPERATOR))
    directory.remove_role(_grants()[1], by(OPERATOR))
    directory.assign_role(_grants()[1], by(OPERATOR))
    directory.remove_role(_grants()[2], by(OPERATOR))


def _grants() -> list[Grant]:
    return [
        Grant(ALICE, RoleType.SPACE_DEVELOPER, "space-1"),
        Grant(BOB, RoleType.SPACE_AUDITOR, "space-1"),
        Grant(BOB, RoleType.SPACE_MANAGER, "space-2"),
        Grant(BOB, RoleType.ORG_MANAGER, None, "org-2"),
    ]


def _upload(services: Services, guid: str, name: str | None, size: int) -> Cause:
    """The cause of what the upload leads to."""
    cause = by()
    staged = StagedBits(f"staging:{guid}.{uuid4().hex}", 0 if name is None else 172, size)
    services.packages.start_upload(guid, staged, name, cause)
    return Cause(cause.actor, cause.request_id, f"{guid}/2")


def _digests(guid: str) -> Digests:
    bits = guid.encode()
    return Digests(hashlib.sha1(bits).hexdigest(), hashlib.sha256(bits).hexdigest())


def _push(services: Services, app: str, name: str | None, size: int) -> str:
    packages = services.packages
    guid = packages.create(app, PackageType.BITS, None, by()).aggregate.guid
    cause = _upload(services, guid, name, size)
    packages.record_stored(guid, StoredBits(blob_key(guid), size), cause)
    packages.record_hashes(guid, _digests(guid), Cause(cause.actor, cause.request_id, f"{guid}/3"))
    return guid


def _docker(services: Services) -> str:
    image = "registry.example/team/image:1.4"
    guid = services.packages.create(ODD, PackageType.DOCKER, image, by()).aggregate.guid
    services.packages.copy(guid, BLOG, by())
    return guid


def _fail(services: Services) -> str:
    packages = services.packages
    guid = packages.create(BLOG, PackageType.BITS, None, by()).aggregate.guid
    cause = _upload(services, guid, "notes.txt", 12)
    packages.fail(guid, "The bits are not a zip: no end record was found", Fault.BITS, cause)
    return guid


def _resume(services: Services) -> str:
    packages = services.packages
    guid = packages.create(SHOP, PackageType.BITS, None, by(BOB)).aggregate.guid
    cause = _upload(services, guid, "shop-2.zip", 52_001)
    error = (
        "The service could not process the package; its bits are kept. "
        f"An operator can resume it (request {cause.request_id})."
    )
    packages.fail(guid, error, Fault.SERVICE, cause, detail="ZeroDivisionError: division by zero")
    packages.resume(guid, by(OPERATOR))
    packages.record_stored(guid, StoredBits(blob_key(guid), 52_001), cause)
    packages.fail(guid, error, Fault.SERVICE, cause, detail="RuntimeError: «twice»\n")
    packages.resume(guid, by(OPERATOR))
    packages.record_hashes(guid, _digests(guid), cause)
    lost = packages.create(SHOP, PackageType.BITS, None, by(BOB)).aggregate.guid
    cause = _upload(services, lost, "lost.zip", 1)
    packages.fail(lost, error, Fault.SERVICE, cause)  # stays a dead letter
    return guid


def _copy(services: Services, told: Told) -> None:
    packages = services.packages
    done = packages.copy(told.ready, BLOG, by(), key="copy-1").aggregate.guid
    stored = StoredBits(blob_key(done), 41_322)
    packages.record_copied(done, stored, _digests(told.ready), by(ALICE, f"{done}/1"))
    packages.copy(told.deleted, ODD, by())  # stays COPYING
    resumed = packages.copy(told.ready, ODD, by()).aggregate.guid
    packages.fail(resumed, "The service failed", Fault.SERVICE, by(), detail="OSError: ?")
    packages.resume(resumed, by(OPERATOR))


def _stage(services: Services, told: Told) -> None:
    droplets, directory = services.droplets, services.directory
    guids = []
    for buildpack in ("static", None, None, None, "git@git.example:team/pack.git"):
        wanted = Wanted(memory_limit=2048, buildpack=buildpack, environment={"LANG": "C.UTF-8"})
        guids.append(droplets.stage(told.ready, wanted, by(BOB)).aggregate.guid)
    droplets.stage(told.expired, Wanted(stack="cflinuxfs3"), by())  # stays PENDING
    current, failed, expired, begun, late = guids
    droplets.start_staging(begun, by("builder", f"{begun}/1"))
    for guid, processes in ((current, {"web": "run --port $PORT", "worker": "run"}), (expired, {})):
        droplets.start_staging(guid, by("builder", f"{guid}/1"))
        digests = _digests(guid)
        stored = StoredBits(droplet_blob_key(guid, digests.sha256), 99_000)
        buildpack = "procfile" if processes else None
        built = BuiltDroplet(stored, digests, processes, buildpack)
        droplets.complete(guid, built, by("builder", f"{guid}/2"))
    directory.assign_droplet(SHOP, droplets.get(current), by(BOB))
    droplets.fail(failed, "No Procfile was found", by("builder", f"{failed}/1"))
    droplets.expire(expired, by(RETENTION, f"{current}/3"))
    droplets.delete(failed, by(BOB))
    error = "Staging timed out: no builder made the droplet in 900 seconds"
    droplets.fail(late, error, by(STAGING_TIMEOUT, f"{late}/1"))


def _download(services: Services, told: Told) -> None:
    downloads = services.downloads
    downloads.record(Downloaded(BitsOf.PACKAGE, told.ready, SHOP), by(BOB))
    downloads.record(Downloaded(BitsOf.PACKAGE, told.ready, SHOP, 0, 1023), by())
    current = services.directory.app(SHOP)
    assert current is not None and current.current_droplet is not None
    downloads.record(Downloaded(BitsOf.DROPLET, current.current_droplet, SHOP), by("builder"))


def _message(store: Store) -> None:
    cause = by("ci", request_id="build-812")
    receipt = Receipt("/ci", "812", "package.create", hashlib.sha256(b"{}").hexdigest(), cause)
    store.services_under(receipt).packages.create(SHOP, PackageType.BITS, None, cause)


def _end(services: Services) -> None:
    directory = services.directory
    directory.delete_app("never-announced", by(BOB))
    services.packages.create("unknown-app", PackageType.BITS, None, by(BOB))
    directory.delete_organization("org-3", by(OPERATOR))
    directory.delete_space("space-3", by(OPERATOR, "org-3/2"))
    deletion = directory.delete_app(ODD, by(OPERATOR))
    assert deletion.position is not None
