"""What stands around a place: words of context, by name, with how far away they are.

A `Lexicon` holds the words of all contexts together. For one place the words before and after it are read once, and the
answer serves every rule: no rule searches the text for its own words. What a text cannot hold at all is known from
its distinct words before any place is looked at.

A stem is met by every word that begins with it; `stem$` by that word alone; `*stem` by every word that has it inside;
`one_two` by two words in a row, each by its own stem, with at most three characters that are no letters between them.
Words in camel case are read whole, and then piece by piece.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import pairwise
from operator import itemgetter
from typing import Final, NamedTuple

from serving.policy.detect.fold import LOOKED_AT, View, fold

BEFORE: Final = 110
AFTER: Final = 50
"""Characters that are read before and after a place."""
AHEAD: Final = BEFORE
"""A word that follows counts as so much farther."""
IN_HEADING: Final = BEFORE + AHEAD
"""How far the heading of a column is."""
_WORD: Final = re.compile(r"[^\W\d_]+")
_BEGINNING: Final = re.compile(rf"[^\W\d_]{{1,{LOOKED_AT}}}")
_CAMEL: Final = re.compile(r"[a-zа-яё][A-ZА-ЯЁ]")
_SHORT: Final = 2
"""A word of a phrase that is no longer stands for itself alone."""
_MOST_GAP: Final = 3
_HEADING_CHARS: Final = 600
_BLANK_LINE: Final = re.compile(r"\n[ \t]*+\n")
_LINES: Final = re.compile(r"[^\n]{0,600}")
_LOOKED_AT_LINES: Final = 4
_DELIMITERS: Final = ("\t", ";", "|", ",")
_LISTED: Final = ("values", "<th", '"header', '"col', '"fields')
_COLUMNS: Final = re.compile(
    r"\((?P<sql>[^()]{3,600})\)\s{0,3}values\b"
    r"|\"(?:columns|headers?|fields|header_row|colnames)\"\s{0,3}:\s{0,3}\[(?P<json>[^\[\]]{3,600})\]"
    r"|<tr[^<>]{0,60}>\s{0,9}(?P<html><th(?:(?!</tr>)[^\n]){3,600})</tr>"
)


class _Phrase(NamedTuple):
    name: str
    is_whole: bool
    """Of the last word."""
    rest: tuple[str, ...]
    """The words that must follow."""
    head: str


class Lexicon:
    """Contexts by name, from strings of stems."""

    def __init__(self, contexts: Mapping[str, str]) -> None:
        self._begun: dict[str, list[_Phrase]] = {}
        self._inside: dict[str, list[_Phrase]] = {}
        for name, text in contexts.items():
            for written in dict.fromkeys(text.split()):
                is_inside, is_whole = written[0] == "*", written[-1] == "$"
                words = [fold(word) for word in re.split(r"[^\w*$]+|_", written.strip("*$")) if word]
                phrase = _Phrase(name, is_whole, tuple(words[1:]), words[0])
                (self._inside if is_inside else self._begun).setdefault(words[0], []).append(phrase)
        self._most = max(map(len, self._begun))
        self._heads: dict[str, list[_Phrase]] = {}
        """By their first letters, as many as a view looks at."""
        for head, phrases in self._begun.items():
            self._heads.setdefault(head[:LOOKED_AT], []).extend(phrases)

    def phrases(self, word: str) -> tuple[_Phrase, ...]:
        """Those that a word begins; whether the rest follows is for the reader."""
        found: list[_Phrase] = []
        for size in range(1, min(len(word), self._most) + 1):
            begun = self._begun.get(word[:size])
            if begun is not None:
                is_word = size == len(word)
                found += [each for each in begun if is_word or (size > _SHORT if each.rest else not each.is_whole)]
        for inside, phrases in self._inside.items():
            if inside in word:
                found += phrases
        return tuple(found)

    def possible(self, view: View) -> frozenset[str]:
        """Names of contexts whose words may be in the text."""
        beginnings = set(view.beginnings)
        for match in _CAMEL.finditer(view.plain):
            piece = _BEGINNING.match(view.folded, match.start() + 1)
            if piece is not None:
                beginnings.update(piece[0][:size] for size in range(1, len(piece[0]) + 1))
        met = {
            phrase.name
            for head in self._heads.keys() & beginnings
            for phrase in self._heads[head]
            if all(word[:LOOKED_AT] in beginnings for word in phrase.rest)
        }
        met.update(phrase.name for inside, found in self._inside.items() if inside in view.folded for phrase in found)
        return frozenset(met)


class _Table(NamedTuple):
    start: int
    """Where its heading ends."""
    delimiter: str
    cells: tuple[frozenset[str], ...]
    whole: frozenset[str]


class Reading:
    """One text read with one lexicon. Answers are kept by place, and live as long as the text's view."""

    def __init__(self, view: View, lexicon: Lexicon) -> None:
        self._folded = view.without_hashes
        self._plain = view.plain
        self._lexicon = lexicon
        self._known: dict[str, tuple[_Phrase, ...]] = {}
        self._tables: dict[int, _Table | None] = {}
        self.possible = lexicon.possible(view)
        """Contexts that may be somewhere in it."""

    def near(self, start: int, end: int) -> dict[str, int]:
        """By name, characters to the nearest word of a context; one that follows is `AHEAD` characters farther."""
        folded = self._folded
        distances: dict[str, int] = {}
        low = max(0, start - BEFORE)
        for name, _, stop in self._met(low, start):
            distances[name] = min(start - stop, distances.get(name, BEFORE))
        high = min(len(folded), end + AFTER)
        for name, begin, _ in self._met(end, high):
            distance = begin - end + AHEAD
            if distance < distances.get(name, IN_HEADING):
                distances[name] = distance
        return distances

    def glued(self, start: int) -> frozenset[str]:
        """Contexts whose word ends right where the place begins."""
        return frozenset(name for name, _, stop in self._met(max(0, start - BEFORE), start) if stop == start)

    def headings(self, start: int) -> tuple[frozenset[str], frozenset[str]]:
        """Contexts of the column that the place is in; and of the whole heading, which is less sure."""
        index = bisect_right(self._blocks, start) - 1
        if index not in self._tables:
            self._tables[index] = self._table(index)
        table = self._tables[index]
        if table is not None and start > table.start:
            line = self._folded[max(table.start, start - _HEADING_CHARS) : start].rpartition("\n")[2]
            at = line.count(table.delimiter)
            column = table.cells[at] if at < len(table.cells) else frozenset()
            if at or column:
                return column, table.whole
        if self._lists:
            at = bisect_right(self._lists, start, key=itemgetter(0)) - 1
            if at >= 0:
                return frozenset(), self._lists[at][1]
        return frozenset(), frozenset()

    def _met(self, low: int, high: int) -> Iterator[tuple[str, int, int]]:
        """Names with the places of their words, in order."""
        words = self._words(low, high)
        for index, (word, begin, stop) in enumerate(words):
            phrases = self._known.get(word)
            if phrases is None:
                phrases = self._known[word] = self._lexicon.phrases(word)
            for phrase in phrases:
                if not phrase.rest:
                    yield phrase.name, begin, stop
                else:
                    last = self._follows(words, index, phrase)
                    if last is not None:
                        yield phrase.name, begin, last

    def _words(self, low: int, high: int) -> list[tuple[str, int, int]]:
        folded, found = self._folded, []
        for match in _WORD.finditer(folded, low, high):
            begin, stop = match.span()
            if (begin == low and begin and folded[begin - 1].isalpha()) or (
                stop == high and stop < len(folded) and folded[stop].isalpha()
            ):
                continue  # a word that is cut is another word
            found.append((match[0], begin, stop))
            written = self._plain[begin:stop]
            if not (written.islower() or written.isupper() or written.istitle()):
                pieces = [begin, *(begin + camel.start() + 1 for camel in _CAMEL.finditer(written)), stop]
                if len(pieces) > 2:
                    found += [(folded[one:two], one, two) for one, two in pairwise(pieces)]
        return found

    def _follows(self, words: list[tuple[str, int, int]], index: int, phrase: _Phrase) -> int | None:
        """Where the phrase ends, if its other words come next."""
        stop = words[index][2]
        for place, stem in enumerate(phrase.rest, 1):
            if index + place >= len(words):
                return None
            word, begin, after = words[index + place]
            is_exact = len(stem) <= _SHORT or (phrase.is_whole and place == len(phrase.rest))
            if not 0 <= begin - stop <= _MOST_GAP or not (word == stem if is_exact else word.startswith(stem)):
                return None
            stop = after
        return stop

    @cached_property
    def _blocks(self) -> list[int]:
        """Where stretches between blank lines begin."""
        return [0, *(match.end() for match in _BLANK_LINE.finditer(self._folded))]

    @cached_property
    def _lists(self) -> list[tuple[int, frozenset[str]]]:
        """Lists of columns of SQL and of JSON and rows of `th`: where they end, and what they name."""
        folded = self._folded
        if not any(sign in folded for sign in _LISTED):
            return []
        return [(match.end(), self._names(match.span(match.lastgroup or 0))) for match in _COLUMNS.finditer(folded)]

    def _table(self, index: int) -> _Table | None:
        """The heading of a table: one of the first lines of the block that names a context beside a delimiter."""
        at, end = self._blocks[index], [*self._blocks[index + 1 : index + 2], len(self._folded)][0]
        for _ in range(_LOOKED_AT_LINES):
            line = _LINES.match(self._folded, at)
            if line is None or at >= end:
                break
            delimiter = max(_DELIMITERS, key=line[0].count)
            if delimiter in line[0]:
                cells = tuple(self._names(cell) for cell in self._cells(at, line[0], delimiter))
                if any(cells):
                    return _Table(line.end(), delimiter, cells, frozenset[str]().union(*cells))
            at = line.end() + 1
        return None

    @staticmethod
    def _cells(at: int, line: str, delimiter: str) -> Iterator[tuple[int, int]]:
        for cell in line.split(delimiter):
            yield at, at + len(cell)
            at += len(cell) + len(delimiter)

    def _names(self, span: tuple[int, int]) -> frozenset[str]:
        return frozenset(name for name, *_ in self._met(*span))


def reading_of(view: View, lexicon: Lexicon) -> Reading:
    """The view's one reading with the lexicon."""
    found = view.memo.get("reading")
    if not isinstance(found, Reading):
        found = view.memo["reading"] = Reading(view, lexicon)
    return found
