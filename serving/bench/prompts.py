"""Prompts of an exact length in the server's own tokens, none of them like another.

Text that repeats would be found in a cache of prefixes and measure nothing; text of so many words has as many tokens as
its tokenizer likes. So words are drawn from a seed, and the server's tokenizer counts.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Final

Count = Callable[[str], Awaitable[int]]
"""Tokens that a prompt with this text has, whatever stands around it counted."""
_TRIES: Final = 48
_FILLERS: Final = (" a", " b", " c", "a", "b", "x", ".", "!", "1", "\n")
"""Short texts, most of which are one token wherever they stand."""
_CONSONANTS: Final = "bcdfghjklmnprstvwz"
_VOWELS: Final = "aeiou"


class Writer:
    """Draws words. Two writers of one seed draw the same, those of different seeds nothing alike."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)  # noqa: S311 - it must be the same again, not secret

    def words(self, count: int) -> str:
        """So many words of two syllables, a space before each."""
        pick = self._random.choice
        return "".join(
            f" {pick(_CONSONANTS)}{pick(_VOWELS)}{pick(_CONSONANTS)}{pick(_VOWELS)}" for _ in range(max(0, count))
        )

    def draw(self, most: int, count: int) -> list[int]:
        """So many different numbers below `most`, fewer where there are no more."""
        return self._random.sample(range(most), min(most, count))

    async def text(self, start: tuple[str, int], tokens: int, count: Count) -> tuple[str, int]:
        """A text of so many tokens, or the nearest fewer that was found; and how many.

        `start` is what it begins with, and its own tokens.
        """
        text, held = start
        each = 2.0  # tokens of a word, as far as is known
        for _ in range(_TRIES):
            missing = tokens - held
            if missing <= 0:
                break
            number = int(missing / each)
            longer = text + (self.words(number) if number else self._random.choice(_FILLERS))
            found = await count(longer)
            if number:
                each = max(1.0, (found - held) / number)
            if found <= tokens:  # a filler that adds no token has come nearer, too
                text, held = longer, found
        return text, held
