"""A machine that is not here, by a name such as `4xH100` or by the file that `serve hardware --json` printed there."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from serving.errors import BadFile, FileMissing, UsageError
from serving.hardware.known import KINDS, MOST_GPUS, kind_called, machine
from serving.hardware.machine import Machine
from serving.settings.wording import mistake

HINT: Final = f"make the file on that machine: serve hardware --json > FILE; or name GPUs: 1x{', 1x'.join(KINDS)}"


def described_machine(text: str) -> Machine:
    """The machine of that name or file. Raises UsageError, FileMissing or BadFile, each with the real cause."""
    if not text:
        raise UsageError("`--machine` is empty", hint=HINT)
    count, _, name = re.match(r"(\d*)(x?)(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
    kind = kind_called(name)
    if kind is not None and count and 1 <= int(count) <= MOST_GPUS:
        return machine(kind, int(count))
    path = Path(text)
    if kind is not None and not path.exists():
        message = (
            f"`{text}` does not say how many GPUs" if not count else f"`{text}`: one host has 1 to {MOST_GPUS} GPUs"
        )
        raise UsageError(message, hint=f"for example {'1' if not count else MOST_GPUS}x{kind}")
    return read_machine(path)


def read_machine(path: Path) -> Machine:
    """The machine that a file describes. Raises FileMissing or BadFile."""
    try:
        text = path.read_text(encoding="utf-8")
        tree = json.loads(text)
    except FileNotFoundError:
        raise FileMissing(f"there is no machine file `{path}`, and no GPU is known by this name", hint=HINT) from None
    except OSError as failure:
        raise BadFile(f"cannot read machine file `{path}`: {failure.strerror}", hint=HINT) from None
    except ValueError:
        raise BadFile(f"`{path}` does not describe a machine: it is not JSON", hint=HINT) from None
    if not isinstance(tree, dict) or tree.keys().isdisjoint({"cpu", "memory"}):
        raise BadFile(f"`{path}` does not describe a machine: it has neither `cpu` nor `memory`", hint=HINT)
    try:
        found = Machine.from_json(text)
    except ValidationError as failure:
        first = failure.errors(include_url=False)[0]
        message = f"`{path}` does not describe a machine: `{'.'.join(map(str, first['loc']))}` {mistake(first)}"
        raise BadFile(message, hint=HINT) from None
    for place, number in _negative(dataclasses.asdict(found), ""):
        raise BadFile(f"`{path}` does not describe a machine: `{place}` is {number}, below 0", hint=HINT)
    return found


def _negative(value: Any, place: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, (int, float)) and value < 0:
        yield place, value
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    for name, part in parts:
        yield from _negative(part, f"{place}.{name}".lstrip("."))
