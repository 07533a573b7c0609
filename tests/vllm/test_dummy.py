"""`serve NAME --backend vllm --dummy-weights`: a shape is measured on the real vLLM before its weights are there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.conftest import VLLM_PYTHON
from tests.e2e.stack import serve
from tests.e2e.test_dummy_weights import SITE, card_after_an_answer

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
        card_after_an_answer(stack)
        plan = next(line for line in stack.log if line["event"] == "plan")
        assert (plan["engine"], plan["dummy_weights"]) == ("vllm", True)
    (made,) = (tmp_path / "cache/dummy").iterdir()
    assert sum(file.stat().st_size for file in made.iterdir()) < 2**20
