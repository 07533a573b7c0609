"""Ranges and conditions of a request for a file (RFC 9110, sections 13 and 14); pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_BYTES: Final = re.compile(r"bytes\s*=\s*(.*)", re.IGNORECASE | re.DOTALL)
_SPAN: Final = re.compile(r"(\d{0,18})-(\d{0,18})")


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes of a file, at least one."""

    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Whole(Span):
    """All of it, which is what goes out where no range was asked for."""


def read_range(header: str | None, size: int) -> Span | None:
    """What of a file of `size` bytes is asked for; None where the file has no such range.

    A header that is none of ours, or cannot be read, is passed over, as the RFC asks. Of several ranges none is served:
    a client that wants them asks for each.
    """
    match = _BYTES.fullmatch((header or "").strip())
    if match is None:
        return Whole(0, size)
    if "," in match[1]:
        return None
    span = _SPAN.fullmatch(match[1].strip())
    if span is None or not (span[1] or span[2]):
        return Whole(0, size)
    if not span[1]:
        length = min(int(span[2]), size)
        return Span(size - length, length) if length else None
    start, end = int(span[1]), int(span[2] or size - 1)
    if span[2] and end < start:
        return Whole(0, size)
    return Span(start, min(end, size - 1) - start + 1) if start < size else None


def is_named(header: str | None, etag: str) -> bool:
    """Whether a list of entity tags (`If-None-Match`) has this one; weak ones count, as the RFC has it."""
    if header is None:
        return False
    return header.strip() == "*" or etag in (tag.strip().removeprefix("W/") for tag in header.split(","))
