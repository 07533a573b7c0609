"""Tokens into text as the model's own tokenizer decodes them, one at a time.

What a token says depends on its neighbours: a blank at its front counts only after other text, and a character may
take several tokens. So each is decoded together with those before it, and the text is what that adds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

_NEIGHBOURS = 8
"""Tokens of the prompt that the first generated one is decoded with."""
_MOST_PENDING = 16
"""Tokens that may wait for the end of a character; one has four bytes at most, and each of them a token at most."""
_UNFINISHED = "\ufffd"
"""What tokenizers make of bytes that are no character, or none yet."""


class Detokeniser:
    """One answer's text, as it grows."""

    __slots__ = ("_decode", "_start", "_tokens", "_told")

    def __init__(self, decode: Callable[[Sequence[int]], str], prompt: Sequence[int]) -> None:
        self._decode = decode
        self._tokens = list(prompt[-_NEIGHBOURS:])
        self._start = 0
        """Where decoding begins: at tokens that are told already, so that the next ones have their neighbours."""
        self._told = len(self._tokens)

    def push(self, token: int) -> str:
        """The text that this token completes; empty while a character is unfinished."""
        self._tokens.append(token)
        text = self._untold()
        if text.endswith(_UNFINISHED) and len(self._tokens) - self._told < _MOST_PENDING:
            return ""
        if text:
            self._start, self._told = self._told, len(self._tokens)
        return text

    def finish(self) -> str:
        """What still waited for the rest of a character, at the end of the answer."""
        text = self._untold() if self._told < len(self._tokens) else ""
        self._told = len(self._tokens)
        return text

    def _untold(self) -> str:
        told = self._decode(self._tokens[self._start : self._told])
        return self._decode(self._tokens[self._start :])[len(told) :]
