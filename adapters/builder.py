"""A builder that is real and small: it makes droplets of packages that need no compiling.

It is also the worked example of an integration. It takes part by what is open to everybody:
it hears `droplet.staging_requested` on the queue `packtrail.staging`, fetches the droplet
and the package's bits over HTTP with a token, puts what it made where the service may take
it from, and answers on the queue `packtrail.commands`.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import re
import stat
import tarfile
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

from adapters.bits import FileBits
from adapters.bus.bus import COMMANDS, STAGING, Abandoned, Bus, Consumer
from adapters.bus.messages import Message
from adapters.unzip import Content, entries_of, name_of
from domain.archive import ArchiveLimits, check_archive
from domain.droplet_processing import BuildReport, faults_of_report
from domain.errors import BitsAtFault
from domain.ports import Bits
from domain.zip_records import Entry

logger = logging.getLogger("packtrail.builder")

SOURCE = "/packtrail/builder"
PROCFILE, STATIC = "procfile", "static"  # the buildpacks that this builder has
MAX_PROCFILE = 64 * 1024  # bytes
SERVE_STATIC = "python3 -m http.server ${PORT:-8080}"
CHUNK = 1 << 20  # bytes read at a time
COMPRESSION = 4  # of gzip: 1 is fast, 9 is small
REQUEST_SECONDS = 30.0  # without a byte of an answer
MAX_PAUSE = 10.0  # seconds between tries while something is away
MAX_REASON = 4000  # characters
MAX_DEPTH = 250  # folders in each other
AWAY = (OSError, HTTPException)  # the API, the broker or the disk
_PROCESS = re.compile(r"([A-Za-z0-9_-]+):[ \t]*(\S.*)")


class CannotBuild(Exception):
    """The package is no droplet for this builder; the message is a sentence for the developer."""


class Delivery(Protocol):
    """Where droplets are put for the service to take."""

    def deliver(self, guid: str, droplet: Path) -> dict[str, str]:
        """Moves the file there. Returns the fields that name it in `droplet.staged`."""


@dataclass(frozen=True)
class Api:
    """The service's HTTP API. `token` gives a bearer token that is good now."""

    url: str
    token: Callable[[], str]

    def show(self, path: str) -> dict[str, Any] | None:
        """What a path shows; None if it is not there. Raises `OSError`."""
        try:
            with self.open(path) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except urllib.error.HTTPError as error:
            if error.code == 404:
                error.close()
                return None
            raise

    def open(self, path: str) -> HTTPResponse:
        """Raises `OSError`: `HTTPError` for an answer that is none, `URLError` without one."""
        request = urllib.request.Request(self.url + path)  # noqa: S310 - an operator's URL
        # a bucket that the service redirects to must not see the token
        request.add_unredirected_header("Authorization", f"bearer {self.token()}")
        answer: HTTPResponse = urllib.request.urlopen(  # noqa: S310
            request, timeout=REQUEST_SECONDS
        )
        return answer


