"""`serve NAME --backend vllm --dummy-weights`: a shape is measured on the real vLLM before its weights are there."""

from __future__ import annotations

import json
from pathlib import Path

import openai
import pytest

from tests.conformance.conftest import VLLM_PYTHON
from tests.e2e.stack import serve
from tests.e2e.test_dummy_weights import SITE

pytestmark = [
    pytest.mark.skipif(VLLM_PYTHON is None, reason="SERVING_VLLM_PYTHON names no Python with vLLM (make test-vllm)"),
    pytest.mark.timeout(600),
]


def test_a_shape_without_weights_is_served_by_vllm(tmp_path: Path) -> None:
    """It answers as many tokens as asked, every list says that they are noise, and no weights were written."""
    site = SITE.replace('"q4_k_m"', '"bf16"').replace('"gguf"', '"safetensors"').replace('"llamacpp"', '"vllm"')
    (tmp_path / "models.toml").write_text(site)
    config = tmp_path / "serving.toml"
    config.write_text(
        f"[registry]\nsite_file = '{tmp_path / 'models.toml'}'\n[paths]\ncache_dir = '{tmp_path / 'cache'}'\n"
        f"[engines.vllm]\npython = '{VLLM_PYTHON}'\n"
    )
    flags = ("--dummy-weights", "--backend", "vllm", "--context", "512")
    with serve(*flags, model="tiny", config=config, timeout_s=300) as stack:
        client = openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0)
        answer = client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": "aqa bqb"}],
            max_tokens=8,
            extra_body={"ignore_eos": True},
        )
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 8
        (card,) = json.loads(stack.get("/v1/models"))["data"]
        assert card["dummy_weights"] is True
        plan = next(line for line in stack.log if line["event"] == "plan")
        assert (plan["engine"], plan["dummy_weights"]) == ("vllm", True)
    (made,) = (tmp_path / "cache/dummy").iterdir()
    assert sum(file.stat().st_size for file in made.iterdir()) < 2**20
