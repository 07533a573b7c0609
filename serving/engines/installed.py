"""Which engines this installation can start."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Final

from serving.doctor.gather import ask_vllm
from serving.hardware import Machine
from serving.planner import Engines
from serving.settings import Settings

ASK_TIMEOUT_S: Final = 30.0
OLDEST_VLLM: Final = (0, 32)
"""The first version without a published advisory that a request for text can trigger: with this one are fixed
PYSEC-2026-4349 and -4344 (chat templates in requests), with those before it CVE-2026-114051 (`min_tokens`),
CVE-2026-105757 (structured output ends the engine), CVE-2026-93989 and -93840 (token ids of other requests) and their
elders. An older one is not started, and nothing overrides that."""
_ASK_TRANSFORMERS: Final = """
import importlib.metadata, importlib.util
names = ("torch", "transformers", "uvicorn", "httptools", "uvloop", "jinja2", "numpy")
print(", ".join(name for name in names if importlib.util.find_spec(name) is None), end=";")
local = importlib.metadata.version("torch").partition("+")[2] if importlib.util.find_spec("torch") else "cpu"
print("" if local == "cpu" else local or "cuda")
"""
"""Prints what is lacking, and what PyTorch was built for: without importing it, which takes seconds."""
TOO_NEW_VLLM: Final = (0, 34)
"""The first version that this program has not been tried with."""


def installed_engines(machine: Machine, settings: Settings, wanted: Collection[str | None] = ()) -> Engines:
    """What can be started here, each asked in a process of its own.

    llama.cpp is asked whether it can use a GPU only where there is one. vLLM is looked for where it would be used: with
    a GPU, where its Python is configured, or where it is `wanted` by name; Transformers only where that is wanted.
    """
    engines = Engines(offload=bool(machine.gpus) and _offloads())
    if "transformers" in wanted:
        engines = _with_transformers(engines, settings.engines.transformers.python)
    if machine.gpus or settings.engines.vllm.python or "vllm" in wanted:
        engines = _with_vllm(engines, settings.engines.vllm.python)
    return engines


def _with_vllm(engines: Engines, python: Path | None) -> Engines:
    install = ask_vllm(str(python or sys.executable))
    if install.failure is not None:
        return replace(engines, vllm_lacks=f"`{install.python}` cannot be asked: {install.failure}")
    if install.version is None:
        lacks = f"`{install.python}` does not have it; name one that does with engines.vllm.python"
        return replace(engines, vllm_lacks=lacks)
    refusal = refuse_version(install.version)
    if refusal is not None:
        return replace(engines, vllm_lacks=refusal)
    if install.cuda is None:
        lacks = f"`{install.python}` has vLLM {install.version} built for processors"
        return replace(engines, vllm_cpu=True, vllm_lacks=lacks)
    return replace(engines, vllm=True)


def _with_transformers(engines: Engines, python: Path | None) -> Engines:
    chosen = str(python or sys.executable)
    try:
        done = subprocess.run(  # noqa: S603 - the interpreter that the operator names
            [chosen, "-c", _ASK_TRANSFORMERS], capture_output=True, text=True, timeout=ASK_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        return replace(engines, transformers_lacks=f"`{chosen}` cannot be asked: {error}")
    lacking, built_for = (done.stdout.splitlines() or ["", ""])[-1].partition(";")[::2]
    if done.returncode or lacking:
        what = lacking or "what it needs"
        lacks = f"`{chosen}` does not have {what}; name one that does with engines.transformers.python"
        return replace(engines, transformers_lacks=f"{lacks} (`pip install 'perimeter[transformers]'`)")
    return replace(engines, transformers=True, transformers_cuda=bool(built_for))


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
