"""Ways to reach somebody: e-mail addresses, telephone numbers with a country's code, postal addresses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from serving.policy.detect.context import reading_of
from serving.policy.detect.finding import Hit
from serving.policy.detect.fold import Phrases, View, fold, stems
from serving.policy.detect.lexicon import LEXICON

_LOCAL_CHARS: Final = 64
_LOCAL: Final = re.compile(r"[\w.+%'-]{1,64}")
_DOMAIN: Final = re.compile(r"[^\W_](?:[\w-]{0,62}\.){1,6}?(?:[^\W\d_]{2,24}|xn--[a-z0-9-]{2,40})(?![\w(]|[.-]\w)")
_DOMAIN_LITERAL: Final = re.compile(r"\[[0-9a-f.:]{4,40}\]")
_NOBODY: Final = frozenset({"git", "hg", "svn"})
"""Users of source repositories: `git@host:path` is a place and not a person."""
_SPELLED: Final = re.compile(
    r"(?<![\w.-])[\w.+-]{2,64}\s{0,2}(?P<at>@|[(\[{<]\s?(?:@|at|{a}|sobaka)\s?[)\]}>]|\s(?:at|{a}|sobaka)\s)\s{0,2}"
    r"[\w-]{2,40}(?:\s?(?P<dot>\.|[(\[{]\s?(?:dot|{d}|tocka|punkt|\.)\s?[)\]}]|\s(?:dot|{d}|tocka|punkt)\s)\s?"
    r"[^\W\d_]{2,24}){1,3}".replace("{a}", fold("собака")).replace("{d}", fold("точка"))
)
_ZONES: Final = frozenset(
    {"ru", "su", "com", "org", "net", "de", "eu", "fr", "es", "it", "nl", "pl", "uk", *stems("рф")}
)
_SPELLED_WORDS: Final = frozenset(fold("at dot собака точка sobaka tocka punkt").split())

_PLUS: Final = re.compile(r"(?<![\w+])(?:\+|\(\+)[ .\n]?(?=[1-9])")
_ADDEND: Final = re.compile(r"[0-9)\]][ ]{0,2}\Z")
"""Before a plus between blanks: `4411 + 5902338812` is a sum."""
_DIALLED: Final = re.compile(r"[0-9](?:[ ./()_-]{0,3}+[0-9]){7,14}+(?![0-9])")
_BROKEN: Final = re.compile(r"[0-9](?:[ ./()_-]{0,3}+\n?[0-9]){7,14}+(?![0-9])")
"""Also over the ends of lines, where there are too few digits before one."""
_COUNTRY: Final = re.compile(
    r"1|7|2[07]|2[1234569][0-9]|3[0123469]|3[578][0-9]|4[013-9]|42[0-9]|5[1-8]|5[09][0-9]|6[0-6]|6[789][0-9]|8[1246]"
    r"|8[0578][0-9]|9[0-58]|9[679][0-9]"
)
"""Country codes that are assigned (ITU-T E.164, list of 15 December 2016)."""


def find_emails(view: View) -> Iterator[Hit]:
    """Around every `@`; and where `at` and `dot` are spelled out, in English, Russian or German."""
    folded = view.folded
    at = folded.find("@")
    while at >= 0:
        local = _LOCAL.match(folded[max(0, at - _LOCAL_CHARS) : at][::-1])
        domain = _DOMAIN.match(folded, at + 1) or _DOMAIN_LITERAL.match(folded, at + 1)
        if local is not None and domain is not None:
            name = local[0][::-1].lstrip(".'-%")
            if name and name not in _NOBODY:
                yield Hit(at - len(name), domain.end(), "email")
        at = folded.find("@", at + 1)
    if "@" in folded or not _SPELLED_WORDS.isdisjoint(view.words):
        yield from _spelled(folded)


def _spelled(folded: str) -> Iterator[Hit]:
    for match in _SPELLED.finditer(folded):
        is_bracketed = match["at"].strip()[0] in "([{<"
        is_word = match["at"].strip().isalpha()
        is_dot_word = match["dot"].strip() != "."
        is_spread = (
            match["at"] == "@"
            and any(map(str.isspace, match[0]))
            and (is_dot_word or match[0].split(".")[-1].strip() in _ZONES)
        )
        if is_bracketed or is_spread or (is_word and is_dot_word):
            yield Hit(match.start(), match.end(), "email")


_AREA: Final = re.compile(r"(?<![\w(])\([2-9][0-9]{2}\)[ -]?[2-9][0-9]{2}[ .-][0-9]{4}(?![\w-])")


_DOUBLE_ZERO: Final = re.compile(r"00(?<![\w+.,:-]00)[ .-]?(?=[1-9][0-9]{0,2}[ (.-])")
_MOST_GROUPS: Final = 5
_LAST_GROUP: Final = 4


def _doubly_dialled(view: View) -> Iterator[Hit]:
    """`0044 20 7946 0958`: in few groups whose last is long, near a word of telephones, as no row of figures is."""
    folded = view.folded
    for zeros in _DOUBLE_ZERO.finditer(folded):
        number = _DIALLED.match(folded, zeros.end())
        groups = re.findall(r"[0-9]+", number[0]) if number is not None else []
        is_grouped = 1 < len(groups) <= _MOST_GROUPS and len(groups[-1]) >= _LAST_GROUP
        is_ended = number is not None and not folded[number.end() : number.end() + 1].isalnum()
        if number is None or not (is_ended and is_grouped and _COUNTRY.match(groups[0] + groups[1])):
            continue
        if "phone" in reading_of(view, LEXICON).near(zeros.start(), number.end()):
            yield Hit(zeros.start(), number.end(), "ru.phone" if groups[0] == "7" else "phone")


def find_international(view: View) -> Iterator[Hit]:
    """`+` or 00, an assigned country code, eight to fifteen digits (ITU-T E.164); and `(212) 555-0100`."""
    folded = view.folded
    if "00" in folded:
        yield from _doubly_dialled(view)
    if "(" in folded:
        yield from (Hit(match.start(), match.end(), "phone") for match in _AREA.finditer(folded))
    if "+" not in folded:
        return
    for plus in _PLUS.finditer(folded):
        number = _DIALLED.match(folded, plus.end()) or _BROKEN.match(folded, plus.end())
        digits = "".join(filter(str.isdigit, number[0])) if number is not None else ""
        if number is None or not _COUNTRY.match(digits) or len(set(digits)) <= 2:
            continue
        is_added = (
            " " in plus[0] and number[0].isdigit() and _ADDEND.search(folded, max(0, plus.start() - 3), plus.start())
        )
        if not is_added or "phone" in reading_of(view, LEXICON).near(plus.start(), number.end()):
            yield Hit(plus.start(), number.end(), "ru.phone" if digits[0] == "7" and len(digits) == 11 else "phone")


_RUSSIAN_STREETS: Final = Phrases(
    "ул$ улица улице улицы улицу пр-т$ пр-кт$ просп$ проспект пер$ переул шоссе ш$ наб$ набереж бульвар б-р$ площад "
    "мкр "
    "микрорайон проезд тупик алле квартал пл$ пр-д$ туп$ кв-л$ тракт$ просек "
    "мкрн$ мк-н$ снт$"
)
_RUSSIAN_HOUSE: Final = re.compile(
    r"[^\W\d_]{0,8}(?:[^\n]{0,48}?[\s,.](?:{d})\.?\s{0,2}[0-9]{1,4}"
    r"|\.?,[ ]{0,2}[0-9]{1,4}[^\W\d_]?(?![0-9]|\.[0-9])"
    r"|\.?[ ]{1,2}[^\W\d_][\w .-]{2,40}?,?[ ]{1,2}[0-9]{1,4}(?:[/-]?[0-9]{1,3})?(?![0-9]|\.[0-9]))"
    .replace("{d}", "|".join(stems("д дом домовлад корп стр вл")))
)  # fmt: skip
_RUSSIAN_SURE: Final = stems("ул улиц пр-т просп переул шоссе набереж бульвар проезд")
_RUSSIAN_PLAIN: Final = re.compile(
    r"(?<!\w)(?:[Пп]р\.[ ]?[А-Я][а-яё-]{2,24}(?:[ ][А-Я]?[а-яё-]{2,24})?,?[ ]"
    r"|[А-Я][а-яё-]{3,24}(?:и|ы|о)[йи][ ](?:пр|пер|ш|бул|пр-д)\.?,?[ ]"
    r"|[А-Я][а-яё-]{3,24}[ ](?=[0-9]{1,4}[а-я]?,?[ ](?:кв|оф)[. ]))[0-9]{1,4}(?:[/-]?[0-9]{1,3})?[а-я]?(?![\w])"
)
"""`пр. Мира 15`, `Невский пр., 28`, `Кленовая 33, кв. 8`."""
_RUSSIAN_PLAIN_WORDS: Final = frozenset(stems("пр пер ш бул кв оф"))
_NEXT_NUMBER: Final = re.compile(r"[ ]{1,2}[0-9]{1,3}(?:[/-]?[0-9]{1,2})?[^\W\d_]?(?![\w.])")
"""`Невский проспект 28`; beside `площадь` or `квартал` a number is something else."""
_FLAT: Final = re.compile(
    r"(?<![^\W\d_])(?:{h})\.?\s{0,2}[0-9]{1,4}[^\n]{0,20}?[\s,](?:{f})\.?\s{0,2}[0-9]{1,4}"
    .replace("{h}", "|".join(stems("д дом"))).replace("{f}", "|".join(stems("кв квартира оф офис")))
)  # fmt: skip
_WESTERN: Final = re.compile(
    r"(?<![\w.])[0-9]{1,5}[a-z]?,?[ ](?:(?:[nsew]\.?|north|south|east|west)[ ])?(?:[^\W\d_][\w'.-]{1,24}[ ]){1,4}?"
    r"(?:gardens|grove|mews|hill|row|walk|parade|rise|green|wharf|quay|trail|loop|circle|turnpike|pike|alley|esplanade|"
    r"street|st|avenue|ave|road|rd|lane|ln|drive|dr|boulevard|blvd|court|ct|square|sq|terrace|place|pl|way|close|"
    r"crescent|highway|hwy|parkway|pkwy)(?![\w(=])"
)
_WESTERN_WORDS: Final = frozenset(
    "gardens grove mews hill row walk parade rise green wharf quay trail loop circle turnpike pike alley esplanade "
    "street st avenue ave road rd lane ln drive dr boulevard blvd court ct square sq terrace place pl way close "
    "crescent "
    "highway hwy parkway pkwy".split()
)
_WESTERN_SURE: Final = re.compile(r"(?:street|avenue|road|lane|boulevard|crescent|ave|blvd|rd|highway|parkway)$")
_BOX: Final = re.compile(r"(?<!\w)(?:p\.?\s?o\.?\s?box|postfach|{p})[ :]{1,2}[0-9]{1,6}".replace("{p}", fold("а/я")))
_GERMAN: Final = re.compile(
    r"(?:stra(?:ss|ß)e|str\.|weg|platz|allee|gasse|ring|ufer|damm|chaussee)[ ]{1,2}[0-9]{1,4}[ ]?[a-z]?"
    r"(?!\w|\.\w|[/-][0-9]{3})"
)
_POSTED_BEHIND: Final = re.compile(r",?[ ](?:[A-Z]{1,2}-)?[0-9]{4,5}[ ][A-ZÄÖÜ]")
_ENGLISH_ENDS: Final = (
    "bearing", "eering", "turing", "uring", "oring", "string", "spring", "offering", "ordering", "sharing", "pairing",
    "wiring", "firing", "tiering", "metering", "filtering", "clustering", "rendering", "wearing", "hearing", "herring",
    "during", "entering", "numbering", "scattering", "referring", "occurring", "tuning ring", "o-ring", "piston ring",
)  # fmt: skip
"""Words of English that end as German streets do: with a postcode behind their number alone."""
_GERMAN_NAME: Final = re.compile(r"[^\W\d_]{0,30}(?:[ -][\w.]{1,29}[^\W\d_])?")
"""Read backwards from the ending: the word's own beginning, and perhaps a word before it (`Am Alten Weg`)."""
_ROMANCE: Final = re.compile(
    r"(?<!\w)(?:[0-9]{1,4}(?:[ ]?(?:bis|ter))?,?[ ](?:rue|avenue|boulevard|place|allee|chemin|quai|impasse)[ ]"
    r"(?:de|du|des|la|le|l'|d')?[ ]?[^\W\d_][\w' -]{2,40}"
    r"|(?:via|viale|piazza|corso|calle|avenida|plaza|paseo|rua|ulica|ul\.|al\.|aleja)[ ][^\W\d_][\w'. -]{2,40}?,?[ ]"
    r"(?:n[.o]?[ ]?)?[0-9]{1,4})(?![\w.])"
)
_ROMANCE_WORDS: Final = frozenset(
    "rue avenue boulevard place allee chemin quai impasse via viale piazza corso calle avenida plaza paseo rua ulica "
    "ul al "
    "aleja".split()
)
_GERMAN_ENDS: Final = ("strasse", "straße", "str", "weg", "platz", "allee", "gasse", "ring", "ufer", "damm", "chaussee")


