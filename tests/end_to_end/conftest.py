"""A service that the tests of a module share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.service import Client, Service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("service")) as service:
        yield service


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    client = service.client()
    yield client
    client.close()


@pytest.fixture
def own_service(tmp_path: Path) -> Service:
    """A service for one test alone, not started."""
    return Service(tmp_path)
