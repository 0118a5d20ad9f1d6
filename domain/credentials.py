"""Finds credentials in what names a place: what is in the log can't be taken back."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import unquote

_IN_URL = re.compile(
    r"(https?|git)://.*[@?]|[a-z+.-]+://([^/]*:[^/]*@|.*\?)", re.IGNORECASE | re.DOTALL
)
_MAX_DECODINGS = 10  # nobody who decodes would go on; it bounds the time
_DIGEST = re.compile(
    r"@(sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128})\Z", re.IGNORECASE
)


def holds_credentials(url: str) -> bool:
    """Whether a URL holds a password or a token, or a query, in which one may be.

    The user's name in `ssh://git@host/path` and `git@host:path` is no secret.
    """
    return _IN_URL.match(_decoded(url).strip()) is not None


def image_holds_credentials(image: str) -> bool:
    """Whether the reference of an image holds them. Nobody logs in by it: an @ is a digest's."""
    bare = _DIGEST.sub("", _decoded(image).strip())
    return "@" in bare or "?" in bare or holds_credentials(bare)


def _decoded(text: str) -> str:
    """The text without percent-encoding, also where that was encoded again.

    And with what looks like an @, and is taken for one when a host's name is normalized.
    """
    for _ in range(_MAX_DECODINGS):
        decoded = unicodedata.normalize("NFKC", unquote(text))
        if decoded == text:
            break
        text = decoded
    return text
