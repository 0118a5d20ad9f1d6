"""What is in a zip is read as it is asked for, however its data are packed."""

from __future__ import annotations

import io
import random
import tarfile
import zipfile
from pathlib import Path

import pytest

from adapters.bits import FileBits
from adapters.droplet_archive import build
from adapters.unzip import PIECE, Content, entries_of

METHODS = {
    "stored": zipfile.ZIP_STORED,
    "deflated": zipfile.ZIP_DEFLATED,
    "bzip2": zipfile.ZIP_BZIP2,
    "LZMA": zipfile.ZIP_LZMA,
}
NOISE = random.Random(1).randbytes(5 * PIECE + 7)
CONTENTS = {
    "noise": NOISE,
    "text": b"".join(b"%d the quick brown fox\n" % n for n in range(60_000)),
    "zeros": bytes(40 * PIECE),
    "empty": b"",
}


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("method", METHODS)
def test_content_is_read_whole_in_pieces_of_any_size(
    tmp_path: Path, method: str, content: str
) -> None:
    """Each piece has as many bytes as were asked for, but for the last."""
    path, wanted = tmp_path / "a.zip", CONTENTS[content]
    with zipfile.ZipFile(path, "w", METHODS[method]) as archive:
        archive.writestr("file", wanted)
    with FileBits.of_file(path) as bits:
        (entry,) = entries_of(bits)
        reader, size, pieces = Content(bits, entry), 100_003, []
        while piece := reader.read(size):
            pieces.append(piece)
    assert b"".join(pieces) == wanted
    assert all(len(piece) == size for piece in pieces[:-1])


@pytest.mark.parametrize("method", METHODS)
def test_a_droplet_holds_large_files(tmp_path: Path, method: str) -> None:
    """Those whose packed data are larger than what is read at a time, too."""
    package, made = tmp_path / "a.zip", tmp_path / "a.tgz"
    with zipfile.ZipFile(package, "w", METHODS[method]) as archive:
        archive.writestr("Procfile", "web: run\n")
        archive.writestr("big.bin", NOISE)
    limits = {"VCAP_APPLICATION": {"limits": {"disk": 64}}}
    build(package, made, {"buildpack": None, "environment_variables": limits})
    with tarfile.open(fileobj=io.BytesIO(made.read_bytes())) as tar:
        member = tar.extractfile("./app/big.bin")
        assert member is not None
        assert member.read() == NOISE
