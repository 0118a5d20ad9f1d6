"""Has the next piece fetched while the last one is looked at."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

T = TypeVar("T")
_AHEAD = 2  # pieces that wait to be looked at
_END = object()


def ahead(pieces: Iterator[T]) -> Iterator[T]:
    """The same pieces; a thread fetches them, and has ended when the iteration has."""
    waiting: queue.Queue[object] = queue.Queue(_AHEAD)
    given_up = threading.Event()

    def fetch() -> None:
        try:
            for piece in pieces:
                waiting.put(piece)
                if given_up.is_set():
                    break
        except Exception as error:  # noqa: BLE001 - handed over
            waiting.put(_Failure(error))
        else:
            waiting.put(_END)

    thread = threading.Thread(target=fetch, name="fetch-ahead", daemon=True)
    thread.start()
    try:
        while (piece := waiting.get()) is not _END:
            if isinstance(piece, _Failure):
                raise piece.error
            yield piece  # type: ignore[misc]  # what else is in the queue is a T
    finally:
        given_up.set()
        while thread.is_alive():
            try:
                waiting.get(timeout=0.01)
            except queue.Empty:
                continue


class _Failure:
    def __init__(self, error: Exception) -> None:
        self.error = error
