"""`serve plan`."""

# ruff: noqa: PLC0415 -- imports are made when a command runs, so that none pays for another

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from serving.cli.options import PlanOptions, settings_for, wishes_from
from serving.cli.show import print_rows
from serving.errors import BadFile, FileMissing, NoFitError
from serving.hardware import Machine, detect
from serving.hardware.known import KINDS, known_machine
from serving.planner import (
    Engines,
    LlamacppPlan,
    MemoryLine,
    NearestFit,
    NoFit,
    VllmPlan,
    Wishes,
    gib,
    plan,
)
from serving.planner.types import sum_bytes
from serving.registry import Model, Variant, load_catalogue


def show_plan(name: str, config: Path | None, options: PlanOptions, *, as_json: bool, other: str | None = None) -> int:
    """Print the plan, or raise NoFitError; with JSON the refusal is printed as data first.

    With `other` the plan is for another machine, with every engine taken to be installed there: the file that
    `serve hardware --json` printed on it, or a kind of GPU and how many, such as `4xH100`.
    """
    settings = settings_for(config)
    model = load_catalogue(settings.registry.site_file).find(name)
    wishes = wishes_from(settings, options)
    if other is None:
        from serving.engines.installed import installed_engines

        machine = detect()
        engines = installed_engines(machine)
    else:
        machine, engines = other_machine(other), Engines(vllm=True)
    outcome = plan(machine, model, wishes, engines)
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


