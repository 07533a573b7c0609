"""Prove the path of vLLM on this machine's GPUs, and say what could not be proved.

    python -m benchmarks.gpu [--vllm-python PYTHON | --wheels DIR] [-o FILE.json]

Exit status 0: every step passed; 1: some failed; 2: none failed, and some could not be checked here.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.gpu.outcome import LABELS, Outcome, exit_status, page
from benchmarks.gpu.served import SMALL
from benchmarks.gpu.steps import Options, Run, run_all
from benchmarks.machine import described


def options_from(argv: list[str] | None = None) -> tuple[Options, Path | None]:
    """The command line, and where the result is written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    vllm = parser.add_mutually_exclusive_group()
    vllm.add_argument("--vllm-python", help="the Python that has vLLM; default: this one")
    vllm.add_argument("--wheels", type=Path, help="a directory of wheels that an environment is made from")
    parser.add_argument("--cpu", action="store_true", help="vLLM's build for processors: tries the script, not a GPU")
    parser.add_argument("--shape", action="append", help="a model to serve with --dummy-weights; default: llama3-8b")
    parser.add_argument("--concurrency", type=int, default=8, help="clients of the load")
    parser.add_argument("--rounds", type=int, help="of the comparison with bare vLLM; default: 11 (3 with --cpu)")
    parser.add_argument("--requests", type=int, default=2, help="by each client in a round")
    parser.add_argument("--least-throughput", type=float, help="share of bare vLLM's tokens/s; default: 0.95 (0.5)")
    parser.add_argument("--kv-tolerance", type=float, default=0.1, help="share by which the KV cache may differ")
    parser.add_argument("--pairs", type=int, default=50, help="of requests from two cache domains")
    parser.add_argument("--start-timeout", type=float, default=1800, help="seconds")
    parser.add_argument("--cache-dir", type=Path, help="what vLLM compiles is kept there; default: nowhere")
    parser.add_argument("--environment", action="append", default=[], metavar="NAME=VALUE", help="for vLLM")
    parser.add_argument("-o", "--out", type=Path)
    given = parser.parse_args(argv)
    pairs = [pair.partition("=") for pair in given.environment]
    if any(not (name and sign) for name, sign, _ in pairs):
        parser.error("--environment takes NAME=VALUE")
    options = Options(
        vllm_python=given.vllm_python,
        wheels=given.wheels,
        cpu=given.cpu,
        shapes=tuple(given.shape or ([SMALL] if given.cpu else ["llama3-8b"])),
        concurrency=given.concurrency,
        rounds=given.rounds or (3 if given.cpu else 11),
        requests=given.requests,
        least_throughput=given.least_throughput or (0.5 if given.cpu else 0.95),
        kv_tolerance=given.kv_tolerance,
        pairs=given.pairs,
        start_timeout_s=given.start_timeout,
        cache=given.cache_dir and given.cache_dir.absolute(),
        environment={name: value for name, _, value in pairs},
    )
    return options, given.out


def result_of(run: Run) -> dict[str, Any]:
    """Everything that came of it, with what is needed to judge it."""
    base = described()
    gpus = [
        {
            "name": gpu.name,
            "memory_bytes": gpu.memory_total_bytes,
            "driver": gpu.driver,
            "cuda": gpu.cuda,
            "compute_capability": gpu.compute_capability,
        }
        for gpu in run.machine.gpus
    ]
    asked = {name: value for name, value in asdict(run.options).items() if isinstance(value, int | float | tuple)}
    return {
        "what": "vLLM's build for processors, to try the script" if run.options.cpu else "vLLM on GPUs",
        **base,
        "gpus": gpus,
        "vllm": run.versions,
        "asked": asked,
        "steps": [asdict(outcome) for outcome in run.outcomes],
    }


def main() -> int:
    """Take every step; tell of each as it ends, and write the result."""
    options, out = options_from()

    def say(outcome: Outcome) -> None:
        sys.stderr.write(f"{outcome.step}: {LABELS[outcome.status]}\n")
        sys.stderr.flush()

    run = run_all(options, say)
    text = json.dumps(result_of(run), indent=1, default=str)
    if out is not None:
        out.write_text(text + "\n", encoding="utf-8")
    sys.stderr.write("\n" + page(run.outcomes))
    sys.stdout.write(text + "\n")
    return exit_status(run.outcomes)


if __name__ == "__main__":
    sys.exit(main())
