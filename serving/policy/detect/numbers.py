"""Identifiers made of digits: one pass finds groups of digits, tables say what they can be.

A *run* is digits with separators between: spaces, line breaks, hyphens, dots, slashes, underscores, brackets.
Candidates are taken from it by shape: every single group; the whole run, each of its lines and each of its words,
however they are grouped; and any groups in a row whose lengths are the shape of a known identifier, such as 4-4-4-4.
So a number may be written with a space after every digit, and three numbers in a row do not make nine others.

A candidate that passes a rule's check is found where the rule stands alone, or where it has a shape that is the
identifier's own, or where a word of its context is near. Where several rules take one candidate by context, the nearest
word decides.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from serving.policy.detect.finding import Hit
from serving.policy.detect.fold import Near, View

Shape = tuple[int, ...]
Check = Callable[[str], bool]

_RUN: Final = re.compile(r"(?<![0-9])[0-9](?:[ \t\n./_()|*'-]{0,4}+[0-9]){8,}+")
_GROUP: Final = re.compile(r"[0-9]++")
_LINE: Final = re.compile(r"[^\n]+")
_PIECE: Final = re.compile(r"[^ \t\n|]+")
_LETTERED: Final = re.compile(r"(?<![^\W_])(?:[0-9]++[oil]|[oil]{1,2}[0-9])[0-9oil]*+(?![^\W_])")
_LOOKS: Final = str.maketrans("oil", "011")
"""Letters that are written, or misread, for digits."""
_NUMBER_SIGN: Final = re.compile(r"(?:^|[\W\d_])n[o°º.]?\.?$")
_BLANK_LINE: Final = re.compile(r"\n[ \t]*+\n")
_LINE_CHARS: Final = 400
_FIRST_LINE: Final = re.compile(r"[^\n]{0,400}")
_DELIMITERS: Final = ("\t", ";", "|", ",")
_MOST_DIGITS: Final = 20
_MOST_GROUPS: Final = 7
BEFORE: Final = 90
AFTER: Final = 40


class Candidate(NamedTuple):
    """Digits that may be an identifier."""

    digits: str
    start: int
    end: int
    shape: Shape
    text: str
    """As it stands in the folded text."""
    is_glued: bool
    """A letter stands directly before it."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What makes digits an identifier."""

    label: str
    lengths: tuple[int, ...]
    check: Check
    near: Near | None = None
    """Words that make it one. None: only shape, or it stands alone."""
    shapes: frozenset[Shape] = frozenset()
    """Ways to group it that are tried inside a longer run."""
    own: frozenset[Shape] = frozenset()
    """Those among them that need no context."""
    alone: bool = False
    """The check is enough."""
    unless: re.Pattern[str] | None = None
    """Words directly before it that say that it is something else; only where it stands without context."""


class Tables(NamedTuple):
    """Rules by the number of digits, and all shapes that any of them knows."""

    by_length: dict[int, tuple[Rule, ...]]
    shapes: frozenset[Shape]
    beginnings: frozenset[Shape]
    """The first two groups of each: most runs end the search there."""


def tables_of(rules: tuple[Rule, ...]) -> Tables:
    """The rules as the search wants them."""
    lengths = sorted({length for rule in rules for length in rule.lengths})
    shapes = frozenset(shape for rule in rules for shape in (*rule.shapes, *rule.own) if len(shape) > 1)
    return Tables(
        {length: tuple(rule for rule in rules if length in rule.lengths) for length in lengths},
        shapes,
        frozenset(shape[:2] for shape in shapes),
    )


def find_numbers(view: View, tables: Tables) -> Iterator[Hit]:
    """All that the rules find. Linear: a digit is in at most a constant number of candidates."""
    folded = view.without_hashes
    yield from _find_in(folded, tables)
    digits = _LETTERED.sub(_as_digits, folded)
    if digits != folded:
        yield from _find_in(digits, tables, known=folded)


def _as_digits(match: re.Match[str]) -> str:
    """A group with letters that look like digits as digits, if a third of it are digits anyway."""
    token = match[0]
    return token.translate(_LOOKS) if sum(map(str.isdigit, token)) * 3 >= len(token) else token


def _find_in(folded: str, tables: Tables, known: str = "") -> Iterator[Hit]:
    """Runs that read the same in `known` were looked at before."""
    judge = _Judge(folded, tables)
    for run in _RUN.finditer(folded):
        if known and known[run.start() : run.end()] == run[0]:
            continue
        for candidate in _candidates(folded, run.start(), run.end(), tables):
            yield from judge.hits(candidate)


def _candidates(folded: str, start: int, end: int, tables: Tables) -> Iterator[Candidate]:
    groups = [match.span() for match in _GROUP.finditer(folded, start, end)]
    lengths = [stop - begin for begin, stop in groups]
    glued = _is_glued(folded, start)
    last = len(groups) if end == len(folded) or not _is_letter(folded[end]) else len(groups) - 1
    wanted = tables.by_length
    done: set[tuple[int, int]] = set()
    for first, past in _stretches(folded, start, end, groups):
        size = sum(lengths[first:past]) if past - first <= _MOST_DIGITS else 0
        if past <= last and size in wanted and (first, past) not in done:
            done.add((first, past))
            yield _candidate(folded, groups[first:past], tuple(lengths[first:past]), is_glued=glued and first == 0)
    for index in range(last):
        if lengths[index] in wanted and (index, index + 1) not in done:
            yield _candidate(folded, groups[index : index + 1], (lengths[index],), is_glued=glued and index == 0)
        if tuple(lengths[index : index + 2]) in tables.beginnings:
            for past in range(index + 2, min(index + _MOST_GROUPS, last) + 1):
                shape = tuple(lengths[index:past])
                if shape in tables.shapes and (index, past) not in done:
                    yield _candidate(folded, groups[index:past], shape, is_glued=glued and index == 0)


