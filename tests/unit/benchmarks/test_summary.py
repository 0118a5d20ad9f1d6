"""The page about performance says what was measured."""

from __future__ import annotations

from benchmarks.summary import BARS, PAGE, figures_of, filled


def test_the_page_has_the_figures_of_the_kept_results() -> None:
    """As they were measured last, those that miss their bar as well."""
    page = PAGE.read_text()
    assert figures_of(BARS)
    assert page.count("<!-- figures ") == page.count("<!-- end -->") >= 5
    assert filled(page) == page


def test_a_page_that_says_something_else_is_mended() -> None:
    """What is around the tables stays."""
    mended = filled("before\n<!-- figures bars -->\nall is well\n<!-- end -->\nbehind\n")
    assert "all is well" not in mended
    assert mended.startswith("before\n<!-- figures bars -->\n| what |")
    assert mended.endswith("|\n<!-- end -->\nbehind\n")
