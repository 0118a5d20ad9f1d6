"""Bearer tokens: JSON Web Tokens as a UAA issues them, signed with a shared secret."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import jwt

ALGORITHM = "HS256"
MIN_SECRET = 32  # bytes


class Scope(StrEnum):
    READ = "cloud_controller.read"
    WRITE = "cloud_controller.write"
    ADMIN = "cloud_controller.admin"


@dataclass(frozen=True)
class Caller:
    """Who sends a request: the user's (or client's) guid, and what the token lets them do."""

    guid: str
    scopes: frozenset[str]

    @property
    def is_admin(self) -> bool:
        return Scope.ADMIN in self.scopes

    def may(self, scope: Scope) -> bool:
        return self.is_admin or scope in self.scopes


class TokenRejected(Exception):
    """The token is malformed, expired, foreign, or lacks a claim; the text is for the log."""


class Tokens:
    """Verifies tokens, and signs some for trying things out."""

    def __init__(self, secret: str, audience: str) -> None:
        self._secret = secret
        self._audience = audience

    def verify(self, token: str) -> Caller:
        """Who the token speaks for. Raises `TokenRejected`."""
        try:
            claims = jwt.decode(
                token,
                self._secret,
                algorithms=[ALGORITHM],
                audience=self._audience,
                options={"require": ["exp"], "verify_sub": False},
            )
        except (jwt.InvalidTokenError, ValueError, TypeError) as error:
            raise TokenRejected(str(error)) from error
        guid = claims.get("user_id") or claims.get("client_id")
        if not guid or not isinstance(guid, str) or not _is_text(guid):
            raise TokenRejected("the token names neither user_id nor client_id")
        scopes = claims.get("scope", [])
        if not isinstance(scopes, list):
            raise TokenRejected("scope is not a list")
        return Caller(guid, frozenset(scope for scope in scopes if isinstance(scope, str)))

    def sign(self, user: str, email: str | None, scopes: Sequence[str], expires_in: int) -> str:
        """A token for `user` that expires in `expires_in` seconds."""
        claims: dict[str, object] = {
            "user_id": user,
            "scope": list(scopes),
            "aud": [self._audience],
            "exp": int(time.time()) + expires_in,
        }
        if email is not None:
            claims["email"] = email
        return jwt.encode(claims, self._secret, algorithm=ALGORITHM)


def _is_text(value: str) -> bool:
    """Whether it can be written down: JSON may hold halves of characters."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


class UnusableSecret(Exception):
    """A file holds no secret that tokens could be signed with."""


def load_secret(path: Path) -> str:
    """The secret in a file. Raises `UnusableSecret`; `OSError`."""
    try:
        secret = path.read_bytes().decode().strip()
    except UnicodeDecodeError:
        raise UnusableSecret(f"{path} does not hold text") from None
    if len(secret.encode()) < MIN_SECRET:
        raise UnusableSecret(
            f"{path} holds {len(secret.encode())} bytes, and a secret has {MIN_SECRET} or more: "
            "remove the file, and the next start makes one"
        )
    return secret


def load_or_make_secret(path: Path) -> str:
    """The secret in a file, made at the first start, which only the owner may read.

    Raises `UnusableSecret`; `OSError`.
    """
    try:
        return load_secret(path)
    except FileNotFoundError:
        pass
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_urlsafe(48) + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(made, path)  # appears whole; a process that was faster keeps its own
    except FileExistsError:
        pass
    finally:
        made.unlink()
    return load_secret(path)
