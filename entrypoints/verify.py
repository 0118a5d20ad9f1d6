"""`packtrail verify`: checks that the log, and all that is made from it, is what it was."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import orjson
from tqdm import tqdm

from adapters.proof.bits import BitsCheck
from adapters.proof.chain import ChainCheck
from adapters.proof.checkpoints import CheckpointCheck
from adapters.proof.decoding import Decoder
from adapters.proof.findings import Check, Finding, shown
from adapters.proof.read_models import ReadModelCheck
from adapters.proof.reference import Reference
from adapters.proof.rows import Log, Unreadable
from adapters.proof.signing import VerifyingKey, load_signing_key, load_verifying_keys
from adapters.proof.versions import VersionCheck
from adapters.store import projections
from adapters.token_keys import UnusableKey
from domain.errors import StoreAway
from entrypoints.proof import COULD_NOT, open_log, reporting
from entrypoints.settings import Settings
from entrypoints.wiring import open_blobs

WITH_BITS = ("packages", "droplets")  # the read models that tell where bits are


def add_verify(commands: Any) -> argparse.ArgumentParser:
    """Adds the command; its parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "verify",
        help="check that nothing in the log was changed",
        description="Checks the chain of all events up to the newest, every aggregate's versions, "
        "and what else is asked for, in one run, and prints each thing that is wrong, one a line. "
        "It only reads, and works beside a running service. It exits with 0 if nothing is wrong, "
        "with 1 if something is, and with 2 if it could not check. That a log's tail was cut off, "
        "or the log was rewritten from some point on, is found by checkpoints that were kept "
        "elsewhere, and by nothing else.",
    )
    parser.add_argument(
        "--checkpoint",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="a file of lines that packtrail checkpoint has printed; may be repeated",
    )
    parser.add_argument(
        "--key",
        action="append",
        default=[],
        type=Path,
        metavar="PUBLIC.pem",
        help="the public key that checkpoints are checked with, as its auditor has it; may be "
        "repeated. The service's own by default",
    )
    parser.add_argument(
        "--bits",
        action="store_true",
        help="read the bits of every READY package and STAGED droplet, and check their SHA-256",
    )
    parser.add_argument(
        "--read-models",
        action="store_true",
        help="compare the read models with a rebuild, which is made in a temporary file (TMPDIR)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print a JSON object a line; the last is the summary"
    )
    parser.set_defaults(run=reporting(_run), trouble=COULD_NOT)
    return parser


