"""A byte-level BPE vocabulary of any size in which words of three letters are one token each.

So a text of n such words is about n tokens for any server, and text of any other kind is some tokens a word.
"""

from __future__ import annotations

import itertools
import string
from collections.abc import Iterator
from typing import Final

FIRST, SECOND = "abcdefghijklmnop", "qrstuvwxyz"
"""A word is a letter of the first, one of the second and any third one."""
SPACE: Final = "\u0120"
"""GPT-2's stand-in for a space."""


def byte_alphabet() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes, in byte order."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    spare = iter(range(256, 512))
    return [chr(byte if byte in printable else next(spare)) for byte in range(256)]


def vocabulary(size: int, controls: tuple[str, ...] = ("<|end|>",)) -> tuple[list[str], list[str]]:
    """`size` tokens and their merges: bytes, pairs, words, words with a space before, longer ones; controls last."""
    tokens = byte_alphabet()
    merges: list[str] = []
    for left, right in itertools.islice(_pieces(), max(0, size - len(tokens) - len(controls))):
        tokens.append(left + right)
        merges.append(f"{left} {right}")
    return [*tokens[: size - len(controls)], *controls], merges


def _pieces() -> Iterator[tuple[str, str]]:
    # No word contains a pair that merges at its second letter, so every word is exactly one token.
    words = [a + b + c for a, b, c in itertools.product(FIRST, SECOND, string.ascii_lowercase)]
    yield from itertools.product(FIRST, SECOND)
    for word in words:
        yield word[:2], word[2]
    for word in words:
        yield SPACE, word
    longer = [space + word for space in ("", SPACE) for word in words]
    while True:
        yield from itertools.product(longer, string.ascii_lowercase)
        longer = [word + letter for word, letter in itertools.product(longer, string.ascii_lowercase)]
