"""What a directory of safetensors says of embedding and ranking: how texts are pooled, and how long they may be.

The files beside `config.json` are those of sentence-transformers (https://sbert.net/docs): `modules.json` names the
steps after the network, `1_Pooling/config.json` how the numbers of a text's tokens become those of the text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from serving.errors import BadFile
from serving.pooling import Pooling

MOST_BYTES: Final = 1 << 22
"""Of one file; a tokenizer's configuration lists some thousand special tokens at times."""
MODULES: Final = "modules.json"
_KNOWN_STEPS: Final = frozenset({"Transformer", "Pooling", "Normalize"})
"""Steps that both engines compute; an embedding has length 1 here whether or not the last is named."""
_MODES: Final[dict[str, Pooling]] = {
    "cls": "cls",
    "mean": "mean",
    "lasttoken": "last",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "last",
}
_LONGEST: Final = (("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length"))
MOST_LONGEST: Final = 1 << 24


def read_text(path: Path) -> str:
    """A small file. Raises FileNotFoundError where there is none, BadFile where it cannot be read."""
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
        if len(raw) <= MOST_BYTES:
            return raw.decode()
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise BadFile(f"cannot read `{path}`: {error}", hint="copy the model's files again") from None
    raise BadFile(f"`{path}` has more than {MOST_BYTES} bytes", hint="copy the model's files again")


def read_json(path: Path) -> Any:
    """A small JSON file. Raises FileNotFoundError where there is none, BadFile where it cannot be read."""
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise BadFile(f"cannot read `{path}`: {error}", hint="copy the model's files again") from None


def longest_of(directory: Path) -> int | None:
    """Tokens of one text that the directory's own files allow; None where they do not say. Raises BadFile."""
    sizes = [size for name, key in _LONGEST if (size := _size(directory / name, key)) is not None]
    return min(sizes, default=None)


def check_scores(path: Path, config: Mapping[str, Any]) -> None:
    """Refuse a classifier that gives more than one number for a pair. Raises BadFile."""
    labels = config.get("id2label")
    count = len(labels) if isinstance(labels, dict) else config.get("num_labels", 2)  # Transformers' own default
    if count != 1:
        message = f"`{path}` classifies into {count} labels; a reranker gives one number"
        raise BadFile(message, hint="rerankers such as bge-reranker-v2-m3 have one label")


def check_positions(path: Path, config: Mapping[str, Any]) -> None:
    """Refuse an encoder whose positions are not those of a table. Raises BadFile."""
    told = config.get("position_embedding_type", "absolute")
    if told != "absolute":
        message = f"`{path}` has positions of another kind than `absolute` (`position_embedding_type`)"
        raise BadFile(message, hint="BERT, RoBERTa and XLM-RoBERTa with a table of positions are served")


def pooling_of_directory(directory: Path) -> Pooling | None:
    """How its texts are pooled; None where it does not say, as of a model that writes.

    Raises BadFile for steps that are not served here.
    """
    path = directory / MODULES
    try:
        modules = read_json(path)
    except FileNotFoundError:
        return None
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise BadFile(f"`{path}` is not a list of modules", hint="copy the model's files again")
    steps = [str(module.get("type")).rpartition(".")[2] for module in modules]
    unknown = next((step for step in steps if step not in _KNOWN_STEPS), None)
    if unknown is not None:
        shown = ascii(unknown)[1:-1][:80]
        message = f"`{path}` has a step `{shown}` after the network, which is not served"
        raise BadFile(message, hint="its embeddings would be wrong without it")
    place = next((module.get("path") for module, step in zip(modules, steps, strict=True) if step == "Pooling"), None)
    # a plain name, so that nothing outside the directory can be meant
    if not isinstance(place, str) or place in ("", ".", "..") or "/" in place or "\0" in place:
        return None
    try:
        told = read_json(directory / place / "config.json")
    except FileNotFoundError:
        return None
    if not isinstance(told, dict):
        raise BadFile(f"`{directory / place}` does not say how texts are pooled", hint="copy the model's files again")
    named = [key for key, value in told.items() if value is True and key.startswith("pooling_mode_")]
    mode = told.get("pooling_mode")
    if isinstance(mode, str):
        named.append(mode)
    found = [_MODES.get(name) for name in named]
    if len(found) == 1 and found[0] is not None:
        return found[0]
    message = f"`{directory / place}` pools texts in a way that is not served"
    raise BadFile(message, hint="served are the first token, the last, and the mean of all")


def _size(path: Path, key: str) -> int | None:
    try:
        told = read_json(path)
    except FileNotFoundError:
        return None
    value = told.get(key) if isinstance(told, dict) else None
    # tokenizers without a bound of their own say 10^30
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MOST_LONGEST else None
