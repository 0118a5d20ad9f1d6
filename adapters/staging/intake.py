"""What the HTTP API needs of staging: to take bits in."""

from __future__ import annotations

from typing import Any, Protocol

from adapters.http.server.body import StagedBody
from adapters.staging.found import FoundObject
from adapters.staging.local import FoundFile
from domain.package import StagedBits


class Intake(Protocol):
    """Staging that takes bits in; every adapter passes the same tests. May raise `OSError`."""

    def require_room(self, size: int) -> None:
        """Whether so many bytes can be received now. Raises `NoRoomForUpload`."""

    def create(self, guid: str) -> StagedBody:
        """Where the body of an upload to a package is written to."""

    def stage(
        self, body: Any, offset: int, length: int, guid: str, file_name: str | None
    ) -> StagedBits:
        """Makes the bits durable that are a slice of a body that `create` has made."""

    def find_file(self, bits_path: str, limit: int, guid: str) -> FoundFile:
        """A file that a front server has put into the upload folder.

        Raises `BitsPathInvalid`; `UploadTooLarge`.
        """

    def find_object(self, bits_url: str, limit: int) -> FoundObject:
        """An object that somebody has put into the object store, to be taken.

        Raises `BitsPathInvalid`; `UploadTooLarge`.
        """

    def take(self, found: FoundFile | FoundObject, guid: str, file_name: str | None) -> StagedBits:
        """Makes the bits of such a file or object durable. Raises `BitsPathInvalid`."""

    def accepted(self, found: FoundFile | FoundObject) -> None:
        """The log names the bits that were taken from it."""

    def release(self, uri: str) -> None:
        """Nothing names the bits: the upload was refused. A front server's file stays."""
