"""The keys of tokens: which are taken, how they change, and that no token picks its algorithm."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from adapters import token_keys
from adapters import tokens as tokens_module
from adapters.jwks import WAITING, Jwks
from adapters.token_keys import Key, KeysAway, Secret, UnusableKey, public_key_file, secret_file
from adapters.tokens import TokenRejected, Tokens
from tests.support.issuer import JsonServer, PrivateKey, ec_key, jwk_of, pem_of, rsa_key, sign
from tests.support.waiting import eventually

RSA, OTHER, EC = rsa_key(), rsa_key(), ec_key()
SECRETS = ["the first secret, of 32 bytes or more", "the second secret, of 32 bytes or more"]


@pytest.fixture(autouse=True)
def look_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_keys, "LOOK_AGAIN", 0.0)


@pytest.fixture
def server() -> Iterator[JsonServer]:
    with JsonServer() as running:
        yield running


def publish(server: JsonServer, *keys: tuple[PrivateKey, str | None]) -> None:
    server.answers["/keys"] = (200, {"keys": [jwk_of(key, kid) for key, kid in keys]})


def verifier(server: JsonServer, *, lifespan: float = 300.0, pause: float = 0.0) -> Tokens:
    keys = Jwks(f"{server.url}/keys", timeout=0.5, lifespan=lifespan, pause=pause)
    return Tokens(keys, "cloud_controller")


def accepts(tokens: Tokens, token: str) -> bool:
    try:
        return tokens.verify(token).guid == "user-1"
    except TokenRejected:
        return False


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def hmac_signed_with(key: bytes, header: dict[str, str]) -> str:
    """A token whose HMAC key is a public key: what a confused verifier accepts."""
    claims = {"user_id": "user-1", "aud": "cloud_controller", "exp": int(time.time()) + 600}
    text = f"{encoded(json.dumps(header).encode())}.{encoded(json.dumps(claims).encode())}"
    return f"{text}.{encoded(hmac.digest(key, text.encode(), hashlib.sha256))}"


def test_a_public_key_verifies_what_its_private_key_signed(tmp_path: Path) -> None:
    """RS256, and nothing that another key signed."""
    path = tmp_path / "key.pem"
    path.write_bytes(pem_of(RSA))
    tokens = Tokens(public_key_file(path), "cloud_controller")
    assert accepts(tokens, sign(RSA))
    assert not accepts(tokens, sign(OTHER))
    for algorithm in ("RS384", "RS512", "PS256"):
        assert not accepts(tokens, sign(RSA, algorithm=algorithm))


def test_a_public_key_is_no_secret(tmp_path: Path) -> None:
    """A token signed by HMAC with the public key's text is rejected."""
    path = tmp_path / "key.pem"
    path.write_bytes(pem_of(RSA))
    tokens = Tokens(public_key_file(path), "cloud_controller")
    for key in (pem_of(RSA), pem_of(RSA).strip(), pem_of(RSA).decode().encode("utf-16")):
        assert not accepts(tokens, hmac_signed_with(key, {"alg": "HS256", "typ": "JWT"}))
        assert not accepts(tokens, hmac_signed_with(key, {"alg": "RS256", "typ": "JWT"}))


def test_a_token_brings_no_key_of_its_own(server: JsonServer) -> None:
    """Not in its header (jwk), and not by a URL there (jku, x5u)."""
    publish(server, (RSA, "a"))
    server.answers["/mine"] = (200, {"keys": [jwk_of(OTHER, "a")]})
    tokens = verifier(server)
    headers = {"jwk": jwk_of(OTHER, "a"), "jku": f"{server.url}/mine", "x5u": f"{server.url}/mine"}
    claims = {"user_id": "user-1", "aud": "cloud_controller", "exp": int(time.time()) + 600}
    assert not accepts(tokens, jwt.encode(claims, OTHER, "RS256", {**headers, "kid": "a"}))
    assert {path for path, _ in server.asked} == {"/keys"}


def test_all_keys_of_a_file_verify(tmp_path: Path) -> None:
    """While an issuer goes from one to the next, both are in it."""
    path = tmp_path / "key.pem"
    path.write_bytes(pem_of(OTHER) + b"\n" + pem_of(RSA))
    tokens = Tokens(public_key_file(path), "cloud_controller")
    assert accepts(tokens, sign(RSA)) and accepts(tokens, sign(OTHER))


