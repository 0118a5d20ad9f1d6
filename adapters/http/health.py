"""What is open to everybody: what there is, whether the process lives, whether it can serve."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import falcon

from adapters.http.answers import RETRY_AFTER
from adapters.http.exchange import answer_json
from adapters.metrics import CONTENT_TYPE, Metrics


class Degraded(Exception):
    """A part does not do all it should; the message is for everybody."""


@dataclass(frozen=True)
class Part:
    """A part that the process depends on. `check` raises what is wrong with it.

    Without an essential part the process can't serve; without another it does, degraded.
    """

    check: Callable[[], None]
    essential: bool


class Root:
    """`/`"""

    def __init__(self, version: str) -> None:
        self._version = version

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        answer_json(
            resp,
            {
                "name": "packtrail",
                "version": self._version,
                "links": {
                    "self": {"href": "/"},
                    "packages": {"href": "/v3/packages"},
                    "packages_of_an_app": {"href": "/v3/apps/:guid/packages"},
                    "app": {"href": "/v3/apps/:guid"},
                    "droplets": {"href": "/v3/droplets"},
                    "audit_events": {"href": "/v3/audit_events"},
                    "alive": {"href": "/healthz"},
                    "ready": {"href": "/readyz"},
                    "metrics": {"href": "/metrics"},
                    "openapi": {"href": "/openapi.json"},
                    "docs": {"href": "/docs"},
                },
            },
        )


class MetricsPage:
    """`/metrics`, for Prometheus."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.content_type = CONTENT_TYPE
        resp.data = self._metrics.exposition()


class Alive:
    """`/healthz`"""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        answer_json(resp, {"status": "ok"})


class Ready:
    """`/readyz`: 200 while the process can serve, 503 while it can't; either names each part."""

    def __init__(self, parts: Mapping[str, Part]) -> None:
        self._parts = parts

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        able = True
        parts = {}
        for name, part in self._parts.items():
            try:
                part.check()
            except Exception as error:  # noqa: BLE001 - whatever is wrong, it is the answer
                told = str(error) if isinstance(error, Degraded) else type(error).__name__
                parts[name] = {"status": "degraded", "reason": told}
                able = able and not part.essential
            else:
                parts[name] = {"status": "ok"}
        if not able:
            resp.set_header("Retry-After", RETRY_AFTER)
        answer_json(
            resp,
            {"status": "ok" if able else "unavailable", "parts": parts},
            falcon.HTTP_200 if able else falcon.HTTP_503,
        )
