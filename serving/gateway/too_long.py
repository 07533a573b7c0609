"""Which of several texts an engine found too long, where it says only that one is: asked after the refusal, in order.

`count` is how many tokens the engine makes of a text, special ones included or not. A refusal costs at most as many
questions as there were texts before the one at fault.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from serving.engines.spec import Texts
from serving.errors import ContextLengthExceeded
from serving.openai import Limits, parse_embeddings, parse_rerank

Count = Callable[[str, bool], Awaitable[int]]
_TOKENS_PER_BYTE: Final = 6
"""No text becomes more tokens than this: of three bytes a normaliser makes up to 18 letters (U+FDFA)."""
_BESIDE: Final = 8
"""More than the special tokens that are put around a text, or around a pair."""
_PAIR: Final = 3
"""Special tokens around a pair, at least: BERT's; RoBERTa has four."""
_UNCUT: Final = "split it on your side; nothing is cut here"


async def input_too_long(
    body: dict[str, object], texts: Texts, model: str, limits: Limits, count: Count
) -> ContextLengthExceeded:
    """The refusal of a request for embeddings, by the first input that is too long."""
    for index, given in enumerate(parse_embeddings(body, limits).inputs):
        # token ids were counted on the way in
        if isinstance(given, str) and _may_exceed(given, texts):
            tokens = await count(given, True)
            if tokens > texts.context:
                return _refusal(f"input {index} has {tokens} tokens", f"input.{index}", texts, model)
    return _refusal("an input is longer", "input", texts, model)


async def document_too_long(
    body: dict[str, object], texts: Texts, model: str, limits: Limits, count: Count
) -> ContextLengthExceeded:
    """The refusal of a request for scores: the query, or the first document that is too long beside it.

    How many special tokens a pair has is not known here: where that decides, the longest document is named.
    """
    asked = parse_rerank(body, limits)
    query = await count(asked.query, False) + _PAIR
    if query > texts.context:
        return _refusal(f"the query has {query} tokens", "query", texts, model)
    longest = most = 0
    for index, document in enumerate(asked.documents):
        if not _may_exceed(asked.query + document, texts):
            continue
        tokens = query + await count(document, False)
        if tokens > most:
            longest, most = index, tokens
        if tokens > texts.context:
            break
    told = max(most, texts.context + 1)
    return _refusal(f"document {longest} with the query has {told} tokens", f"documents.{longest}", texts, model)


def _may_exceed(text: str, texts: Texts) -> bool:
    return _TOKENS_PER_BYTE * len(text.encode()) + _BESIDE > texts.context


def _refusal(what: str, param: str, texts: Texts, model: str) -> ContextLengthExceeded:
    return ContextLengthExceeded(f"{what}; `{model}` takes {texts.context}", param=param, hint=_UNCUT)
