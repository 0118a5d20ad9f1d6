"""Request ids: a UUID of ours, behind the caller's own id."""

from __future__ import annotations

from uuid import RFC_4122, UUID

from adapters.http.answers import new_request_id


def test_an_id_is_a_random_uuid() -> None:
    """Version 4 as RFC 9562 has it, written in the usual way, and another one each time."""
    ids = [new_request_id(None, None) for _ in range(200)]
    assert len(set(ids)) == 200
    for text in ids:
        found = UUID(text)
        assert (str(found), found.version, found.variant) == (text, 4, RFC_4122)


def test_the_callers_id_comes_first() -> None:
    """Of the two headers the field's own, where it is fit to be logged."""
    callers, _, ours = new_request_id("theirs", "other").partition("::")
    assert (callers, UUID(ours).version) == ("theirs", 4)
    assert "::" not in new_request_id("not fit", None)
