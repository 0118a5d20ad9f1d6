"""Files that exports are in: plain, gzip or zstd, by the ending of their names."""

from __future__ import annotations

import gzip
import io
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, BinaryIO, cast
from uuid import uuid4

import zstandard

from adapters.bits import sync_folder

GZIP_LEVEL, ZSTD_LEVEL = 6, 3  # what both use by themselves
_BUFFER = 1 << 20  # bytes


class FileExists(Exception):
    """There is something under the name that a file is to have."""


@contextmanager
def written(path: Path, force: bool) -> Iterator[IO[bytes]]:
    """A file that appears under its name when all is in it and on the disk, or not at all.

    Only its owner may read it. With `force` it replaces a file that is there. Raises
    `FileExists`, `OSError`.
    """
    path = Path(os.path.realpath(path))
    _check_free(path, force)
    unfinished = path.with_name(f".{path.name}.{uuid4().hex}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb", _BUFFER) as file:
            with _compressed(path.suffix, file) as compressed:
                yield compressed
            file.flush()
            os.fsync(file.fileno())
        if force:
            unfinished.replace(path)
        else:
            _appear(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    sync_folder(path.parent)


def _check_free(path: Path, force: bool) -> None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return
    if not stat.S_ISREG(found.st_mode):
        raise FileExists(f"{path} is no file: without a name it goes to stdout")
    if not force:
        raise FileExists(f"{path} is there already: --force replaces it")


def _appear(unfinished: Path, path: Path) -> None:
    """A name of its own, unless somebody has taken it meanwhile."""
    try:
        os.link(unfinished, path)
    except FileExistsError:
        raise FileExists(f"{path} is there by now: --force replaces it") from None
    except OSError:  # no hard links here
        _check_free(path, force=False)
        unfinished.rename(path)


@contextmanager
def _compressed(ending: str, file: BinaryIO) -> Iterator[IO[bytes]]:
    match ending:
        case ".gz":
            with gzip.GzipFile("", "wb", GZIP_LEVEL, file, mtime=0) as compressed:
                yield cast(IO[bytes], compressed)
        case ".zst":
            compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True)
            with compressor.stream_writer(file, closefd=False) as stream:
                yield cast(IO[bytes], stream)
        case _:
            yield file


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file's bytes, without the compression that its ending tells. Raises `OSError`.

    Reading may raise what `Broken` tells, too.
    """
    with ExitStack() as stack:
        file: BinaryIO = stack.enter_context(path.open("rb"))
        match path.suffix:
            case ".gz":
                decoded = stack.enter_context(gzip.GzipFile("", "rb", fileobj=file))
                file = cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, decoded), _BUFFER))
            case ".zst":
                stream = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
                file = cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, stream), _BUFFER))
        yield file
