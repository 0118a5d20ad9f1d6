"""Makes a droplet of a package that needs no compiling: a gzipped tar, of a zip."""

from __future__ import annotations

import gzip
import json
import re
import stat
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

from adapters.bits import FileBits
from adapters.limits import USUAL, Limits, archive_limits
from adapters.unzip import Content, entries_of, name_of
from domain.archive import check_archive
from domain.droplet_processing import BuildReport, faults_of_report
from domain.errors import BitsAtFault
from domain.ports import Bits
from domain.zip_records import Entry

PROCFILE, STATIC = "procfile", "static"  # the buildpacks that this builder has
MAX_PROCFILE = 64 * 1024  # bytes
SERVE_STATIC = "python3 -m http.server ${PORT:-8080}"
COMPRESSION = 4  # of gzip: 1 is fast, 9 is small
MAX_DEPTH = 250  # folders in each other
_PROCESS = re.compile(r"([A-Za-z0-9_-]+):[ \t]*(\S.*)")
CHUNK = 1 << 20  # bytes read at a time


class CannotBuild(Exception):
    """The package is no droplet for this builder; the message is a sentence for the developer."""


@dataclass(frozen=True)
class Built:
    process_types: dict[str, str]
    buildpack: str


def build(package: Path, target: Path, droplet: Mapping[str, Any], limits: Limits = USUAL) -> Built:
    """Makes a droplet (a gzipped tar) of a package (a zip). Raises `CannotBuild`; `OSError`.

    The files are behind `app/`, and beside it is what Cloud Foundry expects of a droplet. The
    same package always makes the same bytes. What counts against the disk limit is what
    really comes out of the zip: an entry of which more or less comes than it declares is refused.
    """
    limit = droplet["environment_variables"]["VCAP_APPLICATION"]["limits"]["disk"] * 1024 * 1024
    try:
        with FileBits.of_file(package) as bits:
            check_archive(bits, replace(archive_limits(limits), max_unpacked_size=limit))
            files = Files.of(bits)
            built = detect(bits, files, droplet["buildpack"])
            with (
                target.open("wb") as file,
                gzip.GzipFile("", "wb", COMPRESSION, file, mtime=0) as packed,
                tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
            ):
                for place, entry in files.in_order:
                    _add(tar, bits, f"./app/{place}", entry)
                info = {
                    "detected_buildpack": built.buildpack,
                    "start_command": built.process_types.get("web", ""),
                }
                _add_file(tar, "./staging_info.yml", json.dumps(info).encode())
                for folder in ("./logs", "./tmp"):
                    _add_folder(tar, folder)
    except BitsAtFault as fault:
        raise CannotBuild(str(fault)) from None
    return built


@dataclass(frozen=True)
class Files:
    """Where each entry of a package is unpacked to, in the zip's order."""

    in_order: list[tuple[str, Entry]]
    regular: dict[str, Entry]

    @classmethod
    def of(cls, bits: Bits) -> Files:
        """Raises `CannotBuild` where two entries are in each other's way; `BitsAtFault`."""
        in_order: list[tuple[str, Entry]] = []
        regular: dict[str, Entry] = {}
        leaves: set[str] = set()  # files and links
        folders: set[str] = set()
        for entry in entries_of(bits):
            name = name_of(entry)
            parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
            is_folder = name.endswith(("/", "\\")) or stat.S_ISDIR(entry.mode)
            if len(parts) > MAX_DEPTH:
                raise CannotBuild(f"Entry {name[:100]!r} is deeper than {MAX_DEPTH} folders")
            if not parts:
                if is_folder:
                    continue
                raise CannotBuild(f"Entry {name!r} has no name")
            place = "/".join(parts)
            above = ["/".join(parts[:depth]) for depth in range(1, len(parts))]
            if (
                not leaves.isdisjoint(above)
                or (place in leaves)
                or (not is_folder and place in folders)
            ):
                raise CannotBuild(f"Entry {name!r} is in the way of another")
            folders.update(above)
            if is_folder:
                if place not in folders:
                    in_order.append((place, entry))
                folders.add(place)
                continue
            leaves.add(place)
            in_order.append((place, entry))
            if not stat.S_ISLNK(entry.mode):
                regular[place] = entry
        return cls(in_order, regular)


def detect(bits: Bits, files: Files, wanted: str | None) -> Built:
    """How the app is started. Raises `CannotBuild`."""
    if wanted not in (None, PROCFILE, STATIC):
        raise CannotBuild(f"This builder has no buildpack {wanted!r}, only {PROCFILE} and {STATIC}")
    procfile = files.regular.get("Procfile")
    if wanted != STATIC and procfile is not None:
        return Built(_processes(bits, procfile), PROCFILE)
    if wanted != PROCFILE and "index.html" in files.regular:
        return Built({"web": SERVE_STATIC}, STATIC)
    raise CannotBuild(
        "This builder compiles nothing: the package needs a Procfile, or an index.html"
        if wanted is None
        else f"The package has no {'Procfile' if wanted == PROCFILE else 'index.html'}"
    )


def _processes(bits: Bits, procfile: Entry) -> dict[str, str]:
    if procfile.uncompressed > MAX_PROCFILE:
        raise CannotBuild(f"The Procfile is larger than {MAX_PROCFILE} bytes")
    try:
        lines = _whole(bits, procfile).decode("utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise CannotBuild("The Procfile is not UTF-8") from None
    processes: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _PROCESS.fullmatch(line.strip())
        if match is None:
            raise CannotBuild(f"Line {number} of the Procfile is not 'process: command'")
        processes[match[1]] = match[2]
    if not processes:
        raise CannotBuild("The Procfile names no process")
    faults = faults_of_report(BuildReport("0" * 40, processes, PROCFILE))
    if faults:
        raise CannotBuild(f"The Procfile can't be used: {', '.join(faults)}")
    return processes


def _whole(bits: Bits, entry: Entry) -> bytes:
    content = Content(bits, entry)
    pieces = []
    while piece := content.read(CHUNK):
        pieces.append(piece)
    return b"".join(pieces)


def _add(tar: tarfile.TarFile, bits: Bits, name: str, entry: Entry) -> None:
    if stat.S_ISLNK(entry.mode):
        info = tarfile.TarInfo(name)
        info.type = tarfile.SYMTYPE
        info.linkname = _whole(bits, entry).decode("utf-8", "surrogateescape")
        tar.addfile(info)
    elif stat.S_ISDIR(entry.mode) or entry.name.endswith((b"/", b"\\")):
        _add_folder(tar, name)
    else:
        info = tarfile.TarInfo(name)
        info.size = entry.uncompressed
        info.mode = stat.S_IMODE(entry.mode) & 0o777 or 0o644
        content = Content(bits, entry)
        tar.addfile(info, content)
        content.read(1)  # an empty file's end was not looked at yet


def _add_folder(tar: tarfile.TarFile, name: str) -> None:
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE
    info.mode = 0o755
    tar.addfile(info)


def _add_file(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, BytesIO(content))
