"""Servers that tests share: real ones, started by the tests themselves when first needed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest
from hypothesis import settings

from tests.support.postgres import PostgresServer
from tests.support.programs import Missing
from tests.support.rabbit import RabbitServer
from tests.support.s3 import S3Server

T = TypeVar("T")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # run in the background; what tests start would ignore Ctrl-C as well
    signal.signal(signal.SIGINT, signal.default_int_handler)

# what CI finds, everybody finds again; elsewhere each run looks in other places
settings.register_profile("tests", deadline=None, derandomize=os.environ.get("CI") == "true")
settings.load_profile("tests")


def found(make: Callable[[], T]) -> T:
    """What `make` makes; skips loudly if a program is missing, and fails for it in CI."""
    try:
        return make()
    except Missing as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(str(missing))
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def rabbit() -> Iterator[RabbitServer]:
    server = found(RabbitServer)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A server for one test alone, which may kill it."""
    server = found(PostgresServer)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_rabbit() -> Iterator[RabbitServer]:
    """A server for one test alone, which may kill it.

    The shared one is not killed: a quorum queue that was removed and declared again does not
    survive kill -9 in RabbitMQ 3.10.
    """
    server = found(RabbitServer)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    server = S3Server()
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    server = found(PostgresServer)
    server.start()
    yield server
    server.stop()
