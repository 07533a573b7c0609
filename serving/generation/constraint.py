"""Answers that follow a grammar, by llguidance (decision 0023): the engine asks a `Constraint` for each token.

The only file that imports llguidance; it is itself imported with the first grammar, since its memory would be lost on
engines that are never asked for any.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from serving.errors import InvalidRequest
from serving.generation.compiler import Vocabulary, refusal
from serving.generation.sampling import Row, Sampler

_OPTIONS: Final = '%llguidance {"no_forcing": true}\n'
"""The grammar decides what text may follow, and not which of the tokens that spell it."""


class _Tokens:
    """The vocabulary in the form that LLTokenizer reads."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.tokens = vocabulary.pieces
        self.special_token_ids = sorted({*vocabulary.control, *vocabulary.ends})
        self.eos_token_id = vocabulary.ends[0]

    def __call__(self, _text: bytes) -> list[int]:
        raise AssertionError("grammars do not force tokens, so nothing is tokenised for them")


def tokenizer_of(vocabulary: Vocabulary) -> LLTokenizer:
    """The vocabulary as llguidance has it. Takes a while for a large one."""
    tokens: object = _Tokens(vocabulary)
    return LLTokenizer(tokens, n_vocab=len(vocabulary.pieces), eos_token=vocabulary.ends)  # type: ignore[arg-type]


def matcher_of(tokenizer: LLTokenizer, grammar: str) -> LLMatcher:
    """A compiled grammar at its beginning, or what was wrong with it in `get_error`.

    The limits keep every later step short. Measured on the worst grammars that were found: a mask takes tens of
    milliseconds at most, where it takes tens of microseconds with those that people write.
    """
    limits = LLParserLimits(
        initial_lexer_fuel=500_000,
        step_lexer_fuel=100_000,
        max_lexer_states=20_000,
        max_grammar_size=200_000,
        verbose_errors=False,
    )
    return LLMatcher(tokenizer, _OPTIONS + grammar, log_level=0, limits=limits)


class Constraint:
    """Where one sequence is in its grammar. Used by one thread at a time."""

    __slots__ = ("_bits", "_ends", "_matcher", "_n_vocab", "_param", "is_complete")

    def __init__(self, matcher: LLMatcher, vocabulary: Vocabulary, param: str) -> None:
        self._matcher = matcher
        self._ends = vocabulary.ends
        self._n_vocab = len(vocabulary.pieces)
        self._bits = np.zeros((self._n_vocab + 31) // 32, dtype=np.int32)
        self._param = param
        self.is_complete = False
        """Nothing may follow what has been chosen."""

    def choose(self, sampler: Sampler, row: Row, raw: Row) -> int:
        """A token that the grammar allows, from the sampler's distribution over those alone.

        `row` is changed; `raw` is a copy of it from before. Without options that cut the distribution off, a token of
        the whole vocabulary is drawn first and kept if it is allowed: with p its probability and A those allowed, t
        comes with p(t) + (1 - p(A)) · p(t) / p(A) = p(t) / p(A), so most steps need no mask. What top_p, top_k and
        min_p leave over depends on which tokens there are, so with them the mask comes first, as in vLLM.

        Raises InvalidRequest where the grammar met one of its limits.
        """
        if not sampler.truncates:
            token = sampler.sample(row)
            if self._accepts(token):
                return token
            sampler.take_back(token)
            np.copyto(row, raw)
        allowed = self._allowed()
        token = sampler.sample(row, allowed)
        if not allowed[token] and self._matcher.is_accepting():
            # only an end is allowed, and the options forbid it: there is nothing else to say
            token = self._ends[0]
        if not self._accepts(token):
            raise InvalidRequest("the grammar allows no token that has a probability", param=self._param)
        return token

    def _accepts(self, token: int) -> bool:
        accepted = self._matcher.try_consume_tokens([token]) == 1
        if self._matcher.is_error():
            raise refusal(self._matcher.get_error(), self._param)
        self.is_complete = self._matcher.is_stopped()
        return accepted

    def _allowed(self) -> npt.NDArray[np.bool_]:
        """Which tokens may come next, for the whole vocabulary."""
        self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        if self._matcher.is_error():
            raise refusal(self._matcher.get_error(), self._param)
        return np.unpackbits(self._bits.view(np.uint8), count=self._n_vocab, bitorder="little").view(np.bool_)
