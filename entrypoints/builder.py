"""Puts the builder together: it needs the API, the bus, and a place for droplets."""

from __future__ import annotations

from adapters.builder import Api, Builder, BuilderConsumer, Delivery
from adapters.bus.bus import Bus
from adapters.bus.rabbit import RabbitBus
from adapters.delivery import BucketDelivery, FolderDelivery
from adapters.leadership import Part
from adapters.object_store import Bucket
from adapters.tokens import Scope
from entrypoints.keys import make_tokens
from entrypoints.process import Process
from entrypoints.settings import MEMORY, SettingError, Settings

TOKEN_SECONDS = 3600  # that a token is good for which the builder is given
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - where a listener is reached


def make_builder(settings: Settings, bus: Bus, api_url: str) -> Part:
    """The builder, and how it reaches the API: with its own token, or one that we sign."""
    given = settings.builder_token
    tokens = None if given else make_tokens(settings)

    def token() -> str:
        if tokens is None:
            return given or ""
        return tokens.sign("packtrail.builder", None, [Scope.READ, Scope.WRITE], TOKEN_SECONDS)

    delivery: Delivery = FolderDelivery(settings.upload_dir)
    if settings.blob_dir is None:
        delivery = BucketDelivery(Bucket(settings.blob_store))
    return BuilderConsumer(bus, Builder(bus, Api(api_url, token), delivery))


def builder_process(settings: Settings) -> Process:
    """The builder alone: it needs no database. Raises `SettingError`."""
    if settings.broker == MEMORY:
        raise SettingError("BROKER", settings.broker, "a RabbitMQ server, which a builder needs")
    bus = RabbitBus(settings.broker)
    api = settings.builder_api or f"http://{settings.listen}"
    return Process([make_builder(settings, bus, api)], [bus.close])


def builder_beside(settings: Settings, bus: Bus, port: int) -> Part:
    """The builder in the process of an API that listens on a port."""
    host = settings.listen.url_host
    return make_builder(settings, bus, f"http://{_LOOPBACK.get(host, host)}:{port}")
