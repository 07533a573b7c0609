"""Secrets that open nothing: the shapes of keys and passwords, drawn at random when the corpus is made.

No such string stands in this source, not even a prefix in one piece: whatever watches repositories for keys has nothing
to find, and nobody gets used to passing it by. The parts by which a vendor knows its own keys (check sums, fixed
middles) are left out.
"""

from __future__ import annotations

import base64
import json
from random import Random
from typing import Final

_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"
_ALPHANUMERIC: Final = _LETTERS + _LETTERS.upper() + "0123456789"
_URL_SAFE: Final = _ALPHANUMERIC + "-_"
_BASE64: Final = _ALPHANUMERIC + "+/"


def _some(rng: Random, alphabet: str, count: int) -> str:
    return "".join(rng.choice(alphabet) for _ in range(count))


def private_key(rng: Random) -> str:
    """PEM armour around random bytes."""
    kind = rng.choice(("", "RSA ", "EC ", "OPENSSH ")) + "PRIVATE" + " KEY"
    body = base64.b64encode(rng.randbytes(rng.choice((120, 300, 600)))).decode()
    lines = [body[at : at + 64] for at in range(0, len(body), 64)]
    return "\n".join((f"-----BEGIN {kind}-----", *lines, f"-----END {kind}-----"))


def cloud_key(rng: Random) -> str:
    """A key of a cloud platform or of a host of code."""
    makers = (
        ("AK" + "IA", "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 16),
        ("AI" + "za", _URL_SAFE, 35),
        ("dop" + "_v1_", "0123456789abcdef", 64),
        ("AQV" + "N", _URL_SAFE, 35),
        ("gl" + "pat-", _URL_SAFE, 20),
    )
    prefix, alphabet, count = rng.choice(makers)
    return prefix + _some(rng, alphabet, count)


def cloud_secret(rng: Random) -> str:
    """The secret half of a pair: nothing but its name says what it is."""
    return _some(rng, _BASE64, 40)


def model_key(rng: Random) -> str:
    """A key of a vendor of models."""
    makers = (
        ("s" + "k-", _ALPHANUMERIC, 48),
        ("s" + "k-proj-", _URL_SAFE, 64),
        ("s" + "k-ant-" + "api03-", _URL_SAFE, 93),
        ("h" + "f_", _LETTERS + _LETTERS.upper(), 34),
        ("gs" + "k_", _ALPHANUMERIC, 52),
        ("r8" + "_", _ALPHANUMERIC, 37),
    )
    prefix, alphabet, count = rng.choice(makers)
    return prefix + _some(rng, alphabet, count)


def jwt(rng: Random) -> str:
    """A token in three parts whose signature is random."""

    def encoded(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    algorithm = rng.choice(("HS256", "RS256", "ES256"))
    head = json.dumps({"alg": algorithm, "typ": "JWT"}, separators=(",", ":"))
    claims = json.dumps({"sub": _some(rng, "0123456789", 10), "iat": 1_700_000_000 + rng.randrange(10**7)})
    return ".".join((encoded(head.encode()), encoded(claims.encode()), encoded(rng.randbytes(rng.choice((32, 64))))))


def password(rng: Random) -> str:
    """What people and generators choose; at least eight characters."""
    word = rng.choice(("Sommer", "dragon", "Moskva", "Zima", "football", "Kolibri", "Qwerty", "hunter", "Karamba"))
    made = f"{word}{rng.choice(('!', '_', '#', '@', '-'))}{rng.randrange(10, 9999):04}"
    return rng.choice((made, made, _some(rng, _ALPHANUMERIC + "!#%*+", rng.randrange(10, 20))))