def test_a_replaced_key_counts_without_a_restart(tmp_path: Path) -> None:
    """Also for a token that was verified, and remembered, before."""
    path = tmp_path / "key.pem"
    path.write_bytes(pem_of(RSA))
    tokens = Tokens(public_key_file(path), "cloud_controller")
    token = sign(RSA)
    assert accepts(tokens, token)
    path.write_bytes(pem_of(OTHER))
    assert not accepts(tokens, token)
    assert accepts(tokens, sign(OTHER))


def test_a_broken_key_file_changes_nothing(tmp_path: Path) -> None:
    """The keys stay what they were, until it holds some again."""
    path = tmp_path / "key.pem"
    path.write_bytes(pem_of(RSA))
    tokens = Tokens(public_key_file(path), "cloud_controller")
    for broken in (b"", b"nothing", pem_of(RSA)[:-40]):
        path.write_bytes(broken)
        assert accepts(tokens, sign(RSA))
    path.unlink()
    assert accepts(tokens, sign(RSA))


def test_secrets_rotate_too(tmp_path: Path) -> None:
    """One a line: the first signs, all verify; what is no longer there does not."""
    path = tmp_path / "jwt.secret"
    path.write_text(SECRETS[0])
    tokens = Tokens(secret_file(path), "cloud_controller")
    old = tokens.sign("user-1", None, [], 60)
    path.write_text("\n".join(reversed(SECRETS)))
    new = tokens.sign("user-1", None, [], 60)
    assert accepts(tokens, old) and accepts(tokens, new)
    path.write_text(SECRETS[1])
    assert accepts(tokens, new) and not accepts(tokens, old)


PRIVATE = RSA.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no public key"),
        (b"\xff\xfe", "is not a PEM file"),
        (PRIVATE, "holds a private key"),
        (pem_of(RSA) + PRIVATE, "holds a private key"),
        (pem_of(EC), "is not of RSA"),
        (pem_of(rsa_key(1024)), "1024 bits: 2048 or more"),
        (b"-----BEGIN PUBLIC KEY-----\nxxxx\n-----END PUBLIC KEY-----", "can't be read"),
    ],
    ids=["empty", "binary", "private", "both", "ec", "small", "broken"],
)
def test_what_is_no_public_key_is_refused_at_the_start(
    tmp_path: Path, content: bytes, said: str
) -> None:
    """With what is wrong with the file."""
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    with pytest.raises(UnusableKey, match=said):
        public_key_file(path)


def test_a_key_set_verifies_by_key_id(server: JsonServer) -> None:
    """RSA keys by RS256, those of the curve P-256 by ES256."""
    publish(server, (RSA, "a"), (EC, "b"))
    tokens = verifier(server)
    assert accepts(tokens, sign(RSA, "a")) and accepts(tokens, sign(EC, "b"))
    assert accepts(tokens, sign(RSA)), "one that names no key is tried with all"
    assert not accepts(tokens, sign(RSA, "b")) and not accepts(tokens, sign(EC, "a"))
    assert not accepts(tokens, sign(OTHER, "a"))


def test_a_new_key_is_asked_for_when_it_is_needed(server: JsonServer) -> None:
    """And a key that went counts no more, also for tokens that were verified before."""
    publish(server, (RSA, "a"))
    tokens = verifier(server)
    old = sign(RSA, "a")
    assert accepts(tokens, old)
    publish(server, (OTHER, "b"))
    assert accepts(tokens, sign(OTHER, "b"))
    assert not accepts(tokens, old)


def test_unknown_key_ids_do_not_flood_the_key_server(server: JsonServer) -> None:
    """However many come, it is asked once in a while."""
    publish(server, (RSA, "a"))
    tokens = verifier(server, pause=60.0)
    assert accepts(tokens, sign(RSA, "a"))
    for number in range(50):
        assert not accepts(tokens, sign(OTHER, f"made-up-{number}"))
    assert len(server.asked) == 1


def test_the_key_server_may_be_away(server: JsonServer) -> None:
    """What it told last counts for as long as that lasts, and is asked for behind requests."""
    publish(server, (RSA, "a"))
    tokens = verifier(server, lifespan=0.0)
    assert accepts(tokens, sign(RSA, "a"))
    server.stop()
    for _ in range(3):
        assert accepts(tokens, sign(RSA, "a", jti="fresh" * 3))
    server.start()
    publish(server, (OTHER, "b"))
    eventually(lambda: accepts(tokens, sign(OTHER, "b")), 10)


