"""Whether a secret can be guessed: because it is known, or because little is in it."""

from __future__ import annotations

import re
from itertools import pairwise

# What the examples and tests of this project have, and the page that most try tokens on: everybody
# can read them.
PUBLISHED = frozenset(
    {
        "change-me-to-a-secret-of-32-bytes-or-more",
        "an-example-of-32-bytes-and-some-more",
        "a secret that is for tests alone, 32+ bytes",
        "a-string-secret-at-least-256-bits-long",
        "a-valid-string-secret-that-is-at-least-512-bits-long-which-is-very-long",
    }
)
WELL_KNOWN_PASSWORDS = frozenset(
    {
        "", "admin", "change-me", "changeme", "change_me", "guest", "minioadmin", "packtrail",
        "pass", "password", "postgres", "rabbitmq", "root", "secret", "test",
    }
)  # fmt: skip
_WORDS = re.compile(
    r"secret|change.?me|password|passw0rd|packtrail|default|example|admin|letmein|qwerty|test"
    r"|token|jwt|key"
)
MIN_LEFT = 16  # characters that must be left of a secret without what is easily guessed
MIN_DIFFERENT = 10  # characters that differ from each other


def fault_of_secret(secret: str) -> str | None:
    """Why somebody could guess it; None if nothing says so."""
    if secret in PUBLISHED:
        return "is an example that everybody can read"
    if len(set(secret)) < MIN_DIFFERENT:
        return f"has only {len(set(secret))} different characters"
    if re.fullmatch(r"(.+?)\1+.{0,15}", secret, re.DOTALL):
        return "repeats itself"
    if _steps(secret) > len(secret) // 2:
        return "runs through the alphabet, or the digits"
    if len(_WORDS.sub("", secret.lower())) < MIN_LEFT:
        return "is made of well-known words"
    return None


def _steps(secret: str) -> int:
    """How many characters are the one before, or its neighbour."""
    return sum(abs(ord(b) - ord(a)) <= 1 for a, b in pairwise(secret))


def is_well_known(password: str) -> bool:
    return password.lower() in WELL_KNOWN_PASSWORDS
