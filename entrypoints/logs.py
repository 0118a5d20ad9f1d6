"""Structured logs on stderr: one event a line, with the id of the request it belongs to."""

from __future__ import annotations

import logging
import sys
import traceback
from datetime import UTC, datetime

import orjson
from eventsourcing import persistence
from sqlalchemy import exc

from adapters import context
from adapters.http.faults import ReadModelBehind
from domain.errors import NewerData, NothingRecorded

# Something is away, or newer than we are: where in the code that was found out helps nobody,
# and while it lasts there are many of these lines.
_AWAY = (
    OSError, NewerData, NothingRecorded, ReadModelBehind,
    persistence.OperationalError, persistence.InterfaceError,
    exc.OperationalError, exc.InterfaceError, exc.TimeoutError,
)  # fmt: skip
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """A JSON object a line: time (UTC), level, logger, event, request_id, and what else is told."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            "request_id": context.request_id.get(),
        }
        line.update({k: v for k, v in vars(record).items() if k not in _STANDARD})
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            line["error"] = " ".join(f"{type(error).__name__}: {error}".split())
            if not isinstance(error, _AWAY):
                line["traceback"] = "".join(traceback.format_exception(error))
        return orjson.dumps(line, default=str).decode()


def log_to_stderr(level: int = logging.INFO) -> None:
    # what no line tells need not be found out for each (Logging HOWTO, "Optimization")
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("packtrail").setLevel(level)
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # a full queue is no event
