"""Embeddings and scores are those that Transformers computes with the same weights (`encoders/record.py`)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from serving.llamacpp import binding_pooling
from serving.llamacpp.binding import Model, start_backend
from serving.llamacpp.binding_pooling import Pairs, PoolingContext
from serving.llamacpp.pooling import plan_pass
from serving.llamacpp.pooling_server import normalised, sigmoid
from serving.llamacpp.word_pieces import WordPieces
from serving.registry import Architecture, Variant
from serving.registry import Model as PlannedModel
from serving.synthetic import write_dummy
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


DECODER: Final = Architecture(
    family="qwen3",
    layers=3,
    embedding=64,
    feed_forward=128,
    heads=4,
    kv_heads=(2, 2, 2),
    key_length=16,
    value_length=16,
    vocabulary=2000,
    tied=True,
)


def test_a_decoder_reads_a_long_text_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The vector of the last token is the same as in one pass, alone or beside others, and nothing stays behind."""
    shape = PlannedModel("d", "d", 2048, DECODER, (), kind="embedding")
    path = write_dummy(shape, Variant("f32", "gguf", ("llamacpp",), None), tmp_path)
    model = Model(path)
    texts = [
        [(7 * place + start) % 1900 for place in range(length)] for start, length in ((1, 1200), (2, 40), (3, 300))
    ]

    def vectors(chunk: int) -> np.ndarray:
        monkeypatch.setattr(binding_pooling, "CHUNK", chunk)
        context = PoolingContext(model, "last", is_encoder=False, longest=2048, sequences=4, threads=2)
        assert context.in_pieces
        assert context.tokens == chunk
        found = [normalised(context.pool([text])[0]) for text in (*texts, texts[1])]
        if chunk >= 340:
            found += map(normalised, context.pool(texts[1:]))
        context.close()
        return np.array(found)

    whole, in_pieces = vectors(2048), vectors(400)
    model.close()
    assert (whole * in_pieces).sum(axis=1).min() >= 0.9999
    assert np.array_equal(in_pieces[1], in_pieces[3])
    assert (in_pieces[1:3] * in_pieces[4:]).sum(axis=1).min() >= 0.9999
    assert abs((in_pieces[0] * in_pieces[1]).sum()) < 0.99


WIDE: Final = Architecture(
    family="bert",
    layers=1,
    embedding=64,
    feed_forward=128,
    heads=4,
    kv_heads=(4,),
    key_length=16,
    value_length=16,
    vocabulary=100_000,
    positions=2048,
)

MEASURE: Final = """
import sys
from pathlib import Path
from serving.llamacpp import binding, binding_pooling

if sys.argv[2] == "as it is":
    binding_pooling.leave_untouched = lambda: None
binding.start_backend()
model = binding.Model(Path(sys.argv[1]))
peak = lambda: int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) // 1024
context = binding_pooling.PoolingContext(model, "mean", is_encoder=True, longest=2048, sequences=4, threads=2)
before = peak()
vector = context.pool([[5] * 2048])[0]
print(peak() - before, float(vector.sum()))
"""


def test_an_output_that_nobody_reads_takes_no_memory(tmp_path: Path) -> None:
    """A row of logits for each of 2,048 tokens is 780 MiB; llama.cpp by itself makes them resident, and we do not."""
    shape = PlannedModel("w", "w", 2048, WIDE, (), kind="embedding")
    path = write_dummy(shape, Variant("f16", "gguf", ("llamacpp",), None), tmp_path)
    grown = {}
    for how in ("as it is", "untouched"):
        argv = [sys.executable, "-c", MEASURE, str(path), how]
        done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=120)
        mib, total = done.stdout.split()
        grown[how] = int(mib), total
    assert grown["as it is"][0] > 700
    assert grown["untouched"][0] < 100
    assert grown["as it is"][1] == grown["untouched"][1]
