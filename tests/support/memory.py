"""How much anonymous memory a process has: what grows if bits are held."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MIB = 1 << 20


def anonymous_memory(pid: int) -> int:
    """RssAnon of a process, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel does not tell RssAnon")


@contextmanager
def little_memory(limit: int) -> Iterator[None]:
    """What is done within takes no more than `limit` bytes of this process's memory at once."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = _status("VmHWM")
    yield
    taken = _status("VmHWM") - before
    assert taken <= limit, f"it took {taken} bytes"


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"the kernel does not tell {name}")


@contextmanager
def little_work(seconds: float) -> Iterator[None]:
    """What is done within takes no more than `seconds` of this process's processor time."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    yield
    after = resource.getrusage(resource.RUSAGE_SELF)
    taken = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert taken <= seconds, f"it took {taken} seconds"
