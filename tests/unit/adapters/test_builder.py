"""The builder makes a droplet of a package: how the app is started, and all its files."""

from __future__ import annotations

import io
import json
import stat
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from adapters.builder import sha1_of
from adapters.droplet_archive import (
    MAX_PROCFILE,
    PROCFILE,
    SERVE_STATIC,
    STATIC,
    Built,
    CannotBuild,
    build,
)
from domain.droplet_processing import BuildReport, faults_of_report
from tests.support.zips import sha1, zip_of

PROC = {"Procfile": b"web: run web\n"}
Build = Callable[..., "Made"]


@dataclass(frozen=True)
class Made:
    """A droplet that was built, opened."""

    built: Built
    path: Path
    members: Mapping[str, tarfile.TarInfo]
    contents: Mapping[str, bytes]


def open_droplet(built: Built, path: Path) -> Made:
    members, contents = {}, {}
    with tarfile.open(path, "r:gz") as tar:
        for info in tar:
            members[info.name] = info
            file = tar.extractfile(info) if info.isreg() else None
            if file is not None:
                contents[info.name] = file.read()
    return Made(built, path, members, contents)


def droplet_of(buildpack: str | None, disk: int) -> dict[str, Any]:
    """What the API shows of a droplet, as far as it matters; `disk` is in MiB."""
    limits = {"VCAP_APPLICATION": {"limits": {"disk": disk}}}
    return {"buildpack": buildpack, "environment_variables": limits}


@pytest.fixture
def make(tmp_path: Path) -> Build:
    """Builds a droplet of a zip; `disk` is the limit in MiB."""
    made: list[Path] = []

    def make(package: bytes, buildpack: str | None = None, disk: int = 4096) -> Made:
        source, target = tmp_path / "package.zip", tmp_path / f"droplet-{len(made)}.tgz"
        made.append(target)
        source.write_bytes(package)
        return open_droplet(build(source, target, droplet_of(buildpack, disk)), target)

    return make


