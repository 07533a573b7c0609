"""The engine's own figures in Prometheus' text format; the names are a contract (docs/metrics.md)."""

from __future__ import annotations

from serving import tripwire
from serving.llamacpp.engine import Counters

FAMILIES: dict[str, tuple[str, str, str]] = {
    "perimeter_engine_prompt_tokens_total": ("counter", "prompt_tokens", "Prompt tokens of started requests."),
    "perimeter_engine_cached_prompt_tokens_total": (
        "counter",
        "cached_tokens",
        "Of those, tokens taken from another request of the same cache domain.",
    ),
    "perimeter_engine_computed_prompt_tokens_total": (
        "counter",
        "computed_prompt_tokens",
        "Prompt tokens really computed, recomputation after preemption included.",
    ),
    "perimeter_engine_generated_tokens_total": ("counter", "generated_tokens", "Tokens generated."),
    "perimeter_engine_steps_total": ("counter", "steps", "Steps of the engine's loop."),
    "perimeter_engine_decode_calls_total": ("counter", "decode_calls", "Calls that decoded running sequences."),
    "perimeter_engine_decode_seconds_total": ("counter", "decode_s", "Time in those calls."),
    "perimeter_engine_prefill_seconds_total": ("counter", "prefill_s", "Time computing prompt chunks."),
    "perimeter_engine_sample_seconds_total": ("counter", "sample_s", "Time choosing tokens."),
    "perimeter_engine_evictions_total": ("counter", "evictions", "Cached prefixes given up for room."),
    "perimeter_engine_preemptions_total": ("counter", "preemptions", "Running requests set back to waiting."),
    "perimeter_engine_moves_total": ("counter", "moves", "Streams moved to keep ids together."),
    "perimeter_engine_snapshots_total": ("counter", "snapshots", "Prefixes saved to host memory."),
    "perimeter_engine_cancelled_total": ("counter", "cancelled", "Requests whose client left."),
    "perimeter_engine_running": ("gauge", "running", "Requests that hold a sequence."),
    "perimeter_engine_waiting": ("gauge", "waiting", "Requests in the queue."),
    "perimeter_engine_kv_used_tokens": ("gauge", "kv_used", "Cells that hold a computed token."),
    "perimeter_engine_kv_capacity_tokens": ("gauge", "kv_capacity", "Cells in all."),
    "perimeter_engine_snapshot_bytes": ("gauge", "snapshot_bytes", "Host memory held by saved prefixes."),
    "perimeter_engine_prefill_tokens_per_second": ("gauge", "prefill_rate", "Measured speed of prompt chunks."),
}

EGRESS = "perimeter_engine_egress_attempts_total"
"""What the process itself counts (`serving.tripwire`)."""


def render(counters: Counters) -> str:
    """All families, each with help and type."""
    lines = []
    for name, (kind, field, description) in FAMILIES.items():
        lines += [f"# HELP {name} {description}", f"# TYPE {name} {kind}", f"{name} {getattr(counters, field)}"]
    lines += [f"# HELP {EGRESS} {tripwire.WHAT}", f"# TYPE {EGRESS} counter", f"{EGRESS} {tripwire.attempts()}"]
    return "\n".join(lines) + "\n"
