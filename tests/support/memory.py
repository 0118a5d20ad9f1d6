"""How much anonymous memory a process has: what grows if bits are held."""

from __future__ import annotations

from pathlib import Path

MIB = 1 << 20


def anonymous_memory(pid: int) -> int:
    """RssAnon of a process, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel does not tell RssAnon")
