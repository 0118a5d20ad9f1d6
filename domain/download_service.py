"""The command that downloads lead to: it records them."""

from __future__ import annotations

from domain.aggregate import Cause
from domain.download import Download, Downloaded
from domain.journal import Committed, Journal, new_guid


class DownloadService:
    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def record(self, of: Downloaded, by: Cause) -> Committed[Download]:
        """Once this returns the bits may leave."""
        return self._journal.save(Download.start(new_guid(), of, by))
