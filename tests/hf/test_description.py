"""Transformers builds from a described shape a model of exactly the parameters that the registry counts."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from serving.registry import load_catalogue
from serving.registry.tensors import parameters_of
from serving.synthetic import write_description

pytestmark = pytest.mark.transformers

BUILD = """
import json, sys, torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
config = AutoConfig.from_pretrained(sys.argv[1])
with torch.device("meta"):
    model = AutoModelForCausalLM.from_config(config)
routing = [buffer for name, buffer in model.named_buffers() if name.endswith("e_score_correction_bias")]
print(json.dumps({
    "parameters": sum(each.numel() for each in [*model.parameters(), *routing]),
    "words": len(AutoTokenizer.from_pretrained(sys.argv[1])("aqa bqb").input_ids),
}))
"""


@pytest.mark.parametrize(
    "name",
    [
        "llama3-8b",
        "mixtral-8x7b",
        "qwen2.5-7b",
        "qwen3-8b",
        "qwen3-30b-a3b",
        "gemma2-9b",
        "gemma3-4b",
        "phi3.5-mini",
        "granite3.1-8b",
        "command-r",
        "gpt-oss-20b",
        "deepseek-v3",
    ],
)
def test_a_described_shape_has_the_parameters_of_the_model(name: str, hf_python: str, tmp_path: Path) -> None:
    """One of each family, on no device, so that no number is made; and its tokenizer reads a word as a token."""
    model = load_catalogue().find(name)
    (variant,) = [each for each in model.variants if each.format == "safetensors"]
    path = write_description(model, variant, tmp_path)
    done = subprocess.run(
        [hf_python, "-c", BUILD, str(path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert model.architecture is not None
    assert told == {"parameters": parameters_of(model.architecture), "words": 2}
