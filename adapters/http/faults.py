"""Refusals that only HTTP knows: of the request itself, before the domain is asked."""

from __future__ import annotations

from collections.abc import Mapping


class UnknownRequest(Exception):
    """No route has this path and method."""


class AuditEventNotFound(Exception):
    """There is no audit event with this guid, or none that its caller sees."""


class NotAuthenticated(Exception):
    """There is no bearer token."""


class InvalidToken(Exception):
    """The token is not one that we accept."""


class NotAuthorized(Exception):
    """The token lacks the scope, or its user may see and not change."""


class RateLimited(Exception):
    """A caller sends more requests than they may; `headers` tell where they stand."""

    def __init__(self, retry_after: int, headers: Mapping[str, str]) -> None:
        super().__init__(f"again in {retry_after} s")
        self.headers = {"Retry-After": str(retry_after), **headers}


class TooManyUploads(Exception):
    """A caller uploads to more packages at once than they may."""

    def __init__(self, limit: int, retry_after: int) -> None:
        super().__init__(f"{limit} at once")
        self.limit = limit
        self.retry_after = retry_after


class TooManyApps(Exception):
    """There are packages of more apps than can be asked about one by one."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"more than {limit} apps")
        self.limit = limit


class UnparsableBody(Exception):
    """The body is not the JSON object that it should be."""


class BodyTooLarge(Exception):
    """A body of more bytes than `limit`, that is no upload of bits."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the limit is {limit} bytes")
        self.limit = limit


class BadQuery(Exception):
    """A query parameter is wrong; the text says which and why."""


class ReadModelBehind(Exception):
    """The read model lags behind the log: an answer from it might be stale."""


class BadKey(Exception):
    """An Idempotency-Key that is none."""


class RangeNotSatisfiable(Exception):
    """A range that begins behind the last byte."""

    def __init__(self, size: int) -> None:
        super().__init__(f"there are {size} bytes")
        self.size = size
