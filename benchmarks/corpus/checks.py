"""Check digits of identifiers, each from its published rule. They take and give strings of digits."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

DNI_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"
"""Royal Decree 1553/2005, Spain: the letter at the number's remainder by 23."""
FISCAL_MONTHS = "ABCDEHLMPRST"
"""The letter of each month in a codice fiscale, decree of 12 March 1974."""
_FISCAL_ODD = dict(
    zip(
        "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        (
            *(1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 1, 0, 5, 7, 9, 13, 15, 17, 19, 21),
            *(2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23),
        ),
        strict=True,
    )
)


def weighted(digits: str, weights: Sequence[int]) -> int:
    """The sum of the products of digits and weights, in order."""
    return sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=True))


def snils(nine: str) -> str:
    """Two control digits of a SNILS: weights 9 to 1, modulo 101, 100 as 00."""
    return f"{weighted(nine, range(9, 0, -1)) % 101 % 100:02}"


def inn_company(nine: str) -> str:
    """The tenth digit of an organisation's INN."""
    return str(weighted(nine, (2, 4, 10, 3, 5, 9, 4, 6, 8)) % 11 % 10)


def inn_person(ten: str) -> str:
    """The last two digits of a person's INN."""
    first = str(weighted(ten, (7, 2, 4, 10, 3, 5, 9, 4, 6, 8)) % 11 % 10)
    return first + str(weighted(ten + first, (3, 7, 2, 4, 10, 3, 5, 9, 4, 6, 8)) % 11 % 10)


def ogrn(twelve: str) -> str:
    """The last digit of an OGRN."""
    return str(int(twelve) % 11 % 10)


def ogrnip(fourteen: str) -> str:
    """The last digit of an OGRNIP."""
    return str(int(fourteen) % 13 % 10)


def account_key(bik: str, account: str) -> str:
    """The control key, ninth digit of a client's account; what stands there is not looked at.

    Order 515 of the Bank of Russia, 8 September 1997: the bank's own three digits (7 to 9 of the BIK) and the account
    with a key of 0 are weighted by 7, 1, 3 …; the last digit of the sum of last digits, times 3, is the key.
    """
    digits = bik[6:] + account[:8] + "0" + account[9:]
    return str(sum(int(digit) * (7, 1, 3)[at % 3] % 10 for at, digit in enumerate(digits)) * 3 % 10)


def luhn(body: str) -> str:
    """The check digit that is put after `body`: cards, and the Russian policy of medical insurance."""
    total = 0
    for at, digit in enumerate(reversed(body)):
        value = int(digit) * (2 if at % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return str(-total % 10)


def german_tax_id(ten: str) -> str:
    """The last digit of a German tax id: ISO 7064, modulus 11, 10."""
    product = 10
    for digit in ten:
        product = ((int(digit) + product) % 10 or 10) * 2 % 11
    return str((11 - product) % 10)


def german_card(serial: str) -> str:
    """The check digit of a document's serial as in ICAO 9303: weights 7, 3, 1; letters count from 10."""
    return str(sum(int(sign, 36) * (7, 3, 1)[at % 3] for at, sign in enumerate(serial)) % 10)


def german_pension(eleven: str) -> str:
    """The last digit of a German pension insurance number (VKVV § 2): the letter at the ninth place as two digits."""
    digits = eleven[:8] + f"{ord(eleven[8]) - 64:02}" + eleven[9:]
    products = (int(digit) * weight for digit, weight in zip(digits, (2, 1, 2, 5, 7, 1, 2, 1, 2, 1, 2, 1), strict=True))
    return str(sum(value // 10 + value % 10 for value in products) % 10)


def french_key(thirteen: str) -> str:
    """The key of a French NIR: 97 less the remainder by 97; Corsica's 2A and 2B count as 19 and 18."""
    return f"{97 - int(thirteen.replace('2A', '19').replace('2B', '18')) % 97:02}"


def spanish_letter(digits: str) -> str:
    """The letter of a DNI, or of a NIE whose X, Y or Z is already 0, 1 or 2."""
    return DNI_LETTERS[int(digits) % 23]


def italian_letter(fifteen: str) -> str:
    """The last letter of a codice fiscale."""
    total = 0
    for at, sign in enumerate(fifteen):
        total += _FISCAL_ODD[sign] if at % 2 == 0 else int(sign) if sign.isdigit() else ord(sign) - 65
    return chr(65 + total % 26)


def dutch_digit(eight: str) -> str | None:
    """The last digit of a BSN, or None where no digit passes the test of eleven."""
    last = weighted(eight, range(9, 1, -1)) % 11
    return str(last) if last < 10 else None


def polish_digit(ten: str) -> str:
    """The last digit of a PESEL: weights 1, 3, 7, 9."""
    return str(-weighted(ten, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3)) % 10)


def nhs_digit(nine: str) -> str | None:
    """The last digit of an NHS number, or None where modulus 11 gives ten, which is never issued."""
    last = -weighted(nine, range(10, 1, -1)) % 11
    return str(last) if last < 10 else None


def iban_digits(country: str, account: str) -> str:
    """The two check digits after the country of an IBAN: ISO 13616, modulus 97."""
    number = "".join(str(int(sign, 36)) for sign in f"{account}{country}00")
    return f"{98 - int(number) % 97:02}"


def polish_date(born: dt.date) -> str:
    """The first six digits of a PESEL: the month tells the century, as the law of 24 September 2010 has it."""
    return f"{born:%y}{born.month + (20 if born.year >= 2000 else 0):02}{born:%d}"
