"""`packtrail checkpoint`: signs what the log is now, in a line that is to be kept elsewhere."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from typing import Any

from adapters.proof.checkpoints import UnsoundHead, sign_head
from adapters.proof.signing import load_signing_key, make_signing_key
from entrypoints.proof import COULD_NOT, open_log, reporting
from entrypoints.settings import Settings


def add_checkpoint(commands: Any) -> argparse.ArgumentParser:
    """Adds the command; its parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "checkpoint",
        help="sign the head of the log, to be kept elsewhere",
        description="Prints a line of JSON that tells the newest event's position and hash, signed "
        "with Ed25519 by the key in PACKTRAIL_CHECKPOINT_KEY, which is made at its first use. "
        "Collect the lines where nobody who can write to the database can: packtrail checkpoint "
        ">> checkpoints.jsonl. packtrail verify --checkpoint checks them. It exits with 1 if the "
        "newest event does not follow from the one before, and with 2 if there is nothing to sign.",
    )
    parser.add_argument(
        "--public-key",
        action="store_true",
        help="print the public key (PEM) that checkpoints are checked with, and sign nothing",
    )
    parser.set_defaults(run=reporting(_run), trouble=COULD_NOT)
    return parser


def _run(settings: Settings, options: argparse.Namespace) -> int:
    make_signing_key(settings.checkpoint_key)
    key = load_signing_key(settings.checkpoint_key)
    if options.public_key:
        print(key.public.pem, end="")
        return 0
    with closing(open_log(settings)) as log:
        try:
            checkpoint = sign_head(log, key)
        except UnsoundHead as error:
            print(f"packtrail: {error}", file=sys.stderr)
            return 1
    print(checkpoint.line)
    return 0
