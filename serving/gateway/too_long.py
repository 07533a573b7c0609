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
from serving.openai.texts import too_long

Count = Callable[[str, bool], Awaitable[int]]
_TOKENS_PER_BYTE: Final = 6
"""No text becomes more tokens than this: of three bytes a normaliser makes up to 18 letters (U+FDFA)."""
_BESIDE: Final = 8
"""More than the special tokens that are put around a text, or around a pair."""
_PAIR: Final = 3
"""Special tokens around a pair, at least: BERT's; RoBERTa has four."""


async def input_too_long(
    body: dict[str, object], texts: Texts, model: str, limits: Limits, count: Count
) -> ContextLengthExceeded:
    """The refusal of a request for embeddings, by the first input that is too long."""
    for index, given in enumerate(parse_embeddings(body, limits).inputs):
        # token ids were counted on the way in
        if isinstance(given, str) and _may_exceed(given, texts):
            tokens = await count(given, True)
            if tokens > texts.context:
                return too_long(f"input {index} has {tokens} tokens", texts.context, model, f"input.{index}")
    return too_long("an input is longer", texts.context, model, "input")


async def document_too_long(
    body: dict[str, object], texts: Texts, model: str, limits: Limits, count: Count
) -> ContextLengthExceeded:
    """The refusal of a request for scores: the query, or the first document that is too long beside it.

    How many special tokens a pair has is not known here: where that decides, the longest document is named.
    """
    asked = parse_rerank(body, limits)
    query = await count(asked.query, False) + _PAIR
    if query > texts.context:
        return too_long(f"the query has {query} tokens", texts.context, model, "query")
    longest = most = 0
    for index, document in enumerate(asked.documents):
        if not _may_exceed(asked.query + document, texts):
            continue
        tokens = query + await count(document, False)
        if tokens > most:
            longest, most = index, tokens
        if tokens > texts.context:
            break
    what = f"document {longest} with the query has {max(most, texts.context + 1)} tokens"
    return too_long(what, texts.context, model, f"documents.{longest}")


def _may_exceed(text: str, texts: Texts) -> bool:
    return _TOKENS_PER_BYTE * len(text.encode()) + _BESIDE > texts.context
