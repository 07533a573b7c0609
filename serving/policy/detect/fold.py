"""Many ways of writing made one, with the way back to the original offsets.

`plain`: compatibility forms decomposed (NFKD) and marks dropped, digits of all scripts as ASCII, format characters
(zero-width spaces and joiners, soft hyphens, direction marks) removed, every space a space, every dash a hyphen.
`folded` has the same length: lower case, and letters of the Cyrillic and Greek scripts that look like Latin ones
written as those. Words to look for go through the same function, so that `пaспорт` with a Latin letter is the word
that it looks like.

Decomposed rather than composed (NFKC), because a mark that is dropped needs no composing: `й` is `и` in both forms.

Characters are translated one by one from tables that are filled as characters are met; they hold at most what Unicode
has. A text of ASCII alone is taken as it stands, but for its case.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_DROPPED: Final = frozenset({"Mn", "Me", "Cf"})
_BLANK: Final = frozenset("\u115f\u1160\u3164\uffa0")
"""Hangul fillers: letters to Unicode, nothing to the eye."""
_SAME: Final = {
    **dict.fromkeys("\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029", "\n"),
    **dict.fromkeys("\u2212\u2043\u02d7\u2796\u00af\u30fc", "-"),
    **dict.fromkeys("\u2044\u2215\u29f8", "/"),
    **dict.fromkeys("\u00b7\u2022\u2219\u22c5\u30fb\u3002\u2024\u25cf", "."),
    **dict.fromkeys("\u201c\u201d\u201e\u00ab\u00bb", '"'),
    **dict.fromkeys("\u2018\u2019\u201a\u02bc", "'"),
    "\u2800": " ",
}
_SIGNS: Final = {"\u2116": "#", "\u2026": "."}
"""Signs of Russian and of prose whose compatibility forms are longer: `№` would be `No`."""
_ALIKE: Final = dict(
    zip(
        "авекмнорстухіјѕԛԝһԁѵαβεζηικμνορτυχıɡɑłøđᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ",
        "abekmhopctyxijsqwhdvabezhikmnoptyxigalodabcdefghijklmnoprstuvwyz",
        strict=True,
    )
)
"""Of Unicode's confusables (UTS 39) those of one letter; capitals count, since case is folded: `В` looks like `B`."""


def _plain(letter: str) -> str:
    if letter in _SIGNS:
        return _SIGNS[letter]
    out = []
    for piece in unicodedata.normalize("NFKD", letter):
        kind = unicodedata.category(piece)
        if kind in _DROPPED or piece in _BLANK:
            continue
        digit = unicodedata.digit(piece, None)
        if digit is not None:
            out.append(str(digit))
        elif kind == "Zs":
            out.append(" ")
        elif kind == "Pd":
            out.append("-")
        else:
            out.append(_SAME.get(piece, piece))
    return "".join(out)


def _look(letter: str) -> str:
    low = letter.lower()
    if len(low) != 1:
        low = letter
    return _ALIKE.get(low, low)


class _Table:
    """What each character becomes: filled as characters are met, looked up through arrays by their codes."""

    def __init__(self, made: Callable[[str], str]) -> None:
        self._made = made
        self._codes = np.arange(sys.maxunicode + 1, dtype=np.uint32)
        """Of letters that become one letter; of others the letter itself."""
        self._lengths = np.ones(sys.maxunicode + 1, np.uint8)
        self._odd: dict[str, str] = {}
        """Letters that become none, or several."""
        self._met: set[str] = set()

    def written(self, text: str) -> tuple[str, npt.NDArray[np.int64] | None]:
        """The text with each letter made; and where each one's ends, unless every letter became one."""
        distinct = set(text)
        for letter in distinct - self._met:
            made = self._made(letter)
            if len(made) == 1:
                self._codes[ord(letter)] = ord(made)
            else:
                self._odd[letter] = made
                self._lengths[ord(letter)] = len(made)
            self._met.add(letter)
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        written = self._codes[codes].tobytes().decode("utf-32-le", "surrogatepass")
        odd = [letter for letter in distinct if letter in self._odd]
        if not odd:
            return written, None
        if len(odd) > _FEW_ODD:
            written = written.translate({ord(letter): self._odd[letter] for letter in odd})
        else:
            for letter in odd:  # what letters become is made no further, so their order does not matter
                written = written.replace(letter, self._odd[letter])
        return written, np.cumsum(self._lengths[codes], dtype=np.int64)


