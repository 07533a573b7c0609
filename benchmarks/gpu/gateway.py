"""What the gateway costs in front of a real vLLM, and whether cache domains are apart in it, as figures.

    python -m benchmarks.gpu.gateway --vllm-python PYTHON [--rounds 11] [--concurrency 16] [--requests 3]

Synthetic weights of 100 M parameters; with vLLM's build for processors unless there are GPUs. Rounds of one load
through the gateway and straight to the engine's own socket: one process, so that only the gateway differs.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.gpu.__main__ import options_from
from benchmarks.gpu.served import SMALL, Setting, served
from benchmarks.gpu.steps import Run, domains, overhead
from benchmarks.machine import described
from serving.doctor.gather import ask_vllm


def measure(argv: list[str]) -> dict[str, Any]:
    """The figures of both, whether they meet their bars or not."""
    options, _ = options_from(["--concurrency", "16", "--requests", "3", "--rounds", "11", *argv])
    python = options.vllm_python or sys.executable
    with tempfile.TemporaryDirectory(prefix="gateway-") as scratch:
        run = Run(options, Path(scratch), lambda _: None)
        cache = options.cache or Path(scratch) / "cache"
        setting = Setting.write(Path(scratch), python, cache, options.environment, options.start_timeout_s)
        with served(setting, SMALL, ("--dummy-weights",)) as running:
            found = {"overhead": dict(overhead(run, running).figures), "domains": dict(domains(run, running).figures)}
    versions = ask_vllm(python)
    base = described()
    base["versions"] = {**base["versions"], "vllm": versions.version, "torch": versions.torch}
    return {"what": f"the gateway before vLLM, {SMALL}, {options.concurrency} clients", **found, **base}


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1:]), indent=1))