def entries(*wanted: tuple[str, int, bytes]) -> bytes:
    """A zip of entries with a name, a Unix mode and a content, and with a Procfile."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("Procfile", PROC["Procfile"])
        for name, mode, content in wanted:
            info = zipfile.ZipInfo(name)
            info.create_system = 3  # Unix
            info.external_attr = mode << 16
            archive.writestr(info, content)
    return buffer.getvalue()


def detected(files: dict[str, bytes], wanted: str | None = None) -> Built:
    """How an app with these files is started."""
    with TemporaryDirectory() as folder:
        package = Path(folder, "package.zip")
        package.write_bytes(zip_of(files))
        return build(package, Path(folder, "droplet.tgz"), droplet_of(wanted, 4096))


# How the app is started ---------------------------------------------------------------------


def test_a_procfile_tells_how_the_processes_are_started() -> None:
    """A line a process; comments and empty lines say nothing, and ends of lines may be any."""
    content = b"# ours\r\nweb: run web --port $PORT\r\n\n  worker:run: it  \nrelease_1-b:\tx\n"
    assert detected({"Procfile": content}) == Built(
        {"web": "run web --port $PORT", "worker": "run: it", "release_1-b": "x"}, "procfile"
    )


def test_a_page_is_served_as_it_is() -> None:
    """A package with an index.html and no Procfile has one process, which listens on $PORT."""
    assert detected({"index.html": b"<p>"}) == Built({"web": SERVE_STATIC}, "static")
    assert "PORT" in SERVE_STATIC


def test_a_procfile_comes_first() -> None:
    """Whoever wrote one wants it used."""
    assert detected({**PROC, "index.html": b"<p>"}).buildpack == PROCFILE


@pytest.mark.parametrize(
    ("wanted", "types"), [(PROCFILE, {"web": "run web"}), (STATIC, {"web": SERVE_STATIC})]
)
def test_the_wanted_buildpack_is_used(wanted: str, types: dict[str, str]) -> None:
    """Where the package would fit both."""
    assert detected({**PROC, "index.html": b"<p>"}, wanted) == Built(types, wanted)


@pytest.mark.parametrize(
    ("files", "wanted", "sentence"),
    [
        ({"app.py": b"x"}, None, "needs a Procfile, or an index.html"),
        ({"sub/Procfile": b"web: x", "sub/index.html": b""}, None, "needs a Procfile"),
        ({"index.html": b""}, PROCFILE, "The package has no Procfile"),
        (PROC, STATIC, "The package has no index.html"),
        (PROC, "ruby", "no buildpack 'ruby', only procfile and static"),
        (PROC, "https://example.com/buildpack", "no buildpack 'https://example.com/buildpack'"),
        ({}, None, "needs a Procfile"),
    ],
)
def test_what_does_not_fit_is_refused(
    files: dict[str, bytes], wanted: str | None, sentence: str
) -> None:
    """With a sentence that says what would."""
    with pytest.raises(CannotBuild, match=sentence):
        detected(files, wanted)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "names no process"),
        (b"\n# nothing\n", "names no process"),
        (b"web: x\nrun it\n", "Line 2 of the Procfile is not 'process: command'"),
        (b"web:\n", "Line 1"),
        (b"web:   \n", "Line 1"),
        (b"my web: x\n", "Line 1"),
        (b": x\n", "Line 1"),
        (b"web: \xff\n", "not UTF-8"),
        (b"web: x\n" + b"#" * MAX_PROCFILE, "larger than 65536 bytes"),
    ],
)
def test_a_bad_procfile_is_refused(content: bytes, sentence: str) -> None:
    """With its line, where it is one; a page beside it does not help."""
    with pytest.raises(CannotBuild, match=sentence):
        detected({"Procfile": content, "index.html": b"<p>"})


@pytest.mark.parametrize(
    "content",
    [
        b"web: " + b"x" * 4097,
        b"w" * 256 + b": x",
        b"".join(b"p%d: x\n" % number for number in range(101)),
        b"web: a\0b",
        b"web: a\tb",
        b"web: a\x1bb",
    ],
    ids=["a long command", "a long name", "many processes", "a NUL", "a tab", "an escape"],
)
def test_a_procfile_is_refused_that_the_service_would_not_take(content: bytes) -> None:
    """Or made one that it takes: else the droplet waits for its timeout, and nobody knows why."""
    try:
        built = detected({"Procfile": content})
    except CannotBuild:
        return
    assert faults_of_report(BuildReport("a" * 40, built.process_types, built.buildpack)) == []


# What is in the droplet ---------------------------------------------------------------------


def test_a_droplet_holds_the_app_and_what_is_expected_beside_it(make: Build) -> None:
    """Every file behind app/, folders for logs and temporary files, and how it is started."""
    made = make(zip_of({**PROC, "lib/a.txt": b"a" * 70_000, "empty": b""}))
    assert list(made.members) == [
        "./app/Procfile", "./app/lib/a.txt", "./app/empty", "./staging_info.yml", "./logs", "./tmp",
    ]  # fmt: skip
    assert made.contents["./app/Procfile"] == PROC["Procfile"]
    assert made.contents["./app/lib/a.txt"] == b"a" * 70_000
    assert made.contents["./app/empty"] == b""
    assert made.members["./logs"].isdir() and made.members["./tmp"].isdir()
    info = json.loads(made.contents["./staging_info.yml"])
    assert info == {"detected_buildpack": "procfile", "start_command": "run web"}
    assert made.built == Built({"web": "run web"}, "procfile")


def test_an_app_without_a_web_process_has_no_start_command(make: Build) -> None:
    """It has processes all the same."""
    made = make(zip_of({"Procfile": b"worker: run"}))
    assert json.loads(made.contents["./staging_info.yml"])["start_command"] == ""


def test_the_same_package_makes_the_same_bytes(make: Build) -> None:
    """A droplet made twice, by whichever builder, has one checksum: that of its bytes."""
    package = entries(("bin/run", stat.S_IFREG | 0o755, b"#!/bin/sh"), ("lib/", 0o40755, b""))
    first, second = make(package), make(package)
    assert first.path.read_bytes() == second.path.read_bytes()
    assert sha1_of(first.path) == sha1(first.path.read_bytes())
    assert first.path.read_bytes()[4:8] == bytes(4)  # where gzip keeps a time
    assert {(m.mtime, m.uid, m.gid, m.uname) for m in first.members.values()} == {(0, 0, 0, "")}


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (stat.S_IFREG | 0o755, 0o755),
        (stat.S_IFREG | 0o600, 0o600),
        (stat.S_IFREG | 0o4755, 0o755),
        (stat.S_IFREG | 0o2770, 0o770),
        (stat.S_IFREG, 0o644),
    ],
    ids=oct,
)
def test_a_file_keeps_its_mode(make: Build, mode: int, expected: int) -> None:
    """But for bits that lend rights; one that nobody may read, as none is told, can be read."""
    assert make(entries(("run", mode, b"x"))).members["./app/run"].mode == expected


def test_a_folder_stays_a_folder(make: Build) -> None:
    """Also an empty one, and one that is told of twice."""
    folder = stat.S_IFDIR | 0o700
    made = make(entries(("a/", folder, b""), ("./a/", folder, b""), ("a/b/", folder, b"")))
    assert made.members["./app/a"].isdir() and made.members["./app/a/b"].isdir()
    assert made.members["./app/a"].mode == 0o755


def test_a_link_that_stays_inside_is_kept(make: Build) -> None:
    """With its target as it was written."""
    link = stat.S_IFLNK | 0o777
    made = make(entries(("current", link, b"lib/v1"), ("lib/up", link, b"../Procfile")))
    assert made.members["./app/current"].issym()
    assert made.members["./app/current"].linkname == "lib/v1"
    assert made.members["./app/lib/up"].linkname == "../Procfile"


def test_names_of_any_kind_are_kept(make: Build) -> None:
    """Long ones, those with other letters, and a backslash parts folders as on Windows."""
    long = "d" * 90 + "/" + "f" * 200
    made = make(entries((long, 0o644, b"1"), ("grün/ö", 0o644, b"2"), ("win\\dows", 0o644, b"3")))
    assert made.contents[f"./app/{long}"] == b"1"
    assert made.contents["./app/grün/ö"] == b"2"
    assert made.contents["./app/win/dows"] == b"3"


def test_an_unpacked_droplet_is_the_package(make: Build, tmp_path: Path) -> None:
    """tar makes of it what unzip makes of the package, nothing outside, with working links."""
    package = entries(
        ("bin/run", stat.S_IFREG | 0o755, b"#!/bin/sh"), ("link", stat.S_IFLNK | 0o777, b"bin/run")
    )
    made = make(package)
    with tarfile.open(made.path) as tar:
        tar.extractall(tmp_path / "out", filter="data")
    app = tmp_path / "out" / "app"
    assert (app / "link").read_bytes() == b"#!/bin/sh"
    assert (app / "bin/run").stat().st_mode & 0o777 == 0o755
    assert (app / "link").is_symlink()


@pytest.mark.parametrize(
    "compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_every_way_to_compress_that_the_service_takes_is_unpacked(
    make: Build, compression: int
) -> None:
    """What is READY is never refused for how it was packed."""
    made = make(zip_of({**PROC, "data": b"data" * 50_000}, compression))
    assert made.contents["./app/data"] == b"data" * 50_000


def test_exactly_the_disk_limit_fits(make: Build) -> None:
    """Files count by what they unpack to; a byte more does not."""
    rest = (1 << 20) - len(PROC["Procfile"])
    fits = zip_of({**PROC, "data": bytes(rest)}, zipfile.ZIP_DEFLATED)
    assert len(make(fits, disk=1).contents["./app/data"]) == rest
    with pytest.raises(CannotBuild, match="the limit is 1048576"):
        make(zip_of({**PROC, "data": bytes(rest + 1)}, zipfile.ZIP_DEFLATED), disk=1)
