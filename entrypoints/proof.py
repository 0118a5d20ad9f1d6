"""What `packtrail checkpoint` and `packtrail verify` have in common."""

from __future__ import annotations

import argparse
import sqlite3
import sys
from collections.abc import Callable

import psycopg

from adapters.proof.postgres import PostgresLog
from adapters.proof.rows import Log, NothingToCheck
from adapters.proof.sqlite import SQLiteLog
from adapters.token_keys import UnusableKey
from entrypoints.settings import Settings

COULD_NOT = 2  # the exit code where nothing can be said


def open_log(settings: Settings) -> Log:
    """The log, only to be read. Raises `NothingToCheck`; `sqlite3.Error`, `psycopg.Error`."""
    if settings.sqlite_file is not None:
        return SQLiteLog(settings.sqlite_file)
    return PostgresLog(settings.event_store)


def reporting(
    act: Callable[[Settings, argparse.Namespace], int],
) -> Callable[[Settings, argparse.Namespace], int]:
    """What keeps `act` from doing its work is told in one line, with an exit code of its own."""

    def run(settings: Settings, options: argparse.Namespace) -> int:
        try:
            return act(settings, options)
        except BrokenPipeError:
            raise
        except (NothingToCheck, UnusableKey, OSError, sqlite3.Error, psycopg.Error) as error:
            print(f"packtrail: {' '.join(str(error).split())}", file=sys.stderr)
            return COULD_NOT

    return run
