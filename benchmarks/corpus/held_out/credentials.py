"""Secrets of the held-out part: more vendors, other passwords. They open nothing, and no prefix stands here whole."""

from __future__ import annotations

import base64
from random import Random
from typing import Final

from benchmarks.corpus import keys

_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"
_ALPHANUMERIC: Final = _LETTERS + _LETTERS.upper() + "0123456789"
_URL_SAFE: Final = _ALPHANUMERIC + "-_"
_HEX: Final = "0123456789abcdef"
_WORDS: Final = (
    *("Barsik", "Lastochka", "Herbst", "Schalke", "Liverpool", "Starlight", "Pumpkin", "Matroskin", "Tiramisu"),
    *("Bergziege", "Snezhinka", "Wolke", "Yorkshire", "Ghbdtn", "Снежинка", "Rucksack", "Marigold"),
)


def _some(rng: Random, alphabet: str, count: int) -> str:
    return "".join(rng.choice(alphabet) for _ in range(count))


def private_key(rng: Random) -> str:
    """PEM armour around random bytes."""
    kind = rng.choice(("", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED ", "DSA ")) + "PRIVATE" + " KEY"
    body = base64.b64encode(rng.randbytes(rng.choice((96, 240, 480)))).decode()
    width = rng.choice((64, 70))
    lines = [body[at : at + width] for at in range(0, len(body), width)]
    return "\n".join((f"-----BEGIN {kind}-----", *lines, f"-----END {kind}-----"))


def cloud_key(rng: Random) -> str:
    """A key of a cloud platform or of a host of code."""
    makers = (
        ("AK" + "IA", "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 16),
        ("AS" + "IA", "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 16),
        ("gh" + "p_", _ALPHANUMERIC, 36),
        ("gh" + "s_", _ALPHANUMERIC, 36),
        ("gl" + "pat-", _URL_SAFE, 20),
        ("AI" + "za", _URL_SAFE, 35),
        ("dop" + "_v1_", _HEX, 64),
        ("AQV" + "N", _URL_SAFE, 35),
    )
    prefix, alphabet, count = rng.choice(makers)
    return prefix + _some(rng, alphabet, count)


def model_key(rng: Random) -> str:
    """A key of a vendor of models."""
    makers = (
        ("s" + "k-", _ALPHANUMERIC, 48),
        ("s" + "k-proj-", _URL_SAFE, 120),
        ("s" + "k-svc" + "acct-", _URL_SAFE, 80),
        ("s" + "k-ant-" + "api03-", _URL_SAFE, 93),
        ("s" + "k-or-" + "v1-", _HEX, 64),
        ("h" + "f_", _LETTERS + _LETTERS.upper(), 34),
        ("gs" + "k_", _ALPHANUMERIC, 52),
        ("x" + "ai-", _ALPHANUMERIC, 80),
        ("nv" + "api-", _URL_SAFE, 64),
    )
    prefix, alphabet, count = rng.choice(makers)
    return prefix + _some(rng, alphabet, count)


def jwt(rng: Random) -> str:
    """A token in three parts whose signature is random."""
    return keys.jwt(rng)


def password(rng: Random) -> str:
    """What people choose, what managers generate, and words strung together; at least eight characters."""
    word, other = rng.sample(_WORDS, 2)
    number = rng.randrange(10, 2030)
    chosen = (
        f"{word}{number}!",
        f"{word}.{other}{number}",
        f"!{word}*{number:03}",
        f"{word.lower()}_{other.lower()}{number}",
    )
    swapped = word.replace("a", "4").replace("e", "3").replace("i", "1").replace("o", "0")
    generated = (
        rng.choice(_LETTERS) + _some(rng, _ALPHANUMERIC + "!^*+_=.~-", rng.randrange(10, 21)) + rng.choice("23456789")
    )
    return rng.choice(
        (
            *chosen,
            f"{swapped}${number}",
            generated,
            generated,
            "-".join((word.lower(), other.lower(), str(number), "tau")),
        )
    )
