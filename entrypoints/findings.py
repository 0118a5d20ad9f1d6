"""What `packtrail check` finds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    WEAK = "weak"
    NOTE = "note"


@dataclass(frozen=True)
class Finding:
    """One thing, and what would be better. None of the texts has a secret in it."""

    level: Level
    setting: str
    wrong: str
    right: str

    def __str__(self) -> str:
        return f"{self.level}  {self.setting}: {self.wrong}; right: {self.right}"


def weak(setting: str, wrong: str, right: str) -> Finding:
    return Finding(Level.WEAK, setting, wrong, right)


def note(setting: str, wrong: str, right: str) -> Finding:
    return Finding(Level.NOTE, setting, wrong, right)
