"""Numbers of payment cards: the issuers' ranges and Luhn."""

from __future__ import annotations

from typing import Final

from serving.policy.detect.numbers import Rule, always, luhn

_ISSUERS: Final = (
    (4000, 4999, (13, 16, 19)),  # Visa
    (5100, 5599, (16,)),  # Mastercard
    (2221, 2720, (16,)),
    (2200, 2204, (16, 17, 18, 19)),  # Mir
    (3400, 3499, (15,)),  # American Express
    (3700, 3799, (15,)),
    (6200, 6299, (16, 17, 18, 19)),  # UnionPay
    (8100, 8199, (16, 17, 18, 19)),
    (6011, 6011, (16, 17, 18, 19)),  # Discover
    (6440, 6599, (16, 17, 18, 19)),
    (3528, 3589, (16,)),  # JCB
    (3000, 3059, (14,)),  # Diners Club
    (3600, 3699, (14,)),
    (3800, 3999, (14,)),
    (5000, 5099, (16, 18, 19)),  # Maestro
    (5600, 5899, (16, 18, 19)),
    (6300, 6399, (16, 18, 19)),
    (6700, 6799, (16, 18, 19)),
    (6000, 6099, (16,)),  # RuPay
    (8200, 8299, (16,)),
    (9112, 9112, (16,)),  # Belkart
    (9860, 9860, (16,)),  # Humo
)
"""First four digits, from and to, and how many there are (ISO/IEC 7812; the schemes' published ranges)."""


_BY_BEGINNING: Final[dict[str, tuple[int, ...]]] = {}
for _low, _high, _sizes in _ISSUERS:
    for _first in map(str, range(_low, _high + 1)):
        _BY_BEGINNING[_first] = (*_BY_BEGINNING.get(_first, ()), *_sizes)


def is_card(digits: str) -> bool:
    """Luhn, and an issuer's range that is given for this length."""
    return len(digits) in _BY_BEGINNING.get(digits[:4], ()) and len(set(digits)) > 1 and luhn(digits)


CARDS: Final = (
    Rule("card", (15, 16), is_card, "card", own=frozenset({(4, 4, 4, 4), (4, 6, 5), (8, 8), (4, 12), (6, 10)}),
         alone=always),
    Rule("card", (13, 14, 18, 19), is_card, "card", frozenset({(4, 6, 4), (6, 13)}),
         frozenset({(4, 4, 4, 4, 3), (4, 4, 4, 4, 2)})),
)  # fmt: skip
