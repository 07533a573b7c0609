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
from functools import lru_cache
from typing import Final

from serving.policy.detect.fold import fold

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
_AROUND: Final = 160
"""Characters of the text on either side of what was undone."""
_SPOKEN: Final = {
    word: sign
    for sign, words in {
        "-": "тире дефис минус чёрточка dash hyphen minus strich bindestrich",
        " ": "пробел space blank leerzeichen leertaste",
        ".": "точка dot point punkt",
        "/": "слэш слеш дробь slash schrägstrich",
        "@": "собака собачка at klammeraffe arroba",
        "_": "подчёркивание underscore unterstrich",
        " +": "плюс plus",
    }.items()
    for word in words.split()
}
"""Signs as they are said."""
_SPOKEN_BY_FOLD: Final = {fold(word): word for word in _SPOKEN}
_TOO_USUAL: Final = frozenset(map(fold, ("at", "point", "plus", "плюс", "blank", "minus", "минус")))
"""Words of any prose: they make nobody look for the others."""
_TOGETHER: Final = 40
_TOUCHED: Final = 4


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
        if stretch.isdigit():
            continue  # in base64 none of its bytes would be ASCII: a number
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
    return _shown(bytes.fromhex(stretch))


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
    """All that was packed, in what stands around it; and whether something long could not be read."""
    found, is_unreadable = [], False
    for piece, begin, end in packed(text):
        if piece is None:
            is_unreadable = True
        else:
            found.append((piece, begin, end))
    return _in_place(text, found), is_unreadable


def spoken(text: str, words: frozenset[str]) -> Decoded | None:
    """What is spelled out between letters and digits (`112 dash 233`, `name собака mail точка ru`) as the signs.

    `words` are the distinct folded words of the text.
    """
    met = frozenset(words & _SPOKEN_BY_FOLD.keys())
    if met <= _TOO_USUAL:
        return None
    matches = list(_spoken_pattern(met).finditer(text))
    found = []
    for index, match in enumerate(matches):
        begin, end = match.span()
        is_touched = any(map(str.isdigit, text[max(0, begin - _TOUCHED) : begin] + text[end : end + _TOUCHED]))
        is_among = (index > 0 and begin - matches[index - 1].end() < _TOGETHER) or (
            index + 1 < len(matches) and matches[index + 1].start() - end < _TOGETHER
        )
        if is_touched or is_among:
            found.append((_SPOKEN[_SPOKEN_BY_FOLD[fold(match[1])]], begin, end))
    return _in_place(text, found)


@lru_cache(maxsize=64)
def _spoken_pattern(met: frozenset[str]) -> re.Pattern[str]:
    said = "|".join(sorted({_SPOKEN_BY_FOLD[word] for word in met} | {"ät", "черточка", "подчеркивание"}))
    return re.compile(
        rf"(?<=[^\W_]|[)№#.,+])\s{{1,2}}[\[({{]?({said})[\])}}]?\s{{1,2}}(?=[^\W_]|[(№#+])", re.IGNORECASE
    )


def _in_place(text: str, found: list[tuple[str, int, int]]) -> Decoded | None:
    """Pieces in place of what they were, each with what stands around it: that says what they are."""
    builder, done = _Builder(), -1
    for index, (piece, begin, end) in enumerate(found):
        low = max(0, begin - _AROUND)
        if done >= 0 and low > done:
            builder.add("\n\n", done, done + 1)
        start = max(low, done) if done >= 0 else low
        builder.add(text[start:begin], start, begin, literal=True)
        builder.add(piece, begin, end)
        following = found[index + 1][1] if index + 1 < len(found) else len(text)
        done = min(end + _AROUND, following, len(text))
        builder.add(text[end:done], end, done, literal=True)
    return builder.made()
