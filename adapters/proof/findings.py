"""What `packtrail verify` finds wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Check(StrEnum):
    """Which of the checks has found it."""

    CHAIN = "chain"
    TIMES = "times"
    VERSIONS = "versions"
    EVENTS = "events"
    CHECKPOINTS = "checkpoints"
    READ_MODELS = "read-models"
    BITS = "bits"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: where (for an event its position and id as well), and what."""

    check: Check
    where: str
    what: str
    position: int | None = None
    event: str | None = None

    def __str__(self) -> str:
        return f"{self.check}: {self.where}: {self.what}"


Tell = Callable[[Finding], None]


def shown(value: Any) -> str:
    """A stored value as it can be printed in one line, whatever bytes it has."""
    if isinstance(value, bytes | bytearray):
        value = value.decode(errors="backslashreplace")
    if not isinstance(value, str):
        return repr(value)
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in value)
