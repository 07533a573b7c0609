"""The real llama.cpp engine with the demo model, for the gateway of the harness."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from serving.engines.runtime import socket_in
from tests.support.harness import SOURCE

MODEL = SOURCE / "serving" / "models" / "demo" / "demo-q8_0.gguf"
needs_demo = pytest.mark.skipif(not MODEL.exists(), reason="the demo model is not there")


def llamacpp(directory: Path) -> dict:
    """What the harness starts: the engine as its own module, as the planner would."""
    socket = socket_in(directory / "run", "engine")
    argv = [sys.executable, "-m", "serving.llamacpp", "--model", str(MODEL), "--uds", str(socket), "--alias", "m"]
    argv += ["--kv-layout", "streams", "--parallel", "16", "--ctx", "512", "--threads", "2"]
    environment = {"PYTHONPATH": str(SOURCE), "OMP_WAIT_POLICY": "passive", "GGML_NO_BACKTRACE": "1"}
    return {"argv": argv, "env": environment, "socket": str(socket)}
