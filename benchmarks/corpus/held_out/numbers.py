"""Identifiers of the held-out part: the same numbers by the same rules, in more of the spellings that people use."""

from __future__ import annotations

from random import Random
from typing import Final

from benchmarks.corpus import checks, identifiers
from benchmarks.corpus.identifiers import digits, grouped

_ZONES: Final = ("02", "05", "18", "22", "26", "36", "38", "42", "46", "57", "60", "65", "71", "75", "80", "97")
_BBAN_DIGITS: Final = {
    "DE": 18,
    "AT": 16,
    "BE": 12,
    "CH": 17,
    "SE": 20,
    "FI": 14,
    "DK": 14,
    "PT": 21,
    "CZ": 20,
    "LT": 16,
    "NO": 11,
    "ES": 20,
    "PL": 24,
    "FR": 23,
    "EE": 16,
    "NL": 10,
    "IE": 14,
}
"""Digits after the check digits and the bank's letters: registry of ISO 13616."""
_BBAN_LETTERS: Final = {"NL": ("INGB", "RABO"), "IE": ("AIBK", "BOFI")}


def bare(number: str) -> str:
    """Letters and digits alone."""
    return "".join(sign for sign in number if sign.isalnum())


def passport(rng: Random) -> str:
    series, number = f"{rng.choice(_ZONES)}{rng.randrange(24):02}", f"{rng.randrange(100_000, 999_999)}"
    two = f"{series[:2]} {series[2:]}"
    return rng.choice(
        (
            f"{series} {number}",
            f"{two} {number}",
            f"{two} № {number}",
            f"{series}-{number}",
            series + number,
            f"{series} N {number}",
        )
    )


def snils(rng: Random) -> str:
    nine = f"{rng.randrange(2, 200):03}{digits(rng, 6)}"
    whole = nine + checks.snils(nine)
    dashed = f"{whole[:3]}-{whole[3:6]}-{whole[6:9]}"
    return rng.choice((f"{dashed} {whole[9:]}", f"{dashed}-{whole[9:]}", whole, grouped(whole, (3, 3, 3, 2), " ")))


def inn_person(rng: Random) -> str:
    ten = rng.choice(_ZONES) + digits(rng, 8)
    return ten + checks.inn_person(ten)


def inn_company(rng: Random) -> str:
    nine = rng.choice(_ZONES) + digits(rng, 7)
    return nine + checks.inn_company(nine)


def ogrn(rng: Random) -> str:
    twelve = f"{rng.choice('15')}{rng.randrange(2, 25):02}{rng.choice(_ZONES)}{digits(rng, 7)}"
    return twelve + checks.ogrn(twelve)


def ogrnip(rng: Random) -> str:
    fourteen = f"3{rng.randrange(4, 25):02}{rng.choice(_ZONES)}{digits(rng, 9)}"
    return fourteen + checks.ogrnip(fourteen)


def russian_phone(rng: Random) -> str:
    """Mobile numbers, and some of flats and offices."""
    code = rng.choice(
        (*(f"9{rng.choice('0123568')}{rng.randrange(10)}" for _ in range(3)), rng.choice(("495", "343", "812")))
    )
    rest = f"{rng.randrange(2, 10)}{digits(rng, 6)}"
    a, b, c = rest[:3], rest[3:5], rest[5:]
    start = rng.choice(("+7", "8"))
    return rng.choice(
        (
            f"{start} ({code}) {a} {b} {c}",
            f"{start} {code} {a} {b} {c}",
            f"{start}({code}){a}-{b}-{c}",
            f"{start}-{code}-{rest}",
            f"{start} {code} {rest}",
            f"{start}{code}{rest}",
            f"{start} ({code}) {a}-{b}{c}",
        )
    )


def driving_licence(rng: Random) -> str:
    series, number = f"{rng.choice(('99', *_ZONES))}{rng.randrange(10, 40)}", digits(rng, 6)
    two = f"{series[:2]} {series[2:]}"
    return rng.choice(
        (f"{two} {number}", f"{series} {number}", f"{series} № {number}", f"{two} № {number}", series + number)
    )


def bank_account(rng: Random, bik: str) -> str:
    """A client's account in roubles; now and then in the groups in which banks read it out."""
    start = rng.choice(("40817", "40702", "40802", "42306", "40703"))
    account = f"{start}8100{rng.choice(('0001', '1600', '9991', '6201'))}{digits(rng, 7)}"
    whole = account[:8] + checks.account_key(bik, account) + account[9:]
    return rng.choice((whole, whole, whole, grouped(whole, (5, 3, 1, 4, 7), " "), grouped(whole, (5, 3, 1, 4, 7), ".")))


def medical_policy(rng: Random) -> str:
    body = rng.choice(_ZONES) + digits(rng, 13)
    number = body + checks.luhn(body)
    return rng.choice((number, number, grouped(number, (4, 4, 4, 4), " "), grouped(number, (4, 4, 4, 4), "-")))


def german_tax_id(rng: Random) -> str:
    number = bare(identifiers.german_tax_id(rng))
    return rng.choice((number, grouped(number, (2, 3, 3, 3), " "), grouped(number, (3, 4, 4), " ")))


