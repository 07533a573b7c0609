"""What a weight file is for: it writes, embeds, or ranks. Read from its header alone."""

from __future__ import annotations

from typing import Final, Literal

from serving.gguf import Header

Task = Literal["generate", "embed", "rerank"]
Pooling = Literal["mean", "cls", "last", "rank"]
"""How the numbers of a text's tokens become those of the text; `rank` is a classifier's head."""

ENCODERS: Final = frozenset(
    {
        *("bert", "jina-bert-v2", "jina-bert-v3", "nomic-bert", "nomic-bert-moe", "neo-bert", "eurobert"),
        *("modern-bert", "gemma-embedding", "t5encoder"),
    }
)
"""llama.cpp's families that read a whole text at once and keep no KV cache."""
SERVED_ENCODERS: Final = frozenset({"bert"})
"""Those that are checked and served here: BERT, RoBERTa, XLM-RoBERTa."""
_POOLINGS: Final[dict[int, Pooling]] = {1: "mean", 2: "cls", 3: "last", 4: "rank"}
"""llama.h: llama_pooling_type."""
_HEAD: Final = "cls.output.weight"


def pooling_of(header: Header) -> Pooling | None:
    """How the file says that texts are pooled; None where it does not.

    Converters give a reranker its head and do not always say what that means, so the head says it.
    """
    told = header.integer("pooling_type") or 0
    if told in (0, 4) and any(tensor.name == _HEAD for tensor in header.tensors):
        return "rank"
    return _POOLINGS.get(told)


def task_of(header: Header) -> Task:
    """What the file is for. An encoder embeds, whatever else it leaves unsaid."""
    pooling = pooling_of(header)
    if pooling == "rank":
        return "rerank"
    return "embed" if pooling is not None or header.architecture in ENCODERS else "generate"
