"""Identifiers made of digits of states of Europe. What has letters is in `lettered`."""

from __future__ import annotations

from typing import Final

from serving.policy.detect.numbers import Rule, always, is_day, luhn, mod_11_10, weighted


def is_de_tax(digits: str) -> bool:
    """Steuer-ID, § 139b AO: not 0 first; of ten digits one comes twice or three times; MOD 11,10."""
    if digits[0] == "0" or not mod_11_10(digits):
        return False
    counts = sorted(map(digits[:10].count, set(digits[:10])))
    return counts[-1] in {2, 3} and counts[:-1].count(1) == len(counts) - 1


def is_fr_nir(digits: str) -> bool:
    """NIR (INSEE): sex, year, month, département, commune, order, and 97 less the number modulo 97.

    Months 20 and beyond stand for what is not known.
    """
    month = digits[3:5]
    is_month = "01" <= month <= "12" or "20" <= month <= "42" or month >= "50"
    return digits[0] in "123478" and is_month and int(digits[13:]) == 97 - int(digits[:13]) % 97


def is_nl_bsn(digits: str) -> bool:
    """BSN, the eleven-test: weights 9…2 and −1, a multiple of 11 (Besluit BSN)."""
    return int(digits) > 0 and weighted(digits, (9, 8, 7, 6, 5, 4, 3, 2, -1)) % 11 == 0


def is_pl_pesel(digits: str) -> bool:
    """PESEL: birth date with the century in the month, weights 1 3 7 9 (act of 24 September 2010)."""
    month = int(digits[2:4]) % 20
    return (
        is_day(digits[:2], f"{month:02d}", digits[4:6])
        and (10 - weighted(digits, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3)) % 10) % 10 == int(digits[10])
    )  # fmt: skip


def is_pl_nip(digits: str) -> bool:
    """NIP: weights 6 5 7 2 3 4 5 6 7, modulo 11."""
    return digits[0] != "0" and weighted(digits, (6, 5, 7, 2, 3, 4, 5, 6, 7)) % 11 == int(digits[9])


def is_gb_nhs(digits: str) -> bool:
    """NHS number: weights 10…2, 11 less the remainder (NHS Data Dictionary)."""
    check = (11 - weighted(digits, (10, 9, 8, 7, 6, 5, 4, 3, 2)) % 11) % 11
    return check == int(digits[9]) and len(set(digits)) > 1


def is_be_rrn(digits: str) -> bool:
    """Rijksregisternummer: birth date, then 97 less the nine digits modulo 97, a 2 before them since 2000."""
    check = int(digits[9:])
    nine = digits[:9]
    return digits[2:4] <= "12" and check in {97 - int(nine) % 97, 97 - int("2" + nine) % 97}


def is_se_person(digits: str) -> bool:
    """Personnummer: birth date (60 more for a coordination number), Luhn over the last ten."""
    ten = digits[-10:]
    if ten[2:4] > "12" or not luhn(ten):
        return False
    day = int(ten[4:6])
    return is_day(ten[:2], ten[2:4], f"{day - 60 if day > 60 else day:02d}")


def is_ch_ahv(digits: str) -> bool:
    """AHV number: 756 and the check digit of EAN-13."""
    return digits.startswith("756") and ean(digits)


def ean(digits: str) -> bool:
    """EAN-13 (ISO/IEC 15420): weights 1 and 3."""
    return weighted(digits, (1, 3) * 7) % 10 == 0


def is_at_svnr(digits: str) -> bool:
    """Sozialversicherungsnummer: birth date at its end, check digit fourth, weights 3 7 9 – 5 8 4 2 1 6."""
    if digits[0] == "0" or digits[6:8] > "15":
        return False
    return weighted(digits[:3] + digits[4:], (3, 7, 9, 5, 8, 4, 2, 1, 6)) % 11 == int(digits[3])


def is_pt_nif(digits: str) -> bool:
    """NIF: weights 9…2, 11 less the remainder, 10 and 11 counting as 0."""
    check = 11 - weighted(digits, (9, 8, 7, 6, 5, 4, 3, 2)) % 11
    return digits[0] in "12356789" and (0 if check > 9 else check) == int(digits[8])


def is_cz_birth(digits: str) -> bool:
    """Rodné číslo (also Slovak): birth date with 50 or 20 more in the month, the whole a multiple of 11."""
    month = int(digits[2:4]) % 50
    return 1 <= (month - 20 if month > 20 else month) <= 12 and "01" <= digits[4:6] <= "31" and int(digits) % 11 == 0


def is_dk_cpr(digits: str) -> bool:
    """CPR: a birth date; its old checksum is not kept any more."""
    return is_day(digits[4:6], digits[2:4], digits[:2])


def is_ro_cnp(digits: str) -> bool:
    """CNP: sex and century, birth date, county; weights 279146358279, modulo 11, 10 counting as 1."""
    if digits[0] not in "12345678" or not is_day(digits[1:3], digits[3:5], digits[5:7]):
        return False
    check = weighted(digits, (2, 7, 9, 1, 4, 6, 3, 5, 8, 2, 7, 9)) % 11
    return check % 10 + check // 10 == int(digits[12])


def is_bg_egn(digits: str) -> bool:
    """EGN: birth date with 20 or 40 more in the month; weights 2 4 8 5 10 9 7 3 6, modulo 11, modulo 10."""
    month = int(digits[2:4]) % 20
    return is_day(digits[:2], f"{month:02d}", digits[4:6]) and weighted(
        digits, (2, 4, 8, 5, 10, 9, 7, 3, 6)
    ) % 11 % 10 == int(digits[9])


