"""Finding the bits in a multipart body: where they are, to the byte, or a refusal."""

from __future__ import annotations

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from adapters.http.multipart import (
    FilePart,
    boundary_of,
    find_bits,
    plain_file_name,
)
from domain.errors import FormOverLimit, NoBitsInForm
from tests.support.memory import little_work

EDGE = b"edge"
BLOCK = 1 << 20  # what is searched at a time


class MemoryBody:
    """A body in memory that counts what is read of it."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)
        self.bytes_read = 0

    def read_at(self, offset: int, length: int) -> bytes:
        found = self.data[offset : offset + length]
        self.bytes_read += len(found)
        return found


def part(content: bytes, disposition: str, *headers: str, edge: bytes = EDGE) -> bytes:
    lines = [f"Content-Disposition: {disposition}", *headers]
    head = "".join(f"{line}\r\n" for line in lines).encode()
    return b"--" + edge + b"\r\n" + head + b"\r\n" + content + b"\r\n"


def file(content: bytes, name: str = "app.zip", field: str = "bits") -> bytes:
    return part(content, f'form-data; name="{field}"; filename="{name}"')


def text(content: bytes, field: str) -> bytes:
    return part(content, f'form-data; name="{field}"')


def form(*parts: bytes, edge: bytes = EDGE) -> bytes:
    return b"".join(parts) + b"--" + edge + b"--\r\n"


def found(data: bytes, edge: bytes = EDGE) -> FilePart:
    return find_bits(MemoryBody(data), edge)


def bits(data: bytes, edge: bytes = EDGE) -> bytes:
    where = found(data, edge)
    return data[where.offset : where.offset + where.length]


def test_the_bits_are_found_to_the_byte() -> None:
    """Without the line ends around them."""
    assert bits(form(file(b"PK\3\4"))) == b"PK\3\4"


@pytest.mark.parametrize(
    "preamble", [b"\r\n", b"to be ignored\r\n", b"--edg\r\n", b"--edgeless\r\n"]
)
def test_a_preamble_is_ignored(preamble: bytes) -> None:
    """What comes before the first boundary is nobody's part."""
    assert bits(preamble + form(file(b"PK"))) == b"PK"


def test_an_epilogue_is_ignored() -> None:
    """What comes behind the closing boundary is no part either."""
    assert bits(form(file(b"PK")) + b"x\r\n" + form(file(b"others"))) == b"PK"
    with pytest.raises(NoBitsInForm):
        found(form(text(b"x", "a")) + form(file(b"behind the end")))


def test_the_bits_may_be_any_of_several_parts() -> None:
    """Fields and other files around them don't matter."""
    data = form(text(b"1", "a"), file(b"other", field="icon"), file(b"PK"), text(b"2", "b"))
    assert bits(data) == b"PK"


def test_the_first_of_two_is_taken() -> None:
    """A form with two files named bits has the first one stored."""
    assert bits(form(file(b"first"), file(b"second"))) == b"first"


def test_a_field_without_a_file_name_is_no_file() -> None:
    """A text field named bits is not the bits; the file behind it is."""
    assert bits(form(text(b"no", "bits"), file(b"PK"))) == b"PK"
    with pytest.raises(NoBitsInForm):
        found(form(text(b"no", "bits")))


@pytest.mark.parametrize(
    "disposition",
    [
        'form-data; name="Bits"; filename="a.zip"',
        'form-data; name="application"; filename="a.zip"',
        'attachment; name="bits"; filename="a.zip"',
        'form-data; filename="a.zip"',
        "",
    ],
)
def test_other_parts_are_not_the_bits(disposition: str) -> None:
    """Neither another name, nor another disposition, nor none."""
    with pytest.raises(NoBitsInForm):
        found(form(part(b"PK", disposition)))


def test_a_part_without_headers_is_passed_over() -> None:
    """It has no name."""
    bare = b"--edge\r\n\r\nno headers here\r\n"
    assert bits(form(bare, file(b"PK"))) == b"PK"


@pytest.mark.parametrize("content", [b"", b"\r\n", b"\r\n\r\n", b"-", b"--", b"\r", b"\n"])
def test_any_content_is_content(content: bytes) -> None:
    """Also none, and what looks like a line end."""
    assert bits(form(file(content))) == content


def test_an_empty_part_may_lack_its_own_line_end() -> None:
    """Some senders write no CRLF between an empty content and the next boundary."""
    head = b'--edge\r\nContent-Disposition: form-data; name="bits"; filename="a"\r\n\r\n'
    assert found(head + b"--edge--\r\n").length == 0


@pytest.mark.parametrize(
    "content",
    [
        b"a--edge\r\nb",
        b"\n--edge\n",
        b"\n--edge\r\n",
        b"\r\n--edgeless\r\n",
        b"\r\n--edge-\r\n",
        b"\r\n--edg\r\n",
        b"\r\n-edge\r\n",
        b"\r\n--Edge\r\n",
        b"\r\n--edge x\r\n",
        b"\r\n--edge\n",
        b"\r\n\r\n--edgy\r\n--edg",
    ],
)
def test_what_only_looks_like_the_boundary_is_content(content: bytes) -> None:
    """A boundary is a line of its own, between CRLFs, in full and in its own letters."""
    assert bits(form(file(content))) == content


