"""Which engines this installation can start."""

from __future__ import annotations

import json
import subprocess
import sys

from serving.hardware import Machine
from serving.planner import Engines

ASK_TIMEOUT_S = 30.0


def installed_engines(machine: Machine) -> Engines:
    """What can be started here. llama.cpp is asked, in a process of its own, only where there is a GPU to ask for.

    vLLM is planned for other machines (`serve plan --machine`), and not yet started by this version.
    """
    return Engines(vllm=False, offload=bool(machine.gpus) and _offloads())


def _offloads() -> bool:
    """Whether the installed llama.cpp was built with a GPU backend; one that cannot say so was not."""
    argv = [sys.executable, "-m", "serving.llamacpp.build"]
    try:
        done = subprocess.run(  # noqa: S603 - our own module
            argv, capture_output=True, text=True, timeout=ASK_TIMEOUT_S, check=True
        )
        return bool(json.loads(done.stdout)["supports_gpu_offload"])
    except (OSError, subprocess.SubprocessError, ValueError, KeyError):
        return False
