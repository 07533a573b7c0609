"""Models read from a directory in Hugging Face's form: `config.json` beside safetensors.

Only the shape is read here, from somebody else's file: bounded, and refused where it names code of its own. The keys
are those of Transformers' configurations (https://huggingface.co/docs/transformers/main_classes/configuration).
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from serving.errors import BadFile, FileMissing
from serving.generation.parsers.recognised import tool_parser_of
from serving.pooling import Pooling
from serving.registry.directory_pooling import (
    check_positions,
    check_scores,
    longest_of,
    pooling_of_directory,
    read_json,
    read_text,
)
from serving.registry.local import printable
from serving.registry.model import Architecture, Kind, Model, Variant
from serving.safetensors import read_index

CONFIG: Final = "config.json"
TEMPLATE: Final = "chat_template.jinja"
MOST: Final = 1 << 24
"""Upper bound on every count in a configuration; the largest in published models are vocabularies."""
FAMILIES: Final = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",
    "Mistral3ForConditionalGeneration": "llama",
    "MixtralForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "Qwen3MoeForCausalLM": "qwen3moe",
    "Gemma2ForCausalLM": "gemma2",
    "Gemma3ForCausalLM": "gemma3",
    "Gemma3ForConditionalGeneration": "gemma3",
    "Phi3ForCausalLM": "phi3",
    "GraniteForCausalLM": "granite",
    "CohereForCausalLM": "command-r",
    "GptOssForCausalLM": "gpt-oss",
    "DeepseekV3ForCausalLM": "deepseek2",
    "MistralModel": "llama",
    "Qwen2Model": "qwen2",
    "Qwen3Model": "qwen3",
    "BertModel": "bert",
    "RobertaModel": "bert",
    "XLMRobertaModel": "bert",
    "BertForSequenceClassification": "bert",
    "RobertaForSequenceClassification": "bert",
    "XLMRobertaForSequenceClassification": "bert",
}
"""Transformers' class names and what GGUF calls the same shape."""
PADDED: Final = ("Roberta", "XLMRoberta")
"""Families whose positions begin after the padding token's number: that many rows of the table serve no token."""
_TIED: Final = ("gemma2", "gemma3", "command-r")
"""Families whose output matrix is the token embedding, unless their configuration says otherwise."""
DTYPES: Final = {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}


def model_from_directory(directory: Path) -> Model:
    """A directory of safetensors as a model of one variant. Raises FileMissing or BadFile."""
    config = _read(directory / CONFIG)
    name = re.sub(r"[^A-Za-z0-9._:-]+", "-", directory.resolve().name).strip("-.") or "model"
    method = config.get("quantization_config")
    quantisation = method.get("quant_method") if isinstance(method, dict) else None
    dtype = config.get("dtype") or config.get("torch_dtype") or "bfloat16"
    variant = str(quantisation) if isinstance(quantisation, str) else DTYPES.get(str(dtype), "bf16")
    architecture = architecture_of_config(directory, config)
    named = printable(class_of(config) or "no class")
    strange = f"`{directory / CONFIG}` describes `{named}`, whose shape is not known here"
    elsewhere = "a site catalogue may give its architecture, with `path` naming this directory"
    if architecture is None and named.endswith(("Model", "ForSequenceClassification")):
        raise BadFile(strange, hint=elsewhere)
    kind = kind_of(directory, config)
    context = architecture.positions if architecture else None
    context = context or _count(directory, config, "max_position_embeddings")
    return Model(
        name=name,
        title=printable(directory.resolve().name),
        context=context if kind == "chat" else min(context, longest_of(directory) or context),
        architecture=architecture,
        variants=(
            Variant(
                printable(variant),
                "safetensors",
                ("vllm", "transformers") if kind == "chat" else ("vllm",),
                weights_bytes(directory),
                directory.resolve(),
                pooling=pooling_for(kind, directory),
            ),
        ),
        kind=kind,
        tool_parser=tool_parser_of(template_of(directory)) if kind == "chat" else None,
        origin=str(directory),
        warnings=() if architecture else (f"{strange}: `--engine transformers` may serve it; {elsewhere}",),
    )


