"""LoRA adapters read from a directory in PEFT's form: `adapter_config.json` beside `adapter_model.safetensors`.

As all weights they are somebody else's files: bounded, safetensors only, and their header is checked before an engine
sees them. The keys are those of PEFT's configuration (https://huggingface.co/docs/peft/package_reference/lora).
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

from serving.errors import BadFile, BadSettings, FileMissing
from serving.registry.local import printable
from serving.registry.model import Adapter
from serving.safetensors import Header, read_header

CONFIG: Final = "adapter_config.json"
WEIGHTS: Final = "adapter_model.safetensors"
MOST_CONFIG_BYTES: Final = 1 << 20
MOST_RANK: Final = 512
"""The largest rank that vLLM has room for."""
NOT_SERVED: Final = {
    "use_dora": "weight-decomposed adapters (DoRA)",
    "lora_bias": "biases of an adapter",
    "modules_to_save": "whole modules saved with an adapter",
    "alora_invocation_tokens": "activated LoRA",
    "layer_replication": "repeated layers",
    "use_bdlora": "block-diagonal LoRA",
    "use_qalora": "QALoRA",
}
"""Keys that, set, change what an adapter means beyond what vLLM computes."""


def read_adapter(name: str, path: Path) -> Adapter:
    """The adapter in the directory `path`, under the name that requests use.

    Raises BadSettings for a name that cannot be one, FileMissing, or BadFile for one that vLLM does not serve.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}", name):
        message = f"`engines.vllm.adapters`: `{printable(name[:64])}` cannot be the name of an adapter"
        raise BadSettings(message, hint="letters, digits, and `.`, `_`, `:`, `/`, `-` after the first")
    directory = path.resolve()
    config = _read(directory / CONFIG)
    kind = config.get("peft_type", "LORA")
    if kind != "LORA":
        raise BadFile(f"the adapter `{name}` is `{printable(str(kind)[:64])}`, not LORA", hint=f"see {directory}")
    other = next((what for key, what in NOT_SERVED.items() if config.get(key)), None)
    if config.get("bias", "none") != "none":
        other = "biases trained with an adapter"
    if other:
        raise BadFile(f"the adapter `{name}` has {other}, which vLLM does not serve", hint="train it without")
    rank = _rank(directory, config)
    header = read_header(directory / WEIGHTS)
    _check_ranks(header, rank)
    return Adapter(name, directory, rank)


def _rank(directory: Path, config: dict[str, Any]) -> int:
    """The largest rank that the configuration states."""
    patterns = config.get("rank_pattern") or {}
    stated = [config.get("r"), *(patterns.values() if isinstance(patterns, dict) else [patterns])]
    ranks = [rank for rank in stated if isinstance(rank, int) and not isinstance(rank, bool) and 0 < rank <= MOST_RANK]
    if len(ranks) < len(stated):
        message = f"`{directory / CONFIG}` states a rank that is not a number from 1 to {MOST_RANK}"
        raise BadFile(message, hint="`r` and `rank_pattern` hold the ranks")
    return max(ranks)


def _check_ranks(header: Header, rank: int) -> None:
    """Refuse weights whose rank is above the one that room is made for: vLLM would fail on them in mid-service."""
    lows = [tensor.shape[0] for tensor in header.tensors if tensor.name.endswith(".lora_A.weight") and tensor.shape]
    if not lows:
        raise BadFile(f"`{header.path}` holds no `lora_A` weights", hint="give the directory that PEFT saved")
    if max(lows) > rank:
        message = f"`{header.path}` has matrices of rank {max(lows)}, and `{CONFIG}` beside it says {rank}"
        raise BadFile(message, hint="the two are not of one adapter: copy both again")


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_CONFIG_BYTES + 1)
        value = json.loads(raw) if len(raw) <= MOST_CONFIG_BYTES else None
    except FileNotFoundError:
        message = f"`{path.parent}` is not an adapter's directory: it has no {CONFIG}"
        raise FileMissing(message, hint=f"name the directory that holds {CONFIG} and {WEIGHTS}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BadFile(f"cannot read `{path}`: {error}", hint="copy the adapter's files again") from None
    if not isinstance(value, dict):
        raise BadFile(f"`{path}` is not a JSON object of reasonable size", hint="copy the adapter's files again")
    return value
