"""What a package was like at a position of the log, and what differs between two."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from adapters.history import History, aggregate_at, trail
from domain.package import Package
from projections.representation import represent, view_of


class NoPackage(LookupError):
    """There is no package to tell of; the text says why."""


class Change(NamedTuple):
    """A field, by its path in the representation, before and after; None where there was none."""

    field: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Shown:
    """A package as it is shown at a position; None where there was none, and then why."""

    position: int
    package: dict[str, Any] | None
    absence: str | None = None


def shown_at(log: History, guid: str, position: int) -> Shown:
    """Today's rendering of what a package was when the log ended with `position`.

    Raises `NoPackage` where the log has never heard of it.
    """
    events = trail(log, Package, guid)
    if not events:
        raise NoPackage(f"there is no package {guid!r}, and never was")
    package = aggregate_at(log, Package, guid, position)
    if package is None:
        begun = events[0].position
        return Shown(position, None, f"it was created later, at position {begun}")
    if package.deleted:
        return Shown(position, None, f"it was deleted at position {events[-1].position}")
    return Shown(position, represent(view_of(package)))


def changes(before: Shown, after: Shown) -> list[Change]:
    """The fields that differ, in the representation's order."""
    old, new = dict(_fields(before.package or {})), dict(_fields(after.package or {}))
    names = list(dict.fromkeys([*old, *new]))
    return [
        Change(name, old.get(name), new.get(name))
        for name in names
        if old.get(name) != new.get(name)
    ]


def _fields(value: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _fields(inner, f"{path}{name}.")
        else:
            yield f"{path}{name}", inner
