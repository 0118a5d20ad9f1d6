"""Asking a Cloud Controller what a caller may do."""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import sentinel

import pytest

from adapters.authorization import (
    Access,
    AuthorizationAway,
    AuthorizationUnclear,
    ByCloudController,
)
from adapters.http.faults import InvalidToken
from adapters.tokens import Caller
from tests.support.issuer import JsonServer

MALLORY = Caller("mallory", frozenset(), token="t-mallory")
ALICE = Caller("alice", frozenset(), token="t-alice")
ALL = {"read_basic_data": True, "read_sensitive_data": True}


@pytest.fixture
def controller() -> Iterator[JsonServer]:
    with JsonServer() as server:
        yield server


def asking(controller: JsonServer, timeout: float = 2.0) -> ByCloudController:
    return ByCloudController(
        controller.url, sentinel.packages, sentinel.droplets, sentinel.directory, timeout
    )


@pytest.mark.parametrize("status", [408, 429, 500, 302])
def test_what_one_caller_is_refused_for_shuts_out_nobody_else(
    controller: JsonServer, status: int
) -> None:
    """An answer that tells nothing is for who asked; others are asked about as before."""
    controller.answers["/v3/apps/odd/permissions"] = (status, {})
    controller.answers["/v3/apps/app-1/permissions"] = (200, ALL)
    authorization = asking(controller)
    with pytest.raises(AuthorizationUnclear):
        authorization.to_app(MALLORY, "odd")
    assert authorization.to_app(ALICE, "app-1") is Access.WRITE


@pytest.mark.parametrize("status", [400, 403, 404, 414, 422])
def test_what_it_does_not_like_is_nobodys(controller: JsonServer, status: int) -> None:
    """An app that a caller can't even ask about is none that they may see."""
    controller.answers["/v3/apps/odd/permissions"] = (status, {})
    assert asking(controller).to_app(ALICE, "odd") is Access.NONE


def test_a_token_that_it_does_not_accept_is_a_bad_one(controller: JsonServer) -> None:
    """Whatever our own keys say of it."""
    controller.answers["/v3/apps/app-1/permissions"] = (401, {})
    with pytest.raises(InvalidToken):
        asking(controller).to_app(ALICE, "app-1")


def test_one_that_does_not_answer_keeps_one_caller_waiting_at_a_time(
    controller: JsonServer,
) -> None:
    """Who comes behind a failure is refused at once, and asks nobody."""
    controller.answers["/v3/apps/app-1/permissions"] = (200, ALL)
    controller.hold.clear()
    authorization = asking(controller, timeout=0.1)
    for caller in (MALLORY, ALICE):
        with pytest.raises(AuthorizationAway):
            authorization.to_app(caller, "app-1")
    assert len(controller.asked) == 1


@pytest.mark.parametrize("guid", [".", "..", "", "\0", "a\0b", "x" * 201])
def test_a_guid_that_no_app_has_is_not_asked_about(controller: JsonServer, guid: str) -> None:
    """As a part of a URL it would lead elsewhere, or be too much."""
    for path in ("/v3/permissions", "/v3/apps/permissions", "/v3/apps//permissions"):
        controller.answers[path] = (200, ALL)
    assert asking(controller).to_app(MALLORY, guid) is Access.NONE
    assert controller.asked == []


@pytest.mark.parametrize(
    ("guid", "sent"),
    [
        ("../x", "..%2Fx"),
        ("a?b#c", "a%3Fb%23c"),
        ("%2f", "%252f"),
        ("a\r\nb", "a%0D%0Ab"),
        ("é", "%C3%A9"),
        ("...", "..."),
    ],
)
def test_a_guid_is_one_segment_of_the_url(controller: JsonServer, guid: str, sent: str) -> None:
    """Whatever it holds, the app's permissions are asked for and nothing else."""
    controller.answers[f"/v3/apps/{sent}/permissions"] = (200, ALL)
    assert asking(controller).to_app(ALICE, guid) is Access.WRITE
