"""What a process tells Prometheus, as numbers."""

from __future__ import annotations

import httpx
from prometheus_client.parser import text_string_to_metric_families


def metrics_at(url: str) -> dict[tuple[str, ...], float]:
    """Each sample by its name and its labels' values, in the order of the labels' names."""
    response = httpx.get(url)
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"].startswith("text/plain")
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }
