"""Models read from a directory in Hugging Face's form: `config.json` beside safetensors.

Only the shape is read here, from somebody else's file: bounded, and refused where it names code of its own. The keys
are those of Transformers' configurations (https://huggingface.co/docs/transformers/main_classes/configuration).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from serving.errors import BadFile, FileMissing
from serving.registry.local import printable
from serving.registry.model import Architecture, Model, Variant
from serving.safetensors import read_index

CONFIG: Final = "config.json"
MOST_CONFIG_BYTES: Final = 1 << 20
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
}
"""Transformers' class names and what GGUF calls the same shape."""
DTYPES: Final = {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}


def model_from_directory(directory: Path) -> Model:
    """A directory of safetensors as a model of one variant. Raises FileMissing or BadFile."""
    config = _read(directory / CONFIG)
    name = re.sub(r"[^A-Za-z0-9._:-]+", "-", directory.resolve().name).strip("-.") or "model"
    method = config.get("quantization_config")
    quantisation = method.get("quant_method") if isinstance(method, dict) else None
    architecture = architecture_of_config(directory, config)
    strange = (
        f"`{directory / CONFIG}` describes `{class_of(config)}`, whose shape is not known here: "
        "`--engine transformers` may serve it; a site catalogue may give its shape, with `path` naming this directory"
    )
    dtype = config.get("dtype") or config.get("torch_dtype") or "bfloat16"
    variant = str(quantisation) if isinstance(quantisation, str) else DTYPES.get(str(dtype), "bf16")
    return Model(
        name=name,
        title=printable(directory.resolve().name),
        context=_count(directory, config, "max_position_embeddings"),
        architecture=architecture,
        variants=(
            Variant(
                printable(variant),
                "safetensors",
                ("vllm", "transformers"),
                weights_bytes(directory),
                directory.resolve(),
            ),
        ),
        origin=str(directory),
        warnings=() if architecture else (strange,),
    )


def weights_bytes(directory: Path) -> int:
    """Bytes of the directory's safetensors files, whose headers are checked. Raises FileMissing or BadFile."""
    return sum(header.path.stat().st_size for header in read_index(directory))


def architecture_of_config(directory: Path, config: Mapping[str, Any]) -> Architecture | None:
    """The decoder's shape as Transformers' configuration has it; None for one that is not known here.

    Raises BadFile for a shape that is known and not whole.
    """
    family = FAMILIES.get(class_of(config) or "")
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
        tied=config.get("tie_word_embeddings", family in ("gemma2", "gemma3", "command-r")) is True,
        **shape,
    )


def class_of(config: Mapping[str, Any]) -> str | None:
    """The name of the Transformers class that computes it."""
    named = config.get("architectures")
    return printable(named[0]) if isinstance(named, list) and named and isinstance(named[0], str) else None


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
        with path.open("rb") as file:
            raw = file.read(MOST_CONFIG_BYTES + 1)
        value = json.loads(raw) if len(raw) <= MOST_CONFIG_BYTES else None
    except FileNotFoundError:
        message = f"`{path.parent}` is not a model's directory: it has no {CONFIG}"
        raise FileMissing(message, hint="name the directory that holds config.json and *.safetensors") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BadFile(f"cannot read `{path}`: {error}", hint="copy the model's files again") from None
    if not isinstance(value, dict):
        raise BadFile(f"`{path}` is not a JSON object of reasonable size", hint="copy the model's files again")
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
