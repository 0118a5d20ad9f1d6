"""Makes a server that listens, with waitress's settings as this service needs them."""

from __future__ import annotations

import resource
import socket
from typing import Any

from waitress.adjustments import Adjustments

from adapters.http.server.parser import Admission
from adapters.http.server.server import RATE_WINDOW, Server
from adapters.limits import Limits

CONNECTIONS_SPARE = 256  # descriptors kept for files and the database


def listen(
    address: str,
    app: Any,
    admission: Admission,
    threads: int,
    limits: Limits,
    listening: socket.socket | None = None,
    rate_window: float = RATE_WINDOW,
) -> Server:
    """A server on an address, or on a socket that listens. Raises `OSError`; `ValueError`.

    `rate_window`: seconds over which it is measured how fast a body comes.
    """
    return Server(
        app,
        admission,
        Adjustments(
            listen=address,
            threads=threads,
            ident=None,
            max_request_body_size=1 << 62,  # bodies have limits of their own, by their kind
            # a connection may have a file open, too, and what syncs the file has it as well
            connection_limit=max(64, (_descriptors() - CONNECTIONS_SPARE) // 3),
            backlog=1024,
            # a worker never waits for a client that reads slowly
            outbuf_high_watermark=1 << 62,
            clear_untrusted_proxy_headers=False,  # the task does it
        ),
        limits,
        listening,
        rate_window,
    )


def _descriptors() -> int:
    """How many files this process may have open, raised to what the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = min(hard, 65_536) if hard != resource.RLIM_INFINITY else 65_536
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most
