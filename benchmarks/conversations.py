"""Many small requests from one process that spends as little as it can on each.

Eight clients are eight connections: each has one conversation at a time, and as soon as that
ends, the next one. A client is served when something came for it.
"""

from __future__ import annotations

import selectors
import socket
from collections.abc import Generator, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice

from benchmarks.client import Answer, parse_header

# Yields the parts of a request, is sent its answer, and so on; what it returns came of it.
Conversation = Generator[Sequence[bytes], Answer, str]


@dataclass
class _Client:
    connection: socket.socket
    conversation: Conversation
    received: bytes = b""

    def answer(self) -> Answer | None:
        """The answer, once it is complete."""
        header, end, body = self.received.partition(b"\r\n\r\n")
        if not end:
            return None
        status, headers = parse_header(header)
        length = int(headers.get("content-length", "0"))
        if len(body) < length:
            return None
        self.received = b""
        return Answer(status, headers, body, length)


def hold(port: int, connections: int, conversations: Iterable[Conversation]) -> list[str]:
    """Holds all conversations, some at a time; what came of each, in the order of their ends."""
    waiting = iter(conversations)
    results: list[str] = []
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for conversation in islice(waiting, connections):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client = _Client(connection, conversation)
            selector.register(connection, selectors.EVENT_READ, client)
            _send(connection, next(conversation))
        while selector.get_map():
            for key, _ in selector.select():
                client = key.data
                came = client.connection.recv(256 * 1024)
                assert came, f"the connection ended after {client.received!r}"
                client.received += came
                answer = client.answer()
                if answer is None:
                    continue
                try:
                    _send(client.connection, client.conversation.send(answer))
                    continue
                except StopIteration as end:
                    results.append(end.value)
                try:
                    client.conversation = next(waiting)
                except StopIteration:
                    selector.unregister(client.connection)
                else:
                    _send(client.connection, next(client.conversation))
    return results


def _send(connection: socket.socket, parts: Sequence[bytes]) -> None:
    """Into the socket's buffer, which has room for a small request."""
    sent = connection.sendmsg(parts)
    whole = sum(map(len, parts))
    if sent < whole:
        connection.sendall(b"".join(parts)[sent:])
