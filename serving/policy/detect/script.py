"""What cannot be judged: scripts whose languages are not covered, and characters that are no text."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from typing import Final

_BEYOND: Final = re.compile(
    r"[^\x00-\u052f\u1d00-\u1fff\u2000-\u214f\u2c60-\u2c7f\ua640-\ua69f\ua720-\ua7ff\ufb00-\ufb06]"
)
"""What is in no block of Latin, Cyrillic or Greek, nor among signs."""
_SCRIPTS: Final = {
    "CJK": "han", "HIRAGANA": "kana", "KATAKANA": "kana", "HANGUL": "hangul", "ARABIC": "arabic", "HEBREW": "hebrew",
    "DEVANAGARI": "devanagari", "THAI": "thai", "GEORGIAN": "georgian", "ARMENIAN": "armenian", "BENGALI": "bengali",
    "TAMIL": "tamil", "ETHIOPIC": "ethiopic", "KHMER": "khmer", "MONGOLIAN": "mongolian",
}  # fmt: skip
_FEW: Final = 12
"""Letters of a script that a text may have: a name, a quoted word."""
_MANY: Final = 100
"""From here on it is a text of its own, whatever stands beside it."""
_LETTER: Final = re.compile(r"[^\W\d_]")
_BROKEN: Final = re.compile(
    "[\x00-\x08\x0e-\x1a\x7f-\x84\x86-\x9f\ufffd\ufffe\uffff\ud800-\udfff\ue000-\uf8ff\U000f0000-\U0010ffff]"
)
_BROKEN_FEW: Final = 3


def unjudged(text: str) -> tuple[str, ...]:
    """Reasons: `language_not_covered:<script>`, `unreadable:binary`."""
    reasons = []
    broken = len(_BROKEN.findall(text))
    if broken > max(_BROKEN_FEW, len(text) // 1_000):
        reasons.append("unreadable:binary")
    if not text.isascii():
        script = _other_script(text)
        if script is not None:
            reasons.append(f"language_not_covered:{script}")
    return tuple(reasons)


def _other_script(text: str) -> str | None:
    scripts: Counter[str] = Counter()
    for letter, count in Counter(_BEYOND.findall(text)).items():
        if letter.isalpha():
            scripts[_script(letter)] += count
    del scripts[""]
    beyond = scripts.total()
    if beyond <= _FEW or (beyond < _MANY and beyond * 5 < len(_LETTER.findall(text))):
        return None
    return scripts.most_common(1)[0][0]


def _script(letter: str) -> str:
    """The first word of a character's name tells its script; mathematical and full-width letters are Latin."""
    name = unicodedata.name(letter, "")
    first = name.split(" ")[0].split("-")[0]
    if first in {
        "MATHEMATICAL",
        "FULLWIDTH",
        "LATIN",
        "GREEK",
        "CYRILLIC",
        "CIRCLED",
        "PARENTHESIZED",
        "SQUARED",
        "NEGATIVE",
        "DOUBLE",
        "MODIFIER",
    }:
        return ""
    if first == "HALFWIDTH":
        return "kana"
    return _SCRIPTS.get(first, first.lower() or "unknown")
