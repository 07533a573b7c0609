"""Identifiers made of digits: one pass finds groups of digits, tables say what they can be.

A *run* is digits with separators between: spaces, line breaks, hyphens, dots, slashes, underscores, brackets.
Candidates are taken from it by shape: every single group; the whole run, each of its lines, cells and words, however
they are grouped; what one line break or one cell's end cuts in two; groups in a row with the same sign between them;
and any groups in a row whose lengths are the shape of a known identifier, such as 4-4-4-4. So a number may be written
with a space after every digit, and three numbers in a row do not make nine others.

A candidate that passes a rule's check is found where a word of the rule's context is near or heads its column; and
without one where the rule stands alone (by chance one random number in a hundred passes, or fewer), or where it has a
shape that is the identifier's own; where there is a check, a word of a person's record (`identity`: employee, patient)
is context too. Things that are counted (`order`, `sku`) have words too: a nearer one of those
speaks against it. Rules with a check are found by their own words; among those without one the nearest word decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from operator import mul
from typing import Final, NamedTuple

from serving.policy.detect.context import AHEAD, IN_HEADING, Reading, reading_of
from serving.policy.detect.finding import Hit
from serving.policy.detect.fold import View
from serving.policy.detect.lexicon import LEXICON

Shape = tuple[int, ...]
Check = Callable[[str], bool]

_RUN: Final = re.compile(r"[0-9](?<![0-9].)(?:[ \t\n./_()|*'-]{0,4}+[0-9]){8,}+")
_GROUP: Final = re.compile(r"[0-9]++")
_ENDS_WORD: Final = frozenset(" \t\n|")
_ENDS_CELL: Final = frozenset("\t\n|")
_CUTS: Final = (frozenset("\n"), frozenset("\t|"), _ENDS_CELL, _ENDS_WORD)
"""What ends a line, a cell, a cell of one line, a word."""
_LETTERED: Final = re.compile(r"(?<![^\W_])(?:[0-9]++[oil]|[oil]{1,2}[0-9])[0-9oil]*+(?![^\W_])")
_MAY_BE_LETTERED: Final = re.compile(r"[0-9](?:[oil]|(?<=[oil].))")
"""What any such group has, and most texts do not."""
_LOOKS: Final = str.maketrans("oil", "011")
"""Letters that are written, or misread, for digits."""
_NUMBER_SIGN: Final = re.compile(r"(?:^|[\W\d_])n[o°º.]?\.?$")
_MOST_DIGITS: Final = 20
_MOST_GROUPS: Final = 7
_NOWHERE: Final = 1_000_000
_IDENTITY: Final = "identity"
_FEW: Final = 24
"""Characters from a word of counted things to its number."""


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
    near: str | None = None
    """The context whose words make it one. None: only shape, or it stands alone."""
    shapes: frozenset[Shape] = frozenset()
    """Ways to group it that are tried inside a longer run."""
    own: frozenset[Shape] = frozenset()
    """Those among them that need no context."""
    alone: Check | None = None
    """Enough by itself, after the check."""
    is_weak: bool = False
    """Its check is of the form alone: any number of its length may pass."""
    shared: str | None = None
    """A context that it shares with others: it counts where nothing else was found."""
    is_shown: bool = False
    """Its own shapes, or its check where it has none, are so much its own that no word speaks against them."""

    @property
    def is_identity(self) -> bool:
        """Whether a word of a person's record is context enough: where there is a check."""
        return self.near is not None and not self.is_weak


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
    yield from _find_in(view, folded, tables)
    if _MAY_BE_LETTERED.search(folded) is None:
        return
    digits = _LETTERED.sub(_as_digits, folded)
    if digits != folded:
        yield from _find_in(view, digits, tables, known=folded)


def _as_digits(match: re.Match[str]) -> str:
    """A group with letters that look like digits as digits, if a third of it are digits anyway."""
    token = match[0]
    return token.translate(_LOOKS) if sum(map(str.isdigit, token)) * 3 >= len(token) else token


def _find_in(view: View, folded: str, tables: Tables, known: str = "") -> Iterator[Hit]:
    """Runs that read the same in `known` were looked at before."""
    judge: _Judge | None = None
    for run in _RUN.finditer(folded):
        if known and known[run.start() : run.end()] == run[0]:
            continue
        if judge is None:
            judge = _Judge(reading_of(view, LEXICON), folded, tables)
        for candidate in _candidates(folded, run.start(), run.end(), tables):
            yield from judge.hits(candidate)