def _stretches(folded: str, start: int, end: int, groups: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The run, its lines and its words, as indices of groups."""
    if len(groups) == 1:
        return
    yield 0, len(groups)
    for kind in (_LINE, _PIECE):
        first = 0
        for piece in kind.finditer(folded, start, end):
            past = first
            while past < len(groups) and groups[past][1] <= piece.end():
                past += 1
            if past - first > 1:
                yield first, past
            first = past


def _candidate(folded: str, groups: list[tuple[int, int]], shape: Shape, *, is_glued: bool) -> Candidate:
    begin, end = groups[0][0], groups[-1][1]
    digits = "".join(folded[start:stop] for start, stop in groups)
    return Candidate(digits, begin, end, shape, folded[begin:end], is_glued)


def _is_letter(letter: str) -> bool:
    return letter.isalpha() or letter == "_"


def _is_glued(folded: str, start: int) -> bool:
    if start == 0 or not _is_letter(folded[start - 1]):
        return False
    return folded[start - 1] != "_" and _NUMBER_SIGN.search(folded, max(0, start - 5), start) is None


class _Judge:
    """What the rules say of the candidates of one text. It remembers which contexts are nowhere in it."""

    def __init__(self, folded: str, tables: Tables) -> None:
        self._folded = folded
        self._tables = tables
        self._possible: dict[Near, bool] = {}
        self._headings: tuple[list[int], list[str]] | None = None

    def hits(self, candidate: Candidate) -> Iterator[Hit]:
        """Under each label that the candidate is found as."""
        folded = self._folded
        found: list[tuple[int, str]] = []
        before = after = None
        for rule in self._tables.by_length[len(candidate.digits)]:
            is_own = (rule.alone or candidate.shape in rule.own) and not candidate.is_glued
            if not is_own and not self._may_be_near(rule.near):
                continue
            if not rule.check(candidate.digits):
                continue
            if before is None or after is None:
                before = folded[max(0, candidate.start - BEFORE) : candidate.start]
                after = folded[candidate.end : candidate.end + AFTER]
            if is_own and (rule.unless is None or rule.unless.search(before[-30:]) is None):
                yield Hit(candidate.start, candidate.end, rule.label)
            elif rule.near is not None and self._may_be_near(rule.near):
                distance = distance_of(rule.near, before, after, is_glued=candidate.is_glued)
                if distance is None and not candidate.is_glued and self._is_headed(candidate.start, rule.near):
                    distance = BEFORE + AFTER
                if distance is not None:
                    found.append((distance, rule.label))
        if found:
            nearest = min(found)[0]
            yield from (Hit(candidate.start, candidate.end, label) for distance, label in found if distance == nearest)

    def _is_headed(self, start: int, near: Near) -> bool:
        """Whether the number stands in a table, in a column whose heading has the word."""
        if self._headings is None:
            blocks = [0, *(match.end() for match in _BLANK_LINE.finditer(self._folded))]
            lines = [_FIRST_LINE.match(self._folded, begin) for begin in blocks]
            self._headings = blocks, [line[0] if line is not None else "" for line in lines]
        begins, headings = self._headings
        block = bisect_right(begins, start) - 1
        heading = headings[block]
        line = self._folded[max(begins[block], start - _LINE_CHARS) : start].rpartition("\n")[2]
        delimiter = max(_DELIMITERS, key=heading.count)
        cells = heading.split(delimiter)
        column = line.count(delimiter)
        return 0 < len(cells) - 1 >= column and near.pattern.search(cells[column]) is not None

    def _may_be_near(self, near: Near | None) -> bool:
        if near is None:
            return False
        known = self._possible.get(near)
        if known is None:
            known = self._possible[near] = near.may_be_in(self._folded)
        return known


def distance_of(near: Near, before: str, after: str, *, is_glued: bool = False) -> int | None:
    """Characters to the nearest word of a context; one that follows counts as farther. None: there is none."""
    last = None
    for last in near.pattern.finditer(before):  # noqa: B007 - the last one is wanted
        pass
    if is_glued:
        return 0 if last is not None and last.end() == len(before) else None
    behind = None if last is None else len(before) - last.end()
    ahead = near.pattern.search(after)
    if ahead is None:
        return behind
    return ahead.start() + BEFORE if behind is None else min(behind, ahead.start() + BEFORE)


def weighted(digits: str, weights: tuple[int, ...]) -> int:
    """The sum of digits by weights."""
    return sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=False))


def luhn(digits: str) -> bool:
    """ISO/IEC 7812-1, annex B: every second digit from the right doubled, digit sums added, a multiple of ten."""
    total = sum(map(int, digits[-1::-2]))
    return (total + sum(map(_DOUBLED.__getitem__, map(int, digits[-2::-2])))) % 10 == 0


_DOUBLED: Final = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)


def mod_11_10(digits: str) -> bool:
    """ISO/IEC 7064, MOD 11,10: the German and the Croatian tax number."""
    product = 10
    for digit in digits[:-1]:
        total = (int(digit) + product) % 10 or 10
        product = total * 2 % 11
    return (11 - product) % 10 == int(digits[-1])


def is_day(year: str, month: str, day: str) -> bool:
    """Whether month and day can be; of the year only that a 29 February needs none that is odd."""
    if not ("01" <= month <= "12" and "01" <= day <= "31"):
        return False
    if day == "31" and month in {"02", "04", "06", "09", "11"}:
        return False
    return month != "02" or day <= "28" or (day == "29" and int(year) % 2 == 0)
