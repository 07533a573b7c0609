"""Which engines this installation can start."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from serving.doctor.gather import ask_vllm
from serving.hardware import Machine
from serving.planner import Engines

ASK_TIMEOUT_S: Final = 30.0
OLDEST_VLLM: Final = (0, 32)
"""The first version without a published advisory that a request for text can trigger: with this one are fixed
PYSEC-2026-4349 and -4344 (chat templates in requests), with those before it CVE-2026-114051 (`min_tokens`),
CVE-2026-105757 (structured output ends the engine), CVE-2026-93989 and -93840 (token ids of other requests) and their
elders. An older one is not started, and nothing overrides that."""
TOO_NEW_VLLM: Final = (0, 34)
"""The first version that this program has not been tried with."""


def installed_engines(machine: Machine, vllm_python: Path | None = None, *, wants_vllm: bool = False) -> Engines:
    """What can be started here, each asked in a process of its own.

    llama.cpp is asked whether it can use a GPU only where there is one. vLLM is looked for where it would be used: with
    a GPU, where its Python is configured, or where it `wants_vllm` by name.
    """
    offload = bool(machine.gpus) and _offloads()
    if not (machine.gpus or vllm_python or wants_vllm):
        return Engines(offload=offload)
    install = ask_vllm(str(vllm_python or sys.executable))
    if install.failure is not None:
        return Engines(offload=offload, vllm_lacks=f"`{install.python}` cannot be asked: {install.failure}")
    if install.version is None:
        lacks = f"`{install.python}` does not have it; name one that does with engines.vllm.python"
        return Engines(offload=offload, vllm_lacks=lacks)
    refusal = refuse_version(install.version)
    if refusal is not None:
        return Engines(offload=offload, vllm_lacks=refusal)
    if install.cuda is None:
        lacks = f"`{install.python}` has vLLM {install.version} built for processors"
        return Engines(vllm_cpu=True, offload=offload, vllm_lacks=lacks)
    return Engines(vllm=True, offload=offload)


def refuse_version(version: str) -> str | None:
    """Why that version of vLLM is not started, as a sentence; None where it is."""
    numbers = re.match(r"(\d+)\.(\d+)", version)
    at = (int(numbers[1]), int(numbers[2])) if numbers else None
    supported = f"{_dotted(OLDEST_VLLM)} up to, not including, {_dotted(TOO_NEW_VLLM)}"
    if at is None:
        return f"vLLM `{version}` is of no version that is known here ({supported})"
    if at < OLDEST_VLLM:
        return f"vLLM {version} has published vulnerabilities that a request can trigger; {supported} is started"
    if at >= TOO_NEW_VLLM:
        return f"vLLM {version} is newer than this program knows; {supported} is started"
    return None


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


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
