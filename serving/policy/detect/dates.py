"""Dates of birth: a date in any of the usual forms, and a word of birth near it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from serving.policy.detect.context import reading_of
from serving.policy.detect.finding import Hit
from serving.policy.detect.fold import Phrases, View, stems
from serving.policy.detect.lexicon import LEXICON

_BIRTH: Final = (
    "рожден родил дата_рожд рожд. д.р. др$ г.р. гр$ born birth birthday birthdate dob$ d.o.b geboren geburt geb$ geb. "
    "naissance nacimiento nacido nascita nato$ nata$ urodz geboorte birth_date dateofbirth date_of_birth "
    "день_рождени дня_рождени появил_на_свет появилась_на_свет появился_на_свет д/р д.р$ род$ date_naissance "
    "ne_le nee_le birth-date birthdt bdate$ bday$ b-day$ geburtstag geburtsdatum geburtsdat zur_welt_gekommen "
    "zur_welt дата_рожден рождения рождён рожденн увидел_свет уродил именинник д.$_р. д._р г._р г/р р._г "
    "came_into_the_world born_on born_in_the birth_dt birthdt cumpleanos fecha_nac data_nasc data_di_nasc data_urod "
    "narozen syntyma fodelse fodsels fodt$ ne$_le nee$_le ne(e)_le d_o_b date_of_b. geburtst geb.-datum geb.dat geb_am "
    "*birthdate *birthday *dateofbirth *geburtsdat *geburtstag *datumrozhd "
    "geborene geborener b.$ birthdays jahrgang возраст года_рожд лет_от_роду dat_geb dt_nasc datarozhd"
)
_BORN: Final = Phrases(_BIRTH)
_CAMEL: Final = re.compile(r"(?<=[a-z])(?:D(?:ob|OB)|Birth)(?![a-z])")
_YEAR: Final = re.compile(
    r"(?<![0-9])(?:19[2-9][0-9]|20[0-2][0-9])[ ]?(?:{g}|{y})".replace(
        "{g}", stems("г.")[0].replace(".", r"\.[ ]?(?=[pр])")
    ).replace("{y}", stems("года")[0])
)
_YEAR_AHEAD: Final = re.compile(r"[ :]{1,3}(?:19[2-9][0-9]|20[0-2][0-9])(?![0-9])")
_YEARS: Final = ("jahrgang", "jg")
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
_TOUCHING: Final = 6


def find_birth_dates(view: View) -> Iterator[Hit]:
    """Dates behind a word of birth, or before one (`12.03.1985 г.р.`, `am 3.5.1960 zur Welt`), or under its heading."""
    folded, done = view.folded, -1
    said = _BORN.spans(view)
    if "Dob" in view.plain or "DOB" in view.plain or "Birth" in view.plain:
        said = sorted({*said, *(match.span() for match in _CAMEL.finditer(view.plain))})
    if not said:
        return
    for begin, end in said:
        low = max(0, begin - _BEFORE, done)
        behind = _behind(folded, low, begin)
        if behind is not None:
            yield Hit(*behind, "birth_date")
            done = behind[1]
            continue
        ahead = _ahead(folded, max(end, done))
        if ahead is not None:
            yield Hit(*ahead, "birth_date")
            done = ahead[1]
    yield from _headed(view)


def _behind(folded: str, low: int, begin: int) -> tuple[int, int] | None:
    """The date that ends right before the word; also cut by a line's end."""
    found = [date.span() for date in _DATE.finditer(folded, low, begin) if begin - date.end() <= _TOUCHING]
    if found:
        return found[-1]
    at = folded.find("\n", low, begin)
    if at >= 0:
        joined = folded[low:at] + folded[at + 1 : begin]
        for date in _DATE.finditer(joined):
            if len(joined) - date.end() <= _TOUCHING and low + date.start() < at:
                return low + date.start(), low + date.end() + 1
    year = _YEAR.search(folded, low, begin + 4)
    return (year.start(), min(year.end(), begin)) if year is not None and begin - year.end() <= 2 else None


def _ahead(folded: str, start: int) -> tuple[int, int] | None:
    """The first date behind the word; also with a gap after every digit, or cut by a line's end."""
    stop = min(len(folded), start + _AFTER)
    for kind in (_DATE, _SPACED, _CUT):
        found = kind.search(folded, start, stop)
        if found is not None:
            return found.span()
    at = folded.find("\n", start, stop)
    if at >= 0:
        joined = folded[start:at] + folded[at + 1 : stop]
        found = _DATE.search(joined)
        if found is not None and start + found.start() < at < start + found.end():
            return start + found.start(), start + found.end() + 1
    if folded[max(0, start - 8) : start].rstrip(". ").endswith(_YEARS):
        found = _YEAR_AHEAD.match(folded, start)
        if found is not None:
            return found.span()
    return None


def _headed(view: View) -> Iterator[Hit]:
    """Dates in the column that a word of birth heads."""
    reading = reading_of(view, LEXICON)
    if "birth_date" not in reading.possible:
        return
    for date in _DATE.finditer(view.folded):
        column, heading = reading.headings(date.start())
        if "birth_date" in column or (not column and "birth_date" in heading):
            yield Hit(*date.span(), "birth_date")
