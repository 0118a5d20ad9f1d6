"""Us and the peers side by side, each with what it needs between two rounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers import Nginx, NginxAsItComes, Peer, Registry, started
from benchmarks.targets import NginxPut, Packtrail, RegistryBlob, Target
from tests.support.service import Client, Service
from tests.support.waiting import eventually

READY_WITHIN = 300.0  # seconds


@dataclass(frozen=True)
class Contender:
    target: Target
    clear: Callable[[], None]  # removes what was stored, so that all begin with as little

    @property
    def name(self) -> str:
        return self.target.name


@dataclass(frozen=True)
class Contest:
    """Who takes part; ours is the first."""

    service: Service
    client: Client  # of ours
    contenders: Sequence[Contender]
    versions: Mapping[str, str]
    missing: Sequence[str]

    @property
    def ours(self) -> Contender:
        return self.contenders[0]

    def in_turn(self, number: int) -> Sequence[Contender]:
        """All of them, another one first in each round."""
        first = number % len(self.contenders)
        return [*self.contenders[first:], *self.contenders[:first]]

    def only(self, *names: str) -> Contest:
        """With those alone that have one of these names, and us."""
        kept = [c for c in self.contenders if c.name in (Packtrail.name, *names)]
        return Contest(self.service, self.client, kept, self.versions, self.missing)

    def until_ready(self) -> None:
        """Waits until all our packages are, and fails if one can't be."""
        _until_ready(self.client)


def usual_service(folder: Path) -> Service:
    """`packtrail serve` as a user gets it.

    But for a secret that is given in the environment, and a port that the system chooses.
    """
    return Service(folder, {"PACKTRAIL_KEPT_PACKAGES": "5"})


@contextmanager
def contest(folder: Path, *kinds: type[Peer]) -> Iterator[Contest]:
    """Our service and those of the peers that are installed, running."""
    with ExitStack() as stack:
        peers = stack.enter_context(started(folder, *kinds))
        service = stack.enter_context(usual_service(folder))
        client = service.client()
        stack.callback(client.close)
        contenders = [Contender(Packtrail(service.port), lambda: _clear(service, client))]
        for peer in peers.running:
            contenders += _contenders(peer)
        yield Contest(service, client, contenders, peers.versions, peers.missing)


def _contenders(peer: Peer) -> Iterator[Contender]:
    match peer:
        case NginxAsItComes():
            yield Contender(NginxPut(peer.port, peer.name), peer.clear)
        case Nginx():
            yield Contender(NginxPut(peer.port), peer.clear)
            yield Contender(NginxPut(peer.port, "nginx, then fsync", peer.files), peer.clear)
        case Registry():
            yield Contender(RegistryBlob(peer.port), peer.clear)
            yield Contender(RegistryBlob(peer.port, patch=True), peer.clear)


def _clear(service: Service, client: Client) -> None:
    """Waits until all packages are READY, and deletes them with their bits."""
    for package in _until_ready(client):
        answer = client.http.delete(f"/v3/packages/{package['guid']}")
        assert answer.status_code == 204, answer.text
    eventually(lambda: not service.blobs() and not service.staged_files(), READY_WITHIN)


def _until_ready(client: Client) -> list[dict[str, Any]]:
    eventually(lambda: not _in_work(client), READY_WITHIN, every=0.05)
    packages = _packages(client)
    assert all(package["state"] == "READY" for package in packages), packages
    return packages


def _in_work(client: Client) -> bool:
    return any(package["state"] == "PROCESSING_UPLOAD" for package in _packages(client))


def _packages(client: Client) -> list[dict[str, Any]]:
    """Those that were not deleted: of one round, so few that a page has all."""
    page = client.http.get("/v3/packages?per_page=5000").json()
    packages: list[dict[str, Any]] = page["resources"]
    assert len(packages) == page["pagination"]["total_results"], page["pagination"]
    return packages
