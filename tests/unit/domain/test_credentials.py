"""Credentials in what names a place: they are found, and what only looks like them is not."""

from __future__ import annotations

import time

import pytest

from domain.credentials import holds_credentials, image_holds_credentials
from domain.package import MAX_URL, PackageType, faults_of_new_package

HEX = "0123456789abcdef" * 4
SECRET = "hunter2"
REFUSED = "Url must not hold credentials"


@pytest.mark.parametrize(
    "image",
    [
        f"user:{SECRET}@registry/app",
        f"user:{SECRET}@registry:5000/app:1.0",
        f"{SECRET}@registry/app",
        f"https://user:{SECRET}@registry/app",
        f"https://{SECRET}@registry/app",
        f"docker://user:{SECRET}@registry/app",
        f"docker://{SECRET}@registry/app",
        f"//user:{SECRET}@registry/app",
        f"HTTPS:\\\\user:{SECRET}@registry/app",
        f"user%3A{SECRET}%40registry/app",
        f"user%253A{SECRET}%2540registry/app",
        f"https://registry/app?token={SECRET}",
        f"registry/app?token={SECRET}",
        f"  user:{SECRET}@registry/app",
        f"user:{SECRET}@registry/app@sha256:{HEX}",
        f"user:{SECRET}@registry/app%40sha256:{HEX}",
        f"app@sha256:{HEX}@{SECRET}",
        f"app@sha256:{HEX[:-1]}",
        f"app@md5:{HEX[:32]}",
        f"user:{SECRET}\n@registry/app",
        f"https://user:{SECRET}\n@registry/app",
        f"user:{SECRET}\uff20registry/app",  # wide, and small: normalized, they are an @
        f"user:{SECRET}%EF%B9%ABregistry/app",
    ],
)
def test_credentials_in_an_image_are_refused(image: str) -> None:
    """However they are written; and the sentence does not tell them."""
    assert image_holds_credentials(image)
    assert faults_of_new_package("app-1", PackageType.DOCKER, image) == [REFUSED]


@pytest.mark.parametrize(
    "image",
    [
        "app",
        "app:1.0",
        "registry/app",
        "registry:5000/app",
        "registry:5000/group/app:1.0",
        "https://registry:5000/app",
        "docker://registry/app:1.0",
        "[::1]:5000/app",
        "registry/größe:1",
        f"app@sha256:{HEX}",
        f"registry:5000/app@sha256:{HEX}",
        f"registry:5000/app:1.0@sha256:{HEX}",
        f"registry:5000/app%40sha256:{HEX}",
        f"https://registry:5000/app@sha256:{HEX}",
        f"docker://registry:5000/app@sha256:{HEX}",
        f"app@sha512:{HEX * 2}",
        f"app@sha256:{HEX} ",
        "100%",
    ],
)
def test_what_only_looks_like_credentials_in_an_image_is_accepted(image: str) -> None:
    """A digest, a port, a tag."""
    assert faults_of_new_package("app-1", PackageType.DOCKER, image) == []


@pytest.mark.parametrize(
    ("url", "held"),
    [
        (f"https://user:{SECRET}@host/repository", True),
        (f"https://{SECRET}@host/repository", True),
        (f"https://user%3A{SECRET}%40host/repository", True),
        (f"https://host/repository?token={SECRET}", True),
        (f"ssh://user:{SECRET}@host/repository", True),
        (f"git://{SECRET}@host/repository", True),
        ("https://host/repository#v1", False),
        ("ssh://git@host/repository", False),
        ("git@host:group/repository.git", False),
        ("ruby_buildpack", False),
    ],
)
def test_a_repository_may_name_a_user_and_nothing_secret(url: str, held: bool) -> None:
    """Everybody's user of git over ssh is called git."""
    assert holds_credentials(url) is held


def test_an_image_has_a_length() -> None:
    """4096 characters pass; one more does not, and neither does none."""
    assert faults_of_new_package("app-1", PackageType.DOCKER, "x" * MAX_URL) == []
    assert faults_of_new_package("app-1", PackageType.DOCKER, "x" * (MAX_URL + 1)) == [
        "Url must be between 1 and 4096 characters"
    ]
    assert MAX_URL == 4096


def test_what_was_encoded_again_and_again_costs_no_time() -> None:
    """Each decoding takes one layer off; there may be as many as there are characters."""
    began = time.process_time()
    assert not holds_credentials("%" + "25" * 100_000)
    assert time.process_time() - began < 1
