"""Dates of birth: a date in any of the usual forms, and a word of birth near it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from serving.policy.detect.finding import Hit
from serving.policy.detect.fold import Phrases, View, stems

_BIRTH: Final = (
    "рожден родил дата_рожд рожд. д.р. др$ г.р. гр$ born birth birthday birthdate dob$ d.o.b geboren geburt geb$ geb. "
    "naissance nacimiento nacido nascita nato$ nata$ urodz geboorte birth_date dateofbirth date_of_birth "
    "день_рождени дня_рождени появил_на_свет появилась_на_свет появился_на_свет д/р д.р$ род$ date_naissance "
    "ne_le nee_le birth-date birthdt bdate$ bday$ b-day$ geburtstag geburtsdatum geburtsdat zur_welt_gekommen "
    "geborene geborener b.$ birthdays jahrgang возраст года_рожд лет_от_роду dat_geb dt_nasc datarozhd"
)
_BORN: Final = Phrases(_BIRTH)
_GATE: Final = stems(
    "рожд родил появил возраст день дня born birth bday bdate geb naiss nacim nacido nasc urodz dateofb zur ne nee "
    "jahrgang dat"
)
_SHORT: Final = frozenset(stems("др д гр р род b dob nato nata"))
_MONTHS: Final = "|".join(
    stems(
        "янв фев мар апр мая май маи июн июл авг сен окт ноя дек jan feb mar apr may jun jul aug sep oct nov dec jan "
        "mar mai "
        "okt dez gen mag giu lug ago set ott dic ene abr styc lut kwi maj cze lip sie wrz paz lis gru avr juin juil "
        "aout"
    )
)
_S: Final = r"[ \t]{0,2}[./ _-][ \t]{0,2}"
_DATE: Final = re.compile(
    rf"(?<![0-9])(?:[0-3]?[0-9]{_S}[0-3]?[0-9]{_S}(?:(?:18|19|20)[0-9]{{2}}|[0-9]{{2}})"
    rf"|(?:18|19|20)[0-9]{{2}}{_S}[01]?[0-9]{_S}[0-3]?[0-9]|(?:19|20)[0-9]{{6}}|[0-3][0-9][01][0-9](?:19"
    rf"|20)[0-9]{{2}})(?![0-9])"
    rf"|(?<![0-9])[0-3]?[0-9](?:\.|st|nd|rd|th"
    rf"|-)?[ ,._-]{{0,3}}(?:of[ ])?(?:{_MONTHS})[^\W\d_]{{0,9}}\.?[ ,._-]{{1,3}}(?:de[ ])?"
    rf"[0-9]{{2,4}}(?![0-9])"
    rf"|(?<![^\W\d_])(?:{_MONTHS})[^\W\d_]{{0,9}}\.?[ ]{{1,2}}[0-3]?[0-9](?:st|nd|rd"
    rf"|th)?,?[ ]{{1,2}}[0-9]{{4}}(?![0-9])"
)
_SPACED: Final = re.compile(r"(?<![0-9])[0-9](?:[ ./-]{1,3}[0-9]){7}(?![0-9])")
_CUT: Final = re.compile(r"(?<![0-9])[0-9](?:[ \t./_-]{0,2}\n?[ \t]{0,4}[./_-]?[0-9]){5,7}(?![0-9])")
"""Cut by a line's end: digits of a day, a month and a year in any order."""
_BEFORE: Final = 24
_AFTER: Final = 60


def find_birth_dates(view: View) -> Iterator[Hit]:
    """Dates behind a word of birth, or directly before one (`12.03.1985 г.р.`)."""
    if _SHORT.isdisjoint(view.words) and not view.has(_GATE):
        return
    folded, done = view.folded, -1
    for begin, end in _BORN.spans(view):
        low = max(0, begin - _BEFORE, done)
        behind = [date for date in _DATE.finditer(folded, low, begin) if begin - date.end() <= 4]
        if behind:
            yield Hit(behind[-1].start(), behind[-1].end(), "birth_date")
            done = behind[-1].end()
            continue
        for kind in (_DATE, _SPACED, _CUT):
            ahead = kind.search(folded, max(end, done), end + _AFTER)
            if ahead is not None:
                yield Hit(ahead.start(), ahead.end(), "birth_date")
                done = ahead.end()
