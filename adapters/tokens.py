"""Bearer tokens: JSON Web Tokens as a UAA issues them, which count once they are verified."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import jwt

from adapters.token_keys import Keys

MAX_TOKEN = 32 * 1024  # characters
MAX_USER = 255  # characters of a user's guid
REMEMBERED = 10_000  # verified tokens


class Scope(StrEnum):
    READ = "cloud_controller.read"
    WRITE = "cloud_controller.write"
    ADMIN = "cloud_controller.admin"
    BUILDER = "packtrail.builder"  # sees every package, and answers for every droplet


@dataclass(frozen=True)
class Caller:
    """Who sends a request: the user's (or client's) guid, and what the token lets them do.

    The token and the address are for those who need them, and in no text that is shown.
    """

    guid: str
    scopes: frozenset[str]
    email: str | None = field(default=None, repr=False)
    token: str = field(default="", repr=False)

    @property
    def is_admin(self) -> bool:
        return Scope.ADMIN in self.scopes

    @property
    def is_builder(self) -> bool:
        return Scope.BUILDER in self.scopes

    def may(self, scope: Scope) -> bool:
        return self.is_admin or scope in self.scopes


class TokenRejected(Exception):
    """The token is malformed, expired, foreign, or lacks a claim; the text is for the log."""


class CannotSign(Exception):
    """Tokens are verified with somebody else's keys: they are signed there."""


class Tokens:
    """Verifies tokens, and signs some for trying things out, where the key is our own.

    A key has one algorithm, whatever a token says of itself. What was verified is remembered,
    until it expires or the keys change.
    """

    def __init__(self, keys: Keys, audience: str) -> None:
        self._keys = keys
        self._audience = audience
        self._remembered: OrderedDict[bytes, tuple[Caller, float, int]] = OrderedDict()
        self._lock = threading.Lock()

    def verify(self, token: str) -> Caller:
        """Who the token speaks for. Raises `TokenRejected`, `KeysAway`."""
        if len(token) > MAX_TOKEN:
            raise TokenRejected(f"the token has {len(token)} characters, {MAX_TOKEN} are allowed")
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        generation = self._keys.generation()
        with self._lock:
            known = self._remembered.get(digest)
            if known is not None:
                caller, expires_at, verified_with = known
                if verified_with == generation and time.time() < expires_at:
                    self._remembered.move_to_end(digest)
                    return _shown_by(caller, token)
                del self._remembered[digest]
        claims = self._claims(token)
        caller = _caller_of(claims)
        with self._lock:
            self._remembered[digest] = (caller, claims["exp"], generation)
            if len(self._remembered) > REMEMBERED:
                self._remembered.popitem(last=False)
        return _shown_by(caller, token)

    def _claims(self, token: str) -> dict[str, Any]:
        try:
            kid = jwt.get_unverified_header(token).get("kid")
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            raise TokenRejected(f"it is no JSON Web Token: {error}") from error
        reason: Exception | None = None
        for key in self._keys.find(kid):
            try:
                claims: dict[str, Any] = jwt.decode(
                    token,
                    key.key,
                    algorithms=[key.algorithm],
                    audience=self._audience,
                    options={"require": ["exp"], "verify_sub": False},
                )
            except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError) as error:
                reason = error  # another key may fit
            except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
                raise TokenRejected(str(error)) from error
            else:
                return claims
        raise TokenRejected(f"no key fits: {reason or 'there is none of its id'}")

    def sign(self, user: str, email: str | None, scopes: Sequence[str], expires_in: int) -> str:
        """A token for `user` that expires in `expires_in` seconds. Raises `CannotSign`."""
        secret = self._keys.signing_secret()
        if secret is None:
            raise CannotSign("tokens are verified with the issuer's public keys, and signed there")
        claims: dict[str, object] = {
            "user_id": user,
            "scope": list(scopes),
            "aud": [self._audience],
            "exp": int(time.time()) + expires_in,
        }
        if email is not None:
            claims["email"] = email
        return jwt.encode(claims, secret, algorithm="HS256")


def _shown_by(caller: Caller, token: str) -> Caller:
    return Caller(caller.guid, caller.scopes, caller.email, token)


def _caller_of(claims: Mapping[str, Any]) -> Caller:
    """Of the scopes those that count here: a token may be long, and what is remembered is not.

    Raises `TokenRejected`.
    """
    expires_at = claims["exp"]
    if isinstance(expires_at, bool) or not isinstance(expires_at, int | float):
        raise TokenRejected("exp is not a number")
    guid = claims.get("user_id") or claims.get("client_id")
    if not guid or not isinstance(guid, str):
        raise TokenRejected("the token names neither user_id nor client_id")
    if len(guid) > MAX_USER or "\0" in guid or not _is_text(guid):
        raise TokenRejected(f"the user is not a text of up to {MAX_USER} characters")
    scopes = claims.get("scope", [])
    if not isinstance(scopes, list):
        raise TokenRejected("scope is not a list")
    email = claims.get("email")
    return Caller(
        guid,
        frozenset(scope for scope in Scope if scope in scopes),
        email if isinstance(email, str) and _is_text(email) else None,
    )


def _is_text(value: str) -> bool:
    """Whether it can be written down: JSON may hold halves of characters."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
