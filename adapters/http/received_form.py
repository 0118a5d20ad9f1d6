"""A multipart body on its way into staging: its bits' file holds the bits, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

from adapters.http.multipart import (
    Delimiters,
    FilePart,
    FileStart,
    find_bits,
    start_of_bits,
    to_its_end,
)
from adapters.http.server.body import StagedBody
from adapters.staging.intake import Intake
from domain.package import StagedBits

MAX_BEGINNING = 8 * 1024  # bytes of a form in which its bits should begin
MOST_LOOKS = 16  # at it, for bits: each is at all of it


class ReceivedForm:
    """A `StagedBody` that keeps what comes before the bits out of their file.

    That is small where the bits are the form's first part, or behind short ones. Cut off
    behind the bits, the file is theirs: then storing needs no copy. Where the bits begin later,
    all of the form goes into the file, and they are a slice of it.
    """

    def __init__(self, file: StagedBody, boundary: bytes, max_parts: int) -> None:
        self.size = 0  # bytes of the form
        self._max_parts = max_parts
        self._file = file
        self._boundary = boundary
        self._delimiters = Delimiters(boundary)
        self._beginning = bytearray()
        self._start: FileStart | None = None  # of the bits, where the beginning tells it
        self._begins = True  # whether it is not known yet where the bits begin
        self._looks = 0

    @property
    def kept(self) -> bool:
        return self._file.kept

    def write(self, data: bytes | memoryview) -> None:
        """Takes the next bytes. Raises `OSError`."""
        self._delimiters.look(data)
        self.size += len(data)
        if self._begins:
            self._take_beginning(data)
        else:
            self._file.write(data)

    def read_at(self, offset: int, length: int) -> bytes:
        beginning = bytes(self._beginning[offset : offset + length])
        if len(beginning) == length or self._begins:
            return beginning
        at = offset + len(beginning) - len(self._beginning)
        return beginning + self._file.read_at(at, length - len(beginning))

    def find_bits(self) -> FilePart:
        """Raises `NoBitsInForm`, `FormOverLimit`."""
        if self._start is not None:
            return to_its_end(self._start, self, self._boundary, self._delimiters)
        return find_bits(self, self._boundary, self._max_parts, self._delimiters)

    def stage(self, intake: Intake, part: FilePart, guid: str) -> StagedBits:
        """Makes the bits durable that `find_bits` has found. Raises as `Intake.stage`."""
        offset = part.offset - len(self._beginning)
        assert offset >= 0, "what was found in the beginning is found in the whole"
        return intake.stage(self._file, offset, part.length, guid, part.file_name)

    def wait_for_disk(self, then: Callable[[], None]) -> bool:
        return self._file.wait_for_disk(then)

    def close(self) -> None:
        self._file.close()

    def abandon(self) -> None:
        self._file.abandon()

    def _take_beginning(self, data: bytes | memoryview) -> None:
        looked_at = max(0, len(self._beginning) - 3)
        self._beginning += data
        if self._beginning.find(b"\r\n\r\n", looked_at) >= 0:  # a part's headers have ended
            self._start = start_of_bits(self, self._boundary, self._max_parts)
            self._looks += 1
        may_begin_here = len(self._beginning) <= MAX_BEGINNING and self._looks < MOST_LOOKS
        if self._start is None and may_begin_here:
            return
        kept = self._start.offset if self._start is not None else 0
        if kept > MAX_BEGINNING:
            kept = 0
        with memoryview(self._beginning) as beginning:
            self._file.write(beginning[kept:])
        del self._beginning[kept:]
        self._begins = False
