"""Programs of the machine that tests start: found, or loudly missed."""

from __future__ import annotations

import os
import pwd
import socket
from typing import Any


class Missing(Exception):
    """A program is not installed; the text says how to get it."""


def free_port() -> int:
    """A port of the loopback that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def account(name: str) -> dict[str, Any]:
    """How to start a program that refuses to run as root: as another user, where we are root."""
    if os.geteuid() != 0:
        return {}
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        user = pwd.getpwnam("nobody")
    return {"user": user.pw_name, "group": user.pw_gid, "extra_groups": []}
