"""Printing: plain aligned text on stdout, readable without colour; JSON where asked."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Any, Final

_LEAST_ROOM: Final = 30
"""Columns that the last one has at least, however narrow the screen."""


def print_json(value: Any) -> None:
    """The value as one indented JSON document; what is not known is null."""
    sys.stdout.write(json.dumps(value, default=_plain, indent=2, ensure_ascii=False) + "\n")


def print_rows(rows: Sequence[Sequence[str]]) -> None:
    """Columns aligned by their widest entry, the last one in as many lines as the terminal needs."""
    sys.stdout.write(align(rows, terminal_columns()))


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns with titles; where the screen is too narrow for them, each row as a list of its own."""
    sys.stdout.write(tabled(head, rows, terminal_columns()))


def tabled(head: Sequence[str], rows: Sequence[Sequence[str]], columns: int | None) -> str:
    """The table as `print_table` prints it; with no limit on columns, a line for each row."""
    lines = align([row for row in (head, *rows) if any(row)], None)
    if columns is None or max(map(len, lines.splitlines()), default=0) <= columns:
        return lines
    blocks = []
    for first, *cells in rows:
        told = [f"{title}: {cell}" if title else cell for title, cell in zip(head[1:], cells, strict=True) if cell]
        lines_of = [textwrap.wrap(each, max(_LEAST_ROOM, columns - 2), break_long_words=False) for each in told]
        blocks += [first] if first else []
        blocks += [f"  {line}" for wrapped in lines_of for line in wrapped]
    return "".join(f"{line}\n" for line in blocks)


def align(rows: Sequence[Sequence[str]], columns: int | None) -> str:
    """The rows as `print_rows` prints them; with no limit on columns, a line each."""
    lines = []
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    indent = sum(widths[:-1]) + 2 * len(widths[:-1])
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:-1], widths[:-1], strict=True)]
        last = [row[-1]]
        if columns is not None and indent + len(row[-1]) > columns:
            room = max(_LEAST_ROOM, columns - indent)
            last = textwrap.wrap(row[-1], room, break_on_hyphens=False, break_long_words=False) or last
        lines.append("  ".join([*cells, last[0]]).rstrip())
        lines += [" " * indent + more for more in last[1:]]
    return "".join(f"{line}\n" for line in lines)


def terminal_columns() -> int | None:
    """How wide the screen is; None where stdout goes elsewhere, and lines are for programs to read."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers with their runs drawn together: `0-3,8,10-11`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number])
    return ",".join("-".join(map(str, run)) for run in runs)


def known(value: object, unit: str = "") -> str:
    """A value for people; a dash where it is not known."""
    return "–" if value is None else f"{value}{unit}"


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value)
