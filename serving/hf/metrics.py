"""The engine's own figures in Prometheus' text format; the names are those of every engine (docs/metrics.md)."""

from __future__ import annotations

from serving import tripwire
from serving.hf.engine import Counters

FAMILIES: dict[str, tuple[str, str, str]] = {
    "perimeter_engine_prompt_tokens_total": ("counter", "prompt_tokens", "Prompt tokens of started requests."),
    "perimeter_engine_computed_prompt_tokens_total": (
        "counter",
        "computed_prompt_tokens",
        "Prompt tokens really computed.",
    ),
    "perimeter_engine_generated_tokens_total": ("counter", "generated_tokens", "Tokens generated."),
    "perimeter_engine_decode_seconds_total": ("counter", "decode_s", "Time computing single tokens."),
    "perimeter_engine_prefill_seconds_total": ("counter", "prefill_s", "Time computing prompt chunks."),
    "perimeter_engine_cancelled_total": ("counter", "cancelled", "Requests whose client left."),
    "perimeter_engine_running": ("gauge", "running", "Requests that are computed: one, or none."),
    "perimeter_engine_waiting": ("gauge", "waiting", "Requests in the queue."),
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
