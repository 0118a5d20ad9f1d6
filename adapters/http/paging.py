"""Lists, a page at a time: the query's parameters, and the links between pages."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode

from adapters.http.answers import pretty_json
from adapters.http.faults import BadQuery

DEFAULT_PER_PAGE = 50
MAX_PER_PAGE = 5000
MAX_VALUES = 1000  # of a filter
_NUMBER = re.compile(r"[+-]?[0-9]{1,1000}")
_ORDER = re.compile(r"([ +-]?)(created_at|updated_at)")


@dataclass(frozen=True)
class Paging:
    """Which page is asked for (they count from 1), and how many entries it has."""

    page: int = 1
    per_page: int = DEFAULT_PER_PAGE
    filters: Mapping[str, str] = field(default_factory=dict)  # what else was asked for

    @classmethod
    def of_query(
        cls,
        query: str,
        others: Sequence[str] = (),
        check: Callable[[dict[str, str]], None] = lambda filters: None,
    ) -> Paging:
        """`others` are further parameters, which `check` may put right, or refuse.

        Raises `BadQuery`, with all that is wrong.
        """
        values = dict(parse_qsl(query, keep_blank_values=True))
        filters = {name: value for name, value in values.items() if name in others}
        reasons = []
        unknown = [name for name in values if name not in ("page", "per_page", *others)]
        if unknown:
            names = ", ".join(f"'{name}'" for name in unknown)
            reasons.append(f"Unknown query parameter(s): {names}")
        per_page = _number(values, "per_page", "Per page", DEFAULT_PER_PAGE, reasons)
        if per_page > MAX_PER_PAGE:
            reasons.append(f"Per page must be between 1 and {MAX_PER_PAGE}")
        page = _number(values, "page", "Page", 1, reasons)
        try:
            check(filters)
        except BadQuery as reason:
            reasons.append(str(reason))
        if reasons:
            raise BadQuery(", ".join(reasons))
        return cls(page, per_page, filters)

    def render_joined(self, path: str, total: int, documents: Iterable[bytes]) -> bytes:
        """The same as the JSON of `render`, of resources that are JSON already."""
        frame = pretty_json(self.render(path, total, []))
        nested = b",\n    ".join(document.replace(b"\n", b"\n    ") for document in documents)
        if not nested:
            return frame
        return frame.removesuffix(b"[]\n}") + b"[\n    " + nested + b"\n  ]\n}"

    def render(self, path: str, total: int, resources: list[Any]) -> dict[str, Any]:
        """The page as the contract has it; `total` counts the entries of all pages."""
        last = max(1, -(-total // self.per_page))
        return {
            "pagination": {
                "total_results": total,
                "first": self._link(path, 1),
                "last": self._link(path, last),
                "next": self._link(path, self.page + 1) if self.page < last else None,
                "previous": self._link(path, self.page - 1) if self.page > 1 else None,
            },
            "resources": resources,
        }

    def values(self, name: str) -> list[str] | None:
        """The values of a filter, parted by commas; None if it is not given. Raises `BadQuery`."""
        return values_of(self.filters, name)

    def _link(self, path: str, page: int) -> dict[str, str]:
        parameters = {**self.filters, "page": page, "per_page": self.per_page}
        return {"href": f"{path}?{urlencode(sorted(parameters.items()))}"}


def values_of(filters: Mapping[str, str], name: str) -> list[str] | None:
    """As `Paging.values`."""
    given = filters.get(name)
    if given is None:
        return None
    values = given.split(",")
    if len(values) > MAX_VALUES:
        label = name[:1].upper() + name[1:].replace("_", " ")
        raise BadQuery(f"{label} must be {MAX_VALUES} values or less")
    return [value for value in values if value]


def sign_order(filters: dict[str, str]) -> None:
    """Gives `order_by` the sign that it has in links. Raises `BadQuery`.

    A plus sign that was not encoded arrives as a space.
    """
    order = filters.get("order_by")
    if order is None:
        return
    match = _ORDER.fullmatch(order)
    if match is None:
        raise BadQuery("Order by can only be ordered by 'created_at' or 'updated_at'")
    filters["order_by"] = ("-" if match[1] == "-" else "+") + match[2]


def _number(values: dict[str, str], name: str, label: str, default: int, reasons: list[str]) -> int:
    text = values.get(name)
    if text is None:
        return default
    if not _NUMBER.fullmatch(text.strip()):
        reasons.append(f"{label} is not a number")
        return default
    number = int(text)
    if number < 1:
        reasons.append(f"{label} must be greater than 0")
        return default
    return number
