"""`packtrail copy-blobs`: takes blobs from a folder into the bucket."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from adapters.blob_moving import blobs_named, copy_blobs
from adapters.object_store import Bucket
from entrypoints.opened import opened
from entrypoints.settings import Settings
from projections.unfinished import WorkReadModel


def add_copy_blobs(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "copy-blobs",
        help="copy blobs from a folder into the bucket",
        description="Copies the blobs that the log names from a folder into the bucket that "
        "PACKTRAIL_BLOB_STORE names, under the file names by which they are downloaded. What is "
        "there already is left, so that it can be repeated. Bits are compared with their SHA-256. "
        "Exits with 1 if a blob is missing or not what it was, or if an upload is unfinished: its "
        "staged bits do not go along.",
    )
    parser.add_argument("folder", metavar="FOLDER", help="such as <data>/blobs of a laptop")
    parser.set_defaults(run=_copy_blobs)
    return parser


def _copy_blobs(settings: Settings, options: argparse.Namespace) -> int:
    folder = Path(options.folder)
    if settings.blob_dir is not None:
        print(
            f"packtrail: PACKTRAIL_BLOB_STORE is {settings.blob_store}, and blobs are copied into "
            "a bucket: s3://bucket/prefix (a folder is copied as it is, with cp -a)",
            file=sys.stderr,
        )
        return 2
    if not folder.is_dir():
        print(f"packtrail: there is no folder {folder}", file=sys.stderr)
        return 1
    with opened(settings) as store:
        store.projector().catch_up()
        bucket = Bucket(settings.blob_store)
        bucket.check()
        bucket.claim(store.identity)
        with tqdm(unit=" blobs", file=sys.stderr, disable=None) as bar:
            outcome = copy_blobs(folder, bucket, blobs_named(store.reader), bar.update)
        for work in WorkReadModel(store.reader).unfinished():
            outcome.faults.append(f"package {work.guid} is unfinished, and waits for {work.step}")
    for fault in outcome.faults:
        print(f"packtrail: {fault}", file=sys.stderr)
    print(f"copied {outcome.copied} blobs, {outcome.there} were there already")
    return 1 if outcome.faults else 0
