"""Small encoders with random weights, in both formats: Hugging Face's directory and llama.cpp's GGUF.

The numbers follow from a seed, so nothing but the tokenizers has to be kept. Tensor names on one side are transformers'
(modeling_bert, modeling_xlm_roberta), on the other llama.cpp's (conversion/bert.py says which is which).
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import gguf
import numpy as np
import numpy.typing as npt

from tests.llamacpp.encoders.vocabularies import HERE, charsmap

Numbers = npt.NDArray[np.float32]
POSITIONS: Final = 256
PADDED: Final = 2
"""XLM-RoBERTa counts positions from the padding token's number + 1."""
EPSILON: Final = 1e-5


@dataclass(frozen=True, slots=True)
class Encoder:
    """One of the models."""

    name: str
    family: Literal["bert", "xlm-roberta"]
    pooling: Literal["mean", "cls", "rank"]
    width: int = 64
    layers: int = 2
    heads: int = 2
    inner: int = 128

    @property
    def vocabulary(self) -> dict[str, Any]:
        """Its tokenizer.json."""
        name = "wordpiece" if self.family == "bert" else "unigram"
        value: dict[str, Any] = json.loads((HERE / f"{name}.json").read_text())
        return value

    @property
    def tokens(self) -> int:
        """How many tokens it knows."""
        model = self.vocabulary["model"]["vocab"]
        return len({*range(len(model)), *(token["id"] for token in self.vocabulary["added_tokens"])})

    @property
    def kinds(self) -> int:
        """Token types: BERT tells the second text of a pair from the first."""
        return 2 if self.family == "bert" else 1


ENCODERS: Final = {
    each.name: each
    for each in (
        Encoder("bert-cls", "bert", "cls"),
        Encoder("bert-mean", "bert", "mean"),
        Encoder("xlmr-mean", "xlm-roberta", "mean"),
        Encoder("xlmr-cls", "xlm-roberta", "cls"),
        Encoder("xlmr-rank", "xlm-roberta", "rank"),
    )
}


def numbers_of(encoder: Encoder) -> dict[str, Numbers]:
    """Its weights under transformers' names, without a prefix."""
    random = np.random.Generator(np.random.PCG64(sum(encoder.name.encode())))
    width, inner = encoder.width, encoder.inner
    found: dict[str, Numbers] = {}

    def put(name: str, *shape: int, scale: float, mean: float = 0.0) -> None:
        found[name] = (mean + scale * random.standard_normal(shape)).astype(np.float32)

    def matrix(name: str, rows: int, columns: int, gain: float = 1.0) -> None:
        put(f"{name}.weight", rows, columns, scale=gain / np.sqrt(columns))
        put(f"{name}.bias", rows, scale=0.1)

    def norm(name: str) -> None:
        put(f"{name}.weight", width, scale=0.1, mean=1.0)
        put(f"{name}.bias", width, scale=0.1)

    positions = POSITIONS + (0 if encoder.family == "bert" else PADDED)
    put("embeddings.word_embeddings.weight", encoder.tokens, width, scale=1.0)
    put("embeddings.position_embeddings.weight", positions, width, scale=0.5)
    put("embeddings.token_type_embeddings.weight", encoder.kinds, width, scale=0.5)
    norm("embeddings.LayerNorm")
    for layer in range(encoder.layers):
        start = f"encoder.layer.{layer}"
        for name in ("query", "key"):
            matrix(f"{start}.attention.self.{name}", width, width, gain=1.5)  # sharp enough for each token to matter
        matrix(f"{start}.attention.self.value", width, width)
        matrix(f"{start}.attention.output.dense", width, width)
        norm(f"{start}.attention.output.LayerNorm")
        matrix(f"{start}.intermediate.dense", inner, width)
        matrix(f"{start}.output.dense", width, inner)
        norm(f"{start}.output.LayerNorm")
    if encoder.pooling == "rank":
        matrix("classifier.dense", width, width)
        matrix("classifier.out_proj", 1, width, gain=2.7)
    return found


