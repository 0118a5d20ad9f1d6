"""Tokens at a running service: which it takes, while keys and their server come and go."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest

from adapters.token_keys import Secret
from adapters.tokens import Tokens
from tests.support.issuer import JsonServer, ec_key, jwk_of, pem_of, rsa_key, sign
from tests.support.service import SECRET, Client, Service, bearer
from tests.support.waiting import eventually
from tests.support.zips import random_zip

RSA, OTHER, EC = rsa_key(), rsa_key(), ec_key()
NO_SECRET = {"PACKTRAIL_JWT_SECRET": ""}


def ask(service: Service, token: str, path: str = "/v3/packages") -> httpx.Response:
    return httpx.get(f"{service.url}{path}", headers=bearer(token))


def refused(response: httpx.Response) -> bool:
    body = response.json()
    return (response.status_code, body.get("code"), body.get("error_code")) == (
        401,
        1000,
        "CF-InvalidAuthToken",
    )


def part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def forged(header: Mapping[str, object], key: bytes | None) -> str:
    """Signed by HMAC with any key, or with none."""
    claims = {"user_id": "u", "aud": "cloud_controller", "exp": int(time.time()) + 600,
              "scope": ["cloud_controller.admin"]}  # fmt: skip
    text = f"{part(json.dumps(header).encode())}.{part(json.dumps(claims).encode())}"
    signature = b"" if key is None else hmac.digest(key, text.encode(), hashlib.sha256)
    return f"{text}.{part(signature)}"


@pytest.fixture
def keys() -> Iterator[JsonServer]:
    with JsonServer() as server:
        server.answers["/keys"] = (200, {"keys": [jwk_of(RSA, "a"), jwk_of(EC, "b")]})
        yield server


@pytest.mark.slow
def test_a_key_server_may_come_and_go(keys: JsonServer, tmp_path: Path) -> None:
    """Before it was ever there, nothing can be verified (503); afterwards its keys count."""
    keys.stop()
    settings = {**NO_SECRET, "PACKTRAIL_JWKS_URL": f"{keys.url}/keys"}
    with Service(tmp_path, settings) as service:
        response = ask(service, sign(RSA, "a"))
        assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
        ready = httpx.get(f"{service.url}/readyz")
        assert ready.status_code == 503
        assert ready.json()["parts"]["token_keys"]["status"] == "degraded"
        assert httpx.get(f"{service.url}/v3/packages").status_code == 401, "without a token"
        keys.start()
        eventually(lambda: ask(service, sign(RSA, "a")).status_code == 200, 20)
        assert ask(service, sign(EC, "b")).status_code == 200
        assert httpx.get(f"{service.url}/readyz").status_code == 200
        keys.stop()
        assert ask(service, sign(RSA, "a", jti="another")).status_code == 200
        keys.answers["/keys"] = (200, {"keys": [jwk_of(OTHER, "c")]})
        keys.start()
        eventually(lambda: ask(service, sign(OTHER, "c")).status_code == 200, 20)
        assert refused(ask(service, sign(RSA, "a"))), "what rotated away counts no more"


def test_where_others_sign_all_works(keys: JsonServer, tmp_path: Path) -> None:
    """An upload, and a droplet by the builder that comes along, which no key of ours signs for."""
    settings = {**NO_SECRET, "PACKTRAIL_JWKS_URL": f"{keys.url}/keys"}
    with Service(tmp_path, settings) as service:
        client = Client(service, token=sign(EC, "b"))
        package = client.push(random_zip(5000))
        assert package["state"] == "READY"
        asked = client.http.post(f"/v3/packages/{package['guid']}/droplets", json={})
        path = f"/v3/droplets/{asked.json()['guid']}"
        eventually(lambda: client.http.get(path).json()["state"] == "FAILED", 30)
        error = client.http.get(path).json()["error"]
        assert "Procfile" in error, "the builder has seen what is in it"


@pytest.mark.slow
@pytest.mark.parametrize("way", ["secret", "public key", "key set"])
def test_no_token_picks_how_it_is_verified(way: str, keys: JsonServer, tmp_path: Path) -> None:
    """Unsigned, signed by a public key's text, or for another algorithm: all get 401."""
    pem = tmp_path / "key.pem"
    pem.write_bytes(pem_of(RSA))
    settings = {
        "secret": {},
        "public key": {**NO_SECRET, "PACKTRAIL_JWT_PUBLIC_KEY": str(pem)},
        "key set": {**NO_SECRET, "PACKTRAIL_JWKS_URL": f"{keys.url}/keys"},
    }[way]
    jwk = json.dumps(jwk_of(RSA, "a")).encode()
    with Service(tmp_path, settings) as service:
        good = sign(RSA, "a")
        if way == "secret":
            good = Tokens(Secret(SECRET), "cloud_controller").sign(
                "u", None, ["cloud_controller.read"], 60
            )
        assert ask(service, good).status_code == 200
        bad = [forged({"alg": name}, None) for name in ("none", "None", "NONE", "")]
        bad += [forged({"alg": "none"}, b""), forged({}, None), forged({"alg": None}, b"")]
        for key in (pem.read_bytes(), pem.read_bytes().strip(), jwk, b"", b"secret"):
            bad += [forged({"alg": name, "kid": "a"}, key) for name in ("HS256", "RS256", "ES256")]
        bad += [sign(OTHER, "a"), sign(EC, "a"), sign(RSA, "a", "RS512"), sign(OTHER)]
        bad += [good[:-4], good + "x", f"{good}.{good}", good.replace(".", "..", 1), good.upper()]
        for token in bad:
            assert refused(ask(service, token)), token


@pytest.mark.slow
def test_a_secret_file_rotates_without_a_restart(tmp_path: Path) -> None:
    """Both secrets verify while both are in it."""
    with Service(tmp_path, NO_SECRET) as service:
        path = service.data_dir / "jwt.secret"
        old = path.read_text().strip()
        fresh = "a secret that an operator has put into the file"

        def signed(secret: str) -> str:
            return Tokens(Secret(secret), "cloud_controller").sign(
                "u", None, ["cloud_controller.read"], 60
            )

        def replace(text: str) -> None:
            other = path.with_name("other")
            other.write_text(text)
            other.replace(path)

        assert ask(service, signed(old)).status_code == 200
        assert refused(ask(service, signed(fresh)))
        replace(f"{fresh}\n{old}\n")
        eventually(lambda: ask(service, signed(fresh)).status_code == 200, 10)
        assert ask(service, signed(old)).status_code == 200
        replace(f"{fresh}\n")
        eventually(lambda: refused(ask(service, signed(old))), 10)
        assert ask(service, signed(fresh)).status_code == 200
