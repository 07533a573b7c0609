"""What a site sets for a scan: bounds, what is required, and words and patterns of its own."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from serving.errors import BadSettings

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_TERM_CHARS: Final = 200
_PATTERN_CHARS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Terms:
    """Words and phrases under one name; found as `site.<name>`.

    Case, spacing, look-alike letters and punctuation between words do not matter. A `*` at the end of a word takes any
    ending of it: `проект* мотыл*`.
    """

    name: str
    terms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pattern:
    """A regular expression in RE2's syntax, which takes time in proportion to the text; found as `site.<name>`.

    It is looked for in the text with its marks and compatibility forms undone (`fold.View.plain`), case as written.
    """

    name: str
    regex: str


@dataclass(frozen=True, slots=True)
class SiteVocabulary:
    """What is confidential here and nowhere else. Raises BadSettings for a name or a term that cannot be."""

    terms: tuple[Terms, ...] = ()
    patterns: tuple[Pattern, ...] = ()

    def __post_init__(self) -> None:
        for name in (*(words.name for words in self.terms), *(pattern.name for pattern in self.patterns)):
            if _NAME.fullmatch(name) is None:
                raise BadSettings(
                    f"`{name[:64]}` cannot be the name of a site's own words",
                    hint="lower-case letters, digits, `-` and `_`, at most 64",
                )
        for words in self.terms:
            for term in words.terms:
                if not 0 < len(term) <= _TERM_CHARS or not any(letter.isalnum() for letter in term):
                    raise BadSettings(f"`site.{words.name}` has a term that is empty, too long, or has no letter")
        for pattern in self.patterns:
            if not 0 < len(pattern.regex) <= _PATTERN_CHARS:
                raise BadSettings(
                    f"the pattern of `site.{pattern.name}` is empty or beyond {_PATTERN_CHARS} characters"
                )


@dataclass(frozen=True, slots=True)
class DetectSettings:
    """What a scanner is built from. Sizes in characters of all parts together."""

    most_chars: int = 256_000
    """Longer input is not scanned: UNKNOWN, `too_long`."""
    names: bool = False
    """Names are required of a model; without one the verdict is UNKNOWN, `not_installed:names`."""
    without: frozenset[str] = frozenset()
    """Labels that are not wanted, whole (`medical`) or up to a dot (`pl`). The detectors run all the same."""
    site: SiteVocabulary = field(default_factory=SiteVocabulary)