@pytest.mark.parametrize("padding", [b" ", b"\t", b"  \t "])
def test_padding_behind_a_boundary_is_allowed(padding: bytes) -> None:
    """RFC 2046 lets a sender, or a gateway, put blanks there."""
    assert bits(form(file(b"PK")).replace(b"--edge\r\n", b"--edge" + padding + b"\r\n")) == b"PK"
    assert bits(form(file(b"PK")).replace(b"--edge--", b"--edge--" + padding)) == b"PK"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"--",
        b"--edge",
        b"--edge--",
        b"--edge--\r\n",
        b"--edge\r\n",
        b"no form at all",
        form(file(b"PK"))[:-4],
        form(file(b"PK"))[: -len(b"--edge--\r\n")],
        form(file(b"PK"))[: -len(b"K\r\n--edge--\r\n")],
        form(file(b"PK"), edge=b"egde"),
        file(b"PK") + b"--edgeless--\r\n",
    ],
)  # fmt: skip
def test_a_form_that_breaks_off_is_refused(data: bytes) -> None:
    """Half of the bits is not the bits."""
    with pytest.raises(NoBitsInForm):
        found(data)


def test_every_truncation_is_refused() -> None:
    """Wherever a connection breaks before the closing boundary is whole."""
    data = form(text(b"1", "a"), file(b"PK\r\n--edg"))
    whole = data.index(b"--edge--") + len(b"--edge--")
    for length in range(whole):
        with pytest.raises(NoBitsInForm):
            found(data[:length])
    assert bits(data[:whole]) == b"PK\r\n--edg"


@given(content=st.binary(max_size=200), before=st.binary(max_size=60))
@example(content=b"\r\n--edg", before=b"\r\n--")
def test_whatever_is_sent_is_found(content: bytes, before: bytes) -> None:
    """Any bytes without the boundary come out as they went in."""
    assume(b"--edge" not in content and b"--edge" not in before)
    assert bits(form(text(before, "a"), file(content))) == content


@pytest.mark.parametrize("spare", range(-12, 4))
def test_a_boundary_across_two_search_blocks_is_found(spare: int) -> None:
    """The closing boundary lies before, across and behind the end of the first block."""
    start = found(form(file(b""))).offset
    content = b"x" * (BLOCK + spare - start)
    assert bits(form(file(content))) == content


@pytest.mark.parametrize("size", [BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 17])
def test_bits_that_span_search_blocks_are_found(size: int) -> None:
    """Behind a large field, and with a field behind them."""
    content = bytes(size)
    data = form(text(b"y" * size, "a"), file(content), text(b"z", "b"))
    where = found(data)
    assert where.length == size
    assert data[where.offset : where.offset + size] == content


def test_the_search_reads_about_as_much_as_there_is() -> None:
    """A body is read once, not once for each of its lines."""
    body = MemoryBody(form(file(b"x\r\n" * BLOCK)))
    find_bits(body, EDGE)
    assert body.bytes_read < 2 * body.size


def test_boundary_like_lines_do_not_make_the_search_slow() -> None:
    """A body full of almost-boundaries costs its sender about as much as it costs us."""

    class Costly(MemoryBody):
        def read_at(self, offset: int, length: int) -> bytes:
            assert self.bytes_read < 200 * self.size, "the search reads everything again and again"
            return super().read_at(offset, length)

    body = Costly(form(file(b"\r\n--edgeX" * 50_000)))
    assert find_bits(body, EDGE).length == 450_000


def test_too_many_parts_are_refused() -> None:
    """The bits are found among as many parts as are allowed, not behind them."""
    fields = [text(b"x", f"field-{number}") for number in range(100)]
    assert bits(form(*fields[1:], file(b"PK"))) == b"PK"
    with pytest.raises(FormOverLimit, match="has 101 parts or more; the limit is 100"):
        found(form(*fields, file(b"PK")))
    with pytest.raises(FormOverLimit, match="has 4 parts or more; the limit is 3"):
        find_bits(MemoryBody(form(*fields[:3], file(b"PK"))), EDGE, max_parts=3)


