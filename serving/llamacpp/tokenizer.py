"""Text into tokens, guarded: llama.cpp's tokenizer recurses and cannot be interrupted.

A text that could not fit the context even at the longest token is refused before it is looked at, and so is one that
could overflow even the text thread's stack.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from serving.errors import ContextLengthExceeded, InvalidRequest
from serving.generation.template import Piece
from serving.generation.thread import stack_bytes
from serving.llamacpp.binding import Model

_STACK_PER_BYTE = 512
"""Stack that one byte of text may take at most; 270 to 350 were measured."""

_LONGEST_RUN: dict[str, tuple[re.Pattern[str], str, int]] = {
    "jais-2": (re.compile(r"\s+"), "blanks", 10_000),
    "superbpe": (re.compile(r"\d+"), "digits", 128),
}
"""Pre-tokenizer types whose regular expression looks to the end of a run again from every place in it: what may run,
what it is called, and how long it may be. The call cannot be interrupted, and a run of 1,000,000 takes from minutes
(jais-2) to hours (superbpe); with these limits as much text in the longest runs takes seconds."""


def tokenize(model: Model, pieces: Sequence[Piece], context: int, *, add_special: bool) -> list[int]:
    """Tokens of a prompt.

    Raises ContextLengthExceeded for text that cannot fit `context` tokens however it splits, and InvalidRequest for a
    run of equal characters that this vocabulary's regular expression would take minutes for.
    """
    encoded = [(piece.text.encode(), piece.is_plain) for piece in pieces]
    size = sum(len(text) for text, _ in encoded)
    if size > context * model.longest_piece:
        raise ContextLengthExceeded(
            f"the prompt has {size} bytes, which is more than {context} tokens of context can hold",
            hint="shorten the prompt, or serve the model with a larger context",
        )
    most = stack_bytes() // _STACK_PER_BYTE
    if any(len(text) > most for text, _ in encoded):
        raise InvalidRequest(f"a message has more than {most} bytes, the most that can be tokenised at once")
    for piece in pieces:
        refuse_long_runs(piece.text, model.pre_tokenizer)
    tokens: list[int] = []
    for index, (text, is_plain) in enumerate(encoded):
        tokens += model.tokenize(text, add_special=add_special and index == 0, parse_special=not is_plain)
    return tokens


def refuse_long_runs(text: str, pre_tokenizer: str) -> None:
    """Raises InvalidRequest for text that this pre-tokenizer type would take minutes for."""
    if pre_tokenizer not in _LONGEST_RUN:
        return
    pattern, what, most = _LONGEST_RUN[pre_tokenizer]
    longest = max((match.end() - match.start() for match in pattern.finditer(text)), default=0)
    if longest > most:
        raise InvalidRequest(
            f"the prompt has {longest} {what} in a row; this model's tokenizer is given at most {most}",
            hint=f"shorten the run of {what}",
        )
