"""Texts inside a text: escapes undone, base64, hexadecimal and percent-encoding decoded. Once, not again inside.

The text as it stands is scanned too, so that an escape which was put there to destroy something (`%41111…`) hides
nothing. What was decoded is never longer than what it came from.
"""

from __future__ import annotations

import binascii
import html
import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_ESCAPE: Final = re.compile(
    r"\\(?:\\n|u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|[nrtbf/\"'\\])|(?:%[0-9a-fA-F]{2})++|&#?[0-9a-zA-Z]{2,7};"
    r"|=\r?\n|=[0-9A-F]{2}(?:=[0-9A-F]{2})++"
)
_SIMPLE: Final = {"n": "\n", "r": "\n", "t": "\t", "b": " ", "f": "\n"}
_STRETCH: Final = re.compile(r"[A-Za-z0-9+/_-]{12,}+(?:\r?\n[A-Za-z0-9+/_-]{12,}+)*+={0,2}+")
_HEX: Final = re.compile(r"(?:[0-9a-fA-F]{2}){9,}+")
_UNREADABLE_CHARS: Final = 256
"""Base64 of more than this that is no text may be anything. Hashes and signatures up to 1,024 bits are shorter."""
_SHOWS: Final = 0.9
_MIN_TEXT: Final = 6


@dataclass(frozen=True, slots=True)
class Decoded:
    """A text made from stretches of another one."""

    text: str
    starts: tuple[int, ...]
    """Where each stretch begins in `text`; ascending, the first at 0."""
    sources: tuple[tuple[int, int, bool], ...]
    """For each: where it came from, and whether character by character."""

    def origin(self, start: int, end: int) -> tuple[int, int]:
        """Offsets in the text that this one was made from."""
        return self._at(start)[0], self._at(max(start, end - 1))[1]

    def _at(self, offset: int) -> tuple[int, int]:
        index = bisect_right(self.starts, offset) - 1
        begin, end, is_literal = self.sources[index]
        if is_literal:
            begin += offset - self.starts[index]
            return begin, begin + 1
        return begin, end


class _Builder:
    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._starts: list[int] = []
        self._sources: list[tuple[int, int, bool]] = []
        self._length = 0

    def add(self, piece: str, begin: int, end: int, *, literal: bool = False) -> None:
        if piece:
            self._pieces.append(piece)
            self._starts.append(self._length)
            self._sources.append((begin, end, literal))
            self._length += len(piece)

    def made(self) -> Decoded | None:
        return Decoded("".join(self._pieces), tuple(self._starts), tuple(self._sources)) if self._pieces else None


def unescaped(text: str) -> Decoded | None:
    """The text with its JSON, percent, HTML and quoted-printable escapes undone; None where there are none."""
    if not ("\\" in text or "%" in text or "&" in text or "=\n" in text or "=D" in text or "=3" in text):
        return None
    builder, done = _Builder(), 0
    for match in _ESCAPE.finditer(text):
        piece = _undone(match[0])
        if piece is not None:
            builder.add(text[done : match.start()], done, match.start(), literal=True)
            builder.add(piece, match.start(), match.end())
            done = match.end()
    if not done:
        return None
    builder.add(text[done:], done, len(text), literal=True)
    return builder.made()


def _undone(escape: str) -> str | None:
    first = escape[0]
    if first == "\\":
        kind = escape[1]
        if kind in "ux":
            code = int.from_bytes(bytes.fromhex(escape[2:]))
            return chr(code) if not 0xD800 <= code < 0xE000 else " "
        return "\n" if escape == "\\\\n" else _SIMPLE.get(kind, kind)
    if first == "%":
        return _text(bytes.fromhex(escape.replace("%", "")))
    if first == "=":
        return "" if escape.endswith("\n") else _text(bytes.fromhex(escape.replace("=", "")))
    piece = html.unescape(escape)
    return None if piece == escape else piece


def _text(raw: bytes) -> str | None:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def packed(text: str) -> Iterator[tuple[str | None, int, int]]:
    """Stretches of base64 or hexadecimal: their text and where they stand; None for what is long and no text."""
    for match in _STRETCH.finditer(text):
        stretch = match[0]
        found = _from_hex(stretch) if _HEX.fullmatch(stretch) else _from_base64(stretch)
        if found is not None:
            yield found, match.start(), match.end()
        elif len(stretch) > _UNREADABLE_CHARS and _is_dense(stretch):
            yield None, match.start(), match.end()


def _is_dense(stretch: str) -> bool:
    """Whether it looks like base64 rather than a line of dashes, a long identifier or digits."""
    kinds = (str.isdigit, str.isupper, str.islower)
    return all(sum(map(kind, stretch)) * 50 > len(stretch) for kind in kinds) and len(set(stretch)) > 20


def _from_hex(stretch: str) -> str | None:
    return _shown(bytes.fromhex(stretch)) if not stretch.isdigit() else None


def _from_base64(stretch: str) -> str | None:
    body = stretch.replace("\n", "").replace("\r", "").rstrip("=").replace("-", "+").replace("_", "/")
    body = body[: len(body) - (len(body) % 4 == 1)]
    try:
        return _shown(binascii.a2b_base64(body + "=" * (-len(body) % 4)))
    except binascii.Error:
        return None


def _shown(raw: bytes) -> str | None:
    """The text that the bytes are; a last character that was cut is left out."""
    for cut in (0, 1, 2, 3):
        text = _text(raw[: len(raw) - cut] if cut else raw)
        if text is not None:
            break
    else:
        return None
    if len(text) < _MIN_TEXT:
        return None
    shown = sum(map(str.isprintable, text)) + text.count("\n") + text.count("\t") + text.count("\r")
    return text if shown >= _SHOWS * len(text) and _is_meant(text, len(raw)) else None


def _is_meant(text: str, size: int) -> bool:
    """Few random bytes are UTF-8, and of those the short ones mix scripts that do not stand together."""
    return size >= 16 or sum(letter < "\u0500" for letter in text) * 10 >= 9 * len(text)


def unpacked(text: str) -> tuple[Decoded | None, bool]:
    """All that was packed, with a blank line between; and whether something long could not be read."""
    builder, is_unreadable = _Builder(), False
    for found, begin, end in packed(text):
        if found is None:
            is_unreadable = True
        else:
            builder.add(found + "\n\n", begin, end)
    return builder.made(), is_unreadable
