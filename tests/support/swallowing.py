"""A proxy before PostgreSQL that can swallow its answer to a COMMIT: done, and nobody knows."""

from __future__ import annotations

import contextlib
import socket
import threading

from tests.support.programs import free_port

COMMITTED = b"COMMIT\0"  # the end of PostgreSQL's message CommandComplete


class SwallowingProxy:
    """Forwards connections; the next `armed` answers to a COMMIT are kept, with all behind them.

    The connection stays open: it looks as if the server were thinking.
    """

    def __init__(self, to_port: int) -> None:
        self.port = free_port()
        self.swallowed = 0
        self._to_port = to_port
        self._armed = 0
        self._lock = threading.Lock()
        self._listening = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def arm(self, times: int = 1) -> None:
        with self._lock:
            self._armed += times

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._to_port), timeout=5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            for target, source, answers in ((server, client, False), (client, server, True)):
                threading.Thread(
                    target=self._forward, args=(source, target, answers), daemon=True
                ).start()

    def _forward(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        silent = False
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if answers and not silent and COMMITTED in data:
                    silent = self._swallow()
                if not silent:
                    target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
                end.close()

    def _swallow(self) -> bool:
        with self._lock:
            if not self._armed:
                return False
            self._armed -= 1
            self.swallowed += 1
            return True