def with_directory(model: Model, variant: Variant) -> tuple[Variant, int]:
    """A variant of the catalogue with what its directory says, and the context that it was made for.

    Raises FileMissing or BadFile, also where the directory is for something else than the entry says.
    """
    assert variant.path is not None  # noqa: S101 - the caller has found it
    described = dataclasses.replace(variant, size_bytes=weights_bytes(variant.path))
    if model.kind == "chat":
        return described, model.context
    found = kind_of(variant.path, _read(variant.path / CONFIG))
    if found != model.kind:
        message = f"`{variant.path}` is a model of the kind `{found}`, and the catalogue has `{model.name}` as"
        raise BadFile(f"{message} `{model.kind}`", hint="copy its modules.json beside its weights, or name another")
    longest = min(model.context, longest_of(variant.path) or model.context)
    return dataclasses.replace(described, pooling=pooling_for(found, variant.path)), longest


def kind_of(directory: Path, config: Mapping[str, Any]) -> Kind:
    """What a directory is for: by its class's name, and a decoder by the pooling that stands beside it.

    Raises BadFile for encoders whose numbers would be wrong here.
    """
    named = class_of(config)
    if named.endswith("ForSequenceClassification"):
        check_scores(directory / CONFIG, config)
        check_positions(directory / CONFIG, config)
        return "reranker"
    if named.endswith("Model"):
        check_positions(directory / CONFIG, config)
        return "embedding"
    return "embedding" if pooling_of_directory(directory) is not None else "chat"


def pooling_for(kind: Kind, directory: Path) -> Pooling | None:
    """How texts are pooled for what the model is for; None where an embedder's directory does not say."""
    if kind == "reranker":
        return "rank"
    return pooling_of_directory(directory) if kind == "embedding" else None


def template_of(directory: Path) -> str:
    """The chat template beside the weights; of several, the one for tools. Empty where there is none.

    Raises BadFile where what should hold it cannot be read.
    """
    with contextlib.suppress(FileNotFoundError):
        return read_text(directory / TEMPLATE)
    for name in ("chat_template.json", "tokenizer_config.json"):
        with contextlib.suppress(FileNotFoundError):
            told = read_json(directory / name)
            told = told.get("chat_template") if isinstance(told, dict) else None
            if isinstance(told, list):
                named = {str(each.get("name")): each.get("template") for each in told if isinstance(each, dict)}
                told = named.get("tool_use") or named.get("default")
            if isinstance(told, str):
                return told
    return ""


def weights_bytes(directory: Path) -> int:
    """Bytes of the directory's safetensors files, whose headers are checked. Raises FileMissing or BadFile."""
    return sum(header.path.stat().st_size for header in read_index(directory))


def class_of(config: Mapping[str, Any]) -> str:
    """Transformers' name of the model's class; empty where the configuration names none."""
    named = config.get("architectures")
    return named[0] if isinstance(named, list) and named and isinstance(named[0], str) else ""