def _candidates(folded: str, start: int, end: int, tables: Tables) -> Iterator[Candidate]:
    text = folded[start:end]
    if text.isdigit():  # one group, as most runs are
        if len(text) in tables.by_length and not (end < len(folded) and _is_letter(folded[end])):
            yield Candidate(text, start, end, (len(text),), text, _is_glued(folded, start))
        return
    groups = [match.span() for match in _GROUP.finditer(folded, start, end)]
    lengths = [stop - begin for begin, stop in groups]
    glued = _is_glued(folded, start)
    last = len(groups) if end == len(folded) or not _is_letter(folded[end]) else len(groups) - 1
    wanted = tables.by_length
    done: set[tuple[int, int]] = set()
    for first, past in _stretches(folded, groups):
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


def _stretches(folded: str, groups: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The run, its lines, cells and words, and what a line break cuts in two, as indices of groups."""
    count = len(groups)
    if count == 1:
        return
    yield 0, count
    between = [folded[one[1] : two[0]] for one, two in pairwise(groups)]
    if len(set(between)) == 1 and "\n" not in between[0]:
        return
    for cuts in _CUTS:
        first = 0
        for past in (*(index + 1 for index, sign in enumerate(between) if not cuts.isdisjoint(sign)), count):
            if past - first > 1:
                yield first, past
            first = past
    yield from _alike(between)
    yield from _broken(between)


def _alike(between: list[str]) -> Iterator[tuple[int, int]]:
    """Groups in a row with the same sign between them."""
    first = 0
    for index in range(1, len(between) + 1):
        if index == len(between) or between[index] != between[first]:
            yield first, index + 1
            first = index


def _broken(between: list[str]) -> Iterator[tuple[int, int]]:
    """Two words, and two lines, with one line break between."""
    for index, sign in enumerate(between):
        if sign.strip(" \t") == "\n":
            for cuts in (_ENDS_WORD, _ENDS_CELL):
                first, past = index, index + 2
                while first and past - first < _MOST_DIGITS and cuts.isdisjoint(between[first - 1]):
                    first -= 1
                while past <= len(between) and past - first < _MOST_DIGITS and cuts.isdisjoint(between[past - 1]):
                    past += 1
                yield first, past


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


class _Around(NamedTuple):
    """What stands around a candidate."""

    distances: dict[str, int]
    column: frozenset[str]
    heading: frozenset[str]
    order: int
    """How near a word of counted things is."""
    machine: int
    """How near a word of what machines count is."""

    @property
    def is_counted(self) -> bool:
        """Whether it is something else, unless a word says what it is."""
        return min(self.order, self.machine) <= _FEW or "order" in self.column

    def is_own(self, rule: Rule) -> bool:
        """Whether it is the rule's own word that speaks for it, and not a word of a person's record."""
        return rule.near in self.distances or rule.near in self.column

    def is_said(self, name: str) -> bool:
        """Whether a word of this context is near, and nearer than one of counted things; or heads the column."""
        return name in self.column or self.distances.get(name, _NOWHERE) < self.order

    def distance(self, rule: Rule) -> int | None:
        """How near the rule's context is. None: there is none, or it is nearer to something that is counted."""
        if rule.near in self.column:
            return 0
        somebody = self.distances.get(_IDENTITY, _NOWHERE) if rule.is_identity else _NOWHERE
        distance = self.distances.get(rule.near or "", somebody)
        if distance == _NOWHERE:
            return IN_HEADING if rule.near in self.heading and "order" not in self.column else None
        against = min(self.order, self.machine) if rule.is_weak and self.machine <= _FEW else self.order
        return distance if distance <= against else None


class _Judge:
    """What the rules say of the candidates of one text."""

    def __init__(self, reading: Reading, folded: str, tables: Tables) -> None:
        self._reading = reading
        self._folded = folded
        self._rules = {
            length: tuple((rule, self._may_be_near(rule)) for rule in rules)
            for length, rules in tables.by_length.items()
        }
        """By the number of digits; and whether a word of the rule's context may be anywhere in the text."""
        self._of_one_group = {
            length: tuple((rule, is_near) for rule, is_near in rules if is_near or rule.alone is not None)
            for length, rules in self._rules.items()
        }
        """Those that one group without separators can be found by: it has no shape."""

    def _may_be_near(self, rule: Rule) -> bool:
        possible = self._reading.possible
        return rule.near in possible or rule.shared in possible or (rule.is_identity and _IDENTITY in possible)

    def hits(self, candidate: Candidate) -> Iterator[Hit]:
        """Under each label that the candidate is found as."""
        passed = list(self._passed(candidate))
        if not passed:
            return
        around = self._around(candidate)
        found: list[tuple[int, Rule]] = []
        for rule, is_enough, is_shown in passed:
            if is_enough and (is_shown or not around.is_counted):
                yield Hit(candidate.start, candidate.end, rule.label)
            else:
                distance = around.distance(rule)
                if distance is not None:
                    found.append((distance, rule))
        if not found:
            for rule, _, _ in passed:
                if rule.shared is not None and around.is_said(rule.shared):
                    yield Hit(candidate.start, candidate.end, rule.label)
        nearest = min((distance for distance, rule in found if around.is_own(rule)), default=_NOWHERE)
        for distance, rule in found:
            if distance <= nearest or not rule.is_weak:
                yield Hit(candidate.start, candidate.end, rule.label)

    def _passed(self, candidate: Candidate) -> Iterator[tuple[Rule, bool, bool]]:
        """Rules whose check it passes and that may apply; whether they need no word; whether none speaks against."""
        digits, shape, is_glued = candidate.digits, candidate.shape, candidate.is_glued
        is_in_line = not is_glued and "\n" not in candidate.text
        for rule, may_be_near in (self._of_one_group if len(shape) == 1 else self._rules)[len(digits)]:
            is_own = shape in rule.own and is_in_line
            if not (is_own or may_be_near or rule.alone is not None) or not rule.check(digits):
                continue
            is_alone = rule.alone is not None and not is_glued and rule.alone(digits)
            if is_own or may_be_near or is_alone:
                yield rule, is_own or is_alone, rule.is_shown and (is_own or not rule.own)

    def _around(self, candidate: Candidate) -> _Around:
        if candidate.is_glued:
            nothing: frozenset[str] = frozenset()
            glued = dict.fromkeys(self._reading.glued(candidate.start), 0)
            return _Around(glued, nothing, nothing, _NOWHERE, _NOWHERE)
        distances = self._reading.near(candidate.start, candidate.end)
        order, count = self._against(candidate, distances, "order"), self._against(candidate, distances, "count")
        order = min(order, self._against(candidate, distances, "serial"))
        return _Around(distances, *self._reading.headings(candidate.start), order, count)

    def _against(self, candidate: Candidate, distances: dict[str, int], name: str) -> int:
        """How near the word of something that is counted is: it counts where it stands before, on the same line."""
        distance = distances.get(name, _NOWHERE)
        if distance >= AHEAD or (distance and "\n" in self._folded[candidate.start - distance : candidate.start]):
            return _NOWHERE
        return distance


def weighted(digits: str, weights: tuple[int, ...]) -> int:
    """The sum of digits by weights."""
    return sum(map(mul, digits.encode().translate(_VALUES), weights))


_VALUES: Final = bytes.maketrans(b"0123456789", bytes(range(10)))


def luhn(digits: str) -> bool:
    """ISO/IEC 7812-1, annex B: every second digit from the right doubled, digit sums added, a multiple of ten."""
    raw = digits.encode()
    return (sum(raw[-1::-2].translate(_VALUES)) + sum(raw[-2::-2].translate(_DOUBLED))) % 10 == 0


_DOUBLED: Final = bytes.maketrans(b"0123456789", bytes((0, 2, 4, 6, 8, 1, 3, 5, 7, 9)))


def always(_: str) -> bool:
    """The check says enough."""
    return True


def mod_11_10(digits: str) -> bool:
    """ISO/IEC 7064, MOD 11,10: the German and the Croatian tax number."""
    product = 10
    for digit in digits.encode().translate(_VALUES)[:-1]:
        product = ((digit + product) % 10 or 10) * 2 % 11
    return (11 - product) % 10 == int(digits[-1])


def is_day(year: str, month: str, day: str) -> bool:
    """Whether month and day can be; of the year only that a 29 February needs none that is odd."""
    if not ("01" <= month <= "12" and "01" <= day <= "31"):
        return False
    if day == "31" and month in {"02", "04", "06", "09", "11"}:
        return False
    return month != "02" or day <= "28" or (day == "29" and int(year) % 2 == 0)
