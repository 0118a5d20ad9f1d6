"""The request that a thread works for: its id is on every log line, through all parts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


@contextmanager
def request_context(identifier: str) -> Iterator[None]:
    """Log lines written inside carry the request id."""
    token = request_id.set(identifier)
    try:
        yield
    finally:
        request_id.reset(token)
