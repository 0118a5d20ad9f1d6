"""Has read models built by a process beside this one, at the next start of a newer program."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading

from adapters.cores import use_all
from projections.builder import Builder

logger = logging.getLogger("packtrail.replay")


class Replays:
    """Runs `packtrail replay` as a child, for as long as there are read models to be built.

    A process of its own takes nothing from the requests that this one answers.
    """

    def __init__(self, builder: Builder, arguments: list[str]) -> None:
        self._builder = builder
        self._command = [sys.executable, "-m", "entrypoints", "replay", "--begun", *arguments]
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="replays", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float | None = None) -> bool:
        """Ends it; the next one goes on where the child was."""
        self._stopping.set()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        use_all()  # the child has the cores that this thread has
        delay = 1.0
        while not self._stopping.is_set():
            try:
                if not self._builder.begun():
                    return
                if self._replay() == 0:
                    continue
            except Exception:
                logger.exception("read models are not built just now")
            logger.warning("read models are to be built: trying again in %.0f s", delay)
            self._stopping.wait(delay)
            delay = min(delay * 2, 60.0)

    def _replay(self) -> int:
        """The child's exit code."""
        child = subprocess.Popen(  # noqa: S603 - our own program
            self._command,
            stdin=subprocess.PIPE,  # which ends when we do
            stdout=subprocess.DEVNULL,
            process_group=0,
        )
        while child.poll() is None:
            if self._stopping.wait(0.2):
                child.terminate()
                child.wait()
        if child.stdin is not None:
            child.stdin.close()
        return child.returncode
