"""Waiting for a condition, with a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(condition: Callable[[], T], within: float = 15.0, every: float = 0.005) -> T:
    """What `condition` returns as soon as it is true; fails after `within` seconds."""
    deadline = time.monotonic() + within
    pause = threading.Event()
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not so within {within} s: {condition}, which gives {value!r}")
        pause.wait(every)
