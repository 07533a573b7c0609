"""A directory that describes a model's shape and holds no weights: what vLLM's `--load-format dummy` starts from.

vLLM makes the numbers itself, on the GPU; what it needs is `config.json` and a tokenizer. So a candidate GPU is
measured on a model's exact shape before any weights are approved or carried in, and nothing is read from a disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from serving.errors import BadSettings, UsageError
from serving.registry import Architecture, Model, Variant
from serving.registry.directory import CONFIG, architecture_of_config
from serving.synthetic.dummy import CONTROLS, TEMPLATE
from serving.synthetic.vocabulary import vocabulary

_CLASSES: Final = {
    "llama": ("LlamaForCausalLM", "llama"),
    "qwen2": ("Qwen2ForCausalLM", "qwen2"),
    "qwen3": ("Qwen3ForCausalLM", "qwen3"),
    "qwen3moe": ("Qwen3MoeForCausalLM", "qwen3_moe"),
    "gemma2": ("Gemma2ForCausalLM", "gemma2"),
    "gemma3": ("Gemma3ForCausalLM", "gemma3_text"),
    "phi3": ("Phi3ForCausalLM", "phi3"),
    "granite": ("GraniteForCausalLM", "granite"),
    "command-r": ("CohereForCausalLM", "cohere"),
    "gpt-oss": ("GptOssForCausalLM", "gpt_oss"),
    "deepseek2": ("DeepseekV3ForCausalLM", "deepseek_v3"),
}
"""GGUF's names of shapes, and Transformers' class and type for each; `registry.directory` reads the same the other
way round, and a test holds the two together."""
_MIXTURE: Final = ("MixtralForCausalLM", "mixtral")
"""What a `llama` with experts is called."""
_GELU: Final = {"hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh"}
_QUANTISED: Final[dict[str, dict[str, Any]]] = {
    "fp8": {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3", "weight_block_size": [128, 128]},
    "mxfp4-hf": {
        "quant_method": "mxfp4",
        "modules_to_not_convert": [
            "model.layers.*.self_attn",
            "model.layers.*.mlp.router",
            "model.embed_tokens",
            "lm_head",
        ],
    },
}
_DTYPES: Final = {"bf16": "bfloat16", "f16": "float16", "f16-hf": "float16", "f32": "float32"}


def write_description(model: Model, variant: Variant, directory: Path) -> Path:
    """The directory of this shape, made under `directory` unless it is there; returns its path.

    Raises UsageError for a shape that vLLM's configuration is not known of, BadSettings where nothing can be written.
    """
    config = configuration(model, variant)
    described = json.dumps(config, indent=1)
    digest = hashlib.sha256(f"1 {described}".encode()).hexdigest()[:8]
    path = directory / f"{model.name}-{variant.name}-dummy-{digest}"
    if (path / CONFIG).exists():
        return path
    partial = path.with_name(f"{path.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700, parents=True)
        for name, content in tokenizer_files(config["vocab_size"]).items():
            (partial / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        (partial / CONFIG).write_text(described, encoding="utf-8")
        with contextlib.suppress(FileExistsError):
            partial.rename(path)
    except OSError as failure:
        raise BadSettings(
            f"cannot write a model's description into `{directory}`: {failure.strerror}",
            hint="set paths.cache_dir to a directory that this user may write to",
        ) from None
    return path


def configuration(model: Model, variant: Variant) -> dict[str, Any]:
    """`config.json` of this shape as Transformers has it.

    What only shapes the answers (bases of rotations, multipliers) is plausible, not the model's own: answers are noise.
    Raises UsageError for a shape that is not known.
    """
    it = model.architecture
    config = None if it is None else _described(it, model, variant.name)
    is_known = config is not None and _reads_back(config, it)
    if config is None or not is_known or (variant.name not in _DTYPES and variant.name not in _QUANTISED):
        raise UsageError(
            f"no synthetic weights can be made for `{model.name}` as {variant.name} on vLLM",
            hint="try `--backend llamacpp`, or a model of the same shape; `serve models list` shows what there is",
        )
    return config


def _reads_back(config: Mapping[str, Any], architecture: Architecture | None) -> bool:
    """Whether a reader of this configuration sees the very shape: what it cannot say is not measured in its place."""
    return architecture_of_config(Path("dummy"), config) == architecture


def _described(it: Architecture, model: Model, variant: str) -> dict[str, Any] | None:
    named = _MIXTURE if it.family == "llama" and it.experts else _CLASSES.get(it.family)
    if named is None or model.kind != "chat" or it.vocabulary is None:
        return None
    config: dict[str, Any] = {
        "architectures": [named[0]],
        "model_type": named[1],
        "hidden_size": it.embedding,
        "intermediate_size": it.feed_forward,
        "num_hidden_layers": it.layers,
        "num_attention_heads": it.heads,
        "num_key_value_heads": it.heads if it.latent else it.kv_heads[0],
        "head_dim": None if it.latent else it.key_length,
        "vocab_size": it.vocabulary,
        "max_position_embeddings": model.context,
        "tie_word_embeddings": it.tied,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 500_000.0,
        "torch_dtype": _DTYPES.get(variant, "bfloat16"),
        "bos_token_id": it.vocabulary - 2,
        "eos_token_id": it.vocabulary - 1,
        "pad_token_id": it.vocabulary - 1,
        "quantization_config": _QUANTISED.get(variant),
        **_windows(it),
        **_experts(it),
        **_latent(it),
        **_peculiar(it, model.context),
    }
    return {key: value for key, value in config.items() if value is not None}


def _windows(it: Architecture) -> dict[str, Any]:
    if not any(it.windowed):
        return {}
    kinds = ["sliding_attention" if windowed else "full_attention" for windowed in it.windowed]
    return {"sliding_window": it.sliding_window, "layer_types": kinds}


def _experts(it: Architecture) -> dict[str, Any]:
    if not it.experts:
        return {}
    key = {"qwen3moe": "num_experts", "deepseek2": "n_routed_experts"}.get(it.family, "num_local_experts")
    return {
        key: it.experts,
        "num_experts_per_tok": it.experts_used,
        "moe_intermediate_size": it.expert_feed_forward,
        "n_shared_experts": it.shared_experts or None,
        "first_k_dense_replace": it.dense_layers or None,
    }


def _latent(it: Architecture) -> dict[str, Any]:
    if not it.latent or it.kv_rank is None or it.key_length_mla is None:
        return {}
    rotary = it.key_length - it.kv_rank
    return {
        "kv_lora_rank": it.kv_rank,
        "q_lora_rank": it.q_rank,
        "qk_rope_head_dim": rotary,
        "qk_nope_head_dim": it.key_length_mla - rotary,
        "v_head_dim": it.value_length_mla,
    }


def _peculiar(it: Architecture, context: int) -> dict[str, Any]:
    """What a family's own class asks for besides."""
    soft = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
    groups = next(count for count in (8, 4, 2, 1) if (it.experts or 1) % count == 0)
    chosen = {"scoring_func": "sigmoid", "topk_method": "noaux_tc", "norm_topk_prob": True}
    by_family: dict[str, dict[str, Any]] = {
        "gemma2": {"query_pre_attn_scalar": it.key_length, **soft, **_GELU},
        "gemma3": {"query_pre_attn_scalar": it.key_length, "rope_local_base_freq": 10_000.0, **_GELU},
        "phi3": {"original_max_position_embeddings": context},
        "command-r": {"layer_norm_eps": 1e-5, "logit_scale": 0.0625, "use_qk_norm": False},
        "qwen3moe": {"decoder_sparse_step": 1, "norm_topk_prob": True, "mlp_only_layers": []},
        "deepseek2": {"n_group": groups, "topk_group": max(1, groups // 2), "routed_scaling_factor": 2.5, **chosen},
    }
    return by_family.get(it.family, {})


def tokenizer_files(size: int) -> dict[str, Any]:
    """A tokenizer's files by name: the vocabulary of synthetic GGUF files, in the form of the tokenizers library."""
    tokens, merges = vocabulary(size, CONTROLS)
    first = len(tokens) - len(CONTROLS)
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "tokenizer.json": {
            "version": "1.0",
            "added_tokens": [{"id": first + at, "content": text, **plain} for at, text in enumerate(CONTROLS)],
            "pre_tokenizer": level,
            "decoder": level,
            "model": {
                "type": "BPE",
                "vocab": {token: at for at, token in enumerate(tokens[:first])},
                "merges": merges,
            },
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": CONTROLS[0],
            "eos_token": CONTROLS[1],
            "clean_up_tokenization_spaces": False,
            "chat_template": TEMPLATE,
        },
    }
