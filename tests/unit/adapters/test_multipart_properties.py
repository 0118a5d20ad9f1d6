"""The multipart reader with broken input, beside a reader that is slow and simple, and werkzeug."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from werkzeug.formparser import FormDataParser

from adapters.http import multipart
from adapters.http.multipart import FilePart, boundary_of, find_bits
from domain.errors import FormOverLimit, NoBitsInForm

BITS = b'Content-Disposition: form-data; name="bits"; filename="app.zip"\r\n'
FIELD = b'Content-Disposition: form-data; name="bits"\r\n'
NESTED = b"Content-Type: multipart/mixed; boundary=edge\r\n"
BOUNDARIES = st.sampled_from([b"edge", b"-", b"--", b"e", b"a b", b"'()+_,-./:=?", b"x" * 70])


class MemoryBody:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)
        self.bytes_read = 0

    def read_at(self, offset: int, length: int) -> bytes:
        assert offset >= 0 and length >= 0
        found = self._data[offset : offset + length]
        self.bytes_read += len(found)
        return found


def reference(data: bytes, boundary: bytes) -> tuple[int, int] | None:
    """Where the bits lie, found in one piece of memory by regular expressions."""
    padding = rb"[ \t]{0,254}(?=\r\n)"
    line = rb"--" + re.escape(boundary)
    delimiter = re.compile(rb"\r\n" + line + rb"(?:(?=--)|" + padding + b")")
    begins = re.match(line + padding, data) or delimiter.search(data)
    while begins is not None and not data.startswith(b"--", begins.end()):
        start = begins.end()  # of the line end, which may be the one before an empty header
        end = data.find(b"\r\n\r\n", start)
        if not start <= end <= start + multipart.MAX_PART_HEADERS - 4:
            return None
        ends = delimiter.search(data, end + 2)
        if ends is None:
            return None
        name, file_name = multipart._disposition(data[start + 2 : end])
        if name == "bits" and file_name is not None:
            return end + 4, max(0, ends.start() - end - 4)
        begins = ends
    return None


def pieces(boundary: bytes) -> st.SearchStrategy[bytes]:
    """What forms are made of, and what looks like it."""
    line = b"\r\n--" + boundary
    return st.one_of(
        st.sampled_from(
            [
                b"--" + boundary, line, line + b"\r\n", line + b"--", line + b"--\r\n",
                line + b" \t\r\n", line + b"\n", line + b"x\r\n", line[:-1] + b"\r\n",
                line[1:] + b"\r\n", line + b"-\r\n", line + b" " * 300 + b"\r\n", line[:3],
                b"\r\n", b"\r\n\r\n", b"\r", b"\n", b"--", b" ", BITS, BITS + b"\r\n",
                line + b"\r\n" + BITS + b"\r\n", FIELD + b"\r\n", NESTED, NESTED + BITS + b"\r\n",
                b"X-Fill: " + b"x" * 9000 + b"\r\n", b"PK\3\4",
            ]
        ),
        st.binary(max_size=8),
    )  # fmt: skip


@pytest.fixture(
    scope="module", params=[1, 2, 7, 300, 1 << 20], ids=lambda size: f"blocks of {size}"
)
def block(request: pytest.FixtureRequest) -> Iterator[int]:
    """How many bytes are searched at a time: few, so that much lies across two blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multipart, "_BLOCK", request.param)
        yield request.param


@settings(max_examples=100)
@given(st.data())
def test_any_form_is_read_as_the_simple_reader_reads_it(block: int, data: st.DataObject) -> None:
    """The same bits, or none; wherever they lie."""
    boundary = data.draw(BOUNDARIES)
    body = b"".join(data.draw(st.lists(pieces(boundary), max_size=12)))
    if data.draw(st.booleans()):
        body = b"--" + boundary + b"\r\n" + BITS + b"\r\n" + body + b"\r\n--" + boundary + b"--"
    expected = reference(body, boundary)
    try:
        found: FilePart | None = find_bits(MemoryBody(body), boundary)
    except NoBitsInForm:
        found = None
    if found is None or expected is None:
        assert found is None and expected is None, (body, found, expected)
    else:
        assert (found.offset, found.length) == expected
        assert 0 <= found.offset <= found.offset + found.length <= len(body)