def is_no_birth(digits: str) -> bool:
    """Fødselsnummer: birth date; weights 3 7 6 1 8 9 4 5 2, then 5 4 3 2 7 6 5 4 3 2, modulo 11."""
    if digits[2:4] > "12":
        return False
    first = -weighted(digits, (3, 7, 6, 1, 8, 9, 4, 5, 2)) % 11
    second = -weighted(digits, (5, 4, 3, 2, 7, 6, 5, 4, 3, 2)) % 11
    return digits[9:] == f"{first}{second}"


def is_baltic(digits: str) -> bool:
    """Isikukood and asmens kodas: sex and century, birth date; weights 1…9 1, then 3…9 1 2 3, modulo 11."""
    if digits[0] not in "123456" or not is_day(digits[1:3], digits[3:5], digits[5:7]):
        return False
    check = weighted(digits, (1, 2, 3, 4, 5, 6, 7, 8, 9, 1)) % 11
    if check == 10:
        check = weighted(digits, (3, 4, 5, 6, 7, 8, 9, 1, 2, 3)) % 11 % 10
    return check == int(digits[10])


def is_it_vat(digits: str) -> bool:
    """Partita IVA: Luhn over eleven digits."""
    return luhn(digits) and digits[:7] != "0000000"


def is_fr_company(digits: str) -> bool:
    """SIREN (9) and SIRET (14): Luhn."""
    return luhn(digits) and len(set(digits)) > 1


def is_born_lately(digits: str) -> bool:
    """PESEL of the 20th century or the 21st, by its month; before 2000 no month has anything added."""
    return digits[2] in "0123" and (digits[2] in "01" or digits[:2] <= "39")


def is_no_month(digits: str) -> bool:
    """Not a date such as 2024.01.123."""
    return not ("1900" <= digits[:4] <= "2099" and "01" <= digits[4:6] <= "12")


RULES: Final = (
    Rule("de.tax_id", (11,), is_de_tax, "de.tax_id", own=frozenset({(2, 3, 3, 3)}), alone=always, is_shown=True),
    Rule("fr.nir", (15,), lambda digits: digits[0] in "12" and "01" <= digits[3:5] <= "12" and is_fr_nir(digits),
         "fr.nir", alone=always, is_shown=True, own=frozenset({(1, 2, 2, 2, 3, 3, 2), (13, 2), (1, 2, 2, 2, 3, 5)})),
    Rule("fr.nir", (15,), is_fr_nir, "fr.nir", own=frozenset({(1, 2, 2, 2, 3, 3, 2), (13, 2), (1, 2, 2, 2, 3, 5)})),
    Rule("fr.siren", (9,), is_fr_company, "fr.siren", frozenset({(3, 3, 3)})),
    Rule("fr.siret", (14,), is_fr_company, "fr.siret", frozenset({(3, 3, 3, 5)})),
    Rule("nl.bsn", (9,), is_nl_bsn, "nl.bsn", frozenset({(4, 2, 3), (3, 3, 3), (2, 2, 2, 3)})),
    Rule("nl.bsn", (9,), lambda digits: is_nl_bsn(digits) and is_no_month(digits), own=frozenset({(4, 2, 3)})),
    Rule("pl.pesel", (11,), is_pl_pesel, "pl.pesel", alone=is_born_lately),
    Rule("pl.nip", (10,), is_pl_nip, "pl.nip", frozenset({(3, 3, 2, 2), (3, 2, 2, 3)})),
    Rule("gb.nhs", (10,), is_gb_nhs, "gb.nhs", frozenset({(3, 3, 4)})),
    Rule("gb.utr", (10,), lambda digits: digits[0] != "0", "gb.utr", frozenset({(5, 5)}), is_weak=True),
    Rule("be.rrn", (11,), is_be_rrn, "be.rrn", own=frozenset({(2, 2, 2, 3, 2), (6, 3, 2)})),
    Rule("se.personnummer", (10, 12), is_se_person, "se.personnummer", own=frozenset({(6, 4), (8, 4)})),
    Rule("ch.ahv", (13,), is_ch_ahv, "ch.ahv", own=frozenset({(3, 4, 4, 2)}), alone=always),
    Rule("at.svnr", (10,), is_at_svnr, "at.svnr", frozenset({(4, 6), (4, 2, 2, 2)})),
    Rule("pt.nif", (9,), is_pt_nif, "pt.nif", frozenset({(3, 3, 3)})),
    Rule("cz.rodne_cislo", (10,), is_cz_birth, "cz.rodne_cislo", own=frozenset({(6, 4)})),
    Rule("dk.cpr", (10,), is_dk_cpr, "dk.cpr", frozenset({(6, 4)})),
    Rule("ro.cnp", (13,), is_ro_cnp, "ro.cnp"),
    Rule("bg.egn", (10,), is_bg_egn, "bg.egn"),
    Rule("no.fodselsnummer", (11,), is_no_birth, "no.fodselsnummer", own=frozenset({(6, 5)})),
    Rule("ee.isikukood", (11,), is_baltic, "ee.isikukood"),
    Rule("lt.asmens_kodas", (11,), is_baltic, "lt.asmens_kodas"),
    Rule("hr.oib", (11,), mod_11_10, "hr.oib"),
    Rule("it.partita_iva", (11,), is_it_vat, "it.partita_iva"),
    Rule("gb.vat", (9, 12), lambda digits: digits[0] != "0", "gb.vat", frozenset({(3, 4, 2)}), is_weak=True),
    Rule("de.tax_number", (10, 11, 13), lambda digits: len(set(digits)) > 2, "de.tax_number",
         frozenset({(2, 3, 5), (3, 3, 5), (3, 4, 4), (2, 3, 3, 5), (3, 3, 4)}), is_weak=True),
)  # fmt: skip
