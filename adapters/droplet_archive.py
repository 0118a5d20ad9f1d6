"""Makes a droplet of a package that needs no compiling: a gzipped tar, of a zip."""

from __future__ import annotations

import gzip
import json
import re
import stat
import tarfile
from collections.abc import Iterator, Mapping
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
TELLING = ("Procfile", "index.html")  # the files that tell how an app is started
MAX_DEPTH = 250  # folders in each other
MAX_FOLDERS = 250_000
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
            files = Files(bits)
            built = detect(bits, files, droplet["buildpack"])
            with (
                target.open("wb") as file,
                gzip.GzipFile("", "wb", COMPRESSION, file, mtime=0) as packed,
                _Tar(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
            ):
                for place, entry in files.in_order():
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


class _Tar(tarfile.TarFile):
    """A tar that is only written: it keeps nothing of what it has written."""

    members: list[tarfile.TarInfo]

    def addfile(self, tarinfo: tarfile.TarInfo, fileobj: Any = None) -> None:
        super().addfile(tarinfo, fileobj)
        self.members.clear()


class Files:
    """Where each entry of a package is unpacked to.

    There may be many entries with long names, so none are kept but those that tell how the app
    is started: of places only a number each, which as seldom is another's as 64-bit hashes collide.
    """

    def __init__(self, bits: Bits) -> None:
        """Raises `CannotBuild` where two entries are in each other's way; `BitsAtFault`."""
        self.telling: dict[str, Entry] = {}
        self._bits = bits
        self._leaves: set[int] = set()  # files and links
        self._folders: set[int] = set()
        for place, entry in self._places():
            self._add(place, entry)

    def in_order(self) -> Iterator[tuple[str, Entry]]:
        """Each file, link and folder, in the zip's order; a folder that comes again is left out."""
        seen: set[int] = set()
        for place, entry in self._places():
            if _is_folder(entry):
                key = hash(place)
                if key in seen:
                    continue
                seen.add(key)
            yield place, entry

    def _places(self) -> Iterator[tuple[str, Entry]]:
        for entry in entries_of(self._bits):
            name = name_of(entry)
            parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
            if len(parts) > MAX_DEPTH:
                raise CannotBuild(f"Entry {name[:100]!r} is deeper than {MAX_DEPTH} folders")
            if parts:
                yield "/".join(parts), entry
            elif not _is_folder(entry):
                raise CannotBuild(f"Entry {name!r} has no name")

    def _add(self, place: str, entry: Entry) -> None:
        *above, key = _keys(place)
        is_folder = _is_folder(entry)
        if (
            not self._leaves.isdisjoint(above)
            or key in self._leaves
            or (not is_folder and key in self._folders)
        ):
            raise CannotBuild(f"Entry {name_of(entry)[:100]!r} is in the way of another")
        self._folders.update(above)
        if is_folder:
            self._folders.add(key)
        else:
            self._leaves.add(key)
            if place in TELLING and not stat.S_ISLNK(entry.mode):
                self.telling[place] = entry
        if len(self._folders) > MAX_FOLDERS:
            raise CannotBuild(f"The package has more than {MAX_FOLDERS} folders")


def _is_folder(entry: Entry) -> bool:
    name = name_of(entry)
    return name.endswith(("/", "\\")) or stat.S_ISDIR(entry.mode)


def _keys(place: str) -> list[int]:
    """A number for each folder on the way to a place, and for the place itself."""
    keys = [0]
    for part in place.split("/"):
        keys.append(hash((keys[-1], part)))
    return keys[1:]


def detect(bits: Bits, files: Files, wanted: str | None) -> Built:
    """How the app is started. Raises `CannotBuild`."""
    if wanted not in (None, PROCFILE, STATIC):
        raise CannotBuild(f"This builder has no buildpack {wanted!r}, only {PROCFILE} and {STATIC}")
    procfile = files.telling.get("Procfile")
    if wanted != STATIC and procfile is not None:
        return Built(_processes(bits, procfile), PROCFILE)
    if wanted != PROCFILE and "index.html" in files.telling:
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
    elif _is_folder(entry):
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
