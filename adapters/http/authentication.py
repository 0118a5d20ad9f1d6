"""Who sends a request, and whether their token lets them."""

from __future__ import annotations

from adapters.http.faults import InvalidToken, NotAuthenticated, NotAuthorized
from adapters.tokens import Caller, Scope, TokenRejected, Tokens


class Authenticator:
    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def authenticate(self, authorization: str | None, scope: Scope) -> Caller:
        """Raises `NotAuthenticated`, `InvalidToken`, `NotAuthorized`, in that order."""
        scheme, _, token = (authorization or "").strip().partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise NotAuthenticated
        try:
            caller = self._tokens.verify(token.strip())
        except TokenRejected as rejection:
            raise InvalidToken(str(rejection)) from None
        if not caller.may(scope):
            raise NotAuthorized(f"{caller.guid} lacks {scope}")
        return caller
