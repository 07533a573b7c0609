"""Structured logs on stderr: one line per event, for people or as JSON, with the request id bound to the task.

A line is an event name and named facts: `log.info("request", extra=facts(route=…, status=200))`. Facts are counts,
names and durations. An exception is logged by its type and place, never by its message, which may quote a client.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Literal, TextIO

if TYPE_CHECKING:
    from types import TracebackType

request_id: Final[ContextVar[str | None]] = ContextVar("request_id", default=None)
"""The id of the request that the current task serves; every line logged from it carries it."""

_FACTS: Final = "facts"
Fact = str | int | float | bool | None


def facts(**named: Fact) -> dict[str, object]:
    """The `extra` of a log call; the names are the keys of the JSON line."""
    return {_FACTS: named}


def setup(form: Literal["text", "json"], level: str, stream: TextIO | None = None) -> None:
    """Send everything that is logged in this process, by us or by libraries, to `stream` (stderr) in one form."""
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.raiseExceptions = False  # a broken stderr must not break the request that was being logged


def _facts_of(record: logging.LogRecord) -> dict[str, Fact]:
    named: dict[str, Fact] = dict(getattr(record, _FACTS, {}))
    bound = request_id.get()
    if bound is not None and "request_id" not in named:
        named["request_id"] = bound
    if record.exc_info is not None and record.exc_info[0] is not None:
        named["exception"] = record.exc_info[0].__name__
        named["at"] = _place(record.exc_info[2])
    return named


def _place(trace: TracebackType | None) -> str:
    frames = traceback.extract_tb(trace)
    return " < ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in reversed(frames[-8:]))


class JsonLines(logging.Formatter):
    """One JSON object per line: time (RFC 3339, UTC), level, logger, event, then the facts."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its newline."""
        line: dict[str, Fact] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **_facts_of(record),
        }
        return json.dumps(line, ensure_ascii=False, default=str)


class TextLines(logging.Formatter):
    """One readable line: local time, level, event, then `name=value`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its newline."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        named = " ".join(f"{name}={_plain(value)}" for name, value in _facts_of(record).items() if value is not None)
        event = " ".join(record.getMessage().splitlines())
        return f"{clock} {record.levelname.lower():7} {event}{' ' if named else ''}{named}"


def _plain(value: Fact) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if not text or " " in text or not text.isprintable() else text
