"""Every text in a body of JSON, whoever's API it is for, and in an answer: what is scanned is what is sent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from serving.policy.body import texts_of
from serving.policy.detect import Part

_LONG_NUMBER: Final = 100_000
"""From here on a number has enough digits to be somebody's."""


def every_text(body: object) -> tuple[Part, ...]:
    """All strings, names of fields and long numbers of a parsed body, in its order, each with its JSON pointer."""
    found: list[Part] = []
    waiting: list[tuple[str, object]] = [("", body)]
    while waiting:
        where, value = waiting.pop()
        if isinstance(value, str):
            found.append(Part(where, value))
        elif isinstance(value, dict):
            for name, below in reversed(value.items()):
                place = f"{where}/{name.replace('~', '~0').replace('/', '~1')}"
                waiting += [(place, below), (place, name)]
        elif isinstance(value, list):
            waiting += [(f"{where}/{at}", below) for at, below in reversed(list(enumerate(value)))]
        elif isinstance(value, int | float) and abs(value) >= _LONG_NUMBER:
            found.append(Part(where, repr(value)))
    return tuple(found)


def texts_of_answer(raw: bytes) -> tuple[str, ...] | None:
    """The texts of an answer as it was sent to the client, whole or as events; None where it cannot be read.

    The pieces of a stream are put together by the place that they stand at, so that no text is cut.
    """
    try:
        if not raw.lstrip().startswith((b"data:", b":", b"event:")):
            return texts_of(json.loads(raw))
        joined: dict[str, list[str]] = {}
        for line in raw.split(b"\n")[:-1]:  # what stands behind the last line's end was cut off
            if line.startswith(b"data:") and line[5:].strip() != b"[DONE]":
                _join("", json.loads(line[5:]), joined)
        return tuple(map("".join, joined.values()))
    except (ValueError, RecursionError):
        return None


def _join(where: str, value: Any, joined: dict[str, list[str]]) -> None:
    if isinstance(value, str):
        joined.setdefault(where, []).append(value)
    elif isinstance(value, Mapping):
        place = f"{where}[{value['index']}]" if isinstance(value.get("index"), int) else where
        for name, below in value.items():
            _join(f"{place}/{name}", below, joined)
    elif isinstance(value, list):
        for below in value:
            _join(where, below, joined)
