r"""Log-probabilities in OpenAI's two shapes: a list of objects in chats, parallel lists in completions.

A token's text is its bytes as UTF-8, control tokens written out; where the bytes are a part of a character only, chats
show U+FFFD and carry the bytes beside it, and completions, which have no such place, write `bytes:\xNN` as OpenAI did.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

_LEAST: Final = -9999.0
"""What stands for a probability of zero: JSON has no infinity."""


class TokenLogprob(NamedTuple):
    """How likely a token was, by the model's own distribution, and which tokens were likelier than all others."""

    token: int
    logprob: float
    """Natural logarithm."""
    top: tuple[tuple[int, float], ...]
    """(token, logprob) of the likeliest tokens, likeliest first; empty where none were asked for."""


class ChatLogprobs:
    """`choices[].logprobs` of a chat. `pieces` is each token's text, empty for those that `special` writes out."""

    __slots__ = ("_pieces", "_special")

    def __init__(self, pieces: Sequence[bytes], special: Callable[[int], bytes]) -> None:
        self._pieces = pieces
        self._special = special

    def body(self, entries: Sequence[TokenLogprob]) -> dict[str, object]:
        """The object for these tokens: of a chunk, or of a whole answer."""
        content = [
            {**self._one(entry.token, entry.logprob), "top_logprobs": [self._one(*other) for other in entry.top]}
            for entry in entries
        ]
        return {"content": content, "refusal": None}

    def _one(self, token: int, logprob: float) -> dict[str, object]:
        piece = self._pieces[token] or self._special(token)
        return {"token": piece.decode("utf-8", "replace"), "logprob": _finite(logprob), "bytes": list(piece)}


class CompletionLogprobs:
    """`choices[].logprobs` of a completion; offsets go on from one call of `body` to the next."""

    __slots__ = ("_chars", "_decoder", "_pieces", "_special")

    def __init__(self, pieces: Sequence[bytes], special: Callable[[int], bytes]) -> None:
        self._pieces = pieces
        self._special = special
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._chars = 0

    def body(self, entries: Sequence[TokenLogprob]) -> dict[str, object]:
        """The object for the tokens that come next in the answer."""
        offsets = []
        for entry in entries:
            offsets.append(self._chars)
            self._chars += len(self._decoder.decode(self._pieces[entry.token]))
        return {
            "tokens": [self._text(entry.token) for entry in entries],
            "token_logprobs": [_finite(entry.logprob) for entry in entries],
            "top_logprobs": [
                {self._text(token): _finite(logprob) for token, logprob in ((entry.token, entry.logprob), *entry.top)}
                for entry in entries
            ],
            "text_offset": offsets,
        }

    def _text(self, token: int) -> str:
        piece = self._pieces[token] or self._special(token)
        try:
            return piece.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)


def _finite(logprob: float) -> float:
    return max(_LEAST, logprob)  # in this order NaN becomes the least, too
