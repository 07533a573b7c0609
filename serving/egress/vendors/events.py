"""Server-sent events out of bytes that arrive in pieces, and JSON out of what a vendor sends."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Final, NamedTuple, NoReturn

_EVENT_BYTES: Final = 1 << 20
"""Longest single event. A vendor that sends more without an end is broken."""
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_DEEPEST: Final = 128
"""Levels of arrays and objects in one answer; what nests deeper could not be written again."""
_CONTAINERS: Final = 1 << 18
"""Arrays and objects in a whole answer: with all its log-probabilities a token has some forty of them."""
_VALUES: Final = 1 << 21
"""Commas beside those: the numbers of a whole answer of embeddings of this length."""
EVENT_CONTAINERS: Final = 1 << 14
"""Arrays and objects in one event."""
_MOST_TOKENS: Final = 1 << 32
"""Of one request; what says more does not count."""


class NotEvents(Exception):
    """The bytes are no stream of events that anybody would want to hold."""


class Event(NamedTuple):
    """One server-sent event."""

    name: str
    data: bytes


class EventReader:
    """Events as WHATWG's standard reads them: three kinds of line ends, comments, several data lines in one event."""

    __slots__ = ("_data", "_name", "_rest", "_size")

    def __init__(self) -> None:
        self._rest = b""
        self._name = ""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes, *, at_end: bool = False) -> Iterator[Event]:
        """The events that are whole now; at the end, also one whose blank line is missing. Raises NotEvents."""
        text = self._rest + data
        self._rest = b""
        at = 0
        while (end := _LINE_END.search(text, at)) is not None:
            if end[0] == b"\r" and end.end() == len(text) and not at_end:
                break  # a line feed may follow, and belong to it
            self._grow(end.end() - at)
            line, at = text[at : end.start()], end.end()
            if line:
                self._field(line)
            elif (event := self._dispatch()) is not None:
                yield event
        if at_end:
            self._field(text[at:])
            if (event := self._dispatch()) is not None:
                yield event
            return
        if self._size + len(text) - at > _EVENT_BYTES:
            raise NotEvents
        self._rest = text[at:]

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > _EVENT_BYTES:
            raise NotEvents

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._name = value.decode("utf-8", "replace")

    def _dispatch(self) -> Event | None:
        event = Event(self._name, b"\n".join(self._data)) if self._data else None
        self._name, self._data, self._size = "", [], 0
        return event


def read_object(data: bytes, containers: int = _CONTAINERS) -> dict[str, object] | None:
    """The JSON object in what a vendor sent; None where it is none. Lone surrogates become question marks.

    None as well where there are more arrays and objects in it, or more values, than in any answer: whoever parses
    them holds the interpreter for as long, and every stream waits. Those in a text count too.
    """
    nested = data.count(b"[") + data.count(b"{")
    if nested > containers or data.count(b",") > _VALUES:
        return None
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    if nested > _DEEPEST and _is_too_deep(value):
        return None
    if _SURROGATE.search(data) is not None:
        cleaned = _cleaned(value)
        return cleaned if isinstance(cleaned, dict) else None
    return value


def _is_too_deep(value: object) -> bool:
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
    return bool(level)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)


def _cleaned(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    if isinstance(value, dict):
        return {_cleaned(key): _cleaned(item) for key, item in value.items()}
    return value


def part(value: object, name: str) -> dict[str, object]:
    """The object under `name` in an object; an empty one where it is not there."""
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def parts(value: object, name: str) -> list[dict[str, object]]:
    """The objects in the array under `name`; none where it is not there."""
    found = value.get(name) if isinstance(value, dict) else None
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def text(value: object, name: str) -> str:
    """The string under `name`; empty where it is not there."""
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, str) else ""


def count(value: object, name: str) -> int | None:
    """The number of tokens under `name`; None where it is not there, or is no number of tokens."""
    found = value.get(name) if isinstance(value, dict) else None
    return found if type(found) is int and 0 <= found < _MOST_TOKENS else None