@given(body=st.binary(max_size=300), boundary=BOUNDARIES)
def test_any_bytes_are_a_form_or_none(body: bytes, boundary: bytes) -> None:
    """No other error comes of them."""
    try:
        found = find_bits(MemoryBody(body), boundary)
    except NoBitsInForm:
        return
    assert 0 <= found.offset <= found.offset + found.length <= len(body)


@given(st.text(max_size=60) | st.text("boundary=;\"' edg\\\r\n\0multipart/form-data", max_size=60))
@example('multipart/form-data; boundary="a\\"b"')
@example("multipart/form-data; boundary=" + "x" * 71)
def test_any_content_type_has_a_boundary_or_none(content_type: str) -> None:
    """A boundary is what RFC 2046 has it be: 1 to 70 harmless characters."""
    try:
        boundary = boundary_of(content_type)
    except NoBitsInForm:
        return
    assert 1 <= len(boundary) <= 70
    assert re.fullmatch(rb"[ -~]*[!-~]", boundary)


NAMES = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), max_size=20)
HARMLESS = NAMES.map(lambda name: re.sub(r'["\\%/]', "", name).strip()).filter(
    lambda name: name not in ("", ".", "..")
)


@given(
    names=st.lists(st.sampled_from(["bits", "a", "b", "Bits"]), min_size=1, max_size=5),
    file_names=st.lists(st.none() | HARMLESS, min_size=5, max_size=5),
    contents=st.lists(st.binary(max_size=100), min_size=5, max_size=5),
    preamble=st.binary(max_size=20),
    epilogue=st.binary(max_size=20),
    padding=st.sampled_from([b"", b" ", b"\t  "]),
)
def test_a_good_form_is_read_as_others_read_it(
    names: list[str],
    file_names: list[str | None],
    contents: list[bytes],
    preamble: bytes,
    epilogue: bytes,
    padding: bytes,
) -> None:
    """werkzeug finds the same bits under the same name."""
    assume(not any(b"--edge" in text for text in (*contents, preamble)))
    body = preamble + b"\r\n" if preamble else b""
    for name, file_name, content in zip(names, file_names, contents, strict=False):
        file = f'; filename="{file_name}"' if file_name is not None else ""
        head = f'Content-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        body += b"--edge" + padding + b"\r\n" + head.encode() + content + b"\r\n"
    body += b"--edge--\r\n" + epilogue
    _, _, files = FormDataParser(silent=False).parse(
        io.BytesIO(body), "multipart/form-data", len(body), {"boundary": "edge"}
    )
    theirs = files.get("bits")
    if theirs is None:
        with pytest.raises(NoBitsInForm):
            find_bits(MemoryBody(body), b"edge")
        return
    found = find_bits(MemoryBody(body), b"edge")
    assert body[found.offset : found.offset + found.length] == theirs.read()
    assert found.file_name == theirs.filename


@given(HARMLESS)
def test_a_file_name_comes_out_of_each_notation_as_it_went_in(name: str) -> None:
    """Quoted, with escapes, or as RFC 2231 has it."""
    encoded = "".join(f"%{byte:02X}" for byte in name.encode())
    for notation in (f'filename="{name}"', f"filename*=UTF-8''{encoded}"):
        head = f'Content-Disposition: form-data; name="bits"; {notation}\r\n\r\n'
        body = b"--edge\r\n" + head.encode() + b"\r\n--edge--"
        assert find_bits(MemoryBody(body), b"edge").file_name == name


HOSTILE = {
    "lines that begin as the boundary": b"\r\n--edgeX" * 20_000,
    "boundaries with too much padding": (b"\r\n--edge" + b" " * 255 + b"x") * 700,
    "line ends": b"\r\n" * 90_000,
    "hyphens": b"-" * 180_000,
    "parts, one fewer than may be": b"x\r\n--edge\r\n\r\n" * 98 + b"x" * 180_000,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_the_search_takes_time_by_the_length(kind: str) -> None:
    """Four times the body is four times the work, and not sixteen times."""

    def work(times: int) -> int:
        start = b"--edge\r\n" + (b"" if "parts" in kind else BITS) + b"\r\n"
        extra = b"x" * (times - 1) * 180_000 if "parts" in kind else b""
        content = HOSTILE[kind] + extra if extra else HOSTILE[kind] * times
        body = MemoryBody(start + content + b"\r\n--edge--")
        try:
            find_bits(body, b"edge")
        except NoBitsInForm as reason:
            assert not isinstance(reason, FormOverLimit)
        return body.bytes_read

    assert work(4) <= 5 * work(1)
