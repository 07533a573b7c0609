"""Manners of writing a value so that a plain look passes it by and a person still reads it.

Each takes the generator, the value and its language, and gives the value anew, or None where it would change nothing
or make another value of it (the case of a password).
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from random import Random
from typing import Final

Manner = Callable[[Random, str, str], "str | None"]

_INVISIBLE: Final = "\u200b\u200c\u200d\u2060\ufeff"
_BLANKS: Final = "\u00a0\u202f\u2007\u2009"
_LOOK_ALIKE: Final = dict(zip("АВЕКМНОРСТХаеорсухі", "ABEKMHOPCTXaeopcyxi", strict=True))
_TWINS: Final = {**_LOOK_ALIKE, **{latin: cyrillic for cyrillic, latin in _LOOK_ALIKE.items()}}
_ZEROS: Final = (0x660, 0x6F0, 0x966)
"""The zeros of the Arabic-Indic, Persian and Devanagari digits."""
_SAID: Final = {
    "ru": {"-": " тире ", " ": " пробел ", ".": " точка ", "@": " собака "},
    "en": {"-": " dash ", " ": " space ", ".": " dot ", "@": " at "},
    "de": {"-": " Strich ", " ": " Leerzeichen ", ".": " Punkt ", "@": " ät "},
}
_KEYS: Final = frozenset(
    {"secret.private_key", "secret.cloud_key", "secret.model_key", "secret.jwt", "secret.password"}
)
_WORDS: Final = frozenset({"medical", "financial", "document_label", "name.person", "address", "email"})


def _sprinkled(rng: Random, value: str, signs: str) -> str:
    """One of `signs` at some places inside, at least one."""
    places = set(rng.sample(range(1, len(value)), max(1, (len(value) - 1) // 3)))
    return "".join((rng.choice(signs) if at in places else "") + sign for at, sign in enumerate(value))


def zero_width(rng: Random, value: str, _language: str) -> str:
    return _sprinkled(rng, value, _INVISIBLE)


def soft_hyphen(rng: Random, value: str, _language: str) -> str:
    return _sprinkled(rng, value, "\u00ad")


def homoglyph(rng: Random, value: str, _language: str) -> str | None:
    """Letters of the other alphabet that look the same: some of them, at least one."""
    places = [at for at, sign in enumerate(value) if sign in _TWINS]
    if not places:
        return None
    chosen = set(rng.sample(places, max(1, len(places) // 2)))
    return "".join(_TWINS[sign] if at in chosen else sign for at, sign in enumerate(value))


def full_width(_rng: Random, value: str, _language: str) -> str | None:
    made = "".join(chr(ord(sign) + 0xFEE0) if "!" <= sign <= "~" else sign for sign in value)
    return made if made != value else None


def other_digits(rng: Random, value: str, _language: str) -> str | None:
    zero = rng.choice(_ZEROS)
    made = "".join(chr(zero + int(sign)) if sign in "0123456789" else sign for sign in value)
    return made if made != value else None


def _pieces(rng: Random, value: str) -> list[str]:
    """The value without its separators, cut into pieces of one to four signs."""
    bare = "".join(sign for sign in value if sign.isalnum() or sign == "+")
    cut, at = [], 0
    size = rng.choice((1, 2, 3, 4))
    while at < len(bare):
        cut.append(bare[at : at + size])
        at += size
    return cut


def spaced(rng: Random, value: str, _language: str) -> str | None:
    made = " ".join(_pieces(rng, value))
    return made if made != value else None


def dotted(rng: Random, value: str, _language: str) -> str:
    return ".".join(_pieces(rng, value))


def line_breaks(rng: Random, value: str, _language: str) -> str:
    place = rng.randrange(2, len(value) - 1)
    return value[:place].rstrip() + "\n" + value[place:].lstrip()


def spelled(rng: Random, value: str, language: str) -> str:
    """Separators as words; where there are none, a number is said in groups."""
    said = _SAID[language]
    if any(sign in said for sign in value):
        return "".join(said.get(sign, sign) for sign in value)
    return said["-"].join(_pieces(rng, value))


def mixed_case(rng: Random, value: str, _language: str) -> str | None:
    if sum(sign.isalpha() and sign.swapcase() != sign for sign in value) < 2:
        return None
    made = "".join(rng.choice((sign.lower(), sign.upper())) if sign != "ß" else sign for sign in value)
    return made if made != value and len(made) == len(value) else value.swapcase()


def nbsp(rng: Random, value: str, _language: str) -> str:
    blank = rng.choice(_BLANKS)
    return value.replace(" ", blank) if " " in value else blank.join(_pieces(rng, value))


def percent(_rng: Random, value: str, _language: str) -> str:
    """Every byte, as nobody has to."""
    return "".join(f"%{byte:02X}" for byte in value.encode())


def whole_base64(_rng: Random, value: str, _language: str) -> str:
    return base64.b64encode(value.encode()).decode()


MANNERS: Final[dict[str, Manner]] = {
    "zero_width": zero_width,
    "soft_hyphen": soft_hyphen,
    "homoglyph": homoglyph,
    "full_width": full_width,
    "other_digits": other_digits,
    "spaced": spaced,
    "dotted": dotted,
    "line_breaks": line_breaks,
    "spelled": spelled,
    "mixed_case": mixed_case,
    "nbsp": nbsp,
    "percent": percent,
    "base64": whole_base64,
}
_FOR_KEYS: Final = ("zero_width", "soft_hyphen", "line_breaks", "percent", "base64")
_FOR_WORDS: Final = ("zero_width", "soft_hyphen", "homoglyph", "full_width", "mixed_case", "percent", "base64")


def manners_of(label: str) -> tuple[str, ...]:
    """The manners in which a person would still take the value for what it is."""
    if label == "secret.password":
        return tuple(name for name in _FOR_KEYS if name != "line_breaks")
    if label in _KEYS:
        return _FOR_KEYS
    if label == "email":
        return (*_FOR_WORDS, "spelled")
    if label in _WORDS:
        return (*_FOR_WORDS, "nbsp") if label != "document_label" else (*_FOR_WORDS, "spaced")
    if label == "birth_date":
        return tuple(name for name in MANNERS if name not in {"dotted", "homoglyph", "mixed_case", "spelled", "spaced"})
    return tuple(MANNERS)


def written(rng: Random, value: str, label: str, language: str, manner: str) -> tuple[str, str]:
    """The value in that manner, and the manner it is in: the next that is possible where it is not."""
    if manner == "plain":
        return value, "plain"
    possible = manners_of(label)
    start = possible.index(manner) if manner in possible else 0
    for offset in range(len(possible)):
        name = possible[(start + offset) % len(possible)]
        made = MANNERS[name](rng, value, language)
        if made is not None and made != value:
            return made, name
    return value, "plain"