def architecture_of_config(directory: Path, config: Mapping[str, Any]) -> Architecture | None:
    """The model's shape as Transformers' configuration has it; None for one that is not known here.

    Raises BadFile for a shape that is known and not whole.
    """
    kind = class_of(config)
    family = FAMILIES.get(kind)
    if family is None:
        return None
    layers, heads = _count(directory, config, "num_hidden_layers"), _count(directory, config, "num_attention_heads")
    embedding = _count(directory, config, "hidden_size")
    width = _optional(directory, config, "head_dim") or embedding // heads
    latent = family == "deepseek2"
    windowed = _windowed(family, config, layers)
    shape: dict[str, Any] = {}
    if latent:
        rank, rotary = _count(directory, config, "kv_lora_rank"), _count(directory, config, "qk_rope_head_dim")
        shape = {
            "latent": True,
            "kv_rank": rank,
            "q_rank": _optional(directory, config, "q_lora_rank"),
            "key_length_mla": _count(directory, config, "qk_nope_head_dim") + rotary,
            "value_length_mla": _count(directory, config, "v_head_dim"),
        }
    experts = ("num_local_experts", "num_experts", "n_routed_experts")
    return Architecture(
        family=family,
        layers=layers,
        embedding=embedding,
        feed_forward=_optional(directory, config, "intermediate_size"),
        heads=heads,
        kv_heads=(1 if latent else _optional(directory, config, "num_key_value_heads") or heads,) * layers,
        key_length=rank + rotary if latent else width,
        value_length=rank if latent else width,
        vocabulary=_count(directory, config, "vocab_size"),
        sliding_window=_optional(directory, config, "sliding_window") if any(windowed) else None,
        windowed=windowed,
        expert_feed_forward=_optional(directory, config, "moe_intermediate_size"),
        experts=next((count for key in experts if (count := _optional(directory, config, key))), None),
        experts_used=_optional(directory, config, "num_experts_per_tok"),
        shared_experts=_optional(directory, config, "n_shared_experts") or 0,
        dense_layers=_optional(directory, config, "first_k_dense_replace") or 0,
        tied=family != "bert"
        and (kind.endswith("Model") or config.get("tie_word_embeddings", family in _TIED) is True),
        positions=_positions(directory, config, kind) if family == "bert" else None,
        **shape,
    )


def _positions(directory: Path, config: Mapping[str, Any], kind: str) -> int:
    """Tokens that an encoder's table of positions has rows for."""
    rows = _count(directory, config, "max_position_embeddings")
    padding = config.get("pad_token_id", 1)
    if not kind.startswith(PADDED) or not isinstance(padding, int) or not 0 <= padding < rows - 1:
        return rows
    return rows - padding - 1


def _windowed(family: str, config: Mapping[str, Any], layers: int) -> tuple[bool, ...]:
    window, context = config.get("sliding_window"), config.get("max_position_embeddings")
    if not isinstance(window, int) or config.get("use_sliding_window") is False:
        return ()
    if isinstance(context, int) and window >= context:
        return ()
    kinds = config.get("layer_types")
    if isinstance(kinds, list) and len(kinds) == layers:
        return tuple(kind == "sliding_attention" for kind in kinds)
    if family == "gemma2":  # every other one, as its implementation has it
        return tuple(layer % 2 == 0 for layer in range(layers))
    pattern = config.get("sliding_window_pattern")
    if isinstance(pattern, int) and pattern > 0:
        return tuple((layer + 1) % pattern != 0 for layer in range(layers))
    return (True,) * layers


def _read(path: Path) -> dict[str, Any]:
    try:
        value = read_json(path)
    except FileNotFoundError:
        message = f"`{path.parent}` is not a model's directory: it has no {CONFIG}"
        raise FileMissing(message, hint="name the directory that holds config.json and *.safetensors") from None
    if not isinstance(value, dict):
        raise BadFile(f"`{path}` is not a JSON object", hint="copy the model's files again")
    if "auto_map" in value:
        message = f"`{path}` asks for code that came with the model (`auto_map`), which is never run"
        raise BadFile(message, hint="use a model that the engines know without such code")
    text = value.get("text_config")  # a language model inside one that sees images, too
    return {**value, **text} if isinstance(text, dict) else value


def _count(directory: Path, config: Mapping[str, Any], key: str) -> int:
    value = _optional(directory, config, key)
    if value is None:
        raise BadFile(f"`{directory / CONFIG}` lacks `{key}`", hint="copy the model's files again")
    return value


def _optional(directory: Path, config: Mapping[str, Any], key: str) -> int | None:
    value = config.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= MOST:
        if value == 0:
            return None
        raise BadFile(f"`{directory / CONFIG}` has `{key}` = {printable(repr(value))}, not a count up to {MOST}")
    return value
