"""Identifiers of the Russian Federation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from serving.policy.detect.cards import is_card
from serving.policy.detect.context import reading_of
from serving.policy.detect.finding import Hit
from serving.policy.detect.fold import View, fold
from serving.policy.detect.lexicon import LEXICON
from serving.policy.detect.numbers import Rule, always, is_day, luhn, weighted

_REGIONS: Final = frozenset(
    "01 03 04 05 07 08 10 11 12 14 15 17 18 19 20 22 24 25 26 27 28 29 30 32 33 34 35 36 37 38 40 41 42 43 44 45 46 "
    "47 49 "
    "50 52 53 54 56 57 58 60 61 63 64 65 66 67 68 69 70 71 73 74 75 76 77 78 79 80 81 82 83 84 85 86 87 88 89 90 91 "
    "92 93 "
    "94 95 96 97 98 99".split()
)
"""Regions by OKATO (OK 019-95)."""


def is_passport(digits: str) -> bool:
    """Ten digits: region, the year that the form was printed in (since 1997), six of the number. No checksum.

    Source: Government decree 828 of 8 July 1997.
    """
    return digits[:2] != "00" and (digits[2:4] >= "97" or digits[2:4] <= "40") and digits[4:] != "000000"


def is_snils(digits: str) -> bool:
    """Nine digits by weights 9…1, modulo 101 (100 counts as 0), are the last two.

    Source: Pension Fund board decree 192p of 31 July 2006; numbers to 001-001-998 have none.
    """
    if digits[:9] <= "001001998":
        return False
    return weighted(digits, (9, 8, 7, 6, 5, 4, 3, 2, 1)) % 101 % 100 == int(digits[9:])


def is_inn_company(digits: str) -> bool:
    """Weights 2 4 10 3 5 9 4 6 8, modulo 11, modulo 10. One random number in ten passes.

    Source: Ministry of Taxes order BG-3-09/178 of 3 March 2004, annex.
    """
    return digits[:2] != "00" and weighted(digits, (2, 4, 10, 3, 5, 9, 4, 6, 8)) % 11 % 10 == int(digits[9])


def is_inn_person(digits: str) -> bool:
    """As for a company, with two check digits: weights 7 2 4 10 3 5 9 4 6 8, then 3 before them. One in a hundred."""
    weights = (7, 2, 4, 10, 3, 5, 9, 4, 6, 8)
    return (
        digits[:2] != "00"
        and weighted(digits, weights) % 11 % 10 == int(digits[10])
        and weighted(digits, (3, *weights)) % 11 % 10 == int(digits[11])
    )


def is_ogrn(digits: str) -> bool:
    """The number without its last digit, modulo 11, modulo 10; the first digit is 1, 2 or 5.

    Source: Ministry of Finance order 165n of 30 October 2017.
    """
    return digits[0] in "125" and int(digits[:12]) % 11 % 10 == int(digits[12])


def is_ogrnip(digits: str) -> bool:
    """The number without its last digit, modulo 13, modulo 10; the first digit is 3 or 4. Source: as OGRN."""
    return digits[0] in "34" and int(digits[:14]) % 13 % 10 == int(digits[14])


def is_medical_policy(digits: str) -> bool:
    """Sixteen digits of the unified policy (ENP).

    Its check digit is Luhn's in other words (Federal Fund order 79 of 7 April 2011, annex), and not asked for: with the
    word beside it one mistyped is a policy too.
    """
    return digits[0] != "0" or luhn(digits)


_CURRENCIES: Final = frozenset({"810", "643", "840", "978", "156", "826", "756", "392", "398", "933", "949", "784"})
_ACCOUNTS: Final = tuple("301 302 303 304 401 402 403 404 405 406 407 408 40 42 43 44 45 47 20".split())


def is_account(digits: str) -> bool:
    """Twenty digits: a balance account of Bank of Russia's chart (809-P), and a currency in places 6 to 8."""
    return digits[5:8] in _CURRENCIES and digits.startswith(_ACCOUNTS)


def fits_bik(account: str, bik: str) -> bool:
    """The key: weights 7 1 3 over three digits of the bank and the account, a multiple of ten.

    The three are the last of the BIK; `0` and its digits 5 and 6 for accounts with the Bank of Russia (301…).
    Source: Bank of Russia, order of 8 September 1997, No. 515.
    """
    bank = "0" + bik[4:6] if account.startswith("301") else bik[6:9]
    return weighted(bank + account, (7, 1, 3) * 8) % 10 == 0


def is_phone(digits: str) -> bool:
    """7 or 8, then a code that is given: 3, 4, 8 for places, 9 for mobiles (Russian numbering plan)."""
    return digits[0] in "78" and digits[1] in "3489" and len(set(digits[1:])) > 2


def is_mobile(digits: str) -> bool:
    """As `is_phone`, mobile only: what may stand without grouping."""
    return is_phone(digits) and digits[1] == "9"


