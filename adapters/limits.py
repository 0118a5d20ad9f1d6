"""What requests are held to: every limit that an operator can set, with its default."""

from __future__ import annotations

from dataclasses import dataclass

from domain.archive import ArchiveLimits


@dataclass(frozen=True)
class Limits:
    """Sizes are in bytes, times in seconds; None limits nothing."""

    max_header_size: int = 64 * 1024  # of the request line and all headers
    max_body_size: int = 64 * 1024  # of a body that is no upload of bits
    max_json_depth: int = 100  # objects and arrays in each other
    max_form_overhead: int = 64 * 1024  # that a multipart form may add to the bits
    max_form_parts: int = 100  # of a multipart form
    max_form_fields: int = 100  # of a form with bits_path
    max_entries: int = 250_000  # of a zip
    max_unpacked_size: int = 1 << 30  # of a zip's entries together
    max_path_length: int = 4096  # of an entry's name in a zip
    min_upload_rate: int = 256  # a second: a slower body is cut off; 0 cuts off none
    header_timeout: int = 30  # from a request's first byte to the end of its headers
    max_uploads_per_user: int = 1024  # at once
    max_requests_per_minute: int | None = None  # of a user
    max_packages_per_app: int | None = None


USUAL = Limits()


def archive_limits(limits: Limits) -> ArchiveLimits:
    """Those of a zip, as the domain takes them."""
    return ArchiveLimits(limits.max_unpacked_size, limits.max_entries, limits.max_path_length)
