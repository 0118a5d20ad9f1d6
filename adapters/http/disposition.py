"""The header that names a download (RFC 6266)."""

from __future__ import annotations

import re
from urllib.parse import quote


def attachment(file_name: str) -> str:
    """A Content-Disposition with the file's name: plain for old clients, and exact."""
    plain = re.sub(r'[^ !#-\[\]-~]|["\\%]', "_", file_name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(file_name, safe='')}"
