"""Serves `/metrics`, and `/healthz`, for processes that have no HTTP API."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from adapters.metrics import CONTENT_TYPE, Metrics
from entrypoints.setting_values import Listen, SettingError


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    timeout = 10  # seconds that a client has to say what it wants

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: it is asked every few seconds."""


def serve_metrics(address: Listen, metrics: Metrics) -> str:
    """Serves on a thread; the URL. Raises `SettingError` if the address can't be listened on."""

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        pages: dict[str, tuple[str, Callable[[], bytes]]] = {
            "/metrics": (CONTENT_TYPE, metrics.exposition),
            "/healthz": ("application/json;charset=utf-8", lambda: b'{"status": "ok"}'),
        }
        page = pages.get(environ["PATH_INFO"])
        if page is None or environ["REQUEST_METHOD"] != "GET":
            start("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
            return [b"There are /metrics and /healthz.\n"]
        kind, content = page
        start("200 OK", [("Content-Type", kind)])
        return [content()]

    try:
        server = make_server(address.host, address.port, answer, _Server, _Quiet)
    except OSError as error:
        raise SettingError(
            "METRICS_LISTEN", str(address), f"an address that can be listened on: {error}"
        ) from error
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return f"http://{address.url_host}:{server.server_port}/metrics"