class _Report:
    """Prints findings as they are found, and counts them."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self.counts: Counter[Check] = Counter()
        self.not_checked: list[str] = []

    def tell(self, finding: Finding) -> None:
        self.counts[finding.check] += 1
        line = orjson.dumps(asdict(finding)).decode() if self._as_json else str(finding)
        tqdm.write(line, file=sys.stdout)

    @property
    def total(self) -> int:
        return sum(self.counts.values())


def _run(settings: Settings, options: argparse.Namespace) -> int:
    began = time.monotonic()
    report = _Report(options.json)
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("rb")) for path in options.checkpoint]
        keys = _keys(settings, options) if files or options.key else {}
        log = stack.enter_context(closing(open_log(settings)))
        head = log.head()
        checked: dict[str, int] = {}
        _check_log(log, head, report, checked)
        if files:
            named = list(zip(options.checkpoint, files, strict=True))
            checked["checkpoints"] = _check_checkpoints(log, head, keys, named, report)
        else:
            print(
                "no checkpoint is given: a cut-off tail, or a log rewritten from some point on, "
                "can't be told",
                file=sys.stderr,
            )
        if options.read_models or options.bits:
            _check_what_is_made(settings, options, log, head, report, checked)
    return _sum_up(report, checked, time.monotonic() - began, options.json)


def _keys(settings: Settings, options: argparse.Namespace) -> Mapping[str, VerifyingKey]:
    if options.key:
        return load_verifying_keys(options.key)
    path = settings.checkpoint_key
    if not path.exists():
        raise UnusableKey(
            f"there is no key at {path}: name the public key that the checkpoints' keeper has, "
            "with --key"
        )
    key = load_signing_key(path).public
    print(
        f"signatures are checked with the service's own key {key.id}, which whoever holds it can "
        "sign anything with: an auditor has a copy of the public one, and names it with --key",
        file=sys.stderr,
    )
    return {key.id: key}


def _check_log(log: Log, head: int, report: _Report, checked: dict[str, int]) -> None:
    chain = ChainCheck(report.tell, Decoder().fault_of, log.text)
    total = log.count(head)
    with _progress("chain", total, " events") as progress:
        for rows in log.rows(head):
            if isinstance(rows, Unreadable):
                chain.skip(rows)
            else:
                chain.feed(rows)
                progress(len(rows))
        chain.finish()
    versions = VersionCheck(report.tell, chain.named)
    with _progress("versions", total, " events") as progress:
        for count in versions.run(log.versions(head)):
            progress(count)
    checked["events"] = chain.events
    checked["aggregates"] = versions.aggregates


def _check_checkpoints(
    log: Log,
    head: int,
    keys: Mapping[str, VerifyingKey],
    files: list[tuple[Path, BinaryIO]],
    report: _Report,
) -> int:
    check = CheckpointCheck(log, keys, head, report.tell)
    for path, file in files:
        if not check.run(path, file):
            report.not_checked.append(f"checkpoints: {shown(str(path))} has none")
    return check.checked


def _check_what_is_made(
    settings: Settings,
    options: argparse.Namespace,
    log: Log,
    head: int,
    report: _Report,
    checked: dict[str, int],
) -> None:
    """The read models, and the bits that the log tells of; not what the read models tell of."""
    wanted = [p for p in projections() if options.read_models or p.name in WITH_BITS]
    with tempfile.TemporaryDirectory(prefix="packtrail-verify-") as folder:
        reference = Reference(Path(folder) / "reference.db", wanted, report.tell)
        with closing(reference):
            if options.read_models:
                check = ReadModelCheck(log, reference, wanted, report.tell)
                with (
                    _progress("rebuild", log.count(head), " events") as building,
                    _progress("read models", None, " rows") as comparing,
                ):
                    check.run(building, comparing)
                checked["rows"] = check.rows
                report.not_checked += [
                    f"read models: {name} is being built anew" for name in check.being_built
                ]
            if options.bits:
                with _progress("rebuild", None, " events") as building:
                    targets = dict.fromkeys(WITH_BITS, head)
                    reference.advance(log, targets, building)
                bits = BitsCheck(log, reference, head, open_blobs(settings), report.tell)
                with _progress("bits", bits.total(), "B") as progress:
                    try:
                        bits.run(progress)
                    except StoreAway as error:
                        report.not_checked.append(f"bits: {shown(str(error))}")
                checked["blobs"], checked["bytes"] = bits.blobs, bits.bytes


def _sum_up(report: _Report, checked: dict[str, int], seconds: float, as_json: bool) -> int:
    if as_json:
        summary = {
            "findings": report.total,
            "by_check": {check.value: count for check, count in report.counts.items()},
            "checked": checked,
            "not_checked": report.not_checked,
            "seconds": round(seconds, 3),
        }
        print(orjson.dumps({"summary": summary}).decode())
    told = ", ".join(f"{count} {what}" for what, count in checked.items())
    found = ", ".join(f"{count} by {check}" for check, count in report.counts.items())
    wrong = f"{report.total} things are wrong ({found})" if report.total else "nothing is wrong"
    print(f"{wrong}: {told}, in {seconds:.1f} s", file=sys.stderr)
    for what in report.not_checked:
        print(f"could not check all {what}", file=sys.stderr)
    if report.total:
        return 1
    return COULD_NOT if report.not_checked else 0


@contextmanager
def _progress(what: str, total: int | None, unit: str) -> Iterator[Callable[[int], object]]:
    """A bar on stderr, on a terminal alone: what it is told of comes to what was there."""
    with tqdm(
        total=total, desc=what, unit=unit, unit_scale=True, file=sys.stderr, disable=None
    ) as bar:
        yield bar.update
