"""Printing: plain aligned text on stdout, readable without colour; JSON where asked."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import Any


def print_json(value: Any) -> None:
    """The value as one indented JSON document; what is not known is null."""
    sys.stdout.write(json.dumps(value, default=_plain, indent=2, ensure_ascii=False) + "\n")


def print_rows(rows: Sequence[Sequence[str]]) -> None:
    """Columns aligned by their widest entry."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    for row in rows:
        sys.stdout.write("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n")


def known(value: object, unit: str = "") -> str:
    """A value for people; a dash where it is not known."""
    return "–" if value is None else f"{value}{unit}"


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value)
