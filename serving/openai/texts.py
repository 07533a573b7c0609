"""Texts to embed or to rank that a model does not take, in the same words whichever engine serves it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from serving.errors import ContextLengthExceeded, InvalidRequest, UnsupportedFeature
from serving.openai.embeddings import EmbeddingsRequest

UNCUT: Final = "split it on your side; nothing is cut here"


def too_long(what: str, context: int, model: str, param: str) -> ContextLengthExceeded:
    """The refusal of a text that the model cannot see as a whole; `what` says which, and how long it is."""
    return ContextLengthExceeded(f"{what}; `{model}` takes {context}", param=param, hint=UNCUT)


def check_ids(tokens: Sequence[int], n_vocab: int, param: str) -> None:
    """Raises InvalidRequest for an id that the vocabulary does not have."""
    largest = max(tokens, default=0)
    if largest >= n_vocab:
        raise InvalidRequest(
            f"token id {largest} is not in the vocabulary (0 to {n_vocab - 1})",
            param=param,
            hint="token ids are of this model's own tokenizer; clients that send another's can send text instead",
        )


def check_dimensions(request: EmbeddingsRequest, width: int, model: str) -> None:
    """Raises UnsupportedFeature for a length that the model's embeddings do not have."""
    if request.dimensions not in (None, width):
        raise UnsupportedFeature(
            f"`dimensions` is {request.dimensions}; the embeddings of `{model}` have {width}",
            param="dimensions",
            hint="leave it out, and cut them on your side where the model was made for that",
        )
