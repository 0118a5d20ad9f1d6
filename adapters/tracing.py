"""Traces, for whoever wants them: one upload through HTTP, relay and consumers is one trace.

The trace's id is the UUID in the request id. Every event and message carries that anyway, so
nothing has to be kept for tracing, and a log line leads to its trace.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol
from uuid import UUID

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$")


class Tracing(Protocol):
    def span(
        self, name: str, request_id: str, **attributes: str | int
    ) -> AbstractContextManager[None]:
        """While entered, a span of the request's trace runs; an exception marks it as failed."""

    def close(self) -> None:
        """Sends what has not been sent yet."""


class NoTracing:
    def span(
        self, name: str, request_id: str, **attributes: str | int
    ) -> AbstractContextManager[None]:
        return nullcontext()

    def close(self) -> None: ...


class TracingNotInstalled(Exception):
    """The packages that tracing needs are not there; the text says how to get them."""


class OpenTelemetry:
    """Sends spans by OTLP over HTTP, to where the usual `OTEL_*` variables say."""

    def __init__(self) -> None:
        """Raises `TracingNotInstalled`."""
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise TracingNotInstalled(
                f"tracing needs packages that are not installed ({error.name}): "
                "pip install 'packtrail[otel]'"
            ) from error
        resource = Resource.create({"service.name": "packtrail"})  # OTEL_SERVICE_NAME wins
        self._provider = TracerProvider(resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("packtrail")

    @contextmanager
    def span(self, name: str, request_id: str, **attributes: str | int) -> Iterator[None]:
        with self._tracer.start_as_current_span(
            name,
            context=_context_of(request_id),
            attributes={"packtrail.request_id": request_id, **attributes},
        ):
            yield

    def close(self) -> None:
        self._provider.shutdown()


def _context_of(request_id: str) -> Any:
    """The trace that a request id names: its spans have one parent, which nobody sends."""
    from opentelemetry import trace

    found = _UUID.search(request_id)
    if found is None:
        return None
    number = UUID(found[0]).int
    parent = trace.SpanContext(
        trace_id=number,
        span_id=(number & (1 << 64) - 1) or 1,
        is_remote=True,
        trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED),
    )
    return trace.set_span_in_context(trace.NonRecordingSpan(parent))
