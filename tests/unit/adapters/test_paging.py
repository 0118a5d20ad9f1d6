"""Lists a page at a time: what is asked for, and the links between pages."""

from __future__ import annotations

import pytest

from adapters.http.answers import pretty_json
from adapters.http.faults import BadQuery
from adapters.http.paging import Paging


@pytest.mark.parametrize(
    ("query", "page", "per_page"),
    [
        ("", 1, 50),
        ("page=3", 3, 50),
        ("per_page=7", 1, 7),
        ("per_page=5000&page=2", 2, 5000),
        ("page=%201%20", 1, 50),
        ("page=%2B2", 2, 50),
        ("page=007", 7, 50),
        ("page=100000000000000000", 10**17, 50),
    ],
)
def test_a_query_says_which_page(query: str, page: int, per_page: int) -> None:
    """By default the first one, of 50 entries."""
    assert Paging.of_query(query) == Paging(page, per_page)


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("page=0", "Page must be greater than 0"),
        ("page=-1", "Page must be greater than 0"),
        ("page=", "Page is not a number"),
        ("page=one", "Page is not a number"),
        ("page=1.5", "Page is not a number"),
        ("page=1_0", "Page is not a number"),
        ("page=%D9%A1", "Page is not a number"),
        ("page=" + "9" * 5000, "Page is not a number"),
        ("per_page=0", "Per page must be greater than 0"),
        ("per_page=x", "Per page is not a number"),
        ("per_page=5001", "Per page must be between 1 and 5000"),
        ("order=asc", "Unknown query parameter(s): 'order'"),
        ("a=1&b=2", "Unknown query parameter(s): 'a', 'b'"),
        ("flag", "Unknown query parameter(s): 'flag'"),
        ("page=0&per_page=x", "Per page is not a number, Page must be greater than 0"),
    ],
)
def test_a_wrong_query_is_refused_with_all_its_reasons(query: str, reason: str) -> None:
    """One sentence for each thing that is wrong."""
    with pytest.raises(BadQuery) as refused:
        Paging.of_query(query)
    assert str(refused.value) == reason


def links(page: int, per_page: int, total: int) -> dict[str, str | None]:
    pagination = Paging(page, per_page).render("/v3/packages", total, [])["pagination"]
    hrefs = {}
    for name in ("first", "last", "next", "previous"):
        link = pagination[name]
        hrefs[name] = link and link["href"].removeprefix("/v3/packages?")
    return hrefs


@pytest.mark.parametrize(
    ("page", "total", "last", "following", "previous"),
    [
        (1, 0, 1, None, None),
        (1, 1, 1, None, None),
        (1, 10, 1, None, None),
        (1, 11, 2, 2, None),
        (2, 11, 2, None, 1),
        (2, 30, 3, 3, 1),
        (9, 11, 2, None, 8),
    ],
)
def test_links_lead_from_page_to_page(
    page: int, total: int, last: int, following: int | None, previous: int | None
) -> None:
    """First and last always, next and previous where there is one."""

    def href(number: int | None) -> str | None:
        return None if number is None else f"page={number}&per_page=10"

    assert links(page, 10, total) == {
        "first": href(1),
        "last": href(last),
        "next": href(following),
        "previous": href(previous),
    }


def test_a_page_tells_the_total_and_its_entries() -> None:
    """The total counts the entries of all pages."""
    rendered = Paging(2, 1).render("/v3/apps/a/packages", 3, ["entry"])
    assert rendered["pagination"]["total_results"] == 3
    assert rendered["resources"] == ["entry"]
    assert rendered["pagination"]["next"] == {"href": "/v3/apps/a/packages?page=3&per_page=1"}


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_page_of_json_is_the_json_of_the_page(count: int) -> None:
    """Joined from what is rendered already, byte for byte; texts may have lines, too."""
    resources = [{"guid": f"a\n{n}\u2028", "links": {"self": {"href": "/"}}} for n in range(count)]
    paging = Paging(2, 3)
    joined = paging.render_joined("/v3/packages", 7, (pretty_json(one) for one in resources))
    assert joined == pretty_json(paging.render("/v3/packages", 7, resources))
