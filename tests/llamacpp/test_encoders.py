"""Embeddings and scores are those that Transformers computes with the same weights (`encoders/record.py`)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from serving.llamacpp.binding import Model, start_backend
from serving.llamacpp.binding_pooling import Pairs, PoolingContext
from serving.llamacpp.pooling import plan_pass
from serving.llamacpp.pooling_server import normalised, sigmoid
from serving.llamacpp.word_pieces import WordPieces
from tests.llamacpp.encoders.texts import DOCUMENTS, QUERIES, TEXTS
from tests.llamacpp.encoders.weights import ENCODERS, POSITIONS, Encoder, write_gguf

RECORDED: Final[dict[str, Any]] = json.loads((Path(__file__).parent / "encoders/transformers.json").read_text())
EMBEDDERS: Final = [name for name, encoder in ENCODERS.items() if encoder.pooling != "rank"]
RANKERS: Final = [name for name, encoder in ENCODERS.items() if encoder.pooling == "rank"]


@pytest.fixture(scope="module", autouse=True)
def _backend() -> None:
    start_backend()


@contextmanager
def opened(encoder: Encoder, folder: Path, *, half: bool) -> Iterator[tuple[Model, PoolingContext]]:
    """The model and a context whose passes take the longest text."""
    model = Model(write_gguf(encoder, folder, half=half))
    context = PoolingContext(model, encoder.pooling, is_encoder=True, longest=POSITIONS, sequences=16, threads=2)
    try:
        yield model, context
    finally:
        context.close()
        model.close()


def tokens_of(model: Model, text: str, *, add_special: bool = False) -> list[int]:
    """As the server has them."""
    if model.metadata("tokenizer.ggml.model") == "bert":
        return WordPieces(model).tokenize(text, add_special=add_special)
    return model.tokenize(text.encode(), add_special=add_special, parse_special=False)


def in_passes(context: PoolingContext, texts: list[list[int]]) -> np.ndarray:
    """All vectors, computed several texts at a time."""
    found, at = [], 0
    while at < len(texts):
        count = len(plan_pass([list(map(len, texts[at:]))], context.tokens, 16))
        found.extend(context.pool(texts[at : at + count]))
        at += count
    return np.array(found)


@pytest.mark.parametrize("half", [False, True], ids=["f32", "f16"])
@pytest.mark.parametrize("name", EMBEDDERS)
def test_embeddings_are_those_of_transformers(name: str, half: bool, tmp_path: Path) -> None:
    """The same tokens for each of at least fifty texts, and vectors whose cosine is at least 0.999, batched or not."""
    assert len(TEXTS) >= 50
    recorded = RECORDED[name]
    with opened(ENCODERS[name], tmp_path, half=half) as (model, context):
        tokens = [tokens_of(model, text, add_special=True) for text in TEXTS]
        assert tokens == recorded["tokens"]
        alone = np.array([normalised(context.pool([one])[0]) for one in tokens])
        together = np.array(list(map(normalised, in_passes(context, tokens))))
    theirs = np.array(recorded["embeddings"])
    for ours in (alone, together):
        assert (ours * theirs).sum(axis=1).min() >= 0.999
    # Roundings (tables of GELU, sums of attention in 16 bits) depend on the batch; a text seen by another would not
    # stay within them.
    assert (alone * together).sum(axis=1).min() >= 0.99999


@pytest.mark.parametrize("half", [False, True], ids=["f32", "f16"])
@pytest.mark.parametrize("name", RANKERS)
def test_scores_are_those_of_transformers(name: str, half: bool, tmp_path: Path) -> None:
    """The same tokens for each pair, and scores within 0.001, which spread far wider than that."""
    recorded = RECORDED[name]
    with opened(ENCODERS[name], tmp_path, half=half) as (model, context):
        pairs = Pairs(model)
        for query, tokens, scores in zip(QUERIES, recorded["tokens"], recorded["scores"], strict=True):
            ours = [pairs.join(tokens_of(model, query), tokens_of(model, document)) for document in DOCUMENTS]
            assert ours == tokens
            found = [sigmoid(float(vector[0])) for vector in in_passes(context, ours)]
            assert max(scores) - min(scores) > 0.25
            assert np.abs(np.array(found) - np.array(scores)).max() < 1e-3
