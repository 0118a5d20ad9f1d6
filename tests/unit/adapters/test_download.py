"""Downloads: which bytes a Range header asks for, and under which name they are saved."""

from __future__ import annotations

from email.message import Message
from urllib.parse import unquote

import pytest

from adapters.http.disposition import attachment
from adapters.http.download import byte_range
from adapters.http.faults import RangeNotSatisfiable


@pytest.mark.parametrize(
    ("header", "span"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=0-99", (0, 100)),
        ("bytes=0-", (0, 100)),
        ("bytes=10-19", (10, 10)),
        ("bytes=99-99", (99, 1)),
        ("bytes=99-", (99, 1)),
        ("bytes=90-500", (90, 10)),
        ("bytes=-1", (99, 1)),
        ("bytes=-100", (0, 100)),
        ("bytes=-500", (0, 100)),
        ("bytes= 5-6 ", (5, 2)),
    ],
)
def test_a_range_is_an_offset_and_a_length(header: str, span: tuple[int, int]) -> None:
    """From the start, from the end, and cut at the last byte."""
    assert byte_range(header, 100) == span


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=5",
        "bytes=9-5",
        "bytes=500-5",
        "bytes=0-1,5-6",
        "bytes=0x1-2",
        "bytes=--5",
        "bytes=1-2-3",
        "items=0-5",
        "bytes=٠-٥",
        "bytes=" + "9" * 100 + "-",
        "0-5",
    ],
)
def test_what_is_not_one_range_is_ignored(header: str | None) -> None:
    """All of it is answered, as RFC 9110 has it for malformed and for several ranges."""
    assert byte_range(header, 100) is None


@pytest.mark.parametrize(
    ("header", "size"),
    [
        ("bytes=100-", 100),
        ("bytes=100-200", 100),
        ("bytes=-0", 100),
        ("bytes=999999999999999999-", 100),
        ("bytes=0-", 0),
        ("bytes=0-0", 0),
    ],
)
def test_a_range_behind_the_end_can_not_be_satisfied(header: str, size: int) -> None:
    """The refusal tells the size, for the answer's Content-Range."""
    with pytest.raises(RangeNotSatisfiable) as refused:
        byte_range(header, size)
    assert refused.value.size == size


def parsed(disposition: str) -> dict[str, str]:
    """The header's parameters, as another implementation reads them."""
    message = Message()
    message["Content-Disposition"] = disposition
    assert message.get_content_disposition() == "attachment"
    found = message.get_params(header="content-disposition", unquote=True)
    assert found is not None
    return {name: str(value) for name, value in found[1:]}


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("app.zip", "app.zip"),
        ("my app.zip", "my app.zip"),
        ('say "hi".zip', "say _hi_.zip"),
        ("back\\slash.zip", "back_slash.zip"),
        ("100%.zip", "100_.zip"),
        ("Ä数.zip", "__.zip"),
        ("a;b.zip", "a;b.zip"),
        ("it's.zip", "it's.zip"),
    ],
)
def test_the_file_name_is_sent_plain_and_exact(name: str, plain: str) -> None:
    """Old clients get a name without what they could misread, new ones the very name."""
    header = attachment(name)
    assert header.startswith(f"attachment; filename=\"{plain}\"; filename*=UTF-8''")
    assert unquote(header.rpartition("''")[2]) == name


@pytest.mark.parametrize("name", ["a\r\nSet-Cookie: x", "a\nb", "a\0b", "\x7f", "ä\r\n"])
def test_a_file_name_does_not_break_out_of_the_header(name: str) -> None:
    """The header is one line of printable ASCII."""
    header = attachment(name)
    assert header.isascii() and header.isprintable()
    assert unquote(header.rpartition("''")[2]) == name
    assert parsed(header)["filename"]
