"""Real zips, made on the spot."""

from __future__ import annotations

import hashlib
import io
import random
import zipfile
from pathlib import Path


def zip_of(files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=compression)
    return buffer.getvalue()


def random_zip(size: int, seed: int = 0) -> bytes:
    """A zip with one entry of `size` bytes that nothing can compress."""
    return zip_of({"app.bin": random.Random(seed).randbytes(size)})


def large_zip(path: Path, size: int) -> None:
    """Writes a zip with one stored entry of `size` bytes, a MiB at a time."""
    block = random.Random(0).randbytes(1 << 20)
    with zipfile.ZipFile(path, "w") as archive, archive.open("big.bin", "w") as entry:
        for start in range(0, size, len(block)):
            entry.write(block[: size - start])


def sha1(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