def find_addresses(view: View) -> Iterator[Hit]:
    """A street with a house's number: Russian, English, German, and the usual French, Italian, Spanish and Polish."""
    for form in (_russian, _western, _german, _romance, _boxes, _posted):
        yield from (Hit(start, end, "address") for start, end in form(view))


def _russian(view: View) -> Iterator[tuple[int, int]]:
    for start, end in _RUSSIAN_STREETS.spans(view):
        house = _RUSSIAN_HOUSE.match(view.folded, end)
        if house is None and view.folded.startswith(_RUSSIAN_SURE, start):
            house = _NEXT_NUMBER.match(view.folded, end)
        if house is not None:
            yield start, house.end()
    if not _RUSSIAN_PLAIN_WORDS.isdisjoint(view.words):
        yield from (match.span() for match in _RUSSIAN_PLAIN.finditer(view.plain))
    if not _FLAT_WORDS.isdisjoint(view.words):
        yield from (match.span() for match in _FLAT.finditer(view.folded))


def _western(view: View) -> Iterator[tuple[int, int]]:
    if not _WESTERN_WORDS.isdisjoint(view.words):
        for match in _WESTERN.finditer(view.folded):
            if _WESTERN_SURE.search(match[0]) or view.plain[match.start() : match.end()].istitle():
                yield match.span()


