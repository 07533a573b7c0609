"""Given names beside surnames, in any case: who is meant, and who is known to everybody and is not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, Protocol

from serving.policy.detect.finding import Hit
from serving.policy.detect.fold import View, fold
from serving.policy.detect.given import GIVEN
from serving.policy.detect.people import (
    FAMOUS_PAIRS,
    FAMOUS_RUSSIAN,
    GIVEN_TOO,
    RUSSIAN_GIVEN,
    RUSSIAN_SURNAMES,
    SURNAMES,
)

_LABEL: Final = "name.person"
_SURNAMES: Final = frozenset(map(fold, SURNAMES.split()))
_GIVEN: Final = frozenset(map(fold, (*GIVEN, *GIVEN_TOO.split())))
_ENDINGS: Final = (
    "",
    *"а я у ю ы и е о й ь ой ей ою ею ом ем ем ию ии ия ий ие ья ью ьи ье ел ла лу лом ле л ка".split(),
)
_NO_GIVEN: Final = frozenset(map(fold, "роман романа романе роману романом лев вера веры вере веру верой надежда "
    "надежды "
    "надежде надежду любовь любови мира мире миру миром мирон марка марки марку маркой марке слава дали дани данил "
    "данный "
    "данные данных данная данной карина роза арин иль или иван-чай лес леса лесу лесом леси соня лида роды "
    "алло алая оля тим кира кир киры ник ника ники никой".split()))  # fmt: skip
_RUSSIAN_TOO: Final = frozenset(
    map(fold, "инна инны инне инну инной ева евы еве еву зоя зои зое зою яна яны яне яну".split())
)
_RUSSIAN: Final = _RUSSIAN_TOO | (
    frozenset(fold(stem + ending) for stem in RUSSIAN_GIVEN.split() if len(stem) > 2 for ending in _ENDINGS) - _NO_GIVEN
)
_RUSSIAN_ENDS: Final = frozenset(fold(end.strip("*$")) for end in RUSSIAN_SURNAMES.split())
_END_SIZES: Final = sorted({len(end) for end in _RUSSIAN_ENDS})
_WORDS_TOO: Final = frozenset(
    "will mark may april june rose grace hope faith joy frank jack bill bob art pat rob sue sky summer dawn ivy jade "
    "daisy violet amber ruby pearl olive iris lily poppy hazel holly penny crystal angel august max min don drew "
    "chase grant "
    "dean earl duke king prince victor chip rusty sandy rocky rich guy jay ray rex dale glen cliff wade lance miles "
    "stone "
    "mason hunter carter parker cooper walker wallace see lee kim long song young so an dan "
    "jordan paris austin dallas chelsea sydney victoria virginia georgia florence "
    "savannah logan mercedes porsche siemens "
    "india cole bea mel val van von the and angus clark aurora luna "
    "carmel opal gail robin ".split()
)
"""Given names that are words or places too: both names want capitals, and the surname is a common one."""
_NO_FAMILY: Final = frozenset(
    "street st avenue ave road rd lane square university institute institut gmbh ag kg ltd inc llc co corp corporation "
    "company group foundation stiftung school schule hospital klinik airport flughafen park library museum theatre "
    "theater college church kirche street strasse straße platz weg allee prize award preis cup lake river island city "
    "county house hall hotel cafe restaurant bar bank day tag january february march april may june july august "
    "september october november december januar februar märz mai juni juli oktober dezember foods traders motors "
    "and or the in of is was und oder der die das ist war server project release version street model effect theorem "
    "algorithm method number constant principle equation test browser engine cloud data code file one two has had will "
    "to at on for with from by as an if not are were would could should can may says said who whose mit von bei hat "
    "wird "
    "air lines airlines records studios pictures press books beach bay bridge castle tower station line building "
    "centre "
    "center valley hills mountain bar bell curve markt gasse ring ufer damm dom tor".split()
)
_FAMOUS: Final = frozenset(tuple(map(fold, pair.split())) for pair in FAMOUS_PAIRS.split(", "))
_FAMOUS_RUSSIAN: Final[dict[str, list[str]]] = {}
for _given, _family in (map(fold, pair.split(":")) for pair in FAMOUS_RUSSIAN.split()):
    _FAMOUS_RUSSIAN.setdefault(_given[0], []).append(_family)
_PARTICLE: Final = r"(?:(?:von|van|de|der|den|zu|da|di|del|la|al|ten|ter|el|bin)[ ]){0,2}(?:o')?"
_FAMILY: Final = r"(?P<family>[^\W\d_][^\W\d_'’]{1,24})(?:-[^\W\d_]{2,24})?(?![\w(])"
_NEXT: Final = re.compile(rf"(?:-[^\W\d_]{{2,14}})?[ ]{{1,2}}(?:[^\W\d_]\.[ ]?)?{_PARTICLE}{_FAMILY}")
_BEYOND: Final = re.compile(rf"[ ][^\W\d_]{{2,14}}[ ]{_PARTICLE}{_FAMILY}")
_BEFORE: Final = re.compile(r"[ ]{1,2}(?P<comma>,?)(?P<family>[^\W\d_][^\W\d_'’-]{1,24})(?![\w])")
_BEFORE_CHARS: Final = 30
_LETTERS: Final = re.compile(r"[^\W\d_]+")


class Judge(Protocol):
    """Says whether a given name and a surname, by their places, are somebody's."""

    def __call__(self, view: View, given: tuple[int, int], family: tuple[int, int], *, is_bare: bool) -> bool: ...