def german_pension(rng: Random) -> str:
    whole = bare(identifiers.german_pension(rng))
    return rng.choice(
        (whole, f"{whole[:2]} {whole[2:8]} {whole[8:]}", f"{whole[:2]} {whole[2:8]} {whole[8]} {whole[9:]}")
    )


def french_nir(rng: Random) -> str:
    whole = bare(identifiers.french_nir(rng))
    body, key = whole[:13], whole[13:]
    return rng.choice((whole, f"{body} {key}", f"{grouped(body, (1, 2, 2, 2, 3, 3), ' ')} {key}", f"{body}/{key}"))


def spanish_dni(rng: Random) -> str:
    number = f"{rng.randrange(10_000_000, 80_000_000)}"
    letter = checks.spanish_letter(number)
    return rng.choice(
        (number + letter, f"{number}-{letter}", f"{grouped(number, (2, 3, 3), '.')}-{letter}", f"{number} {letter}")
    )


def spanish_nie(rng: Random) -> str:
    whole = bare(identifiers.spanish_nie(rng))
    return rng.choice(
        (whole, f"{whole[0]}-{whole[1:8]}-{whole[8]}", f"{whole[:8]}-{whole[8]}", f"{whole[0]} {whole[1:8]} {whole[8]}")
    )


def italian_code(rng: Random) -> str:
    whole = identifiers.italian_code(rng)
    return rng.choice((whole, whole, grouped(whole, (3, 3, 5, 5), " "), whole.lower()))


def dutch_bsn(rng: Random) -> str:
    whole = bare(identifiers.dutch_bsn(rng))
    return rng.choice((whole, grouped(whole, (4, 2, 3), "."), grouped(whole, (3, 3, 3), " ")))


def british_nino(rng: Random) -> str:
    whole = bare(identifiers.british_nino(rng))
    pairs = (2, 2, 2, 2, 1)
    return rng.choice(
        (whole, grouped(whole, pairs, " "), grouped(whole, pairs, "-"), f"{whole[:2]} {whole[2:8]} {whole[8]}")
    )


def nhs(rng: Random) -> str:
    whole = bare(identifiers.nhs(rng))
    return rng.choice((whole, grouped(whole, (3, 3, 4), " "), grouped(whole, (3, 3, 4), "-")))


def ssn(rng: Random) -> str:
    dashed = identifiers.ssn(rng)
    return rng.choice((dashed, dashed, dashed.replace("-", " "), dashed.replace("-", "")))


def itin(rng: Random) -> str:
    dashed = identifiers.itin(rng)
    return rng.choice((dashed, dashed, dashed.replace("-", " "), dashed.replace("-", "")))


def iban(rng: Random) -> str:
    country = rng.choice(list(_BBAN_DIGITS))
    account = rng.choice(_BBAN_LETTERS.get(country, ("",))) + digits(rng, _BBAN_DIGITS[country])
    whole = country + checks.iban_digits(country, account) + account
    fours = [whole[at : at + 4] for at in range(0, len(whole), 4)]
    return rng.choice((whole, whole, " ".join(fours), " ".join(fours), "-".join(fours)))


def card(rng: Random) -> str:
    prefix = rng.choice(("4", "4", "51", "53", "55", "2201", "2204", "34", "37", "6011", "6250", "3540"))
    body = prefix + digits(rng, (14 if prefix in {"34", "37"} else 15) - len(prefix))
    number = body + checks.luhn(body)
    sizes = (4, 6, 5) if len(number) == 15 else (4, 4, 4, 4)
    return rng.choice((number, grouped(number, sizes, " "), grouped(number, sizes, "-")))


def phone(rng: Random, language: str) -> str:
    """Outside Russia: as dialled from abroad, and as written at home in the row's own language."""
    rest, first = digits(rng, 7), rng.randrange(2, 9)
    abroad = (
        f"+49 17{rng.choice('0156')} {first}{rest[:6]}",
        f"+49 (0) 89 {first}{rest}",
        f"0049 40 {first}{rest[:6]}",
        f"+44 (0)20 7{rest[:3]} {rest[3:]}",
        f"+44 7{rng.choice('4589')}{rest[:2]} {rest[2:5]} {rest[5:]}{rng.randrange(10)}",
        f"+1 512 {first}{rest[:2]} {rest[2:6]}",
        f"+1 (617) {first}{rest[:2]}-{rest[2:6]}",
        f"+43 664 {first}{rest[:6]}",
        f"+41 79 {first}{rest[:2]} {rest[2:4]} {rest[4:6]}",
        f"+31 6 {first}{rest}",
        f"+39 33{rng.randrange(10)} {first}{rest[:6]}",
        f"+90 532 {first}{rest[:2]} {rest[2:4]} {rest[4:6]}",
    )
    home = {
        "de": (
            f"017{rng.choice('0156')}/{first}{rest[:6]}",
            f"089 / {first}{rest[:2]} {rest[2:6]}",
            f"(030) {first}{rest[:6]}",
        ),
        "en": (
            f"(646) {first}{rest[:2]}-{rest[2:6]}",
            f"07{rng.choice('4589')}{rest[:2]} {rest[1:]}",
            f"206.{first}{rest[:2]}.{rest[2:6]}",
        ),
    }
    return rng.choice((*abroad, *home[language] * 2))