_FEW_ODD: Final = 32
_PLAIN: Final = _Table(_plain)
_LOOKS: Final = _Table(_look)
_HASH: Final = re.compile(
    r"[0-9a-f](?<![^\W_].)(?:[0-9a-f]{7}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"
    r"|(?:(?<=[a-f])|(?=[0-9]{0,39}+[a-f]))[0-9a-f]{23,}+"
    r"|(?<=[12])[0-9]{3}-[01][0-9]-[0-3][0-9][t ][0-2][0-9]:[0-5][0-9](?::[0-5][0-9](?:[.,][0-9]{1,9})?)?z?"
    r"|(?<=[0-3])[0-9]\.[01][0-9]\.[12][0-9]{3},?[ ][0-2][0-9]:[0-5][0-9](?::[0-5][0-9])?)(?![^\W_])"
)
"""The first sign stands ahead of what may not be before it, here as elsewhere: `re` is quick to pass over others."""
LOOKED_AT: Final = 7
"""Letters of a word that `View.beginnings` has at most."""
_RETURN: Final = re.compile(r"[\r\x0b\x0c\x1c-\x1e]")
_WORD: Final = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class View:
    """A text, its two normal forms, and the way back. `ends` is None where nothing was moved."""

    text: str
    plain: str
    folded: str
    ends: npt.NDArray[np.int64] | None
    """For each character of the text, where what became of it ends in the normal forms."""
    memo: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """What detectors work out once and share."""

    @cached_property
    def words(self) -> frozenset[str]:
        """The distinct words of `folded`, letters alone: a cheap look whether something can be there at all."""
        return frozenset(_WORD.findall(self.folded))

    @cached_property
    def begun(self) -> dict[str, list[str]]:
        """The distinct words by their first three letters."""
        found: dict[str, list[str]] = {}
        for word in self.words:
            found.setdefault(word[:3], []).append(word)
        return found

    @cached_property
    def ended(self) -> dict[str, list[str]]:
        """The distinct words by their last four letters."""
        found: dict[str, list[str]] = {}
        for word in self.words:
            found.setdefault(word[-4:], []).append(word)
        return found

    @cached_property
    def vocabulary(self) -> str:
        """The distinct words in one string: what is not in it is in no word of the text."""
        return " ".join(self.words)

    def has(self, gate: frozenset[str]) -> bool:
        """Whether any word may begin with a stem of the gate (`gate_of`): first letters are looked at, all at once."""
        return not gate.isdisjoint(self.beginnings)

    @cached_property
    def without_hashes(self) -> str:
        """`folded` with UUIDs, long hexadecimal words and moments crossed out: nobody's number is in them."""
        return _HASH.sub(lambda match: "x" * len(match[0]), self.folded)

    @cached_property
    def beginnings(self) -> frozenset[str]:
        """Of all words: so a gate costs its own stems, and not the words times the stems."""
        return frozenset(word[:size] for word in self.words for size in range(1, min(len(word), LOOKED_AT) + 1))

    def origin(self, start: int, end: int) -> tuple[int, int]:
        """Offsets in `text` of a stretch of the normal forms."""
        if self.ends is None:
            return start, end
        first, last = np.searchsorted(self.ends, (start, max(start, end - 1)), side="right")
        return int(first), int(last) + 1


def view_of(text: str) -> View:
    """The text with its normal forms."""
    if text.isascii():
        plain = _RETURN.sub("\n", text)
        return View(text, plain, plain.lower(), None)
    plain, ends = _PLAIN.written(text)
    return View(text, plain, _LOOKS.written(plain)[0], ends)


def fold(text: str) -> str:
    """The folded form alone: for words to look for."""
    return view_of(text).folded


def stems(text: str) -> tuple[str, ...]:
    """Words of a list in one string, folded; a word that has a space in it is joined by `_`."""
    return tuple(fold(word).replace("_", " ") for word in text.split())


def gate_of(found: Iterable[str]) -> frozenset[str]:
    """The first letters of stems, for `View.has`; of a stem that begins with no letter there is nothing to look at."""
    return frozenset(head[0][:LOOKED_AT] for head in map(_WORD.match, found) if head is not None)


def _branch(stem: str) -> str:
    body = re.escape(stem.removesuffix("$")).replace("\\ ", r"[^\W\d_]{0,5}[\s_-]{1,3}")
    return body + r"(?![^\W\d_])" if stem.endswith("$") else body


JOINED: Final = (
    r"[\"'*`]{0,3}[)\]]?[ \t]{0,3}(?:[:=>]{1,2}|[–-][ ]|\||(?:</?\w{1,12}>){1,3}"
    r"|,[ \n]{0,9}[\"']?(?:to|value|val|v|text|content|data)[\"']?[ ]{0,2}[:=]"
    r"|[ ](?:is|ist|\u044dto|lautet)[ ])[ \t\"'«*>]{0,4}"
)
"""What joins a label to its value: a sign, the tags of a table's cells, `"name": label, "value":` of programs."""


