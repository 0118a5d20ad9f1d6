"""What tokens are verified and signed with."""

from __future__ import annotations

from adapters.jwks import Jwks
from adapters.token_keys import Keys, Secret, make_secret, public_key_file, secret_file
from adapters.tokens import Tokens
from entrypoints.settings import Settings


def make_keys(settings: Settings) -> Keys:
    """Raises `UnusableKey`; `OSError`."""
    if settings.jwks_url is not None:
        return Jwks(settings.jwks_url)
    if settings.jwt_public_key is not None:
        return public_key_file(settings.jwt_public_key)
    if settings.jwt_secret is not None:
        return Secret(settings.jwt_secret)
    make_secret(settings.secret_file)
    return secret_file(settings.secret_file)


def make_tokens(settings: Settings) -> Tokens:
    """Raises `UnusableKey`; `OSError`."""
    return Tokens(make_keys(settings), settings.jwt_audience)