class Builder:
    """Handles the messages of the queue `packtrail.staging`."""

    def __init__(self, bus: Bus, api: Api, delivery: Delivery) -> None:
        self._bus = bus
        self._api = api
        self._delivery = delivery
        self._stopping = threading.Event()

    def stop(self) -> None:
        """What waits for something that is away waits no longer."""
        self._stopping.set()

    def __call__(self, message: Message) -> None:
        """Raises `Abandoned` if the message is to come again."""
        guid = str(json.loads(message.body)["subject"])
        pause = 0.25
        while True:
            try:
                return self._stage(guid)
            except urllib.error.HTTPError as error:
                error.close()
                if error.code < 500 and error.code != 429:
                    logger.error("droplet %s is left: the API answers %s", guid, error)
                    return None
                logger.warning("droplet %s waits: %s", guid, error)
            except AWAY as error:
                logger.warning("droplet %s waits: %s: %s", guid, type(error).__name__, error)
            if self._stopping.wait(pause):
                raise Abandoned
            pause = min(pause * 2, MAX_PAUSE)

    def _stage(self, guid: str) -> None:
        """Makes a droplet, if it is still waited for. Raises `OSError`."""
        droplet = self._api.show(f"/v3/droplets/{guid}")
        if droplet is None or droplet["state"] not in ("PENDING", "STAGING"):
            return  # deleted, or another builder was faster
        self._tell("droplet.staging_started", guid, {})
        try:
            with tempfile.TemporaryDirectory(prefix="packtrail-builder-") as folder:
                package, made = Path(folder, "package.zip"), Path(folder, "droplet.tgz")
                self._fetch(droplet, package)
                built = build(package, made, droplet)
                sha1 = sha1_of(made)
                where = self._delivery.deliver(guid, made)
        except CannotBuild as reason:
            self._tell("droplet.staging_failed", guid, {"error": str(reason)[:MAX_REASON]})
        except AWAY:
            raise
        except Exception:
            logger.exception("droplet %s can't be made", guid)
            self._tell("droplet.staging_failed", guid, {"error": "The builder has failed"})
        else:
            self._tell(
                "droplet.staged",
                guid,
                {
                    **where,
                    "sha1": sha1,
                    "process_types": built.process_types,
                    "buildpack": built.buildpack,
                },
            )
            logger.info("droplet made", extra={"droplet": guid, "buildpack": built.buildpack})

    def _fetch(self, droplet: Mapping[str, Any], target: Path) -> None:
        """Downloads the package. Raises `CannotBuild` if it has no bits any more; `OSError`."""
        path = droplet["links"]["package"]["href"]
        try:
            with self._api.open(f"{path}/download") as answer, target.open("wb") as file:
                while chunk := answer.read(CHUNK):
                    file.write(chunk)
                expected = answer.headers.get("Content-Length")
                if expected is not None and file.tell() != int(expected):
                    raise OSError(f"{file.tell()} bytes came of {expected}")
        except urllib.error.HTTPError as error:
            if error.code not in (404, 422):
                raise
            error.close()
            raise CannotBuild("The package's bits are gone: it was deleted, or expired") from None

    def _tell(self, kind: str, guid: str, data: Mapping[str, Any]) -> None:
        """Sends a command. Its id follows from the droplet: told twice, it is done once."""
        identifier = f"{guid}/{kind}"
        event = {
            "specversion": "1.0",
            "id": identifier,
            "source": SOURCE,
            "type": kind,
            "datacontenttype": "application/json",
            "data": {"guid": guid, **data},
        }
        headers = {"authorization": f"bearer {self._api.token()}"}
        self._bus.send(COMMANDS, Message(identifier, kind, json.dumps(event).encode(), headers))


@dataclass(frozen=True)
class Built:
    process_types: dict[str, str]
    buildpack: str


def build(package: Path, target: Path, droplet: Mapping[str, Any]) -> Built:
    """Makes a droplet (a gzipped tar) of a package (a zip). Raises `CannotBuild`; `OSError`.

    The files are behind `app/`, and beside it is what Cloud Foundry expects of a droplet. The
    same package always makes the same bytes. What counts against the disk limit is what
    really comes out of the zip: an entry of which more or less comes than it declares is refused.
    """
    limit = droplet["environment_variables"]["VCAP_APPLICATION"]["limits"]["disk"] * 1024 * 1024
    try:
        with FileBits.of_file(package) as bits:
            check_archive(bits, ArchiveLimits(limit))
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
        lines = _whole(bits, procfile).decode("utf-8-sig").splitlines()
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


def sha1_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.sha1(usedforsecurity=False)).hexdigest()


class BuilderConsumer:
    """Takes staging requests (a `Part`, see `adapters.leadership`)."""

    def __init__(self, bus: Bus, builder: Builder, concurrency: int = 1) -> None:
        self._builder = builder
        self._consumer = Consumer(bus, STAGING, builder, concurrency)

    def start(self) -> None:
        self._consumer.start()

    def stop(self, timeout: float | None = None) -> bool:
        self._builder.stop()
        return self._consumer.stop(30.0 if timeout is None else timeout)
