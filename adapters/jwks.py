"""The issuer's keys, as its key server tells them (a JSON Web Key Set, RFC 7517).

What was told last counts until something else is told: the key server may be away for as long
as it likes. It is asked again every few minutes, behind requests, and at once for a key id
that is not known; but not more often than `PAUSE`, however many unknown ids come.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from adapters.fetching import Fetcher, NoAnswer
from adapters.token_keys import MIN_RSA, Key, KeysAway

logger = logging.getLogger("packtrail.tokens")

TIMEOUT = 2.0  # seconds that the key server has
LIFESPAN = 300.0  # seconds until it is asked again
PAUSE = 5.0  # seconds between asking it for unknown ids
MAX_KEYS = 100
WAITING = 3  # requests that wait for it at once; others are told to come again
_ALGORITHMS = {"RSA": "RS256", "EC": "ES256"}


@dataclass(frozen=True)
class _Known:
    keys: tuple[tuple[str | None, Key], ...]
    described: tuple[tuple[str, str], ...]  # what tells this set from another


class Jwks:
    """`Keys` (see `adapters.token_keys`) that a server tells."""

    def __init__(
        self, url: str, timeout: float = TIMEOUT, lifespan: float = LIFESPAN, pause: float = PAUSE
    ) -> None:
        self._url = url
        self._fetcher = Fetcher(timeout, connections=1)
        self._timeout = timeout
        self._lifespan = lifespan
        self._pause = pause
        self._known: _Known | None = None
        self._generation = 0
        self._asked_at = -pause
        self._stale_at = 0.0
        self._lock = threading.Lock()
        self._asking: threading.Event | None = None  # set when the request under way is over
        self._waiting = threading.Semaphore(WAITING)

    def find(self, kid: object) -> Sequence[Key]:
        known = self._known
        if known is None:
            self._ask_and_wait()
            known = self._known
            if known is None:
                raise KeysAway("the issuer's keys are not known yet, and its server is away")
        elif time.monotonic() >= self._stale_at:
            self._ask()
        found = _of_id(known, kid)
        if not found and self._may_ask():
            self._ask_and_wait()
            found = _of_id(self._known or known, kid)
        return found

    def generation(self) -> int:
        return self._generation

    def signing_secret(self) -> str | None:
        return None

    def check(self) -> None:
        """Raises `KeysAway` while no token can be verified."""
        if self._known is None:
            self.find(None)

    def _may_ask(self) -> bool:
        return self._asking is not None or time.monotonic() - self._asked_at >= self._pause

    def _ask_and_wait(self) -> None:
        """Raises `KeysAway` where too many wait already."""
        if not self._may_ask():
            return
        if not self._waiting.acquire(blocking=False):
            raise KeysAway("the key server is being asked, and too many wait for it")
        try:
            self._ask().wait(self._timeout + 1)
        finally:
            self._waiting.release()

    def _ask(self) -> threading.Event:
        """Asks in a thread of its own, unless it is being asked; set when that is over."""
        with self._lock:
            if self._asking is None:
                self._asking = threading.Event()
                threading.Thread(target=self._fetch, name="jwks", daemon=True).start()
            return self._asking

    def _fetch(self) -> None:
        try:
            found = _keys_of(self._fetcher.get(self._url))
        except Exception as error:  # noqa: BLE001 - whatever it is, the keys stay what they were
            logger.warning("the key server told nothing: %s: %s", self._url, error)
            good_for = self._pause
        else:
            self._take(found)
            good_for = self._lifespan
        with self._lock:
            self._asked_at = time.monotonic()
            self._stale_at = self._asked_at + good_for
            over, self._asking = self._asking, None
        if over is not None:
            over.set()

    def _take(self, found: _Known) -> None:
        before, self._known = self._known, found
        if before is not None and before.described != found.described:
            self._generation += 1
            logger.info("the issuer has other keys", extra={"keys": len(found.keys)})


def _of_id(known: _Known, kid: object) -> list[Key]:
    """All keys for a token that names no id; a key without an id fits any."""
    return [key for name, key in known.keys if kid is None or name is None or name == kid]


def _keys_of(answer: Any) -> _Known:
    """The keys of an answer that can be used. Raises `NoAnswer` where there are none."""
    entries = answer.content.get("keys")
    if answer.status != 200 or not isinstance(entries, list):
        raise NoAnswer(f"the answer ({answer.status}) holds no key set")
    found = [key for key in map(_key_of, entries[:MAX_KEYS]) if key is not None]
    if not found:
        raise NoAnswer(f"none of the {len(entries)} keys is for RS256 or ES256")
    described = sorted((str(name), str(entry)) for name, _, entry in found)
    return _Known(tuple((name, key) for name, key, _ in found), tuple(described))


def _key_of(entry: Any) -> tuple[str | None, Key, Mapping[str, Any]] | None:
    """A key, with its id; None for one that no token of ours is signed with."""
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
        return None
    algorithm = _ALGORITHMS.get(str(entry.get("kty")))
    if algorithm is None or entry.get("alg", algorithm) != algorithm:
        return None
    if algorithm == "ES256" and entry.get("crv") != "P-256":
        return None
    public = {name: entry[name] for name in ("kty", "n", "e", "crv", "x", "y") if name in entry}
    try:
        key = jwt.PyJWK(public, algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        logger.warning("a key of the issuer can't be used: %s", error)
        return None
    if isinstance(key, RSAPublicKey) and key.key_size < MIN_RSA:
        logger.warning("an RSA key of the issuer has %d bits only", key.key_size)
        return None
    kid = entry.get("kid")
    return (kid if isinstance(kid, str) else None), Key(algorithm, key), public