class Near:
    """Words to look for beside a place: those that begin with one of the stems; `$` behind a stem: that word alone.

    An underscore stands for any ending of its word and a space of any kind; a hyphen, a dot or a slash for themselves.
    It is for short stretches: over whole texts `Phrases` is many times as fast.
    """

    __slots__ = ("pattern",)

    def __init__(self, text: str) -> None:
        found = sorted(stems(text), key=len, reverse=True)
        self.pattern = re.compile(rf"(?<![^\W\d_])(?:{'|'.join(map(_branch, found))})")


def _others(stem: str) -> frozenset[str]:
    """The first letters of a phrase's words but the first."""
    return frozenset(word[:LOOKED_AT] for word in _WORD.findall(" ".join(stem.split(" ")[1:])))


class Phrases:
    """As `Near`, for whole texts: the first word of each is looked for as it stands, and the rest where it is.

    `*stem` is met inside of words too. What none of the text's words begins with costs nothing, however many there are.
    """

    def __init__(self, text: str) -> None:
        self._inside = tuple(stem[1:].rstrip("$") for stem in stems(text) if stem[0] == "*")
        found: dict[str, list[str]] = {}
        for stem in sorted((stem for stem in stems(text) if stem[0] != "*"), key=len, reverse=True):
            found.setdefault(stem.removesuffix("$").split(" ")[0], []).append(stem)
        self._wholes = {head: re.compile(f"(?:{'|'.join(map(_branch, same))})") for head, same in found.items()}
        self._heads: dict[str, list[str]] = {}
        """By what a word of the text begins with where the head stands at a word's beginning."""
        self._others: list[str] = []
        for head in found:
            word = _WORD.match(head)
            if word is None:
                self._others.append(head)
            else:
                self._heads.setdefault(word[0][:LOOKED_AT], []).append(head)
        self._others_of = {head: tuple(map(_others, same)) for head, same in found.items()}
        """What other words each phrase of a head has: where none of its phrases can be, it is not looked for."""
        self._words = frozenset(head for head, same in found.items() if same == [head + "$"] and head.isalpha())
        """Words that stand alone: a look at the distinct words of a text says whether they are there."""

    def spans(self, view: View) -> list[tuple[int, int]]:
        """Where they stand, in order."""
        folded, found = view.folded, []
        met = [head for beginning in self._heads.keys() & view.beginnings for head in self._heads[beginning]]
        for head in (*met, *self._others):
            if (head in self._words and head not in view.words) or not any(
                others <= view.beginnings for others in self._others_of[head]
            ):
                continue
            whole = self._wholes[head]
            at = folded.find(head)
            while at >= 0:
                if at == 0 or not folded[at - 1].isalpha():
                    match = whole.match(folded, at)
                    if match is not None:
                        found.append(match.span())
                at = folded.find(head, at + 1)
        for stem in self._inside:
            at = folded.find(stem) if stem in view.vocabulary else -1
            while at >= 0:
                found.append((at, at + len(stem)))
                at = folded.find(stem, at + len(stem))
        return sorted(found)


class Words:
    """Single words to look for among the distinct words of a text: stems, `stem$`, `*stem` and `*stem$`."""

    def __init__(self, text: str) -> None:
        found = stems(text)
        self._wholes = frozenset(stem[:-1] for stem in found if stem[-1] == "$" and stem[0] != "*")
        self._inside = tuple(stem[1:] for stem in found if stem[0] == "*" and stem[-1] != "$")
        self._ends: dict[str, tuple[str, ...]] = {}
        for stem in (stem[1:-1] for stem in found if stem[0] == "*" and stem[-1] == "$"):
            self._ends[stem[-4:]] = (*self._ends.get(stem[-4:], ()), stem)
        self._begun: dict[str, tuple[str, ...]] = {}
        for stem in found:
            if stem[0] != "*" and stem[-1] != "$":
                self._begun[stem[:LOOKED_AT]] = (*self._begun.get(stem[:LOOKED_AT], ()), stem)

    def met(self, view: View) -> set[str]:
        """Those words of the text that are meant."""
        words = view.words
        found = set(words & self._wholes)
        begun = self._begun.keys() & view.beginnings
        for beginning in begun:
            same = view.begun.get(beginning[:3], ()) if len(beginning) > 2 else words
            found.update(word for word in same if word.startswith(self._begun[beginning]))
        for ending in self._ends.keys() & view.ended.keys() if self._ends else ():
            found.update(word for word in view.ended[ending] if word.endswith(self._ends[ending]))
        for inside in self._inside:
            if inside in view.vocabulary:
                found.update(word for word in words if inside in word)
        return found
