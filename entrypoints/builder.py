"""Puts the builder together: it needs the API, the bus, and a place for droplets."""

from __future__ import annotations

from collections.abc import Callable

from adapters.builder import Api, Builder, BuilderConsumer, Delivery
from adapters.bus.bus import Bus
from adapters.bus.rabbit import RabbitBus
from adapters.delivery import BucketDelivery, FolderDelivery
from adapters.http.authentication import BUILDER
from adapters.leadership import Part
from adapters.object_store import Bucket
from adapters.tokens import Scope
from entrypoints.keys import make_tokens
from entrypoints.process import Process
from entrypoints.setting_values import MEMORY, SettingError
from entrypoints.settings import Settings

TOKEN_SECONDS = 3600  # that a token is good for which the builder is given
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - where a listener is reached


def make_builder(settings: Settings, bus: Bus, api_url: str, token: Callable[[], str]) -> Part:
    """The builder, and how it reaches the API. `token` gives one that is good now."""
    delivery: Delivery = FolderDelivery(settings.upload_dir)
    if settings.blob_dir is None:
        delivery = BucketDelivery(Bucket(settings.blob_store))
    return BuilderConsumer(bus, Builder(bus, Api(api_url, token), delivery, settings.limits))


def builder_process(settings: Settings) -> Process:
    """The builder alone: it needs no database. Raises `SettingError`."""
    if settings.broker == MEMORY:
        raise SettingError("BROKER", settings.broker, "a RabbitMQ server, which a builder needs")
    token = _token(settings)
    bus = RabbitBus(settings.broker)
    api = settings.builder_api or f"http://{settings.listen}"
    return Process([make_builder(settings, bus, api, token)], [bus.close])


def _token(settings: Settings) -> Callable[[], str]:
    """The builder's own token, or one that we sign. Raises `SettingError`."""
    given = settings.builder_token
    if given is not None:
        return lambda: given
    if not settings.signs_tokens:
        raise SettingError(
            "BUILDER_TOKEN", "", f"a token of the issuer's, with the scope {Scope.BUILDER}"
        )
    tokens = make_tokens(settings)
    scopes = [Scope.READ, Scope.WRITE, Scope.BUILDER]
    return lambda: tokens.sign(BUILDER.guid, None, scopes, TOKEN_SECONDS)


def builder_beside(settings: Settings, bus: Bus, port: int, token: str) -> Part:
    """The builder in the process of an API that listens on a port, and knows its token."""
    host = settings.listen.url_host
    api = f"http://{_LOOPBACK.get(host, host)}:{port}"
    return make_builder(settings, bus, api, lambda: settings.builder_token or token)
