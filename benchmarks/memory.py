"""The planner's memory table against llama.cpp: dry runs of published shapes, and engines that serve.

    python -m benchmarks.memory dry [--cases 200]
    python -m benchmarks.memory resident
    python -m benchmarks.memory table > docs/memory.md

`dry`: for models of the catalogue, 70B shapes and mixtures of experts among them, the sizes that llama.cpp itself
computes for cache, compute buffers and output without allocating them. `resident`: an engine as `serve` starts it, on
synthetic weights of several architectures, and RssAnon and RssFile of its process after its cache was filled. `table`:
the last result of that as a page.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import http.client
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import described
from serving.engines.llamacpp import plan_engine
from serving.engines.runtime import socket_in
from serving.hardware import detect
from serving.planner import LlamacppPlan, Wishes, plan
from serving.planner.llamacpp_memory import Shape, pad, plan_memory
from serving.registry import Architecture, Model, Variant, load_catalogue, model_from_file
from serving.settings import Settings
from serving.synthetic import write_dummy, write_hollow
from serving.synthetic.vocabulary import FIRST, SECOND

BUFFERS = ("KV cache", "compute buffers", "attention masks", "output")
RESULT = Path(__file__).parent / "results/memory-resident.json"
SEED = 20_261_122
START_S = 120.0

BASE = Architecture(
    family="llama",
    layers=8,
    embedding=1024,
    feed_forward=2816,
    heads=16,
    kv_heads=(4,) * 8,
    key_length=64,
    value_length=64,
    vocabulary=32_000,
)
WINDOWED = {"sliding_window": 512}
SHAPES = {
    "grouped": BASE,
    "every head its own": dataclasses.replace(BASE, kv_heads=(16,) * 8),
    "with biases, tied": dataclasses.replace(BASE, family="qwen2", tied=True),
    "sliding window, tied": dataclasses.replace(
        BASE, family="gemma3", tied=True, windowed=tuple((i + 1) % 6 != 0 for i in range(8)), **WINDOWED
    ),
    "experts": dataclasses.replace(BASE, experts=8, experts_used=2, feed_forward=1024),
    "experts, sliding window": dataclasses.replace(
        BASE,
        family="gpt-oss",
        experts=16,
        experts_used=4,
        feed_forward=512,
        windowed=tuple(i % 2 == 0 for i in range(8)),
        **WINDOWED,
    ),
    "shared and routed experts": dataclasses.replace(
        BASE,
        family="deepseek",
        experts=16,
        experts_used=4,
        expert_feed_forward=512,
        shared_experts=2,
        dense_layers=1,
    ),
    "latent": dataclasses.replace(
        BASE,
        family="deepseek2",
        kv_heads=(1,) * 8,
        key_length=256 + 32,
        value_length=256,
        latent=True,
        kv_rank=256,
        q_rank=256,
        key_length_mla=96,
        value_length_mla=64,
        experts=16,
        experts_used=4,
        expert_feed_forward=512,
        shared_experts=1,
        dense_layers=1,
    ),
}


@dataclass(frozen=True, slots=True)
class Resident:
    """One engine to start: the architecture's name, and what is wished for."""

    shape: str
    variant: str
    context: int
    concurrency: int
    layout: str = "streams"
    kv_dtype: str = "f16"


RESIDENT = (
    Resident("grouped", "q8_0", 2048, 8),
    Resident("grouped", "q4_k_m", 4096, 4),
    Resident("grouped", "f16", 8192, 2, kv_dtype="q8_0"),
    Resident("grouped", "q4_0", 2048, 16, layout="unified"),
    Resident("every head its own", "q8_0", 2048, 8),
    Resident("every head its own", "q6_k", 8192, 2, kv_dtype="q8_0"),
    Resident("with biases, tied", "q4_k_m", 2048, 8, kv_dtype="bf16"),
    Resident("with biases, tied", "q8_0", 4096, 4, kv_dtype="f32"),
    Resident("sliding window, tied", "q8_0", 4096, 4),
    Resident("sliding window, tied", "q4_0", 8192, 2),
    Resident("experts", "q8_0", 2048, 8),
    Resident("experts", "q4_k_m", 4096, 4, layout="unified"),
    Resident("experts, sliding window", "mxfp4", 4096, 4),
    Resident("shared and routed experts", "q8_0", 4096, 4),
    Resident("shared and routed experts", "q5_k_m", 2048, 8, kv_dtype="q8_0"),
    Resident("latent", "q8_0", 4096, 4),
)

DRY_MODELS = (
    "llama3.2-1b", "llama3-8b", "llama3.1-70b", "mistral-7b-v0.3", "mistral-nemo-12b", "mixtral-8x7b", "qwen2.5-7b",
    "qwen2.5-72b", "qwen3-8b", "qwen3-30b-a3b", "gemma2-9b", "gemma3-4b", "gemma3-27b", "phi4", "granite3.1-8b",
    "gpt-oss-20b", "gpt-oss-120b", "gigachat-20b-a3b", "command-r", "deepseek-v3",
)  # fmt: skip


