"""Which GPUs hold which model, as the planner has it: `python -m benchmarks.sizing > docs/sizing.md`."""

from __future__ import annotations

from serving.hardware.known import KINDS, machine
from serving.planner import Engines, LlamacppPlan, NoFit, VllmPlan, Wishes, plan
from serving.planner.vllm_memory import cache_bytes
from serving.registry import Model, load_catalogue
from serving.registry.tensors import parameters_of

MODELS = ("llama3-8b", "llama3-70b", "llama3.1-70b", "mixtral-8x7b", "qwen3-32b", "gpt-oss-120b", "deepseek-r1")
COUNTS = (1, 2, 4, 8)
HEAD = """# Which GPUs hold which model

What `serve plan MODEL --machine 4xH100` answers, for GPUs that are otherwise idle: GPUs used, context in tokens, and
how many tokens the KV cache holds in all. A dash is a refusal; the last column is how many GPUs would be enough.
Weights and KV cache follow from the published shapes; activations, CUDA graphs and driver are reserves (`serve plan`
shows each line). Written by `python -m benchmarks.sizing`; a test holds it to the planner.
"""


def cell(outcome: LlamacppPlan | VllmPlan | NoFit) -> str:
    """One plan in a few characters."""
    if isinstance(outcome, NoFit):
        return "–"
    if isinstance(outcome, LlamacppPlan):
        return "llama.cpp"
    return f"{len(outcome.gpus)} GPU, {outcome.context}, {outcome.kv_tokens // 1000}k"


def section(model: Model) -> list[str]:
    """The table of one model."""
    architecture = model.architecture
    if architecture is None:
        return []
    parameters = (parameters_of(architecture) or 0) / 1e9
    token = cache_bytes(architecture, 4096, 2, 1, 0) / 4096 / 1024
    windowed = ", windowed layers counted at 4,096 tokens" if architecture.sliding_window else ""
    lines = [
        "",
        f"## {model.name}",
        "",
        f"{parameters:.2f} billion parameters, {token:.1f} KiB of 16-bit cache a token{windowed}.",
        "",
        "| GPU | " + " | ".join(f"of {count}" for count in COUNTS) + " | enough |",
        "|---" * (len(COUNTS) + 2) + "|",
    ]
    for kind in KINDS:
        outcomes = [plan(machine(kind, count), model, Wishes(), Engines(vllm=True)) for count in COUNTS]
        refusals = [outcome for outcome in outcomes if isinstance(outcome, NoFit)]
        enough = _enough(refusals[-1]) if refusals else "1"
        lines.append(f"| {kind} | " + " | ".join(map(cell, outcomes)) + f" | {enough} |")
    return lines


def _enough(refusal: NoFit) -> str:
    """How many GPUs would hold it, or why no number of them does."""
    if refusal.enough is not None:
        return refusal.enough.partition(" ")[0]
    lacking = dict.fromkeys(one.why for one in refusal.rejected if "compute capability" in one.why)
    return f"none: {'; '.join(lacking)}" if lacking else "none: too small in any number that can share it"


def document() -> str:
    """The whole page."""
    catalogue = load_catalogue()
    return HEAD + "\n".join(line for name in MODELS for line in section(catalogue.find(name))) + "\n"


if __name__ == "__main__":
    print(document(), end="")
