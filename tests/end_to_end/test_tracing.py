"""OpenTelemetry traces follow one upload through HTTP, relay and consumers."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.service import Service
from tests.support.waiting import eventually
from tests.support.zips import random_zip


class Collector(HTTPServer):
    """What traces are sent to: it keeps the name of each span by its trace."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Receive)
        self.spans: list[tuple[str, str]] = []


class _Receive(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        request = ExportTraceServiceRequest()
        request.ParseFromString(body)
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.server.spans += [(span.trace_id.hex(), span.name) for span in scope.spans]
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    yield collector
    collector.shutdown()
    collector.server_close()


@pytest.mark.slow
def test_one_upload_is_one_trace(tmp_path: Path, collector: Collector) -> None:
    """Its id is the UUID in the request id: every log line leads to it."""
    settings = {
        "PACKTRAIL_TRACING": "on",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
    }
    with Service(tmp_path, settings) as service:
        client = service.client()
        guid = client.create()
        answer = client.upload(guid, random_zip(1000))
        trace = answer.headers["X-VCAP-Request-ID"].replace("-", "")
        client.settled(guid)

        def names() -> list[str]:
            return sorted(name for found, name in collector.spans if found == trace)

        expected = sorted(
            ["POST", "published", "published", "published", "work storage"]
        )  # fmt: skip
        eventually(lambda: names() == expected)
        assert service.stop() == 0