def dry(cases: int) -> dict[str, Any]:
    """Sums of cache, compute and output buffers, ours over llama.cpp's, for `cases` random combinations."""
    rng = random.Random(SEED)
    isa = detect().cpu.isa
    asked: list[tuple[str, Shape]] = []
    for number in range(cases):
        name = DRY_MODELS[number % len(DRY_MODELS)]
        layout = "unified" if name.startswith("phi") else rng.choice(("streams", "unified"))
        together, context = rng.choice((1, 2, 4, 8, 16)), rng.choice((1024, 2048, 4096, 8192, 16384, 32768))
        cells = pad(context) * together
        asked.append(
            (
                name,
                Shape(
                    context,
                    together,
                    layout,  # type: ignore[arg-type]
                    cells if layout == "streams" else max(pad(context), cells // 4),
                    rng.choice(("f16", "f16", "q8_0", "bf16", "f32")),  # type: ignore[arg-type]
                    swa_full=False,
                    n_ubatch=rng.choice((64, 128, 512, 1024)),
                    load_mode="none",
                    snapshot_bytes=0,
                    isa=isa,
                ),
            )
        )
    asked.sort(key=lambda one: one[0])
    found: list[dict[str, Any]] = []
    catalogue = load_catalogue()
    with tempfile.TemporaryDirectory() as folder:
        hollow = {}
        for name in DRY_MODELS:
            model = dataclasses.replace(catalogue.find(name), context=1 << 20)
            variant = Variant("q8_0", "gguf", ("llamacpp",), None)
            hollow[name] = (model, write_hollow(model, variant, Path(folder) / f"{name}.gguf"))
        said = llamacpp([(hollow[name][1], shape) for name, shape in asked], dry=True)
        for (name, shape), theirs in zip(asked, said, strict=True):
            model = model_from_file(hollow[name][1])
            lines = plan_memory(known(model.architecture), model.variants[0], shape)
            ours = sum(line.bytes for line in lines if line.name in BUFFERS)
            total = theirs["cache"] + theirs["compute"] + theirs["output"]
            found.append({**_told(name, shape), "planned": ours, "llama.cpp": total, "ratio": ours / total})
    ratios = [one["ratio"] for one in found]
    return {
        "cases": len(found),
        "models": len(DRY_MODELS),
        "lowest": min(ratios),
        "highest": max(ratios),
        "within_10_percent": sum(0.9 <= ratio <= 1.1 for ratio in ratios) / len(ratios),
        "within_2_percent": sum(0.98 <= ratio <= 1.02 for ratio in ratios) / len(ratios),
        "worst": sorted(found, key=lambda one: -abs(one["ratio"] - 1))[:8],
    }


def table(result: dict[str, Any]) -> str:
    """The page docs/memory.md, from a result of `resident`."""
    machine, versions = result["machine"], result["versions"]
    lines = [
        "# Planned and taken memory",
        "",
        "Engines as `serve` starts them, on synthetic weights, after one sequence was filled and all had worked. MiB",
        f"of RssAnon and RssFile. {result['date']}, {machine['cores']} cores of an {machine['cpu']}, llama-cpp-python",
        f"{versions['llama-cpp-python']}. `make claims NAME=memory-resident` measures it again.",
        "",
        "| architecture | weights | sequences of tokens | cache | private: planned | taken | file: planned | taken |",
        "|---" * 8 + "|",
    ]
    for row in result["rows"]:
        sizes = (row[name] / 2**20 for name in ("anonymous_planned", "anonymous", "file_planned", "file"))
        loaded = "mapped" if row["load_mode"] == "mmap" else "read in"
        shown = " | ".join(f"{size:.1f}" for size in sizes)
        sequences = f"{row['concurrency']} of {row['context']}, {row['layout']}"
        lines.append(f"| {row['shape']} | {row['variant']}, {loaded} | {sequences} | {row['kv_dtype']} | {shown} |")
    return "\n".join(lines) + "\n"


def known(architecture: Architecture | None) -> Architecture:
    """The architecture of a model that was read from a file."""
    if architecture is None:
        raise TypeError("a file always says its architecture")
    return architecture


def _told(name: str, shape: Shape) -> dict[str, Any]:
    return {
        "model": name,
        "context": shape.context,
        "concurrency": shape.concurrency,
        "layout": shape.kv_layout,
        "kv_dtype": shape.kv_dtype,
        "ubatch": shape.n_ubatch,
    }


def llamacpp(cases: list[tuple[Path, Shape]], *, dry: bool) -> list[dict[str, int]]:
    """What llama.cpp says or takes, in one process of its own for all cases. Raises RuntimeError."""
    asked = [
        json.dumps({**dataclasses.asdict(shape), "path": str(path), "dry": dry, "isa": None}) for path, shape in cases
    ]
    argv = [sys.executable, "-m", "benchmarks.dry_run"]
    environment = {**os.environ, "GGML_NO_BACKTRACE": "1"}
    done = subprocess.run(argv, input="\n".join(asked), capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        failed = asked[len(done.stdout.splitlines())]
        raise RuntimeError(f"{failed}: {done.stderr[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def resident() -> dict[str, Any]:
    """Resident memory of engines that served, against their plans."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for case in RESIDENT:
            made = Model(case.shape, case.shape, 32768, SHAPES[case.shape], ())
            made = dataclasses.replace(made, name=case.shape.replace(" ", "-").replace(",", ""))
            path = write_dummy(made, Variant(case.variant, "gguf", ("llamacpp",), None), Path(folder))
            rows.append({**dataclasses.asdict(case), **measure(case, path, Path(folder))})
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    worst = {kind: max((abs(row[f"{kind}_ratio"] - 1) for row in rows), default=0.0) for kind in ("anonymous", "file")}
    return {"cases": len(rows), "worst_anonymous": worst["anonymous"], "worst_file": worst["file"], "rows": rows}


def measure(case: Resident, path: Path, folder: Path) -> dict[str, Any]:
    """Start the engine as `serve` would, fill its cache, and read what it takes."""
    wishes = Wishes(
        context=case.context,
        concurrency=case.concurrency,
        kv_layout=case.layout,  # type: ignore[arg-type]
        kv_dtype=case.kv_dtype,  # type: ignore[arg-type]
        snapshot_bytes=0,
    )
    planned = plan(detect(), model_from_file(path), wishes)
    if not isinstance(planned, LlamacppPlan):
        raise TypeError(planned)
    with running(planned, folder) as (pid, socket_path):
        fill(socket_path, planned)
        taken = resident_bytes(pid)
    anonymous, file = planned.bytes_of("anonymous"), planned.bytes_of("file")
    return {
        "load_mode": planned.load_mode,
        "kv_tokens": planned.kv_tokens,
        "anonymous_planned": anonymous,
        "anonymous": taken["RssAnon"],
        "anonymous_ratio": taken["RssAnon"] / anonymous,
        "file_planned": file,
        "file": taken["RssFile"],
        "file_ratio": taken["RssFile"] / file,
    }


class running:  # noqa: N801 - reads as a verb: `with running(plan, folder)`
    """An engine as `serve` starts it, killed at the end; gives its pid and socket once it is ready."""

    def __init__(self, planned: LlamacppPlan, folder: Path) -> None:
        self._socket = socket_in(folder, "engine")
        self._socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        source = Path(__file__).parents[1]
        self._spec = plan_engine(planned, Settings(), self._socket, self._socket.parent, source=source)
        # Full passes on any machine: on a slow one the time budget of a step cuts them short, and buffers stay empty.
        self._argv = [*self._spec.argv, "--step-ms", "60000"]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> tuple[int, Path]:
        self._socket.unlink(missing_ok=True)
        self._process = subprocess.Popen(
            self._argv, env=dict(self._spec.env), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                if request(self._socket, "GET", "/ready", None)[0] == 200:
                    return self._process.pid, self._socket
            except OSError:
                pass
            time.sleep(0.1)
        raise RuntimeError(f"the engine did not start: {' '.join(self._spec.argv)}")

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def request(path: Path, method: str, route: str, body: dict[str, Any] | None) -> tuple[int, bytes]:
    """One request over the engine's socket. Raises OSError."""
    connection = http.client.HTTPConnection("engine", timeout=600)
    connection.sock = socket.socket(socket.AF_UNIX)
    with contextlib.closing(connection):
        connection.sock.settimeout(600)
        connection.sock.connect(str(path))
        data = json.dumps(body) if body is not None else None
        connection.request(method, route, data, {"content-type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()


def fill(path: Path, planned: LlamacppPlan) -> None:
    """One sequence filled to its end, then all of them at once: every buffer is used as far as it can be."""
    rng = random.Random(SEED)

    def one(words: int) -> int:
        letters = ((rng.choice(FIRST), rng.choice(SECOND), chr(97 + rng.randrange(26))) for _ in range(words))
        prompt = " ".join(map("".join, letters))
        body = {"model": planned.model, "prompt": prompt, "max_tokens": 24, "ignore_eos": True}
        return request(path, "POST", "/v1/completions", body)[0]

    with ThreadPoolExecutor(planned.concurrency) as pool:
        statuses = [one(planned.context - 40), *pool.map(one, [16] * planned.concurrency)]
    if set(statuses) != {200}:
        raise RuntimeError(f"answers {statuses}")


def resident_bytes(pid: int) -> dict[str, int]:
    """RssAnon and RssFile of a process."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    wanted = (line.split() for line in lines if line.startswith(("RssAnon", "RssFile")))
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in wanted}


def main() -> None:
    """Print the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("dry").add_argument("--cases", type=int, default=200)
    commands.add_parser("resident")
    commands.add_parser("table")
    options = parser.parse_args()
    if options.command == "table":
        print(table(json.loads(RESULT.read_text(encoding="utf-8"))), end="")
        return
    result = dry(options.cases) if options.command == "dry" else resident()
    print(json.dumps({**described(), **result}, indent=1))


if __name__ == "__main__":
    main()