def test_huge_headers_are_refused() -> None:
    """A part's headers are read whole, so they are bounded."""
    disposition = 'form-data; name="bits"; filename="a.zip"'
    assert bits(form(part(b"PK", disposition, "X-Fill: " + "x" * 10_000))) == b"PK"
    with pytest.raises(NoBitsInForm):
        found(form(part(b"PK", disposition, "X-Fill: " + "x" * 20_000)))


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('form-data; name="bits"; filename="app.zip"', "app.zip"),
        ("form-data; name=bits; filename=app.zip", "app.zip"),
        ('Form-Data; NAME="bits"; FileName="app.zip"', "app.zip"),
        ('form-data;name="bits";filename="app.zip"', "app.zip"),
        ('form-data; filename="app.zip"; name="bits"', "app.zip"),
        ('form-data; name="bits"; filename="my app.zip"', "my app.zip"),
        ('form-data; name="bits"; filename="a;b=c.zip"', "a;b=c.zip"),
        ('form-data; name="bits"; filename="say \\"hi\\".zip"', 'say "hi".zip'),
        ('form-data; name="bits"; filename="say %22hi%22.zip"', 'say "hi".zip'),
        ('form-data; name="bits"; filename="Änderung 数.zip"', "Änderung 数.zip"),
        ("form-data; name=\"bits\"; filename*=UTF-8''na%C3%AFve.zip", "naïve.zip"),
        ("form-data; name=\"bits\"; filename*=utf-8'en'na%C3%AFve.zip", "naïve.zip"),
        ('form-data; name="bits"; filename="x.zip"; filename*=UTF-8\'\'%E2%82%AC.zip', "€.zip"),
        ('form-data; name="bits"; filename="../../etc/passwd"', "passwd"),
        ('form-data; name="bits"; filename="/etc/passwd"', "passwd"),
        ("form-data; name=\"bits\"; filename*=UTF-8''..%2F..%2Fetc%2Fpasswd", "passwd"),
        (r'form-data; name="bits"; filename="C:\Users\me\app.zip"', "app.zip"),
        ('form-data; name="bits"; filename=""', None),
        ('form-data; name="bits"; filename="folder/"', None),
    ],
)
def test_the_file_name_is_understood(disposition: str, name: str | None) -> None:
    """However the sender writes it; folders are dropped, and no name is none."""
    assert found(form(part(b"PK", disposition))).file_name == name


def test_folded_and_other_headers_are_understood() -> None:
    """The disposition may be any of the headers, in any letter case, on two lines."""
    head = (
        b"--edge\r\nContent-Type: application/zip\r\n"
        b'content-DISPOSITION: form-data; name="bits";\r\n filename="app.zip"\r\n\r\n'
    )
    assert found(head + b"PK\r\n--edge--").file_name == "app.zip"


def test_a_file_name_in_an_unknown_encoding_does_not_stop_an_upload() -> None:
    """What can't be decoded is replaced."""
    data = form(file(b"PK")).replace(b"app.zip", b"\xff\xfe.zip")
    assert found(data).file_name == "��.zip"


@pytest.mark.parametrize(
    ("given_name", "kept"),
    [
        ("app.zip", "app.zip"),
        (" app.zip ", "app.zip"),
        ("a\r\nSet-Cookie: x.zip", "aSet-Cookie: x.zip"),
        ("a\0b\x1b[31m.zip", "ab[31m.zip"),
        ("\u202egnp.zip", "gnp.zip"),
        ("\udcff.zip", ".zip"),
        ("x" * 300, "x" * 255),
        ("\0", None),
        ("   ", None),
        ("", None),
    ],
)
def test_a_file_name_is_made_plain(given_name: str, kept: str | None) -> None:
    """No control characters, none that turn the text around, and 255 characters at most."""
    assert plain_file_name(given_name) == kept


@pytest.mark.parametrize("name", ["", ".", "..", "a/..", "C:\\.", "\0", " "])
def test_what_is_no_name_is_left_out(name: str) -> None:
    """Nobody could keep a file under it."""
    assert plain_file_name(name) is None


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=edge", b"edge"),
        ('multipart/form-data; boundary="edge"', b"edge"),
        ('multipart/form-data; charset=utf-8; boundary="with space:=?"', b"with space:=?"),
        ("multipart/form-data; BOUNDARY=----WebKitFormBoundary7MA4", b"----WebKitFormBoundary7MA4"),
        ("multipart/form-data; boundary=" + "x" * 70, b"x" * 70),
    ],
)
def test_the_boundary_is_understood(content_type: str, boundary: bytes) -> None:
    """Quoted or not, of up to 70 characters."""
    assert boundary_of(content_type) == boundary


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary=""',
        "multipart/form-data; boundary=" + "x" * 71,
        "multipart/form-data; boundary=ümlaut",
        'multipart/form-data; boundary="ends with space "',
        'multipart/form-data; boundary="a\r\nb"',
        "",
    ],
)
def test_a_wrong_boundary_is_refused(content_type: str) -> None:
    """One that RFC 2046 does not allow, or none."""
    with pytest.raises(NoBitsInForm):
        boundary_of(content_type)


@pytest.mark.parametrize("behind", [b"x", b" " * 300], ids=["text", "blanks"])
def test_data_full_of_what_begins_like_a_delimiter_are_searched_fast(behind: bytes) -> None:
    """As fast as others: a gigabyte of them would hold up everybody else for minutes."""
    almost = b"\r\n--e" + behind
    content = almost * (16 * BLOCK // len(almost))
    body = MemoryBody(
        form(part(content, 'form-data; name="bits"; filename="a"', edge=b"e"), edge=b"e")
    )
    with little_work(1.0):
        assert find_bits(body, b"e").length == len(content)
