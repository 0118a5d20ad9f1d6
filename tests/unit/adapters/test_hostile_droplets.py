"""Droplets of the corpus of hostile zips: made within bounds and within their folder, or not."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import pytest

from adapters.droplet_archive import CannotBuild, build
from tests.support.hostile_zips import CORPUS, READY, STAGED, Item, archive
from tests.support.memory import MIB, little_memory, little_work

DROPLET: dict[str, Any] = {
    "buildpack": None,
    "environment_variables": {"VCAP_APPLICATION": {"limits": {"disk": 4096}}},
}
CASES: list[Any] = [
    pytest.param(name, marks=pytest.mark.slow) if case.large else name
    for name, case in CORPUS.items()
    if case.outcome == READY
]


@pytest.mark.timeout(400)  # the largest takes a minute where other tests run
@pytest.mark.parametrize("name", CASES)
def test_a_droplet_of_a_hostile_zip_ends_as_documented(name: str, tmp_path: Path) -> None:
    """What it holds stays in its folder, and its making costs no more than its content."""
    case = CORPUS[name]
    package, made = tmp_path / "package.zip", tmp_path / "droplet.tgz"
    package.write_bytes(case.make())
    with little_memory(48 * MIB), little_work(90 if case.large else 5):
        try:
            build(package, made, DROPLET)
        except CannotBuild as reason:
            assert case.staged != STAGED, str(reason)
            assert case.staged in str(reason)
            assert str(reason).isprintable()
            return
    assert case.staged == STAGED
    with tarfile.open(made) as droplet:
        for member in droplet:
            assert member.name.startswith("./"), member.name
            tarfile.data_filter(member, str(tmp_path))  # raises if it leads out
            assert not member.mode & 0o7000
    assert sorted(path.name for path in tmp_path.iterdir()) == [made.name, package.name]


@pytest.mark.parametrize(
    ("items", "sentence"),
    [
        ([Item(b"%04d/" % n + b"/".join([b"x"] * 200), b"") for n in range(1300)], "250000 fold"),
        ([Item(b"%04d" % n + b"x" * 4000, b"") for n in range(5000)], None),
    ],
    ids=["deep", "long"],
)
def test_long_names_take_little_memory(
    items: list[Item], sentence: str | None, tmp_path: Path
) -> None:
    """Seen once: a zip of 16 MB with deep names took 1 GiB."""
    package, made = tmp_path / "package.zip", tmp_path / "droplet.tgz"
    package.write_bytes(archive(*items))
    with little_memory(48 * MIB):
        if sentence is None:
            build(package, made, DROPLET)
        else:
            with pytest.raises(CannotBuild, match=sentence):
                build(package, made, DROPLET)
