"""Bodies and queries of any bytes: only the contract's errors come of them."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from adapters.fields import json_object, new_package_of, wanted_of
from adapters.http.faults import BadQuery, UnparsableBody
from adapters.http.paging import MAX_PER_PAGE, Paging
from domain.errors import InvalidRequest

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), 1 << 63) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
FIELDS = st.sampled_from(
    ["type", "url", "memory_limit", "disk_limit", "stack", "buildpack", "environment_variables"]
)


@given(st.binary(max_size=100) | JSON.map(lambda value: json.dumps(value).encode()))
@example(b"")
@example(b"\xef\xbb\xbf{}")
@example(b'{"a":1,"a":2}')
@example(b'{"a":\xed\xa0\x80}')
@example(b"{" * 100_000)
@example(b"[" * 100_000)
@example(b'{"a":' * 2000 + b"1" + b"}" * 2000)
@example(b'{"a":1e999999}')
@example(b'{"a":' + b"9" * 10_000 + b"}")
@example(b'{"a":NaN}')
@example(b'{"\\ud800":1}')
def test_any_body_is_an_object_or_none(body: bytes) -> None:
    """What can't be parsed is told as the contract has it."""
    try:
        value = json_object(body)
    except UnparsableBody as error:
        assert str(error)
        return
    assert isinstance(value, dict)


@pytest.mark.parametrize("opening", [b'{"a":', b"["])
@pytest.mark.parametrize("depth", [2, 100, 101, 1000, 1500, 100_000])
def test_depth_is_limited(opening: bytes, depth: int) -> None:
    """A hundred levels pass; of more the answer names the limit."""
    closing = b"}" if opening.startswith(b"{") else b"]"
    body = b'{"a":' + opening * (depth - 1) + b"1" + closing * (depth - 1) + b"}"
    if depth <= 100:
        json_object(body)
        return
    with pytest.raises(UnparsableBody, match="the limit is 100"):
        json_object(body)


@given(st.dictionaries(FIELDS | st.text(max_size=5), JSON, max_size=4), st.text(max_size=210))
def test_any_fields_are_a_command_or_at_fault(fields: dict[str, Any], app_guid: str) -> None:
    """Whatever types they have."""
    for read in (lambda: new_package_of(fields, app_guid), lambda: wanted_of(fields)):
        try:
            read()
        except InvalidRequest as refusal:
            assert refusal.faults


QUERIES = st.lists(
    st.sampled_from(
        ["page", "per_page", "states", "=", "&", ";", "0", "1", "-1", "+", "%", "%00", "%ff", "%3D",
         "9" * 30, "9" * 2000, "５", "1e3", " ", "1_0", "\x00", "ÿ"]
    )
    | st.text(st.characters(max_codepoint=255), max_size=4),
    max_size=10,
).map("".join)  # fmt: skip


@given(QUERIES)
def test_any_query_is_a_page_or_bad(query: str) -> None:
    """A page has a number and a size; its links lead to where they say."""
    try:
        paging = Paging.of_query(query, ("states",))
    except BadQuery as error:
        assert str(error)
        return
    assert paging.page >= 1 and 1 <= paging.per_page <= MAX_PER_PAGE
    assert set(paging.filters) <= {"states"}
    pagination = paging.render("/v3/packages", 100, [])["pagination"]
    for link in (pagination[name] for name in ("first", "last", "next", "previous")):
        if link is not None:
            again = Paging.of_query(urlsplit(link["href"]).query, ("states",))
            assert (again.per_page, again.filters) == (paging.per_page, paging.filters)
            assert dict(parse_qsl(urlsplit(link["href"]).query))["page"] == str(again.page)