def is_snils_today(digits: str) -> bool:
    """Of those that were given out so far: none begins with more than 2."""
    return digits[0] in "012"


def is_no_date(digits: str) -> bool:
    """Not a moment written in twelve digits, such as 202501311245."""
    return not ("19" <= digits[:2] <= "20" and is_day(digits[2:4], digits[4:6], digits[6:8]))


def is_registered(digits: str) -> bool:
    """OGRN and OGRNIP: kind, year of the record since 2002, region."""
    return digits[0] in "135" and "02" <= digits[1:3] <= "39" and digits[3:5] != "00"


def is_unissued_policy(digits: str) -> bool:
    """Luhn, a region first, and no issuer of cards has it: grouped as 4-4-4-4 nothing else is written so."""
    return luhn(digits) and digits[:2] in _REGIONS and not is_card(digits)


def is_licence(digits: str) -> bool:
    """Series and number of a driving licence. No checksum."""
    return digits[:2] != "00" and digits[4:] != "000000"


RULES: Final = (
    Rule("ru.passport", (10,), is_passport, "ru.passport", frozenset({(4, 6), (2, 2, 6), (2, 2, 3, 3)}),
         frozenset({(2, 2, 6)}), is_weak=True, shared="ru.series"),
    Rule("ru.driving_licence", (10,), is_licence, "ru.driving_licence", frozenset({(4, 6), (2, 2, 6), (2, 2, 3, 3)}),
         frozenset({(2, 2, 6)}), is_weak=True),
    Rule("ru.inn_company", (10,), is_inn_company, "ru.inn_company"),
    Rule("ru.inn_person", (12,), is_inn_person, "ru.inn", alone=is_no_date),
    Rule("ru.snils", (11,), is_snils, "ru.snils", frozenset({(3, 3, 5)}),
         frozenset({(3, 3, 3, 2)}), alone=is_snils_today, is_shown=True),
    Rule("ru.ogrn", (13,), is_ogrn, "ru.ogrn", alone=is_registered),
    Rule("ru.ogrnip", (15,), is_ogrnip, "ru.ogrnip", alone=is_registered),
    Rule("ru.medical_policy", (16,), is_medical_policy, "ru.medical_policy", frozenset({(4, 4, 4, 4)})),
    Rule("ru.medical_policy", (16,), is_unissued_policy, own=frozenset({(4, 4, 4, 4)})),
    Rule("ru.bank_account", (20,), is_account, alone=always, is_shown=True),
    Rule("ru.phone", (11,), is_phone, "ru.phone", own=frozenset({
        (1, 3, 3, 2, 2), (1, 3, 3, 4), (1, 10), (1, 3, 7), (1, 4, 2, 2, 2), (1, 4, 3, 3), (1, 4, 6), (1, 5, 2, 3),
        (4, 3, 2, 2), (4, 3, 4), (1, 3, 2, 2, 3), (1, 3, 2, 5), (4, 7)})),
    Rule("ru.phone", (11,), is_mobile, alone=always),
    Rule("ru.phone", (10,), lambda digits: digits[0] in "3489", "ru.phone",
         frozenset({(3, 3, 2, 2), (3, 3, 4), (3, 7)}), is_weak=True),
)  # fmt: skip


def _groups_apart(first: int, second: int) -> re.Pattern[str]:
    """Two numbers of so many digits, signs between digits looked through, and what stands between the two."""
    sign = r"[ \n./_-]{0,2}"
    return re.compile(
        rf"[0-9](?<![0-9].)(?:{sign}[0-9]){{{first - 1}}}(?![0-9])(?P<between>[^0-9]{{1,60}}+)"
        rf"[0-9](?:{sign}[0-9]){{{second - 1}}}(?![0-9])"
    )


_PAIR: Final = _groups_apart(4, 6)
"""`45 10 № 123456`, `4510, номер 123456`, `"series": "4510", "number": "123456"`."""
_TURNED: Final = _groups_apart(6, 4)
"""The number before the series."""
_NUMBER_NEXT: Final = re.compile(
    r"[\s,;:\"'-]{0,6}(?:no|n|h|nr|#|number|num|nummer|{n}[^\W\d_]{0,3})[.:\s\"']{0,6}|,[ ]".replace(
        "{n}", fold("номер")
    )
)
_NUMBER_WORD: Final = re.compile(
    r"#|number|nummer|numero|{n}|(?<![^\W_])(?:no|n|h|nr|num|nom|{m})(?![^\W_])".format(n=fold("номер"), m=fold("ном"))
)
_SERIES_WORD: Final = re.compile(f"seri|{fold('сери')}|(?<![^\\W_])(?:ser|{fold('сер')})(?![^\\W_])")
_BETWEEN_CELLS: Final = re.compile(r"[ ]{0,9}[\"']?[ ]?[\t;|,][ ]?[\"']?[ ]{0,9}")
_BIK: Final = re.compile(r"(?<![0-9])04[0-9]{7}(?![0-9])")
_BIK_CHARS: Final = 180
_TWENTY: Final = re.compile(r"[0-9](?<![0-9].)[0-9]{19}(?![0-9])")