@pytest.mark.parametrize(
    "answer",
    [
        (500, {}),
        (404, {}),
        (302, b"http://127.0.0.1:1/keys"),
        (200, []),
        (200, b"<html>"),
        (200, {}),
        (200, {"keys": "none"}),
        (200, {"keys": []}),
        (200, {"keys": [None, 7, "x", {}, {"kty": "oct", "k": "c2VjcmV0"}]}),
        (200, {"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}]}),
        (200, {"keys": [jwk_of(RSA, "a", use="enc")]}),
        (200, {"keys": [jwk_of(RSA, "a", alg="HS256")]}),
        (200, b'{"keys": [' + b" " * (2 << 20) + b"]}"),
    ],
    ids=range(13),
)
def test_what_is_no_key_set_changes_nothing(server: JsonServer, answer: tuple[int, object]) -> None:
    """Before there were keys, tokens can't be verified; afterwards the old ones stay."""
    server.answers["/keys"] = answer
    with pytest.raises(KeysAway):
        verifier(server).verify(sign(RSA, "a"))
    publish(server, (RSA, "a"))
    tokens = verifier(server, lifespan=0.0)
    assert accepts(tokens, sign(RSA, "a"))
    server.answers["/keys"] = answer
    assert not accepts(tokens, sign(OTHER, "b"))
    assert accepts(tokens, sign(RSA, "a", jti="another"))


def test_a_key_server_that_hangs_holds_up_only_a_few(server: JsonServer) -> None:
    """Who comes while enough wait is told to come again; known keys go on."""
    publish(server, (RSA, "a"))
    tokens = Tokens(Jwks(f"{server.url}/keys", timeout=20.0, pause=0.0), "cloud_controller")
    assert accepts(tokens, sign(RSA, "a"))
    server.hold.clear()
    with ThreadPoolExecutor(2 * WAITING) as pool:
        asked = [
            pool.submit(accepts, tokens, sign(OTHER, f"b-{number}"))
            for number in range(2 * WAITING)
        ]
        try:
            eventually(lambda: sum(one.done() for one in asked) == WAITING, 10)
            told = [one.exception() for one in asked if one.done()]
            assert all(isinstance(error, KeysAway) for error in told)
            assert accepts(tokens, sign(RSA, "a", jti="another"))
        finally:
            server.hold.set()
    assert sum(one.exception() is None and not one.result() for one in asked) == WAITING


def test_only_so_many_tokens_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that was shown longest ago is verified again."""

    class Counted(Secret):
        asked = 0

        def find(self, kid: object) -> Sequence[Key]:
            self.asked += 1
            return super().find(kid)

    monkeypatch.setattr(tokens_module, "REMEMBERED", 2)
    keys = Counted(SECRETS[0])
    tokens = Tokens(keys, "cloud_controller")
    first, second, third = (sign(SECRETS[0], algorithm="HS256", jti=str(n)) for n in range(3))
    for token in (first, second, first, third, first, third):
        assert accepts(tokens, token)
    assert keys.asked == 3
    assert accepts(tokens, second)
    assert keys.asked == 4


def test_a_remembered_token_still_expires() -> None:
    """What was verified counts until its end, and not longer."""
    tokens = Tokens(Secret(SECRETS[0]), "cloud_controller")
    token = sign(SECRETS[0], algorithm="HS256", exp=int(time.time()) + 2)
    assert accepts(tokens, token)
    eventually(lambda: not accepts(tokens, token), 5)


@pytest.mark.parametrize(
    "header",
    [
        b'{"alg":"HS256","kid":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"alg":"HS256","kid":' + b'{"a":' * 3000 + b"1" + b"}" * 3000 + b"}",
        b'{"alg":["HS256"]}',
        b'{"alg":null}',
        b'{"alg":"HS256","kid":7}',
        b'{"alg":"HS256","crit":["x"],"x":1}',
        b'{"alg":"HS256","b64":false,"crit":["b64"]}',
        b"[]",
        b"null",
        b"7",
        b'"HS256"',
        b"\xff",
    ],
    ids=lambda header: header[:30].decode("latin-1"),
)
def test_odd_headers_are_rejected(header: bytes) -> None:
    """And nothing else happens."""
    tokens = Tokens(Secret(SECRETS[0]), "cloud_controller")
    claims = json.dumps({"user_id": "u", "aud": "cloud_controller", "exp": 4_000_000_000}).encode()
    text = f"{encoded(header)}.{encoded(claims)}"
    signature = hmac.digest(SECRETS[0].encode(), text.encode(), hashlib.sha256)
    with pytest.raises(TokenRejected):
        tokens.verify(f"{text}.{encoded(signature)}")


def test_a_token_of_a_mebibyte_is_rejected() -> None:
    """Before anything is done with it."""
    with pytest.raises(TokenRejected, match="1048576 characters, 32768 are allowed"):
        Tokens(Secret(SECRETS[0]), "cloud_controller").verify("x" * (1 << 20))
