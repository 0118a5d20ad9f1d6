"""The keys that tokens are verified with: a shared secret, or the issuer's public keys.

Files are looked at again while the service runs, so that keys rotate without a restart: what
a file holds counts from the next request on. A file that can't be used changes nothing.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate

logger = logging.getLogger("packtrail.tokens")

MIN_SECRET = 32  # bytes
MIN_RSA = 2048  # bits (RFC 7518, section 3.3)
LOOK_AGAIN = 1.0  # seconds between looks at a file
_PEM = re.compile(r"-----BEGIN ([A-Z ]+)-----.*?-----END \1-----", re.DOTALL)


@dataclass(frozen=True)
class Key:
    """A key that verifies, and the one algorithm that it does so by."""

    algorithm: str
    key: Any


class Keys(Protocol):
    def find(self, kid: object) -> Sequence[Key]:
        """The keys that a token may be signed with which names this key id, or none (None).

        Raises `KeysAway`.
        """

    def generation(self) -> int:
        """Changes whenever a key that was good is so no more."""

    def signing_secret(self) -> str | None:
        """The shared secret to sign with; None where others sign."""


class KeysAway(OSError):
    """The issuer's keys are not known, and its key server can't be reached."""


class UnusableKey(Exception):
    """What tokens are to be verified with is none."""


class Secret:
    """A shared secret that stays."""

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._keys = (Key("HS256", secret),)

    def find(self, kid: object) -> Sequence[Key]:
        return self._keys

    def generation(self) -> int:
        return 0

    def signing_secret(self) -> str | None:
        return self._secret


class KeyFile:
    """Keys in a file, that may be replaced at any time."""

    def __init__(self, path: Path, read: Callable[[Path], Sequence[Key]], signs: bool) -> None:
        """Raises what `read` does."""
        self._path = path
        self._read = read
        self._signs = signs
        self._seen = _state_of(path)
        self._keys = read(path)
        self._generation = 0
        self._looked_at = time.monotonic()
        self._lock = threading.Lock()

    def find(self, kid: object) -> Sequence[Key]:
        return self._keys

    def generation(self) -> int:
        if time.monotonic() - self._looked_at >= LOOK_AGAIN:
            with self._lock:
                self._look()
        return self._generation

    def signing_secret(self) -> str | None:
        self.generation()
        return str(self._keys[0].key) if self._signs else None

    def _look(self) -> None:
        self._looked_at = time.monotonic()
        try:
            state = _state_of(self._path)
            if state == self._seen:
                return
            self._seen = state
            self._keys = self._read(self._path)
        except (OSError, UnusableKey) as error:
            logger.error("the keys stay what they were: %s", error)
            return
        self._generation += 1
        logger.info("the keys were replaced", extra={"keys": len(self._keys)})


def _state_of(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_ino, status.st_size


def secret_file(path: Path) -> KeyFile:
    """The secrets in a file, one a line: the first signs, all verify.

    Raises `UnusableKey`; `OSError`.
    """
    return KeyFile(path, lambda path: [Key("HS256", text) for text in load_secrets(path)], True)


def public_key_file(path: Path) -> KeyFile:
    """The RSA public keys (or certificates) in a PEM file; all verify.

    Raises `UnusableKey`; `OSError`.
    """
    return KeyFile(path, _public_keys, False)


def _public_keys(path: Path) -> Sequence[Key]:
    try:
        text = path.read_bytes().decode("ascii")
    except UnicodeDecodeError:
        raise UnusableKey(f"{path} is not a PEM file") from None
    found = []
    for match in _PEM.finditer(text):
        what = match[1]
        if "PRIVATE KEY" in what:
            raise UnusableKey(f"{path} holds a private key: only the public one belongs here")
        pem = match[0].encode()
        try:
            is_certificate = what == "CERTIFICATE"
            key: object = (
                load_pem_x509_certificate(pem).public_key()
                if is_certificate
                else load_pem_public_key(pem)
            )
        except (ValueError, UnsupportedAlgorithm) as error:
            raise UnusableKey(f"{path} holds a {what} that can't be read: {error}") from None
        if not isinstance(key, RSAPublicKey):
            raise UnusableKey(f"{path} holds a {what} that is not of RSA: tokens are RS256")
        if key.key_size < MIN_RSA:
            raise UnusableKey(
                f"{path} holds an RSA key of {key.key_size} bits: {MIN_RSA} or more are needed"
            )
        found.append(Key("RS256", key))
    if not found:
        raise UnusableKey(f"{path} holds no public key (-----BEGIN PUBLIC KEY-----)")
    return found


def load_secrets(path: Path) -> list[str]:
    """The secrets in a file, one a line. Raises `UnusableKey`; `OSError`."""
    try:
        found = path.read_bytes().decode().split("\n")
    except UnicodeDecodeError:
        raise UnusableKey(f"{path} does not hold text") from None
    lines = [line.strip() for line in found if line.strip()] or [""]
    for secret in lines:
        if len(secret.encode()) < MIN_SECRET:
            raise UnusableKey(
                f"{path} holds {len(secret.encode())} bytes, and a secret has {MIN_SECRET} or "
                "more: remove the file, and the next start makes one"
            )
    return lines


def make_secret(path: Path) -> None:
    """Makes a secret at the first start, which only the owner may read. Raises `OSError`."""
    make_once(path, lambda: f"{secrets.token_urlsafe(48)}\n".encode())


def make_once(path: Path, make: Callable[[], bytes]) -> None:
    """Makes a file that only its owner may read, unless it is there. Raises `OSError`."""
    try:
        path.stat()
        return
    except FileNotFoundError:
        pass
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(make())
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(made, path)  # appears whole; a process that was faster keeps its own
    except FileExistsError:
        pass
    finally:
        made.unlink()
