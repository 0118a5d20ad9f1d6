"""Does one thing beside what the caller does meanwhile."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class Beside(Generic[T]):
    """A thread that makes one call at a time; it ends with the `with` block.

    It holds up no end of the process, and can be used until then: a pool of the standard
    library refuses what comes after the interpreter has begun to end.
    """

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[Callable[[], T] | None] = SimpleQueue()
        self._outcomes: SimpleQueue[tuple[T] | BaseException] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def begin(self, call: Callable[[], T]) -> None:
        """Begins a call; after each comes a `result`."""
        self._calls.put(call)

    def result(self) -> T:
        """Waits for the call that was begun, and returns or raises what it did."""
        outcome = self._outcomes.get()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome[0]

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                outcome: tuple[T] | BaseException = (call(),)
            except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
                outcome = error
            self._outcomes.put(outcome)
            del call, outcome  # so that nothing is kept until the next one

    def __enter__(self) -> Self:
        """Raises `OSError` where no thread can be started: there are too many just now."""
        try:
            self._thread.start()
        except RuntimeError as error:
            raise OSError(errno.EAGAIN, str(error)) from error
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._calls.put(None)
        self._thread.join()


def one_ahead(calls: Iterable[Callable[[], T]], name: str) -> Iterator[T]:
    """What each call returns, in order; the next one is made while that is being used."""
    with Beside[T](name) as beside:
        begun = False
        for call in calls:
            if begun:
                outcome = beside.result()
                beside.begin(call)
                yield outcome
            else:
                beside.begin(call)
                begun = True
        if begun:
            yield beside.result()
