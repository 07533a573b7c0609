"""`serve plan`."""

from __future__ import annotations

import sys
from pathlib import Path

from serving.cli.options import PlanOptions, settings_for, wishes_from
from serving.cli.show import print_rows
from serving.errors import FileMissing, NoFitError
from serving.hardware import detect
from serving.planner import NearestFit, NoFit, Plan, gib, plan
from serving.registry import Model, load_catalogue


def show_plan(name: str, config: Path | None, options: PlanOptions, *, as_json: bool) -> int:
    """Print the plan, or raise NoFitError; with JSON the refusal is printed as data first."""
    settings = settings_for(config)
    model = load_catalogue(settings.registry.site_file).find(name)
    check_weights(model, options)
    outcome = plan(detect(), model, wishes_from(settings, options))
    if as_json:
        sys.stdout.write(outcome.to_json() + "\n")
    if isinstance(outcome, NoFit):
        raise no_fit(outcome)
    if not as_json:
        print_rows(facts(outcome))
        sys.stdout.write("\n")
        print_rows(table(outcome))
        for reason in outcome.reasons:
            sys.stdout.write(f"- {reason}\n")
        for rejected in outcome.rejected:
            sys.stdout.write(f"- not {rejected.what}: {rejected.why}\n")
    return 0


def facts(outcome: Plan) -> list[tuple[str, str]]:
    """The plan as (what, value) for people."""
    cores = ",".join(map(str, outcome.cores))
    return [
        ("model", f"{outcome.model}, {outcome.variant}, served by {outcome.engine}"),
        ("weights", str(outcome.weights)),
        ("serves", f"{outcome.concurrency} at a time, {outcome.context} tokens each"),
        ("cache", f"{outcome.kv_layout}, {outcome.kv_tokens} tokens, {outcome.kv_dtype}"),
        ("compute", f"{outcome.threads} threads on cores {cores or 'any'}, idle ones {outcome.wait_policy}"),
    ]


def table(outcome: Plan | NoFit) -> list[tuple[str, str, str, str]]:
    """The memory table for people."""
    lines = [("MEMORY", "SIZE", "KIND", "HOW")]
    lines += [(line.name, gib(line.bytes), line.kind, line.formula) for line in outcome.memory]
    total = sum(line.bytes for line in outcome.memory)
    limit = "not known" if outcome.budget_bytes is None else gib(outcome.budget_bytes)
    return [*lines, ("total", gib(total), "", f"of {limit}")]


def check_weights(model: Model, options: PlanOptions) -> None:
    """See that there are weights to plan for. Raises FileMissing that says what is missing and where it comes from."""
    wanted = [variant for variant in model.variants if options.variant in (None, variant.name)]
    if not wanted or any(variant.path is not None and variant.path.exists() for variant in wanted):
        return
    lines = []
    for variant in wanted:
        size = "size not known" if variant.size_bytes is None else gib(variant.size_bytes)
        lines.append(f"{variant.name} ({size}) from {variant.source or variant.path or 'no known source'}")
    message = f"the weights of `{model.name}` are not on this host"
    hint = f"bring in one of: {'; '.join(lines)}; then name its file: serve --model FILE.gguf"
    raise FileMissing(message, hint=hint)


def no_fit(refusal: NoFit) -> NoFitError:
    """The refusal as the error that ends the command."""
    variant = f" ({refusal.variant})" if refusal.variant else ""
    hint = "it does not fit this machine in any variant that is here"
    if refusal.nearest:
        hint = "use " + ", or ".join(map(_way_out, refusal.nearest))
    elif refusal.short_bytes is not None:
        hint = f"free {gib(refusal.short_bytes)} of memory, or use a machine with more; {hint}"
    return NoFitError(f"cannot serve `{refusal.model}`{variant}: {refusal.reason}", hint=hint)


def _way_out(fit: NearestFit) -> str:
    flags = [_flag(name, value) for name, value in fit.change]
    return f"{' '.join(flags)} ({gib(fit.total_bytes)})"


def _flag(name: str, value: str | int) -> str:
    if name == "swa_full":
        return "`swa_full = false` in the settings"
    return f"`--{name.replace('_', '-')} {value}`"
