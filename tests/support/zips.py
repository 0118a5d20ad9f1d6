"""Real zips, made on the spot."""

from __future__ import annotations

import hashlib
import io
import random
import zipfile


def zip_of(files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=compression)
    return buffer.getvalue()


def random_zip(size: int, seed: int = 0) -> bytes:
    """A zip with one entry of `size` bytes that nothing can compress."""
    return zip_of({"app.bin": random.Random(seed).randbytes(size)})


def sha1(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
