"""Numbers that are given out by states and banks, made up with right check digits: label to one of its spellings.

A number that is made up may by chance be somebody's. Nothing beside it in a row is theirs.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from random import Random
from typing import Final

from benchmarks.corpus import checks

Maker = Callable[[Random], str]

_SERIAL_LETTERS: Final = "CFGHJKLMNPRTVWXYZ"
"""Letters in the serials of German identity cards."""
_REGIONS: Final = ("01", "16", "23", "24", "34", "40", "45", "50", "52", "54", "61", "63", "66", "74", "77", "78")
_BANKS: Final = ("044525", "044030", "046577", "045004", "049205", "040349", "046015", "047501")
"""First digits of BIKs: the country and the region."""


def digits(rng: Random, count: int) -> str:
    """So many random digits."""
    return "".join(rng.choice("0123456789") for _ in range(count))


def born(rng: Random) -> dt.date:
    """Somebody's date of birth, 1940 to 2005."""
    return dt.date(1940, 1, 1) + dt.timedelta(days=rng.randrange(24_000))


def grouped(number: str, sizes: tuple[int, ...], sign: str) -> str:
    """The number cut into groups, `sign` between them."""
    at, groups = 0, []
    for size in sizes:
        groups.append(number[at : at + size])
        at += size
    return sign.join([*groups, number[at:]] if at < len(number) else groups)


def passport(rng: Random) -> str:
    series = f"{rng.choice(_REGIONS)}{rng.randrange(24):02}"
    number = f"{rng.randrange(100_000, 999_999)}"
    return rng.choice((f"{series} {number}", f"{series[:2]} {series[2:]} {number}", f"{series} № {number}"))


def snils(rng: Random) -> str:
    nine = f"{rng.randrange(2, 200):03}{digits(rng, 6)}"
    whole = nine + checks.snils(nine)
    return rng.choice((f"{whole[:3]}-{whole[3:6]}-{whole[6:9]} {whole[9:]}", grouped(whole, (3, 3, 3, 2), "-"), whole))


def inn_person(rng: Random) -> str:
    ten = rng.choice(_REGIONS) + digits(rng, 8)
    return ten + checks.inn_person(ten)


def inn_company(rng: Random) -> str:
    nine = rng.choice(_REGIONS) + digits(rng, 7)
    return nine + checks.inn_company(nine)


def ogrn(rng: Random) -> str:
    twelve = f"1{rng.randrange(2, 25):02}{rng.choice(_REGIONS)}{digits(rng, 7)}"
    return twelve + checks.ogrn(twelve)


def ogrnip(rng: Random) -> str:
    fourteen = f"3{rng.randrange(4, 25):02}{rng.choice(_REGIONS)}{digits(rng, 9)}"
    return fourteen + checks.ogrnip(fourteen)


def russian_phone(rng: Random) -> str:
    code, rest = f"9{rng.choice('0123568')}{rng.randrange(10)}", digits(rng, 7)
    a, b, c = rest[:3], rest[3:5], rest[5:]
    start = rng.choice(("+7", "8"))
    forms = (f"{start} {code} {a}-{b}-{c}", f"{start} ({code}) {a}-{b}-{c}", f"{start}{code}{rest}")
    return rng.choice((*forms, f"{start}-{code}-{a}-{b}-{c}"))


def driving_licence(rng: Random) -> str:
    series, number = f"{rng.choice(_REGIONS)}{rng.randrange(10, 40)}", digits(rng, 6)
    old = f"{series[:2]} {rng.choice('АВЕКМНОРСТУХ')}{rng.choice('АВЕКМНОРСТУХ')} {number}"
    return rng.choice((f"{series[:2]} {series[2:]} {number}", f"{series} {number}", f"99 {series[2:]} {number}", old))


def bank_account(rng: Random, bik: str) -> str:
    """A client's account at the bank that `bik` names, in roubles."""
    start = rng.choice(("40817", "40702", "40802", "42301"))
    account = f"{start}8100{rng.choice(('0000', '3800', '0123', '5502'))}{digits(rng, 7)}"
    return account[:8] + checks.account_key(bik, account) + account[9:]


