"""A site's own words and patterns.

Terms are found by their first word: an index from words to the terms that begin with them, one pass over the text, and
only where any of those words is in it. Patterns run in RE2, whose time is in proportion to the text whatever the
pattern (docs/decisions/0049-a-sites-own-patterns-in-re2.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from serving.errors import BadSettings
from serving.policy.detect.finding import Hit
from serving.policy.detect.fold import View, fold
from serving.policy.detect.vocabulary import SiteVocabulary

_WORD: Final = re.compile(r"[^\W_]+")
_TERM_WORD: Final = re.compile(r"[^\W_]+\*?")
_MEMORY_BYTES: Final = 8 << 20
"""Of one pattern's automaton, which is thrown away and begun anew when it is full."""
Word = tuple[str, bool]
"""A folded word, and whether any ending of it does."""


class Site:
    """The vocabulary made ready. Raises BadSettings for a pattern that RE2 does not take."""

    def __init__(self, vocabulary: SiteVocabulary) -> None:
        self._whole: dict[str, list[tuple[tuple[Word, ...], str]]] = {}
        self._begun: dict[str, list[tuple[tuple[Word, ...], str]]] = {}
        for entry in vocabulary.terms:
            for term in entry.terms:
                words = words_of(term)
                if words:
                    index = self._begun if words[0][1] else self._whole
                    index.setdefault(words[0][0], []).append((words, f"site.{entry.name}"))
        self._lengths = sorted({len(start) for start in self._begun})
        self.patterns: tuple[tuple[str, Any], ...] | None = _compiled(vocabulary)
        """None: RE2 is not installed, and there are patterns."""

    def find_terms(self, view: View) -> Iterator[Hit]:
        """Terms, in any case and with anything but letters and digits between their words."""
        if not self._whole and not self._begun:
            return
        words = frozenset(_WORD.findall(view.folded))
        begun = {
            word: [word[:length] for length in self._lengths if length <= len(word) and word[:length] in self._begun]
            for word in words
        }
        met = {word for word in words if word in self._whole or begun.get(word)}
        if not met:
            return
        places = list(_WORD.finditer(view.folded))
        for index, place in enumerate(places):
            if place[0] not in met:
                continue
            entries = [*self._whole.get(place[0], ())]
            for start in begun.get(place[0], ()):
                entries += self._begun[start]
            for term, label in entries:
                if _stands(term, places, index):
                    yield Hit(place.start(), places[index + len(term) - 1].end(), label)

    def find_patterns(self, view: View) -> Iterator[Hit]:
        """What the site's regular expressions match, but for empty matches."""
        for label, pattern in self.patterns or ():
            for match in pattern.finditer(view.plain):
                if match.end() > match.start():
                    yield Hit(match.start(), match.end(), label)


def words_of(term: str) -> tuple[Word, ...]:
    """What of a term is looked for; nothing of one that could never be found."""
    return tuple((word.removesuffix("*"), word.endswith("*")) for word in _TERM_WORD.findall(fold(term)))


def refusal(regex: str) -> str | None:
    """Why RE2 does not take a regular expression, in its own words; None where it does, or is not installed."""
    try:
        import re2  # noqa: PLC0415 - an extra, where a site has patterns
    except ImportError:
        return None
    try:
        re2.compile(regex, _options(re2))
    except re2.error as error:
        why = error.args[0] if error.args else "it is malformed"
        return why.decode("utf-8", "replace") if isinstance(why, bytes) else str(why)
    return None


def _options(re2: Any) -> Any:
    options = re2.Options()
    options.max_mem = _MEMORY_BYTES
    options.log_errors = False
    return options


def _stands(term: tuple[Word, ...], places: list[re.Match[str]], index: int) -> bool:
    if index + len(term) > len(places):
        return False
    return all(
        place[0].startswith(word) if any_end else place[0] == word
        for (word, any_end), place in zip(term, places[index : index + len(term)], strict=True)
    )


def _compiled(vocabulary: SiteVocabulary) -> tuple[tuple[str, Any], ...] | None:
    if not vocabulary.patterns:
        return ()
    try:
        import re2  # noqa: PLC0415 - an extra, where a site has patterns
    except ImportError:
        return None
    made = []
    for entry in vocabulary.patterns:
        why = refusal(entry.regex)
        if why is not None:
            raise BadSettings(
                f"the pattern of `site.{entry.name}` is not taken: {why}",
                hint="RE2's syntax: no look-around and no references back",
            )
        made.append((f"site.{entry.name}", re2.compile(entry.regex, _options(re2))))
    return tuple(made)
