"""A row of the corpus, and how it is known where a value stands in it.

While a text is put together its labelled values stand between signs of Unicode's private use area, which no carrier
escapes or alters. When it is whole they are taken out, and what was between them are the spans: whatever quoting went
on around, the spans are right.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Any, Final

_OPEN, _CLOSE, _FIRST = "\ue000", "\ue001", 0xE100
_MARK: Final = re.compile(f"{_OPEN}(.)|{_CLOSE}")
_PRIVATE: Final = range(0xE000, 0xF900)

PUBLIC_NAME: Final = "name.public"
"""Names of fictional and historic persons: nothing sensitive, and what is said of them is reported apart."""


@dataclass(frozen=True, slots=True)
class Span:
    """Where a value stands: `text[start:end]`, in characters."""

    where: str
    """JSON pointer (RFC 6901) of the string in the row's body; empty for a row that is a text."""
    start: int
    end: int
    label: str
    manner: str
    """How this one is written; `plain` for what the row's own manner cannot be applied to."""


@dataclass(frozen=True, slots=True)
class Row:
    """A text or a request, with all that is labelled in it."""

    id: str
    part: str
    language: str
    carrier: str
    manner: str
    """How the value that the row was made for is written."""
    label: str | None
    """What the row was made for; None for a clean one."""
    template: str
    text: str | None
    body: dict[str, Any] | None
    """A whole body of an OpenAI request; exactly one of `text` and `body` is there."""
    spans: tuple[Span, ...]

    @property
    def is_sensitive(self) -> bool:
        return any(span.label != PUBLIC_NAME for span in self.spans)

    def line(self) -> str:
        """The row as a line of JSON: `text` or `body`, whichever it has."""
        fields = asdict(self)
        fields["is_sensitive"] = self.is_sensitive
        del fields["text" if self.text is None else "body"]
        return json.dumps(fields, ensure_ascii=False)

    def value(self, span: Span) -> str:
        """What the span covers."""
        text = self.text if self.text is not None else str(at_pointer(self.body, span.where))
        return text[span.start : span.end]


def row_of(line: str) -> Row:
    """A row from its line; the inverse of `Row.line`."""
    fields = json.loads(line)
    del fields["is_sensitive"]
    fields["spans"] = tuple(Span(**span) for span in fields["spans"])
    return Row(**{"text": None, "body": None, **fields})


class Marks:
    """The labelled values of one row while it is put together."""

    def __init__(self) -> None:
        self._kinds: list[tuple[str, str]] = []

    def mark(self, value: str, label: str, manner: str) -> str:
        """The value between signs that `taken_out` knows again."""
        self._kinds.append((label, manner))
        return f"{_OPEN}{chr(_FIRST + len(self._kinds) - 1)}{value}{_CLOSE}"

    def taken_out(self, text: str, where: str = "") -> tuple[str, list[Span]]:
        """The text without signs, and the spans that were between them."""
        pieces, spans, at, length, start, kind = [], [], 0, 0, 0, ("", "")
        for found in _MARK.finditer(text):
            piece = text[at : found.start()]
            pieces.append(piece)
            length += len(piece)
            at = found.end()
            if found[1]:
                start, kind = length, self._kinds[ord(found[1]) - _FIRST]
            else:
                spans.append(Span(where, start, length, *kind))
        return "".join([*pieces, text[at:]]), spans

    def taken_out_of(self, value: Any, where: str = "") -> tuple[Any, list[Span]]:
        """The same for every string of a JSON value; no key of a body is ever labelled."""
        if isinstance(value, str):
            return self.taken_out(value, where)
        if isinstance(value, list):
            done = [self.taken_out_of(item, f"{where}/{at}") for at, item in enumerate(value)]
            return [item for item, _ in done], [span for _, spans in done for span in spans]
        if isinstance(value, dict):
            made, found = {}, []
            for key, item in value.items():
                bare, spans = self.taken_out_of(item, f"{where}/{key.replace('~', '~0').replace('/', '~1')}")
                made[key] = bare
                found.extend(spans)
            return made, found
        return value, []


def at_pointer(value: Any, where: str) -> Any:
    """What a JSON pointer names."""
    for token in where.split("/")[1:]:
        key = token.replace("~1", "/").replace("~0", "~")
        value = value[int(key)] if isinstance(value, list) else value[key]
    return value


def strings_of(value: Any, where: str = "") -> list[tuple[str, str]]:
    """Every string of a JSON value with its pointer."""
    if isinstance(value, str):
        return [(where, value)]
    if isinstance(value, list):
        return [found for at, item in enumerate(value) for found in strings_of(item, f"{where}/{at}")]
    if isinstance(value, dict):
        return [
            found
            for key, item in value.items()
            for found in strings_of(item, f"{where}/{key.replace('~', '~0').replace('/', '~1')}")
        ]
    return []


def quoted(text: str) -> str:
    """A string literal of JSON, Python, JavaScript and Go alike; what is not ASCII stays as it is."""
    return json.dumps(text, ensure_ascii=False)


def ascii_escaped(text: str) -> str:
    """JSON text with all that is not ASCII escaped, as many programs write it; marks stay."""

    def escaped(sign: str) -> str:
        return sign if sign.isascii() or ord(sign) in _PRIVATE else json.dumps(sign)[1:-1]

    return "".join(map(escaped, text))