def _german(view: View) -> Iterator[tuple[int, int]]:
    if any(word.endswith(_GERMAN_ENDS) for word in view.words):
        for match in _GERMAN.finditer(view.folded):
            name = _GERMAN_NAME.match(view.folded[max(0, match.start() - 64) : match.start()][::-1])
            start = match.start() - (len(name[0]) if name else 0)
            is_english = view.folded.endswith(_ENGLISH_ENDS, 0, match.start() + 4)
            if is_english and _POSTED_BEHIND.match(view.plain, match.end()) is None:
                continue
            if any(map(str.isupper, view.plain[start : match.start() + 1])):
                yield start, match.end()


def _romance(view: View) -> Iterator[tuple[int, int]]:
    if not _ROMANCE_WORDS.isdisjoint(view.words):
        for match in _ROMANCE.finditer(view.folded):
            if any(map(str.isupper, view.plain[match.start() : match.end()])):
                yield match.span()


def _boxes(view: View) -> Iterator[tuple[int, int]]:
    if not _BOX_WORDS.isdisjoint(view.words):
        yield from (match.span() for match in _BOX.finditer(view.folded))


_POSTED: Final = re.compile(
    r"(?<![\w.-])[A-ZÄÖÜ][^\W\d_'.-]{1,30}\.?(?:[ '-][^\W\d_][^\W\d_.'-]{0,24}){0,3}[ ][0-9]{1,4}"
    r"[ ]?[a-zA-Z]?(?:[/-][0-9]{1,3})?"
    r",?[ \n]{1,2}(?:[A-Z]{1,2}-)?[0-9]{5}[ ]{1,2}[A-ZÄÖÜ][^\W\d_]{2,}"
)
"""`Am Markt 12, 04109 Leipzig`: whatever the street is called, a house, a postcode and a town."""
_AMERICAN: Final = re.compile(
    r"(?<![\w.-])[0-9]{1,5}[ ](?:[A-Z0-9][\w.'-]{0,24}[ ,]{1,2}){1,7}[A-Z]{2}[ ][0-9]{5}(?:-[0-9]{4})?(?!\w)"
)
"""A house, names with capitals, a state and a ZIP code."""
_BRITISH: Final = re.compile(
    r"(?<![\w.-])(?:[Ff]lat[ ][0-9]{1,4}[a-zA-Z]?,?[ ])?[0-9]{1,4}[a-zA-Z]?,?[ ](?:[A-Z][\w.'-]{1,24}[ ,]{1,2}){1,6}"
    r"[A-Z]{1,2}[0-9][0-9A-Z]?[ ][0-9][A-Z]{2}(?!\w)"
)
_RUSSIAN_POSTED: Final = re.compile(
    r"(?<![0-9])[1-6][0-9]{5},?[ ](?:{r}[ ])?(?:{g})[. ]{1,2}[^\W\d_][\w -]{1,30},[^\n]{4,60}?[0-9]{1,4}(?![0-9])"
    .replace("{g}", "|".join(stems("г гор город пос д дер с село ст")))
    .replace("{r}", stems("россия,")[0])
)  # fmt: skip
"""A postcode, a town, and a number behind them."""


def _posted(view: View) -> Iterator[tuple[int, int]]:
    plain = view.plain
    if _POSTCODE.search(plain) is None:
        return
    if _ZIP.search(plain) is not None:
        yield from (match.span() for match in _POSTED.finditer(plain))
        yield from (match.span() for match in _AMERICAN.finditer(plain))
    if _UK_CODE.search(plain) is not None:
        yield from (match.span() for match in _BRITISH.finditer(plain))
    if not plain.isascii():
        yield from (match.span() for match in _RUSSIAN_POSTED.finditer(view.folded))


_POSTCODE: Final = re.compile(r"[0-9](?:[0-9]{4}|[A-Z]{2}(?!\w))")
"""What any postcode has: a look before the others."""
_ZIP: Final = re.compile(r"[ -][0-9]{5}(?![0-9])")
_UK_CODE: Final = re.compile(r"[ ][A-Z]{1,2}[0-9][0-9A-Z]?[ ][0-9][A-Z]{2}(?!\w)")
_BOX_WORDS: Final = frozenset({"box", "postfach", *stems("я")})
_FLAT_WORDS: Final = frozenset(stems("кв квартира офис оф"))
