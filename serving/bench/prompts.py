"""Prompts of an exact length in the server's own tokens, none of them like another.

Text that repeats would be found in a cache of prefixes and measure nothing; text of so many words has as many tokens as
its tokenizer likes. So words are drawn from a seed, and the server's tokenizer counts.
"""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable
from typing import Final

from serving.gateway.upstream import Upstream

Count = Callable[[str], Awaitable[int]]
"""Tokens that a prompt with this text has, whatever stands around it counted."""
_ANSWER_BYTES: Final = 64 << 20
_TRIES: Final = 48
_FILLERS: Final = (" a", " b", " c", "a", "b", "x", ".", "!", "1", "\n")
"""Short texts, most of which are one token wherever they stand."""
_CONSONANTS: Final = "bcdfghjklmnprstvwz"
_VOWELS: Final = "aeiou"


class Writer:
    """Draws words. Two writers of one seed draw the same."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - it must be the same again, not secret

    def words(self, count: int) -> str:
        """So many words of two syllables, a space before each."""
        pick = self._random.choice
        return "".join(
            f" {pick(_CONSONANTS)}{pick(_VOWELS)}{pick(_CONSONANTS)}{pick(_VOWELS)}" for _ in range(max(0, count))
        )

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


class Tokenizer:
    """Counts tokens as the server does: by the `/tokenize` of vLLM's form, which is ours too, or llama-server's."""

    def __init__(self, upstream: Upstream, model: str, head: str) -> None:
        self._upstream = upstream
        self._model = model
        self._head = f"content-type: application/json\r\n{head}"
        self._is_llama_server = False
        """It has answered in llama-server's form, and not in the other."""

    async def of_chat(self, text: str) -> int:
        """Tokens of a conversation of one message."""
        return await self._count({"messages": [{"role": "user", "content": text}]})

    async def of_prompt(self, text: str) -> int:
        """Tokens of a prompt."""
        return await self._count({"prompt": text})

    async def _count(self, body: dict[str, object]) -> int:
        """Raises LookupError where the server does not count tokens."""
        found = None if self._is_llama_server else await self._ask({"model": self._model, **body})
        if found is None and "prompt" in body:
            found = await self._ask({"content": body["prompt"], "add_special": True})
            self._is_llama_server = found is not None
        if found is None:
            raise LookupError
        return found

    async def _ask(self, body: dict[str, object]) -> int | None:
        response = await self._upstream.request("POST", "/tokenize", self._head, json.dumps(body).encode())
        try:
            raw = await response.read_all(_ANSWER_BYTES)
        finally:
            response.close()
        if response.status != 200:
            return None
        try:
            answer = json.loads(raw)
            count = answer.get("count", len(answer["tokens"]))
        except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
            return None
        return count if isinstance(count, int) and count >= 0 else None
