"""A detector of e-mail addresses, so small that what the judge must say of it can be counted by hand."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from benchmarks.corpus import strings_of

MAIL = re.compile(r"[\w.-]+@[\w-]+(?:\.[\w-]+)+")


@dataclass(frozen=True, slots=True)
class Part:
    where: str
    text: str


@dataclass(frozen=True, slots=True)
class Span:
    where: str
    start: int
    end: int
    label: str


@dataclass(frozen=True, slots=True)
class Finding:
    verdict: str
    spans: tuple[Span, ...]


def parts_of(body: dict[str, Any]) -> tuple[Part, ...]:
    return tuple(Part(where, text) for where, text in strings_of(body))


class Scanner:
    """Says `email`, and nothing else, of whatever has the form of one."""

    def scan(self, parts: tuple[Part, ...]) -> Finding:
        spans = tuple(Span(part.where, *found.span(), "email") for part in parts for found in MAIL.finditer(part.text))
        return Finding("SENSITIVE" if spans else "CLEAN", spans)