def find_pairs(view: View) -> Iterator[Hit]:
    """A given name and a surname, in either order, with capitals or without; not who is known to everybody."""
    folded = view.folded
    for words, judge in ((view.words & _GIVEN, _is_western), (view.words & _RUSSIAN, _is_russian)):
        for given in words:
            at = folded.find(given)
            while at >= 0:
                end = at + len(given)
                if _stands(folded, at, end):
                    span = _span(view, given, at, judge)
                    if span is not None:
                        yield Hit(*span, _LABEL)
                at = folded.find(given, end)


def _stands(folded: str, at: int, end: int) -> bool:
    before, behind = folded[at - 1 : at], folded[end : end + 1]
    is_quote = before in {"'", "’"} and not folded[at - 2 : at - 1].isalpha()
    return not (before.isalnum() or (before in "_.-'@/" and before and not is_quote)) and not (
        behind.isalnum() or (behind and behind in "_@(")
    )


def _span(view: View, given: str, at: int, is_name: Judge) -> tuple[int, int] | None:
    """The name that this given name is part of."""
    folded, end = view.folded, at + len(given)
    for form in (_NEXT, _BEYOND):
        found = form.match(folded, end)
        if found is not None and is_name(view, (at, end), found.span("family"), is_bare=False):
            behind = _LETTERS.findall(folded, end, found.end() + _BEFORE_CHARS)
            return None if any((given, word) in _FAMOUS for word in behind) else (at, found.end())
    low = max(0, at - _BEFORE_CHARS)
    found = _BEFORE.match(folded[low:at][::-1])
    if found is not None:
        begin, stop = at - found.end("family"), at - found.start("family")
        if (begin > low or low == 0) and is_name(view, (at, end), (begin, stop), is_bare=not found["comma"]):
            return begin, end
    return None


def _is_western(view: View, given: tuple[int, int], family: tuple[int, int], *, is_bare: bool) -> bool:
    """`is_bare`: the surname stands first, with no comma behind it."""
    first, last = view.folded[slice(*given)], view.folded[slice(*family)]
    if last in _NO_FAMILY or _is_famous(first, last):
        return False
    is_written = view.plain[given[0]].isupper() and view.plain[family[0]].isupper()
    is_common = last in _SURNAMES
    if first in _WORDS_TOO:
        return is_common and is_written
    if is_common:
        return last not in _GIVEN or not (view.plain[slice(*given)] + view.plain[slice(*family)]).islower()
    return is_written and not is_bare and len(last) > 2


def _is_russian(view: View, given: tuple[int, int], family: tuple[int, int], *, is_bare: bool) -> bool:  # noqa: ARG001 - of a table
    first, last = view.folded[slice(*given)], view.folded[slice(*family)]
    if len(last) < 4 or last in _RUSSIAN or not any(last[-size:] in _RUSSIAN_ENDS for size in _END_SIZES):
        return False
    written = view.plain[slice(*given)], view.plain[slice(*family)]
    is_written = all(not word.islower() for word in written)
    return is_written and not _is_famous(first, last)


def _is_famous(given: str, family: str) -> bool:
    if (given, family) in _FAMOUS or (family, given) in _FAMOUS:
        return True
    return any(family.startswith(stem) for stem in _FAMOUS_RUSSIAN.get(given[:1], ()))


def is_known(name: str) -> bool:
    """Whether a whole name, in any case of Russian grammar, is that of somebody of history or of books."""
    words = re.findall(r"[^\W\d_]+", fold(name))
    if len(words) == 1:
        return any(words[0].startswith(stem) for same in _FAMOUS_RUSSIAN.values() for stem in same if len(stem) > 4)
    return len(words) < 4 and (_is_famous(words[0], words[-1]) or _is_famous(words[-1], words[0]))


def is_given(word: str) -> bool:
    """Whether a word, in any case, is a given name."""
    folded = fold(word)
    return folded in _RUSSIAN or folded in _GIVEN


def is_surname(word: str) -> bool:
    """Whether a word, in any case, is a common surname or ends as Russian ones do."""
    folded = fold(word)
    return folded in _SURNAMES or any(folded[-size:] in _RUSSIAN_ENDS for size in _END_SIZES)
