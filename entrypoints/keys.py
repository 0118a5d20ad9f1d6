"""What tokens are verified and signed with."""

from __future__ import annotations

from adapters.tokens import Tokens, load_or_make_secret
from entrypoints.settings import Settings


def make_tokens(settings: Settings) -> Tokens:
    secret = settings.jwt_secret or load_or_make_secret(settings.secret_file)
    return Tokens(secret, settings.jwt_audience)
