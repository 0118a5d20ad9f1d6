"""The Ed25519 keys that checkpoints are signed and checked with."""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from adapters.token_keys import UnusableKey, make_once

_PEM = re.compile(rb"-----BEGIN ([A-Z ]+)-----.*?-----END \1-----", re.DOTALL)
_KINDS = "openssl genpkey -algorithm ed25519 makes one"


class VerifyingKey:
    """A public key; `id` is the beginning of the SHA-256 of its DER form, in hex."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key
        der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.id = sha256(der).hexdigest()[:16]

    @property
    def pem(self) -> str:
        return self._key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def has_signed(self, statement: bytes, signature: bytes) -> bool:
        try:
            self._key.verify(signature, statement)
        except InvalidSignature:
            return False
        return True


class SigningKey:
    """A private key."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = VerifyingKey(key.public_key())

    def sign(self, statement: bytes) -> bytes:
        return self._key.sign(statement)


def load_signing_key(path: Path) -> SigningKey:
    """Raises `UnusableKey`; `OSError`."""
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise UnusableKey(
            f"{path} holds no private key in PEM, without a password: {_KINDS}"
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise UnusableKey(f"{path} holds a private key that is not of Ed25519: {_KINDS}")
    return SigningKey(key)


def make_signing_key(path: Path) -> None:
    """Makes a key at its first use, which only the owner may read. Raises `OSError`."""
    make_once(
        path,
        lambda: Ed25519PrivateKey.generate().private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        ),
    )


def load_verifying_keys(paths: Iterable[Path]) -> dict[str, VerifyingKey]:
    """The public keys in PEM files, by their ids. Raises `UnusableKey`; `OSError`."""
    found: dict[str, VerifyingKey] = {}
    for path in paths:
        keys = list(_public_keys(path))
        if not keys:
            raise UnusableKey(f"{path} holds no public key (-----BEGIN PUBLIC KEY-----)")
        found |= {key.id: key for key in keys}
    return found


def _public_keys(path: Path) -> Iterable[VerifyingKey]:
    for match in _PEM.finditer(path.read_bytes()):
        what = match[1].decode()
        if "PRIVATE KEY" in what:
            raise UnusableKey(
                f"{path} holds a private key: its public one belongs here, which packtrail "
                "checkpoint --public-key prints"
            )
        try:
            key = load_pem_public_key(match[0])
        except (ValueError, UnsupportedAlgorithm) as error:
            raise UnusableKey(f"{path} holds a {what} that can't be read: {error}") from None
        if not isinstance(key, Ed25519PublicKey):
            raise UnusableKey(f"{path} holds a {what} that is not of Ed25519")
        yield VerifyingKey(key)
