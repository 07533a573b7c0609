"""Writes transformers.json: what Transformers computes with the models of `weights`. Needs torch and transformers.

    PYTHONPATH=. python -m tests.llamacpp.encoders.record

The tests compare the engine with this file, so that they need neither. Run it again where `texts`, `weights` or a
vocabulary changed.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers

from tests.llamacpp.encoders.texts import DOCUMENTS, QUERIES, TEXTS
from tests.llamacpp.encoders.weights import ENCODERS, Encoder, write_transformers

RECORDED = Path(__file__).with_name("transformers.json")


def tokenizer_of(directory: Path, encoder: Encoder) -> Any:
    """Its tokenizer; the file says all of it but for the padding token."""
    pad = "[PAD]" if encoder.family == "bert" else "<pad>"
    return transformers.PreTrainedTokenizerFast(tokenizer_file=str(directory / "tokenizer.json"), pad_token=pad)


@torch.no_grad()
def embeddings(encoder: Encoder, directory: Path) -> dict[str, Any]:
    """Token ids and the normalised embedding of each text, computed one by one."""
    model = transformers.AutoModel.from_pretrained(directory, add_pooling_layer=False).eval()
    tokenizer = tokenizer_of(directory, encoder)
    found: dict[str, Any] = {"tokens": [], "embeddings": []}
    for text in TEXTS:
        given = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
        hidden = model(**given).last_hidden_state[0]
        pooled = hidden[0] if encoder.pooling == "cls" else hidden.mean(dim=0)
        pooled = torch.nn.functional.normalize(pooled, dim=0)
        found["tokens"].append(given["input_ids"][0].tolist())
        found["embeddings"].append([round(number, 6) for number in pooled.tolist()])
    return found


@torch.no_grad()
def scores(encoder: Encoder, directory: Path) -> dict[str, Any]:
    """Token ids and the score of each document to each query, a row for each query."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(directory).eval()
    tokenizer = tokenizer_of(directory, encoder)
    found: dict[str, Any] = {"tokens": [], "scores": []}
    for query in QUERIES:
        given = [tokenizer(query, text, return_tensors="pt", return_token_type_ids=False) for text in DOCUMENTS]
        logits = [model(**one).logits[0, 0] for one in given]
        found["tokens"].append([one["input_ids"][0].tolist() for one in given])
        found["scores"].append([round(torch.sigmoid(logit).item(), 6) for logit in logits])
    return found


def main() -> None:
    """Record all."""
    found: dict[str, Any] = {"torch": torch.__version__, "transformers": transformers.__version__}
    with tempfile.TemporaryDirectory() as folder:
        for name, encoder in ENCODERS.items():
            directory = write_transformers(encoder, Path(folder))
            found[name] = (scores if encoder.pooling == "rank" else embeddings)(encoder, directory)
    RECORDED.write_text(json.dumps(found, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
