"""The real vLLM and the real Transformers reach out for nothing, by the kernel's word."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conformance.conftest import VLLM_PYTHON
from tests.e2e.test_egress import a_namespace_can_be_made, doctor, needs_strace

HF_PYTHON = os.environ.get("SERVING_HF_PYTHON") or VLLM_PYTHON
pytestmark = [
    pytest.mark.skipif(VLLM_PYTHON is None, reason="SERVING_VLLM_PYTHON names no Python with vLLM (make test-vllm)"),
    pytest.mark.timeout(600),
    needs_strace,
    pytest.mark.usefixtures(a_namespace_can_be_made.__name__),
]


@pytest.mark.parametrize("engine", ["vllm", "transformers"])
def test_no_process_reaches_out(engine: str, tmp_path: Path) -> None:
    """Through all phases, a killed engine's among them; every process watched, vLLM's workers too."""
    config = tmp_path / "serving.toml"
    config.write_text(
        f"[engines.vllm]\npython = '{VLLM_PYTHON}'\n[engines.transformers]\npython = '{HF_PYTHON}'\n"
        f"[paths]\ncache_dir = '{tmp_path / 'cache'}'\n"
    )
    seen = doctor("--engine", engine, "--config", str(config), limit_s=500)
    assert (seen.status, seen.result["verdict"], seen.result["reasons"]) == (0, "passed", [])
    assert len(seen.processes) > (10 if engine == "vllm" else 2)
