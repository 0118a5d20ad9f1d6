"""An object that was put into the object store for us, and may be taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class FoundObject:
    """`key` names it inside the service's prefix; `size` is in bytes."""

    key: str
    size: int

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None: ...
