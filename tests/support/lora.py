"""LoRA adapters for the demo model, written on the spot in PEFT's form."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

SHAPES = {"q_proj": (256, 256), "v_proj": (256, 128)}
"""Columns and rows of the demo model's matrices that these adapters change."""
LAYERS = 4


def write_adapter(
    directory: Path,
    *,
    rank: int = 4,
    strength: float = 0.5,
    shapes: Mapping[str, tuple[int, int]] | None = None,
    **config: object,
) -> Path:
    """An adapter of random numbers of that strength; 0 changes nothing. `config` goes over its configuration."""
    directory.mkdir(parents=True)
    random = np.random.default_rng(7)
    header, data = {}, b""
    for layer in range(LAYERS):
        for module, (columns, rows) in (shapes or SHAPES).items():
            name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            for part, shape in (("lora_A", (rank, columns)), ("lora_B", (rows, rank))):
                numbers = random.normal(0, strength, shape).astype("<f4").tobytes()
                offsets = [len(data), len(data) + len(numbers)]
                header[f"{name}.{part}.weight"] = {"dtype": "F32", "shape": list(shape), "data_offsets": offsets}
                data += numbers
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (directory / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    stated = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": list(shapes or SHAPES)}
    (directory / "adapter_config.json").write_text(json.dumps({**stated, **config}), encoding="utf-8")
    return directory
