"""Tokens: who they speak for, and every way in which one is rejected."""

from __future__ import annotations

import base64
import json
import stat
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jwt
import pytest

from adapters.token_keys import Secret, load_secrets, make_secret
from adapters.tokens import Scope, TokenRejected, Tokens

SECRET = "a secret that is for tests alone, 32+ bytes"
SEED_PAGE_TOKEN = (
    "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJ1c2VyX2lkIjoidWFhLWlkLTQyOSIsImVtYWlsIjoiZW1haWwtMjk3"
    "QHNvbWVkb21haW4uY29tIiwic2NvcGUiOlsiY2xvdWRfY29udHJvbGxlci5yZWFkIiwiY2xvdWRfY29udHJvbGxlci53"
    "cml0ZSJdLCJhdWQiOlsiY2xvdWRfY29udHJvbGxlciJdLCJleHAiOjE0NDQ3ODI5NDZ9."
    "CAKQwBWkQcblSJOd3JBc7PM7-gMUBB11z7oQPM4Izg8"
)


@pytest.fixture
def tokens() -> Tokens:
    return Tokens(Secret(SECRET), "cloud_controller")


def load_or_make_secret(path: Path) -> str:
    make_secret(path)
    [secret] = load_secrets(path)
    return secret


def claims(**changed: object) -> dict[str, object]:
    whole: dict[str, object] = {
        "user_id": "user-1",
        "scope": ["cloud_controller.read"],
        "aud": ["cloud_controller"],
        "exp": int(time.time()) + 60,
    }
    whole |= changed
    return {name: value for name, value in whole.items() if value is not ...}


def signed(*, secret: str = SECRET, algorithm: str = "HS256", **changed: Any) -> str:
    return jwt.encode(claims(**changed), secret, algorithm=algorithm)


def unsigned(header: dict[str, object], signature: bytes = b"") -> str:
    def encoded(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    parts = (json.dumps(header).encode(), json.dumps(claims()).encode(), signature)
    return ".".join(encoded(part) for part in parts)


def test_a_signed_token_speaks_for_its_user(tokens: Tokens) -> None:
    """With the scopes that it was signed with, and no others."""
    token = tokens.sign("user-1", "someone@example.org", [Scope.READ], 60)
    caller = tokens.verify(token)
    assert (caller.guid, set(caller.scopes)) == ("user-1", {Scope.READ.value})
    assert caller.may(Scope.READ)
    assert not caller.may(Scope.WRITE)
    assert not caller.is_admin


def test_an_admin_may_do_everything(tokens: Tokens) -> None:
    """Without naming the scopes one by one."""
    caller = tokens.verify(signed(scope=[Scope.ADMIN.value]))
    assert caller.is_admin
    assert caller.may(Scope.READ) and caller.may(Scope.WRITE)


def test_a_client_is_a_caller_too(tokens: Tokens) -> None:
    """A token without a user speaks for its client; with both, for the user."""
    assert tokens.verify(signed(user_id=..., client_id="client-1")).guid == "client-1"
    assert tokens.verify(signed(client_id="client-1")).guid == "user-1"


@pytest.mark.parametrize("audience", ["cloud_controller", ["uaa", "cloud_controller"]])
def test_the_audience_may_be_one_of_several(tokens: Tokens, audience: object) -> None:
    """A text or a list, as RFC 7519 has it."""
    assert tokens.verify(signed(aud=audience)).guid == "user-1"


def test_a_token_without_scopes_may_do_nothing(tokens: Tokens) -> None:
    """It is still a good token: who it is for is known."""
    caller = tokens.verify(signed(scope=...))
    assert caller.guid == "user-1"
    assert not caller.may(Scope.READ)


def test_a_subject_that_is_no_text_does_not_matter(tokens: Tokens) -> None:
    """Nothing is read from it."""
    assert tokens.verify(signed(sub=7)).guid == "user-1"


@pytest.mark.parametrize(
    "changed",
    [
        {"exp": 1_444_782_946},
        {"exp": 0},
        {"exp": -1},
        {"exp": ...},
        {"exp": "soon"},
        {"exp": None},
        {"exp": float("inf")},
        {"exp": [1]},
        {"nbf": 4_102_444_800},
        {"aud": ...},
        {"aud": "another"},
        {"aud": []},
        {"aud": None},
        {"aud": {"cloud_controller": 1}},
        {"aud": "cloud_controller_2"},
        {"user_id": ...},
        {"user_id": ""},
        {"user_id": None},
        {"user_id": 7},
        {"user_id": ["user-1"]},
        {"scope": "cloud_controller.admin"},
        {"scope": {"cloud_controller.admin": True}},
    ],
    ids=str,
)
def test_a_token_with_wrong_claims_is_rejected(tokens: Tokens, changed: dict[str, Any]) -> None:
    """Expired, without an end, for somebody else, or for nobody: all is TokenRejected."""
    with pytest.raises(TokenRejected):
        tokens.verify(signed(**changed))


def test_scopes_that_are_no_texts_are_ignored(tokens: Tokens) -> None:
    """They can't grant anything."""
    caller = tokens.verify(signed(scope=["cloud_controller.read", 7, None, ["x"]]))
    assert caller.scopes == {"cloud_controller.read"}


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE"])
def test_an_unsigned_token_is_rejected(tokens: Tokens, algorithm: str) -> None:
    """Whatever it says of itself, and however that is spelt."""
    with pytest.raises(TokenRejected):
        tokens.verify(unsigned({"typ": "JWT", "alg": algorithm}))


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_only_our_algorithm_is_accepted(tokens: Tokens, algorithm: str) -> None:
    """Not even another one with the right key."""
    with pytest.raises(TokenRejected):
        tokens.verify(signed(secret=SECRET * 3, algorithm=algorithm))
    with pytest.raises(TokenRejected):
        Tokens(Secret(SECRET * 3), "cloud_controller").verify(
            signed(secret=SECRET * 3, algorithm=algorithm)
        )


def test_another_key_is_rejected(tokens: Tokens) -> None:
    """Also one that differs in a letter, and the seed page's own example."""
    for token in (signed(secret="x" * 40), signed(secret=SECRET + "x"), SEED_PAGE_TOKEN):
        with pytest.raises(TokenRejected):
            tokens.verify(token)


def test_a_changed_token_is_rejected(tokens: Tokens) -> None:
    """Claims and signature belong together."""
    head, _, signature = signed().split(".")
    _, others, _ = signed(user_id="root", scope=["cloud_controller.admin"]).split(".")
    for token in (f"{head}.{others}.{signature}", f"{head}.{others}.", f"{head}.{others}"):
        with pytest.raises(TokenRejected):
            tokens.verify(token)


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "é.é.é",
        "\udcff",
        "\0",
        "x" * 10_000,
        "e30.e30.e30",
        "W10.W10.W10",
    ],
)
def test_what_is_no_token_is_rejected(tokens: Tokens, token: str) -> None:
    """No other exception comes out, whatever is sent."""
    with pytest.raises(TokenRejected):
        tokens.verify(token)


