"""The CPU engine by itself, without HTTP: what a step costs and what a neighbour costs.

    python -m benchmarks.engine decode    --model F --batched-bench PATH   decode against llama-batched-bench
    python -m benchmarks.engine sampling  --model F                        share of a step that choosing tokens takes
    python -m benchmarks.engine neighbour --model F                        throughput beside one busy process
    python -m benchmarks.engine domains   --model F                        first token of a second cache domain

Each prints one JSON object. Ratios are taken within a round; a round's parts follow each other at once.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from serving.engines.llamacpp import WAITING, binding_of

CORES = sorted(os.sched_getaffinity(0))
# As the planner sets them for an engine (decision 0004); libgomp reads them once, when llama.cpp is loaded below.
PEER_ENVIRONMENT = dict(os.environ)
os.environ.update({**WAITING["brief"], **binding_of(CORES)})

# ruff: noqa: E402 -- for the reason above
from benchmarks.machine import described, interval
from serving.llamacpp import binding
from serving.llamacpp.engine import Engine, Request, Update
from serving.llamacpp.scheduler import Config
from serving.openai.fields import Sampling

PARALLEL, CONTEXT, UBATCH = 16, 2048, 512
PROMPT, OUTPUT = 128, 128


class Bench:
    """An engine in this process, and the requests of one round."""

    def __init__(self, model: Path, layout: binding.KvLayout, threads: int) -> None:
        binding.start_backend()
        self.model = binding.Model(model)
        cells = PARALLEL * CONTEXT
        self.context = binding.Context(
            self.model,
            binding.ContextOptions(
                kv_layout=layout,
                n_ctx=cells,
                n_seq_max=PARALLEL if layout == "streams" else PARALLEL + 32,
                n_batch=UBATCH,
                n_ubatch=UBATCH,
                threads=threads,
            ),
        )
        self.engine = Engine(
            self.model,
            self.context,
            Config(layout, PARALLEL, cells, UBATCH),
            context_length=CONTEXT,
            snapshot_bytes=1 << 30,
            post=self._post,
            on_fatal=self._fatal,
            core=CORES[0],
        )
        self._random = random.Random(time.time_ns())
        self._left = 0
        self._done = threading.Event()
        self._first: dict[int, float] = {}
        self.engine.start()

    def _post(self, batch: list[tuple[Request, Update]]) -> None:
        now = time.perf_counter()
        for request, update in batch:
            self._first.setdefault(id(request), now)
            if update.finish is not None:
                self._left -= 1
                if self._left == 0:
                    self._done.set()

    def _fatal(self, error: BaseException) -> None:
        print(f"the engine died: {error!r}", file=sys.stderr)
        os._exit(70)

    def tokens(self, count: int) -> list[int]:
        """Random tokens that have never been seen."""
        return [self._random.randrange(300, self.model.n_vocab - 10) for _ in range(count)]

    def run(
        self, prompts: list[list[int]], output: int, *, sampling: Sampling, domain: str = ""
    ) -> tuple[float, float, list[float]]:
        """Seconds in all, seconds after the last first token, and each first token's seconds."""
        self._done.clear()
        self._first.clear()
        self._left = len(prompts)
        requests = [
            Request(list(prompt), ("", domain), sampling, output, on_update=lambda _: None) for prompt in prompts
        ]
        began = time.perf_counter()
        for request in requests:
            self.engine.submit(request)
        self._done.wait()
        ended = time.perf_counter()
        firsts = [self._first[id(request)] for request in requests]
        return ended - began, ended - max(firsts), [first - began for first in firsts]


def decode(options: argparse.Namespace) -> dict[str, object]:
    """Decode tokens/s of the engine, sampling included, against llama-batched-bench, which does not sample."""
    found: dict[str, dict[str, object]] = {}
    for sequences in (1, 4, 16):
        bench = Bench(options.model, options.kv_layout, options.threads)
        rounds: list[tuple[float, float]] = []
        for _ in range(options.rounds):
            prompts = [bench.tokens(PROMPT) for _ in range(sequences)]
            _, decoding, _ = bench.run(prompts, OUTPUT, sampling=Sampling(temperature=0, ignore_eos=True))
            own = sequences * (OUTPUT - 1) / decoding
            rounds.append((own, batched_bench(options, sequences)))
        bench.engine.stop()
        ratios = [own / peer for own, peer in rounds]
        low, high = interval(ratios)
        found[str(sequences)] = {
            "ratio": {"median": statistics.median(ratios), "low95": low, "high95": high},
            "own_tokens_per_s": statistics.median(own for own, _ in rounds),
            "peer_tokens_per_s": statistics.median(peer for _, peer in rounds),
        }
    worst = min(entry["ratio"]["median"] for entry in found.values())  # type: ignore[index]
    return {"what": "decode against llama-batched-bench", "worst_median": worst, "sequences": found}