def bik(rng: Random) -> str:
    """A BIK: the last three digits of a bank are 050 to 999."""
    return f"{rng.choice(_BANKS)}{rng.randrange(50, 1000):03}"


def medical_policy(rng: Random) -> str:
    body = rng.choice(_REGIONS) + digits(rng, 13)
    number = body + checks.luhn(body)
    return rng.choice((number, grouped(number, (4, 4, 4, 4), " ")))


def german_tax_id(rng: Random) -> str:
    """Of the first ten digits one stands there twice, one not at all (AO § 139b)."""
    while True:
        signs = rng.sample("0123456789", 9)
        signs.append(rng.choice(signs))
        rng.shuffle(signs)
        if signs[0] != "0":
            ten = "".join(signs)
            number = ten + checks.german_tax_id(ten)
            return rng.choice((number, grouped(number, (2, 3, 3, 3), " ")))


def german_card(rng: Random) -> str:
    alphabet = _SERIAL_LETTERS + "0123456789"
    serial = rng.choice("LMNPRTVWXY") + "".join(rng.choice(alphabet) for _ in range(8))
    return serial + checks.german_card(serial)


def german_pension(rng: Random) -> str:
    area = rng.choice(("02", "10", "12", "13", "15", "20", "24", "26", "28", "50", "53", "61", "65", "68"))
    eleven = f"{area}{born(rng):%d%m%y}{rng.choice('ABDEFGHKLMNPRSTW')}{rng.randrange(100):02}"
    whole = eleven + checks.german_pension(eleven)
    return rng.choice((whole, f"{whole[:2]} {whole[2:8]} {whole[8]} {whole[9:]}"))


def french_nir(rng: Random) -> str:
    department = rng.choice(("75", "69", "13", "33", "59", "31", "44", "2A", "2B"))
    whole = f"{rng.choice('12')}{born(rng):%y%m}{department}{rng.randrange(1, 600):03}{rng.randrange(1, 900):03}"
    key = checks.french_key(whole)
    return rng.choice((whole + key, f"{grouped(whole, (1, 2, 2, 2, 3, 3), ' ')} {key}"))


def spanish_dni(rng: Random) -> str:
    number = f"{rng.randrange(10_000_000, 80_000_000)}"
    return number + rng.choice(("", "-")) + checks.spanish_letter(number)


def spanish_nie(rng: Random) -> str:
    first, number = rng.choice((("X", "0"), ("Y", "1"), ("Z", "2"))), digits(rng, 7)
    sign = rng.choice(("", "-"))
    return f"{first[0]}{sign}{number}{sign}{checks.spanish_letter(first[1] + number)}"


def italian_code(rng: Random) -> str:
    letters = "".join(rng.choice("BCDFGLMNPRSTV") for _ in range(6))
    when, woman = born(rng), rng.random() < 0.5
    day = when.day + (40 if woman else 0)
    place = rng.choice(("H501", "F205", "L219", "F839", "A944", "D612", "G273"))
    body = f"{letters}{when:%y}{checks.FISCAL_MONTHS[when.month - 1]}{day:02}{place}"
    return body + checks.italian_letter(body)


def dutch_bsn(rng: Random) -> str:
    while True:
        eight = f"{rng.randrange(10_000_000, 99_999_999)}"
        last = checks.dutch_digit(eight)
        if last is not None:
            return rng.choice((eight + last, grouped(eight + last, (4, 2, 3), ".")))


def polish_pesel(rng: Random) -> str:
    ten = checks.polish_date(born(rng)) + digits(rng, 4)
    return ten + checks.polish_digit(ten)


def british_nino(rng: Random) -> str:
    """A prefix that may be given out (HMRC, NIM39110): not D F I Q U V, no O second, and none of seven pairs."""
    while True:
        prefix = rng.choice("ABCEGHJKLMNOPRSTWXYZ") + rng.choice("ABCEGHJKLMNPRSTWXYZ")
        if prefix not in {"BG", "GB", "NK", "KN", "TN", "NT", "ZZ"}:
            number, suffix = digits(rng, 6), rng.choice("ABCD")
            return rng.choice((f"{prefix}{number}{suffix}", f"{prefix} {grouped(number, (2, 2, 2), ' ')} {suffix}"))