_SERIES_CONTEXTS: Final = ("ru.passport", "ru.series", "ru.driving_licence")


def find_passport_pairs(view: View) -> Iterator[Hit]:
    """A series and a number apart: the word `number` between them, or fields of a form; or each in its own column."""
    for match in _PAIR.finditer(view.folded):
        digits = "".join(filter(str.isdigit, match[0]))
        yield from _apart(view, match, digits, _NUMBER_WORD)
    for match in _TURNED.finditer(view.folded):
        digits = "".join(filter(str.isdigit, match[0]))
        yield from _apart(view, match, digits[6:] + digits[:6], _SERIES_WORD)


def _apart(view: View, match: re.Match[str], digits: str, word: re.Pattern[str]) -> Iterator[Hit]:
    start, end = match.span()
    between, reading = match["between"], reading_of(view, LEXICON)
    is_possible = "#" in between or not reading.possible.isdisjoint(_SERIES_CONTEXTS)
    if not is_possible or not is_passport(digits):
        return
    near = reading.near(match.end("between"), end) | reading.near(start, end)
    if _NUMBER_NEXT.fullmatch(between) is not None:
        is_series = "ru.series" in near
        is_alone = "#" in between and near.get("order", _FAR) > _CLOSE
    elif word.search(between) is not None:
        is_series, is_alone = "ru.series" in near and digits[:2] in _REGIONS, False
    elif _BETWEEN_CELLS.fullmatch(between) is not None:
        column, near_by = reading.headings(start)
        if "order" in column or not ("ru.series" in column or "ru.passport" in column):
            return
        near, is_series, is_alone = dict.fromkeys(near_by, 0), digits[:2] in _REGIONS, False
    else:
        return
    is_licence = "ru.driving_licence" in near
    if "ru.passport" in near or is_alone or (is_series and not is_licence):
        yield Hit(start, end, "ru.passport")
    if is_licence:
        yield Hit(start, end, "ru.driving_licence")


_CLOSE: Final = 24
_FAR: Final = 1_000
_OLD_LICENCE: Final = re.compile(
    r"[0-9](?<![a-z0-9].){S}[0-9]{S}[abekmhopctyx]{S}[abekmhopctyx](?:{S}[0-9]){6}(?![a-z0-9])".replace(
        "{S}", r"[ \n./_-]{0,2}"
    )
)
"""`77 АВ 123456`, in letters that look alike in both alphabets."""
_SINGLE_SIGN: Final = re.compile(r"[0-9]{2}[ -]?[^\W\d_]{2}[ -]?[0-9]{6}")


_SHORT_LICENCE: Final = re.compile(
    r"(?<!\w)[Вв][Уу](?!\w)[^\w\n]{0,6}(?:[^\W\d_]{2,9}\.?[^\w]{1,3}){0,2}"
    r"(?P<number>[0-9](?:[ №#./\n-]{0,3}[0-9]){9})(?![0-9])"
)
"""`ВУ 99 12 345678`: folded, the abbreviation would be the English word `by`."""


def find_old_licences(view: View) -> Iterator[Hit]:
    """Driving licences and certificates of vehicles with letters in their series: in Cyrillic, or near their word."""
    for short in () if view.plain.isascii() else _SHORT_LICENCE.finditer(view.plain):
        if is_licence("".join(filter(str.isdigit, short["number"]))):
            yield Hit(short.start("number"), short.end(), "ru.driving_licence")
    folded = view.without_hashes
    for match in _OLD_LICENCE.finditer(folded):
        start, end = match.span()
        near = reading_of(view, LEXICON).near(start, end)
        written = view.plain[start:end]
        is_russian = any("\u0400" < letter < "\u0500" for letter in written)
        is_counted = near.get("order", _FAR) <= _CLOSE
        is_own = _SINGLE_SIGN.fullmatch(folded, start, end) and (is_russian or (written.isupper() and " " in written))
        if "ru.driving_licence" in near or (is_own and not is_counted):
            yield Hit(start, end, "ru.driving_licence")


def find_accounts_by_bik(view: View) -> Iterator[Hit]:
    """Twenty digits whose key fits a BIK that is near: accounts of charts that `is_account` does not know."""
    folded = view.folded
    if "04" not in folded:
        return
    for match in _TWENTY.finditer(folded):
        around = folded[max(0, match.start() - _BIK_CHARS) : match.end() + _BIK_CHARS]
        if not is_account(match[0]) and any(fits_bik(match[0], bik) for bik in _BIK.findall(around)):
            yield Hit(match.start(), match.end(), "ru.bank_account")
