"""Who sends a request, and whether their token lets them."""

from __future__ import annotations

import hmac

from adapters.http.faults import InvalidToken, NotAuthenticated, NotAuthorized
from adapters.tokens import Caller, Scope, TokenRejected, Tokens

BUILDER = Caller("packtrail.builder", frozenset((Scope.READ, Scope.WRITE, Scope.BUILDER)))


def require_scope(caller: Caller, scope: Scope) -> None:
    """Raises `NotAuthorized`."""
    if not caller.may(scope):
        raise NotAuthorized(f"{caller.guid} lacks {scope}")


class Authenticator:
    def __init__(self, tokens: Tokens, builder_token: str | None = None) -> None:
        """`builder_token`: what the builder in our own process shows, that nobody else knows."""
        self._tokens = tokens
        self._builder_token = builder_token

    def authenticate(self, authorization: str | None, scope: Scope) -> Caller:
        """Raises `NotAuthenticated`, `InvalidToken`, `NotAuthorized`, in that order; `KeysAway`."""
        caller = self.identify(authorization)
        require_scope(caller, scope)
        return caller

    def identify(self, authorization: str | None) -> Caller:
        """Raises `NotAuthenticated`, `InvalidToken`; `KeysAway`."""
        scheme, _, token = (authorization or "").strip().partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise NotAuthenticated
        return self._caller(token.strip())

    def _caller(self, token: str) -> Caller:
        if self._builder_token is not None and hmac.compare_digest(
            token.encode("utf-8", "surrogateescape"), self._builder_token.encode()
        ):
            return BUILDER
        try:
            return self._tokens.verify(token)
        except TokenRejected as rejection:
            raise InvalidToken(str(rejection)) from None
