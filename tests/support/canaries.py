"""Secrets that are put in everywhere, to see where they come out."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

_TOKEN = re.compile(r"eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}")  # any, also one that we don't know


class Canaries:
    """Each has a name of its own; what is found of them is told by place and name."""

    def __init__(self) -> None:
        self._secrets: dict[str, str] = {}
        self.leaks: list[str] = []
        self.looked_at: dict[str, int] = {}  # characters, by place

    def new(self, name: str) -> str:
        """A secret of 40 characters that nothing else has in it."""
        return self.watch(name, f"canary{secrets.token_hex(17)}")

    def watch(self, name: str, secret: str) -> str:
        self._secrets[name] = secret
        return secret

    def watch_token(self, name: str, token: str) -> str:
        """What its user could be known by, and what proves that it is good."""
        _, claims, signature = token.split(".")
        self.watch(f"{name}'s claims", claims)
        if signature:
            self.watch(f"{name}'s signature", signature)
        return token

    def look(self, place: str, text: str | bytes, but: tuple[str, ...] = ()) -> None:
        """Notes what of the secrets is in a text; `but` may be there."""
        if isinstance(text, bytes):
            text = text.decode("utf-8", "replace")
        self.looked_at[place] = self.looked_at.get(place, 0) + len(text)
        for name, secret in self._secrets.items():
            if secret in text and name not in but:
                at = text.index(secret)
                self.leaks.append(f"{place}: {name}: {text[max(0, at - 120) : at + 60]!r}")
        if _TOKEN.search(text) and "a token" not in but:
            self.leaks.append(f"{place}: a token")

    def look_at_processes(self, pid: int) -> None:
        """At the command lines of a process and of all that it has started."""
        self.look("command lines", Path(f"/proc/{pid}/cmdline").read_bytes())
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                self.look_at_processes(int(child))
