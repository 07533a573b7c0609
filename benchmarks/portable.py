"""What a portable wheel costs on this processor, against the llama.cpp that was compiled for it.

    python -m benchmarks.portable --model FILE … [--wheels DIRECTORY] [--only PART] [--rounds N] [--threads N]

Two processes hold the same model, one with the llama.cpp of this environment (`GGML_NATIVE`, as `make` builds it), one
with the wheel that `make portable` built, and compute in turns, never at once; the next round goes in the other order.
A ratio is of one round: portable tokens/s over native, for the prompt and for what follows it, on one thread, and per
second of processor time: both builds divide their work among threads alike, and what else runs on the machine takes
from the clock on the wall, and much less from this one. With `--threads 2` it is the wall's. `--only haswell` leaves
one part of the wheel in place, which is what a wheel for that processor alone would do. One JSON object on stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.machine import described, interval

ROOT = Path(__file__).parents[1]
PROMPT, OUTPUT = 256, 48
PHASES = ("prompt", "output")


def work(path: Path, threads: int) -> None:
    """Answer each line on stdin with the tokens/s of one request, prompt and output, as a line on stdout."""
    from serving.llamacpp import binding  # noqa: PLC0415 - which loads llama.cpp
    from serving.llamacpp.build import describe_build  # noqa: PLC0415

    build = describe_build()
    model = binding.Model(path)
    options = binding.ContextOptions("streams", PROMPT + OUTPUT, 1, PROMPT, PROMPT, threads)
    context = binding.Context(model, options)
    clock = time.process_time if threads == 1 else time.perf_counter
    print(json.dumps({"variant": build["variant"], "flags": build["flags"]}), flush=True)
    for _ in sys.stdin:
        tokens = [random.randrange(300, model.n_vocab - 10) for _ in range(PROMPT + OUTPUT)]
        context.drop(0)
        began = clock()
        assert context.prefill(0, tokens[:PROMPT], 0, wants_logits=True) == 0  # noqa: S101
        answered = clock()
        for position in range(PROMPT, PROMPT + OUTPUT):
            assert context.decode([0], [tokens[position]], [position]) == 0  # noqa: S101
        ended = clock()
        print(json.dumps({"prompt": PROMPT / (answered - began), "output": OUTPUT / (ended - answered)}), flush=True)


class Side:
    """A process that computes when it is asked to."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.build = self._read()

    def _read(self) -> dict[str, Any]:
        return dict(json.loads(self.process.stdout.readline()))

    def round(self) -> dict[str, float]:
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._read()


@contextmanager
def side(model: Path, threads: int, libraries: Path | None) -> Iterator[Side]:
    """A process with llama.cpp from `libraries`, or with the one of this environment."""
    paths = os.pathsep.join(map(str, filter(None, (libraries, ROOT))))
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.portable", "--work", "--model", str(model), "--threads", str(threads)],
        env={**os.environ, "PYTHONPATH": paths},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Side(process)
    finally:
        process.kill()
        process.communicate()


def install(wheels: Path, only: str | None, target: Path) -> str:
    """Unpack the portable wheel into `target`, with one part for the CPU or all; its file's name."""
    found = sorted(wheels.glob("llama_cpp_python-*.whl"))
    if not found:
        sys.exit(f"error: no wheel in `{wheels}`\nhint: make portable")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(target), str(found[-1])], check=True)
    for part in target.glob("llama_cpp/lib/libggml-cpu-*.so"):
        if only is not None and part.stem != f"libggml-cpu-{only}":
            part.unlink()
    return found[-1].name


def compare(model: Path, threads: int, rounds: int, libraries: Path) -> dict[str, Any]:
    """One model: for prompt and output the ratio with its interval and spread, and each side's median."""
    with side(model, threads, None) as native, side(model, threads, libraries) as portable:
        pairs = []
        for number in range(-1, rounds):
            order = (native, portable) if number % 2 else (portable, native)
            told = {each: each.round() for each in order}
            if number >= 0:  # the first one only warms
                pairs.append((told[native], told[portable]))
        found: dict[str, Any] = {"native": native.build, "portable": portable.build}
    for phase in PHASES:
        ratios = [own[phase] / base[phase] for base, own in pairs]
        low, high = interval(ratios)
        found[phase] = {
            "ratio": {"median": statistics.median(ratios), "low95": low, "high95": high},
            "spread": {"least": min(ratios), "most": max(ratios)},
            "native_tokens_per_s": statistics.median(base[phase] for base, _ in pairs),
            "portable_tokens_per_s": statistics.median(own[phase] for _, own in pairs),
        }
    return found


def main() -> None:
    """Compare, and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, action="append", required=True)
    parser.add_argument("--wheels", type=Path, default=ROOT / "dist" / "portable")
    parser.add_argument("--only", help="one part for the CPU, such as `haswell`, in place of all")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.model[0], options.threads)
        return
    with ExitStack() as stack:
        target = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        wheel = install(options.wheels, options.only, target)
        models = {each.name: compare(each, options.threads, options.rounds, target) for each in options.model}
    worst = {phase: min(models.values(), key=lambda of: of[phase]["ratio"]["median"])[phase] for phase in PHASES}
    result = {
        "what": "a portable wheel against llama.cpp compiled for this processor",
        "worst": {phase: each["ratio"]["median"] for phase, each in worst.items()},
        "only": options.only,
        "wheel": wheel,
        "rounds": options.rounds,
        "threads": options.threads,
        "models": models,
        **described(),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
