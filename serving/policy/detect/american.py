"""Identifiers made of digits of the United States; and telephone numbers that begin with a zero, or with none."""

from __future__ import annotations

from typing import Final

from serving.policy.detect.numbers import Rule, luhn, weighted


def is_ssn(digits: str) -> bool:
    """Area not 000, 666 or 9xx, group not 00, serial not 0000 (Social Security Administration, since 2011)."""
    is_area = digits[:3] not in {"000", "666"} and digits[0] != "9"
    return is_area and digits[3:5] != "00" and digits[5:] != "0000" and digits not in _SPECIMENS


_SPECIMENS: Final = frozenset({"078051120", "219099999"})
"""Numbers that were printed in advertisements and belong to nobody."""


def is_itin(digits: str) -> bool:
    """9, and a group that is given: 50 to 65, 70 to 88, 90 to 92, 94 to 99 (IRS, publication 1915)."""
    group = int(digits[3:5])
    return digits[0] == "9" and (50 <= group <= 65 or 70 <= group <= 88 or 90 <= group <= 92 or group >= 94)


def is_npi(digits: str) -> bool:
    """Luhn with 80840 before it, 1 or 2 first (45 CFR 162.406)."""
    return digits[0] in "12" and luhn("80840" + digits)


def is_aba(digits: str) -> bool:
    """Routing number: a Federal Reserve district first, weights 3 7 1 (American Bankers Association)."""
    district = int(digits[:2])
    is_district = district <= 12 or 21 <= district <= 32 or 61 <= district <= 72 or district == 80
    return is_district and int(digits) > 0 and weighted(digits, (3, 7, 1) * 3) % 10 == 0


def is_nanp(digits: str) -> bool:
    """A telephone number of the North American plan: area and exchange begin with 2 to 9."""
    ten = digits[-10:]
    return ten[0] in "23456789" and ten[3] in "23456789" and (len(digits) == 10 or digits[0] == "1")


def is_british_phone(digits: str) -> bool:
    """A trunk zero, then 1, 2 (places) or 7 (mobiles) with nine digits more (Ofcom's national numbering plan)."""
    return digits[0] == "0" and digits[1] in "127"


def is_german_mobile(digits: str) -> bool:
    """015, 016 or 017 (Bundesnetzagentur's numbering plan for mobile services)."""
    return digits[:3] in {"015", "016", "017"}


RULES: Final = (
    Rule("us.ssn", (9,), is_ssn, "us.ssn", own=frozenset({(3, 2, 4)}), is_weak=True, is_shown=True),
    Rule("us.itin", (9,), is_itin, "us.itin", own=frozenset({(3, 2, 4)}), is_weak=True, is_shown=True),
    Rule("us.ein", (9,), lambda digits: digits[:2] != "00", "us.ein", frozenset({(2, 7)}), is_weak=True),
    Rule("us.npi", (10,), is_npi, "us.npi"),
    Rule("us.aba_routing", (9,), is_aba, "us.aba_routing"),
    Rule("phone", (10, 11), is_nanp, "phone", frozenset({(1, 3, 3, 4), (3, 3, 4)}), is_weak=True),
    Rule("phone", (9, 10, 11, 12, 13), lambda digits: digits[0] == "0", "phone", is_weak=True),
    Rule("phone", (9,), lambda digits: digits[0] not in "01", "phone",
         frozenset({(3, 3, 3), (3, 2, 2, 2), (2, 3, 2, 2)}), is_weak=True),
    Rule("phone", (11,), is_british_phone, own=frozenset({(5, 6), (5, 3, 3), (3, 4, 4), (4, 3, 4)})),
    Rule("phone", (11, 12), is_german_mobile, own=frozenset({
        (4, 7), (4, 8), (4, 3, 4), (4, 4, 3), (4, 4, 4), (4, 3, 2, 2), (4, 2, 2, 3), (4, 2, 3, 2), (4, 2, 2, 2, 2),
    })),
    Rule("phone", (10,), lambda digits: digits[0] == "0" and digits[1] != "0", own=frozenset({(2, 2, 2, 2, 2)})),
)  # fmt: skip