def other_machine(text: str) -> Machine:
    """The machine that a file or a name like `4xH100` describes. Raises FileMissing or BadFile."""
    machine = known_machine(text)
    if machine is not None:
        return machine
    hint = f"make the file on that machine: serve hardware --json > FILE; or name GPUs: 1x{', 1x'.join(KINDS)}"
    try:
        return Machine.from_json(Path(text).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileMissing(f"there is no machine file `{text}`, and no GPU is known by this name", hint=hint) from None
    except (OSError, ValueError) as failure:
        message = f"`{text}` does not describe a machine: {str(failure).splitlines()[0]}"
        raise BadFile(message, hint=hint) from None


def facts(outcome: LlamacppPlan | VllmPlan) -> list[tuple[str, str]]:
    """The plan as (what, value) for people."""
    rows = [
        ("model", f"{outcome.model}, {outcome.variant}, served by {outcome.engine}"),
        ("weights", weights_of(outcome)),
        ("serves", f"{outcome.concurrency} at a time, {outcome.context} tokens each"),
    ]
    match outcome:
        case LlamacppPlan():
            cache = f"{outcome.kv_layout}, {outcome.kv_tokens} tokens, {outcome.kv_dtype}"
            rows.append(("task", outcome.task))
            rows.append(("cache", cache if outcome.kv_tokens else "none: a text is computed whole"))
            cores = ",".join(map(str, outcome.cores)) or "any"
            rows.append(("compute", f"{outcome.threads} threads on cores {cores}, idle ones {outcome.wait_policy}"))
            if outcome.gpu_layers:
                rows.append(("GPU", f"{outcome.gpu_layers} layers on GPU {outcome.gpu}"))
        case VllmPlan():
            rows.append(("cache", f"{outcome.kv_tokens} tokens, {outcome.kv_dtype}"))
            count = len(outcome.gpus)
            share = f"{outcome.memory_utilisation:.1%} of each one's memory"
            step = f"{outcome.step_tokens} tokens a step, {outcome.dtype}"
            rows.append(("compute", f"{count} GPU{'s' if count > 1 else ''}, {share}, {step}"))
    if outcome.dummy:
        rows.append(("note", DUMMY_NOTE))
    return rows


DUMMY_NOTE = "DUMMY WEIGHTS: synthetic numbers, every answer is noise"


def weights_of(outcome: LlamacppPlan | VllmPlan) -> str:
    """Where the weights are and how large, for people."""
    where = str(outcome.weights) if outcome.weights else "not on this host"
    return f"{where} ({gib(outcome.weights_bytes)})"


def table(outcome: LlamacppPlan | VllmPlan | NoFit) -> list[tuple[str, str, str, str]]:
    """The memory table for people."""
    rows = [("MEMORY", "SIZE", "KIND", "HOW")]
    rows += [(line.name, gib(line.bytes), line.kind, line.formula) for line in outcome.memory]
    on_gpu = sum_bytes(outcome.memory, "gpu")
    if on_gpu:
        limit = "not known" if outcome.gpu_budget_bytes is None else gib(outcome.gpu_budget_bytes)
        rows.append(("each GPU", gib(on_gpu), "", f"of {limit}"))
    limit = "not known" if outcome.budget_bytes is None else gib(outcome.budget_bytes)
    return [*rows, ("main memory", gib(_host_bytes(outcome.memory)), "", f"of {limit}")]


def _host_bytes(lines: tuple[MemoryLine, ...]) -> int:
    return sum_bytes(lines, "anonymous") + sum_bytes(lines, "file")


def plan_here(machine: Machine, model: Model, wishes: Wishes, engines: Engines) -> LlamacppPlan | VllmPlan:
    """The plan with weights that are on this host.

    Raises NoFitError where none fits, or FileMissing, which says what this machine would serve and how to get it here.
    """
    wanted = [variant for variant in model.variants if wishes.variant in (None, variant.name)]
    if wanted and not any(variant.path for variant in wanted):
        on_paper = plan(machine, model, wishes, engines)
        if isinstance(on_paper, NoFit):
            raise no_fit(on_paper)
        raise missing_weights(model, on_paper)
    outcome = plan(machine, model, dataclasses.replace(wishes, local=True), engines)
    if isinstance(outcome, NoFit):
        raise no_fit(outcome)
    return outcome


def missing_weights(model: Model, on_paper: LlamacppPlan | VllmPlan) -> FileMissing:
    """What is missing, how large it is, and the ways to get it here."""
    variant = next(variant for variant in model.variants if variant.name == on_paper.variant)
    others = [other for other in model.variants if other is not variant]
    size = f"{gib(on_paper.weights_bytes)}, {on_paper.weights_bytes} bytes"
    message = (
        f"the weights of `{model.name}` are not on this host: it would serve {variant.name} ({size}) "
        f"with {on_paper.engine}"
    )
    ways = [f"fetch {variant.source or 'them'} on a machine that may, and carry it here"]
    if variant.format == "gguf":
        ways.append("then `serve --model FILE.gguf`, or give its `path` in a site catalogue (registry.site_file)")
        ways.append(f"to measure this machine before that, `serve --model {model.name} --dummy-weights`")
    else:
        ways.append("then give its directory as `path` in a site catalogue (registry.site_file)")
    if others:
        ways.append(f"other variants: {', '.join(map(_offer, others))}")
    return FileMissing(message, hint="; ".join(ways))


def _offer(variant: Variant) -> str:
    return variant.name if variant.size_bytes is None else f"{variant.name} ({gib(variant.size_bytes)})"


def no_fit(refusal: NoFit) -> NoFitError:
    """The refusal as the error that ends the command."""
    variant = f" ({refusal.variant})" if refusal.variant else ""
    hint = "it does not fit this machine in any variant"
    if refusal.short_bytes is None:
        hint = "`serve models list` shows what there is, `serve models show` the forms of one"
    if refusal.nearest:
        hint = "use " + ", or ".join(map(_way_out, refusal.nearest))
    elif refusal.short_bytes is not None:
        hint = f"free {gib(refusal.short_bytes)} of memory, or use a machine with more; {hint}"
    if refusal.enough:
        hint = f"{refusal.enough} would hold it; {hint}"
    return NoFitError(f"cannot serve `{refusal.model}`{variant}: {refusal.reason}", hint=hint)


def _way_out(fit: NearestFit) -> str:
    flags = [_flag(name, value) for name, value in fit.change]
    on_gpu = f", {gib(fit.gpu_bytes)} of each GPU" if fit.gpu_bytes else ""
    return f"{' '.join(flags)} ({gib(fit.total_bytes)}{on_gpu})"


def _flag(name: str, value: str | int | None) -> str:
    if name == "swa_full":
        return "`swa_full = false` in the settings"
    flag = f"--{name.replace('_', '-')}"
    return f"no `{flag}`" if value is None else f"`{flag} {value}`"
