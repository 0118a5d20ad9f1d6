"""How many packages an app may have, by the read model's total."""

from __future__ import annotations

from domain.errors import TooManyPackages
from projections.packages import PackageReadModel


class StoredQuota:
    """A `PackageQuota` (see `domain.ports`). Those created at the same moment may be too many."""

    def __init__(self, packages: PackageReadModel, limit: int) -> None:
        self._packages = packages
        self._limit = limit

    def check(self, app_guid: str) -> None:
        if self._packages.count_of_app(app_guid) >= self._limit:
            raise TooManyPackages(app_guid, self._limit)