def nhs(rng: Random) -> str:
    while True:
        nine = rng.choice("4567") + digits(rng, 8)
        last = checks.nhs_digit(nine)
        if last is not None:
            return rng.choice((nine + last, grouped(nine + last, (3, 3, 4), " ")))


def ssn(rng: Random) -> str:
    """Area 001 to 899 but 666, group and serial not of zeros alone (SSA)."""
    area = rng.choice([number for number in range(1, 900) if number != 666])
    return f"{area:03}-{rng.randrange(1, 100):02}-{rng.randrange(1, 10_000):04}"


def itin(rng: Random) -> str:
    """Area 900 to 999, group 50 to 65, 70 to 88, 90 to 92, 94 to 99 (IRS)."""
    group = rng.choice([*range(50, 66), *range(70, 89), *range(90, 93), *range(94, 100)])
    return f"{rng.randrange(900, 1000)}-{group}-{rng.randrange(10_000):04}"


def iban(rng: Random) -> str:
    country = rng.choice(("DE", "FR", "ES", "NL", "PL", "GB", "AT", "IT"))
    lengths = {"DE": 18, "FR": 23, "ES": 20, "NL": 10, "PL": 24, "GB": 14, "AT": 16, "IT": 22}
    before = {"NL": "ABNA", "GB": "NWBK", "IT": "X"}.get(country, "")
    account = before + digits(rng, lengths[country])
    whole = country + checks.iban_digits(country, account) + account
    return rng.choice((whole, " ".join(whole[at : at + 4] for at in range(0, len(whole), 4))))


def card(rng: Random) -> str:
    prefix = rng.choice(("4276", "4000", "5213", "5536", "2200", "2202", "3714"))
    body = prefix + digits(rng, 10 if prefix == "3714" else 11)
    number = body + checks.luhn(body)
    sizes = (4, 6, 5) if len(number) == 15 else (4, 4, 4, 4)
    return rng.choice((number, grouped(number, sizes, " "), grouped(number, sizes, "-")))


def phone(rng: Random) -> str:
    """Outside Russia, written as abroad or as at home."""
    rest = digits(rng, 7)
    return rng.choice(
        (
            f"+49 15{rng.choice('12579')} {rng.randrange(1, 10)}{rest}",
            f"+49 30 {rng.randrange(2, 9)}{rest}",
            f"+44 7{rng.choice('4578')}{rng.randrange(10)}{rng.randrange(10)} {rest[:6]}",
            f"+1 (212) {rng.randrange(2, 9)}{rest[:2]}-{rest[2:6]}",
            f"+1-415-{rng.randrange(2, 9)}{rest[:2]}-{rest[2:6]}",
            f"+33 6 {rng.randrange(10, 99)} {rest[:2]} {rest[2:4]} {rest[4:6]}",
            f"+48 60{rng.randrange(10)} {rest[:3]} {rest[3:6]}",
            f"+34 61{rng.randrange(10)} {rest[:3]} {rest[3:6]}",
        )
    )


MAKERS: Final[dict[str, Maker]] = {
    "ru.passport": passport,
    "ru.snils": snils,
    "ru.inn_person": inn_person,
    "ru.inn_company": inn_company,
    "ru.ogrn": ogrn,
    "ru.ogrnip": ogrnip,
    "ru.phone": russian_phone,
    "ru.driving_licence": driving_licence,
    "ru.medical_policy": medical_policy,
    "de.tax_id": german_tax_id,
    "de.id_card": german_card,
    "de.pension": german_pension,
    "fr.nir": french_nir,
    "es.dni": spanish_dni,
    "es.nie": spanish_nie,
    "it.codice_fiscale": italian_code,
    "nl.bsn": dutch_bsn,
    "pl.pesel": polish_pesel,
    "gb.nino": british_nino,
    "gb.nhs": nhs,
    "us.ssn": ssn,
    "us.itin": itin,
    "iban": iban,
    "card": card,
    "phone": phone,
}
"""All but `ru.bank_account`, which needs the BIK that stands beside it."""
