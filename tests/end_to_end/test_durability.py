"""Promise 1, seen from the kernel: bits synced, event appended, answer sent, in that order."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from tests.support.service import Service
from tests.support.zips import random_zip

CALLS = "openat,open,fsync,fdatasync,write,pwrite64,sendto,sendmsg"


def strace() -> str:
    """The program; without it the test is skipped, and in CI that is a failure."""
    program = shutil.which("strace")
    if program is None:
        message = "strace is not installed: `make services` installs it"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return program


@pytest.mark.slow
def test_bits_are_synced_then_the_event_is_appended_then_the_answer_is_sent(
    tmp_path: Path,
) -> None:
    """The system calls of an upload come in the order that makes its 200 one for ever."""
    trace = tmp_path / "trace"
    service = Service(
        tmp_path,
        prefix=(strace(), "-D", "-f", "-y", "-s", "64", "-e", f"trace={CALLS}", "-o", str(trace)),
    )
    with service:
        client = service.client()
        guid = client.create()
        before = trace.stat().st_size
        assert client.upload(guid, random_zip(100_000)).status_code == 200
        client.settled(guid)
        service.stop()
    calls = trace.read_bytes()[before:].decode("utf-8", "replace").splitlines()
    calls = _whole_calls(calls)

    file_synced = _first(calls, r"(fsync|fdatasync)\(\d+<[^>]*/staging/[0-9a-f-]+>\)")
    folder_synced = _first(calls, r"fsync\(\d+<[^>]*/staging>\)")
    answered = _first(calls, r"(sendto|sendmsg|write)\(\d+<.*HTTP/1\.1 200 OK")
    log_synced = [
        number
        for number, call in enumerate(calls)
        if re.search(r"(fsync|fdatasync)\(\d+<[^>]*packtrail\.db-wal>\)", call)
        and folder_synced < number < answered
    ]
    log_written = [
        number
        for number, call in enumerate(calls)
        if re.search(r"(pwrite64|write)\(\d+<[^>]*packtrail\.db-wal>", call)
        and folder_synced < number < answered
    ]
    last_bit = max(
        number
        for number, call in enumerate(calls[:answered])
        if re.search(r"(write|pwrite64)\(\d+<[^>]*/staging/[0-9a-f-]+>", call)
    )
    assert last_bit < file_synced < folder_synced
    assert log_written and log_synced, "the event was not appended and synced before the answer"
    assert log_written[0] < log_synced[-1] < answered


def _whole_calls(lines: list[str]) -> list[str]:
    """The calls in the order in which they ended: what one resumes is put back together."""
    begun: dict[str, str] = {}
    calls = []
    for line in lines:
        thread, _, call = line.partition(" ")
        if "<unfinished ...>" in call:
            begun[thread] = call.replace(" <unfinished ...>", "")
        elif "resumed>" in call:
            calls.append(begun.pop(thread, "") + call.split("resumed>", 1)[1])
        else:
            calls.append(call)
    return calls


def _first(calls: list[str], pattern: str) -> int:
    for number, call in enumerate(calls):
        if re.search(pattern, call):
            return number
    raise AssertionError(f"no call matches {pattern!r}")