def batched_bench(options: argparse.Namespace, sequences: int) -> float:
    """Decode tokens/s that llama-batched-bench measures for the same shape, in its faster layout (streams)."""
    argv = [
        *(options.batched_bench, "-m", str(options.model), "-npp", str(PROMPT), "-ntg", str(OUTPUT)),
        *("-npl", str(sequences), "-c", str(PARALLEL * CONTEXT), "-b", str(UBATCH), "-ub", str(UBATCH)),
        *("-t", str(options.threads), "-tb", str(options.threads), "-no-kvu", "--output-format", "jsonl"),
    ]
    result = subprocess.run(argv, capture_output=True, text=True, check=True, env=PEER_ENVIRONMENT)
    line = next(line for line in result.stdout.splitlines() if line.startswith("{"))
    return float(json.loads(re.sub(r"\bnan\b", "0", line))["speed_tg"])


def sampling(options: argparse.Namespace) -> dict[str, object]:
    """Time choosing tokens over time of the steps, 16 sequences, temperature 1, top_p 0.95."""
    bench = Bench(options.model, options.kv_layout, options.threads)
    counters, shares = bench.engine.counters, []
    for _ in range(options.rounds):
        before = (counters.sample_s, counters.decode_s)
        prompts = [bench.tokens(16) for _ in range(PARALLEL)]
        bench.run(prompts, 64, sampling=Sampling(temperature=1.0, top_p=0.95, ignore_eos=True))
        sampled, decoded = counters.sample_s - before[0], counters.decode_s - before[1]
        shares.append(sampled / (sampled + decoded))
    bench.engine.stop()
    return {"what": "sampling share of a step", "vocabulary": bench.model.n_vocab, "share": statistics.median(shares)}


@contextlib.contextmanager
def busy() -> Iterator[None]:
    """One process that does nothing but compute."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def neighbour(options: argparse.Namespace) -> dict[str, object]:
    """Tokens/s beside one busy process on the same cores over tokens/s alone, at 1 and 16 sequences."""
    bench = Bench(options.model, options.kv_layout, options.threads)
    found: dict[str, float] = {}
    for sequences in (1, 16):
        ratios = []
        for _ in range(options.rounds):
            speeds = []
            for context in (contextlib.nullcontext(), busy()):
                with context:
                    prompts = [bench.tokens(PROMPT) for _ in range(sequences)]
                    took, _, _ = bench.run(prompts, 64, sampling=Sampling(temperature=0.8, ignore_eos=True))
                    speeds.append(sequences * 64 / took)
            ratios.append(speeds[1] / speeds[0])
        found[str(sequences)] = statistics.median(ratios)
    bench.engine.stop()
    return {"what": "throughput beside a busy process", "worst": min(found.values()), "sequences": found}


def domains(options: argparse.Namespace) -> dict[str, object]:
    """TTFT of a prefix that only another cache domain has computed, over the TTFT of a prefix nobody has."""
    bench = Bench(options.model, options.kv_layout, options.threads)
    greedy = Sampling(temperature=0, ignore_eos=True)
    counters, ratios, leaked = bench.engine.counters, [], 0
    for number in range(options.pairs):
        prefix = bench.tokens(600)
        bench.run([prefix + bench.tokens(20)], 2, sampling=greedy, domain="warm")
        cold = bench.tokens(600)
        parts = [("second", prefix), ("second", cold)]
        seen = {}
        for which in (0, 1) if number % 2 else (1, 0):
            domain, tokens = parts[which]
            before = counters.cached_tokens
            _, _, firsts = bench.run([tokens + bench.tokens(20)], 2, sampling=greedy, domain=domain)
            seen[which] = firsts[0]
            leaked += counters.cached_tokens - before
        ratios.append(seen[0] / seen[1])
    own = bench.tokens(600)
    bench.run([own + bench.tokens(20)], 2, sampling=greedy, domain="warm")
    before = counters.cached_tokens
    bench.run([own + bench.tokens(20)], 2, sampling=greedy, domain="warm")
    bench.engine.stop()
    return {
        "what": "second cache domain against cold",
        "pairs": options.pairs,
        "leaked_tokens": leaked,
        "shared_in_own_domain_tokens": counters.cached_tokens - before,
        "ttft_ratio": statistics.median(ratios),
    }


COMMANDS = {command.__name__: command for command in (decode, sampling, neighbour, domains)}


def main() -> None:
    """Run one and print its result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--batched-bench", help="llama-batched-bench, for `decode`")
    parser.add_argument("--kv-layout", choices=("streams", "unified"), default="streams")
    parser.add_argument("--threads", type=int, default=len(CORES))
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--pairs", type=int, default=50)
    options = parser.parse_args()
    os.sched_setaffinity(0, CORES)  # libgomp bound this thread to one core, and children inherit that
    result = COMMANDS[options.command](options)
    print(json.dumps({**result, "model": options.model.name, "layout": options.kv_layout, **described()}, indent=1))


if __name__ == "__main__":
    main()
