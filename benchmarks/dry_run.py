"""What llama.cpp itself says and takes: run as a program, one JSON case per line on stdin, one JSON result per line.

    python -m benchmarks.dry_run < cases

A case: `path`, `kv_layout`, `concurrency`, `context`, `kv_tokens`, `kv_dtype`, `n_ubatch`, `load_mode`, `dry`. A dry
case allocates nothing and gives the sizes that llama.cpp logs; any other loads the model, computes full passes, and
gives what RssAnon and RssFile grew by.
"""

from __future__ import annotations

import ctypes
import json
import re
import sys
from pathlib import Path
from typing import Any

import llama_cpp

TYPES = {"f32": 0, "f16": 1, "q8_0": 8, "bf16": 30}
SIZE = re.compile(r"(\S+) +(model|KV|compute|output) buffer(?: size)? = +([\d.]+) MiB")
CACHE = re.compile(r"llama_kv_cache: size = +([\d.]+) MiB")
lines: list[str] = []
kept: dict[str, Any] = {}


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def keep(_level: int, text: bytes, _data: object) -> None:
    lines.append(text.decode("utf-8", "replace"))


def resident() -> dict[str, int]:
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    table = dict(line.split(":", 1) for line in status if line.startswith("Rss"))
    return {name: int(table[name].split()[0]) * 1024 for name in ("RssAnon", "RssFile")}


def logged() -> dict[str, int]:
    found: dict[str, int] = {}
    for line in lines:
        for _, what, size in SIZE.findall(line):
            found[what] = found.get(what, 0) + round(float(size) * 2**20)
        # A dry run has no buffer for its cache, and still says what one would take.
        for size in CACHE.findall(line):
            found["cache"] = found.get("cache", 0) + round(float(size) * 2**20)
    return found


def loaded(case: dict[str, Any]) -> Any:
    """The case's model. A dry one is kept for the next case, since only its vocabulary takes time."""
    if case["dry"] and kept.get("path") == case["path"]:
        return kept["model"]
    if kept:
        llama_cpp.llama_model_free(kept["model"])
        kept.clear()
    parameters = llama_cpp.llama_model_default_params()
    parameters.n_gpu_layers = 0
    # A dry run cannot map: llama.cpp aborts on no_alloc with mmap.
    parameters.load_mode = 1 if case["load_mode"] == "mmap" and not case["dry"] else 0
    parameters.no_alloc = case["dry"]
    model = llama_cpp.llama_model_load_from_file(case["path"].encode(), parameters)
    if not model:
        raise RuntimeError(lines[-5:])
    if case["dry"]:
        kept.update(path=case["path"], model=model)
    return model


def run(case: dict[str, Any]) -> dict[str, Any]:
    before = resident()
    lines.clear()
    model = loaded(case)
    wanted = llama_cpp.llama_context_default_params()
    streams = case["kv_layout"] == "streams"
    for name, value in {
        "n_ctx": case["context"] * case["concurrency"] if streams else case["kv_tokens"],
        "n_batch": max(case["n_ubatch"], case["concurrency"]),
        "n_ubatch": case["n_ubatch"],
        "n_seq_max": case["concurrency"],
        "n_outputs_max": case["concurrency"],
        "n_threads": 2,
        "n_threads_batch": 2,
        "type_k": TYPES[case["kv_dtype"]],
        "type_v": TYPES[case["kv_dtype"]],
        "offload_kqv": False,
        "op_offload": False,
        "swa_full": False,
        "kv_unified": not streams,
    }.items():
        setattr(wanted, name, value)
    context = llama_cpp.llama_init_from_model(model, wanted)
    if not context:
        raise RuntimeError(lines[-5:])
    if not case["dry"]:
        compute(context, case)
    after = resident()
    result = {**logged(), **{name: after[name] - before[name] for name in after}}
    llama_cpp.llama_free(context)
    if not case["dry"]:
        llama_cpp.llama_model_free(model)
    return result


def compute(context: Any, case: dict[str, Any]) -> None:
    """Two full passes of one sequence, then a step of all."""
    batch = llama_cpp.llama_batch_init(max(case["n_ubatch"], case["concurrency"]), 0, 1)
    chunk = min(case["n_ubatch"], case["context"] // 2 - 1)

    def decode(entries: list[tuple[int, int, bool]]) -> None:
        batch.n_tokens = len(entries)
        for index, (sequence, position, wants_logits) in enumerate(entries):
            batch.token[index] = index % 200
            batch.pos[index] = position
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = sequence
            batch.logits[index] = wants_logits
        status = llama_cpp.llama_decode(context, batch)
        if status:
            raise RuntimeError(status, lines[-3:])

    for start in (0, chunk):
        decode([(0, start + index, index == chunk - 1) for index in range(chunk)])
    decode([(sequence, 0 if sequence else 2 * chunk, True) for sequence in range(case["concurrency"])])
    llama_cpp.llama_batch_free(batch)


if __name__ == "__main__":
    llama_cpp.llama_log_set(keep, ctypes.c_void_p())
    llama_cpp.llama_backend_init()
    for text in sys.stdin:
        sys.stdout.write(json.dumps(run(json.loads(text))) + "\n")
        sys.stdout.flush()
