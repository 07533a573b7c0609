"""Every text in a body of JSON, whoever's API it is for: what is scanned is what is sent."""

from __future__ import annotations

from typing import Final

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