def test_a_token_says_who_and_until_when(tokens: Tokens) -> None:
    """The claims are those of a UAA; the address is left out where there is none."""
    token = tokens.sign("user-1", "someone@example.org", [Scope.WRITE], 60)
    found = jwt.decode(token, options={"verify_signature": False})
    assert found["email"] == "someone@example.org"
    assert found["scope"] == ["cloud_controller.write"]
    assert found["aud"] == ["cloud_controller"]
    assert 0 < found["exp"] - time.time() <= 60
    bare = jwt.decode(tokens.sign("user-1", None, [], 60), options={"verify_signature": False})
    assert "email" not in bare


def test_a_token_signed_to_be_expired_is_rejected(tokens: Tokens) -> None:
    """For trying out what happens then."""
    with pytest.raises(TokenRejected, match="expired"):
        tokens.verify(tokens.sign("user-1", None, [], -1))


def test_a_secret_is_made_at_the_first_start_and_kept(tmp_path: Path) -> None:
    """In a folder that is made for it; long enough, and for the owner's eyes only."""
    path = tmp_path / "data" / "jwt.secret"
    secret = load_or_make_secret(path)
    assert len(secret) >= 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_or_make_secret(path) == secret
    assert [entry.name for entry in path.parent.iterdir()] == ["jwt.secret"]


def test_two_services_have_two_secrets(tmp_path: Path) -> None:
    """A secret is not a constant."""
    assert load_or_make_secret(tmp_path / "a") != load_or_make_secret(tmp_path / "b")


def test_an_operators_secret_is_used_as_it_is(tmp_path: Path) -> None:
    """But for the line end that an editor puts behind it."""
    path = tmp_path / "jwt.secret"
    path.write_text("an operator's own secret, 32 bytes or so\n")
    assert load_or_make_secret(path) == "an operator's own secret, 32 bytes or so"


def test_a_secret_is_made_once_by_many_at_a_time(tmp_path: Path) -> None:
    """Whoever comes first makes it; all have the same, and nothing else is left behind."""
    for number in range(10):
        path = tmp_path / str(number) / "jwt.secret"
        with ThreadPoolExecutor(8) as pool:
            secrets = set(pool.map(load_or_make_secret, [path] * 8))
        assert len(secrets) == 1
        assert [entry.name for entry in path.parent.iterdir()] == ["jwt.secret"]


def test_a_long_token_is_not_kept_in_memory(tokens: Tokens) -> None:
    """What is remembered of it is who it speaks for; whoever needs it has it all the same."""
    before = kept = 0
    tracemalloc.start()
    try:
        for number in range(200):
            scopes = [Scope.READ, *(f"{number}.{'s' * 50}.{n}" for n in range(300))]
            long = tokens.sign(f"user-{number}", None, scopes, 60)
            for _ in range(2):
                caller = tokens.verify(long)
                assert caller.token == long
            assert caller.scopes == {Scope.READ}
            kept = tracemalloc.get_traced_memory()[0]
            if number == 99:
                before = kept
    finally:
        tracemalloc.stop()
    assert (kept - before) / 100 < 4096  # bytes; the token has 24,000