def write_transformers(encoder: Encoder, folder: Path) -> Path:
    """A directory that `from_pretrained` reads."""
    directory = folder / encoder.name
    directory.mkdir(parents=True, exist_ok=True)
    is_bert = encoder.family == "bert"
    ranks = encoder.pooling == "rank"
    classes = "SequenceClassification" if ranks else "Model"
    config = {
        "architectures": [f"{'Bert' if is_bert else 'XLMRoberta'}{'For' if ranks else ''}{classes}"],
        "model_type": encoder.family,
        "hidden_size": encoder.width,
        "num_hidden_layers": encoder.layers,
        "num_attention_heads": encoder.heads,
        "intermediate_size": encoder.inner,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "vocab_size": encoder.tokens,
        "max_position_embeddings": POSITIONS + (0 if is_bert else PADDED),
        "type_vocab_size": encoder.kinds,
        "layer_norm_eps": EPSILON,
        "pad_token_id": 0 if is_bert else 1,
        "torch_dtype": "float32",
        **({"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}} if ranks else {}),
    }
    files: dict[str, Any] = {
        "config.json": config,
        "tokenizer.json": encoder.vocabulary,
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "pad_token": "[PAD]" if is_bert else "<pad>",
            "model_max_length": POSITIONS,
        },
    }
    if not ranks:
        modules = ("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")
        files["modules.json"] = [
            {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for index, (path, kind) in enumerate(modules)
        ]
        mode = {"mean": "mean_tokens", "cls": "cls_token"}[encoder.pooling]
        files["1_Pooling/config.json"] = {
            "word_embedding_dimension": encoder.width,
            **{f"pooling_mode_{one}": one == mode for one in ("cls_token", "mean_tokens", "max_tokens")},
        }
    for name, value in files.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(json.dumps(value))
    prefix = "roberta." if ranks else ""
    tensors = {
        name if name.startswith("classifier.") else f"{prefix}{name}": value
        for name, value in numbers_of(encoder).items()
    }
    header, offset = {}, 0
    for name, value in tensors.items():
        header[name] = {"dtype": "F32", "shape": value.shape, "data_offsets": [offset, offset + value.nbytes]}
        offset += value.nbytes
    head = json.dumps(header).encode()
    body = b"".join(value.tobytes() for value in tensors.values())
    (directory / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + body)
    return directory


_LAYER: Final = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
_OUTSIDE: Final = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
    "classifier.dense": "cls",
    "classifier.out_proj": "cls.output",
}


def gguf_name(name: str) -> str:
    """A tensor's name in llama.cpp's words."""
    stem, _, kind = name.rpartition(".")
    if not stem.startswith("encoder.layer."):
        return f"{_OUTSIDE[stem]}.{kind}"
    layer, _, rest = stem.removeprefix("encoder.layer.").partition(".")
    return f"blk.{layer}.{_LAYER[rest]}.{kind}"


def write_gguf(
    encoder: Encoder, folder: Path, *, half: bool = False, pooling: bool = True, metadata: dict[str, Any] | None = None
) -> Path:
    """The same model for llama.cpp, its matrices in F16 where `half`; without `pooling` the header does not name it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{encoder.name}-{'f16' if half else 'f32'}.gguf"
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_context_length(POSITIONS)
    writer.add_embedding_length(encoder.width)
    writer.add_block_count(encoder.layers)
    writer.add_feed_forward_length(encoder.inner)
    writer.add_head_count(encoder.heads)
    writer.add_layer_norm_eps(EPSILON)
    writer.add_causal_attention(False)
    if pooling:
        writer.add_pooling_type(gguf.PoolingType[encoder.pooling.upper()])
    writer.add_token_type_count(encoder.kinds)
    (_add_word_pieces if encoder.family == "bert" else _add_pieces)(writer, encoder.vocabulary)
    for key, value in (metadata or {}).items():
        writer.add_key_value(key, *value)
    for name, value in numbers_of(encoder).items():
        if name == "embeddings.position_embeddings.weight":
            value = value[-POSITIONS:]  # noqa: PLW2901 - rows that no position uses are not kept
        is_matrix = value.ndim == 2 and "position" not in name and "token_type" not in name
        writer.add_tensor(gguf_name(name), value.astype(np.float16) if half and is_matrix else value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_word_pieces(writer: gguf.GGUFWriter, vocabulary: dict[str, Any]) -> None:
    ids = vocabulary["model"]["vocab"]
    special = {token["content"]: token["id"] for token in vocabulary["added_tokens"]}
    tokens = sorted(ids, key=ids.__getitem__)
    # llama.cpp marks the beginning of a word where BERT marks what goes on.
    texts = [token if token in special else token[2:] if token.startswith("##") else f"▁{token}" for token in tokens]
    kinds = [gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL for token in tokens]
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(texts)
    writer.add_token_types(kinds)
    for name, add in (
        ("[UNK]", writer.add_unk_token_id),
        ("[SEP]", writer.add_sep_token_id),
        ("[PAD]", writer.add_pad_token_id),
        ("[CLS]", writer.add_bos_token_id),
        ("[MASK]", writer.add_mask_token_id),
    ):
        add(special[name])


def _add_pieces(writer: gguf.GGUFWriter, vocabulary: dict[str, Any]) -> None:
    pieces = vocabulary["model"]["vocab"]
    special = {token["id"]: token["content"] for token in vocabulary["added_tokens"]}
    pieces += [[special[token], 0.0] for token in sorted(special) if token >= len(pieces)]
    unknown = vocabulary["model"]["unk_id"]
    kinds = [
        gguf.TokenType.UNKNOWN
        if token == unknown
        else gguf.TokenType.CONTROL
        if token in special
        else gguf.TokenType.NORMAL
        for token in range(len(pieces))
    ]
    writer.add_tokenizer_model("t5")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([piece for piece, _ in pieces])
    writer.add_token_scores([score for _, score in pieces])
    writer.add_token_types(kinds)
    writer.add_add_space_prefix(True)
    writer.add_remove_extra_whitespaces(True)
    writer.add_precompiled_charsmap(charsmap(vocabulary))
    by_text = {text: token for token, text in special.items()}
    for name, add in (
        ("<s>", writer.add_bos_token_id),
        ("</s>", writer.add_eos_token_id),
        ("<unk>", writer.add_unk_token_id),
        ("<pad>", writer.add_pad_token_id),
        ("<mask>", writer.add_mask_token_id),
    ):
        add(by_text[name])
    writer.add_sep_token_id(by_text["</s>"])
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)
