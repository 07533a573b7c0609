"""What vLLM says while it starts, understood: how far it is, what it found, and why it gave up. Pure.

Its lines are for people and change between versions; what is not recognised costs a stage's name, never a start. The
phrases are those of the versions that `serving.engines.installed` accepts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from serving.errors import BadFile, FileMissing, NoFitError, StartError

_SHARDS: Final = re.compile(r"Loading safetensors checkpoint shards:\s+(\d+)% Completed")
_GRAPHS: Final = re.compile(r"Capturing CUDA graphs[^|]*?(\d+)%\|")
_STAGES: Final[tuple[tuple[str, float, str], ...]] = (
    ("Initializing a V1 LLM engine", 0.05, "starting processes"),
    ("Starting to load model", 0.10, "weights"),
    ("Loading weights took", 0.60, "weights"),
    ("Model loading took", 0.60, "weights"),
    ("Dynamo bytecode transform", 0.65, "compiling"),
    ("torch.compile takes", 0.70, "compiling"),
    ("KV cache size", 0.80, "KV cache"),
    ("Capturing CUDA graphs", 0.80, "CUDA graphs"),
    ("Graph capturing finished", 0.95, "warming up"),
    ("init engine", 0.95, "warming up"),
    ("Starting vLLM", 0.99, "opening"),
)
"""Phrases in their order, how far the start is then (a guess at a load of minutes), and what it is called."""
_CAPACITY: Final = re.compile(r"(?:\((EngineCore\w*) pid=\d+\).*)?KV cache size: ([\d,]+) tokens")
_LESS_FREE: Final = re.compile(
    r"(?:Free memory on device|Available memory on node) \S+ \(([\d.]+)/([\d.]+) GiB\) on startup is less than desired "
    r"\w+ memory utilization \(([\d.]+), ([\d.]+) GiB\)"
)
_TOO_LONG: Final = re.compile(
    r"max seq len \((\d+)\), \(([\d.]+) GiB KV cache is needed, which is larger than the available KV cache memory "
    r"\(([\d.]+) GiB\)(?:.*?estimated maximum model length is (\d+))?",
    re.DOTALL,
)
_MOST_DIGITS: Final = 18
_NO_CACHE: Final = "No available memory for the cache blocks"
_OUT_OF_MEMORY: Final = re.compile(r"CUDA out of memory|OutOfMemoryError|Cannot allocate memory|DefaultCPUAllocator")
_ADAPTER: Final = re.compile(r"Call to add_lora method failed: (?:Worker failed with error ')?(.{1,400})")
_NO_MODULE: Final = re.compile(r"(?:No module named '?vllm|ModuleNotFoundError: No module named 'vllm)")


def stage_of(lines: Sequence[str]) -> tuple[float, str] | None:
    """How far a start is, from 0 to 1, and the name of what it does; None where nothing says."""
    found: tuple[float, str] | None = None
    for line in lines:
        if shards := _SHARDS.findall(line):
            found = 0.10 + 0.50 * _percent(shards[-1]), "weights"
        elif graphs := _GRAPHS.findall(line):
            found = 0.80 + 0.15 * _percent(graphs[-1]), "CUDA graphs"
        else:
            for phrase, fraction, stage in _STAGES:
                if phrase in line and (found is None or fraction >= found[0]):
                    found = fraction, stage
    return found


def _percent(digits: str) -> float:
    """A share from 0 to 1, whatever was written: the line may be anybody's."""
    return min(1.0, int(digits[:3]) / 100)


def capacity_of(lines: Sequence[str]) -> int | None:
    """Tokens that the KV cache really holds, those of all copies together; None where it was not said."""
    found = {copy: count for line in lines for copy, count in _CAPACITY.findall(line)}
    counts = [count.replace(",", "")[:_MOST_DIGITS] for count in found.values()]
    return sum(int(count) for count in counts if count) if found else None


def failure_of(model: str, lines: Sequence[str]) -> StartError | None:
    """The error of ours that its last words stand for; None where they are not understood."""
    text = "\n".join(lines)
    if found := _LESS_FREE.search(text):
        free, total, share, wanted = found.groups()
        share_free = _share(free, total)
        return NoFitError(
            f"vLLM cannot serve `{model}`: {free} GiB of {total} GiB are free, and it was to have {wanted} ({share})",
            hint="free memory there, or leave it more headroom"
            + (f": at most {share_free}% of it can be had now" if share_free is not None else ""),
        )
    if found := _TOO_LONG.search(text):
        context, needed, there, estimate = found.groups()
        hint = f"use `--context {estimate}`" if estimate else "use a shorter --context or --kv-dtype fp8"
        return NoFitError(
            f"vLLM cannot serve `{model}`: one sequence of {context} tokens needs {needed} GiB of KV cache, "
            f"{there} GiB are left for it",
            hint=hint,
        )
    if _NO_CACHE in text:
        return NoFitError(
            f"vLLM cannot serve `{model}`: weights and buffers leave no memory for the KV cache",
            hint="use more GPUs (--parallel) or a smaller variant",
        )
    if _OUT_OF_MEMORY.search(text):
        return NoFitError(
            f"vLLM ran out of memory while loading `{model}`",
            hint="use a shorter --context, a smaller --concurrency or more GPUs (--parallel)",
        )
    return _file_failure(model, text)


def _share(free: str, total: str) -> int | None:
    """Percent of a device's memory that can be had, a little left over; None where these are no numbers."""
    try:
        return int(100 * min(1.0, max(0.0, float(free) / float(total) - 0.02)))
    except (ValueError, ZeroDivisionError, OverflowError):
        return None


def _file_failure(model: str, text: str) -> StartError | None:
    """The same for what has nothing to do with memory."""
    if found := _ADAPTER.search(text):
        return BadFile(
            f"vLLM cannot load an adapter of `{model}`: {found[1]}",
            hint="an adapter fits the model it was trained on; see engines.vllm.adapters",
        )
    if _NO_MODULE.search(text):
        return FileMissing(
            "the Python that should run vLLM does not have it",
            hint="install vLLM there, or name another with engines.vllm.python",
        )
    return None
