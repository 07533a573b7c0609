"""`serve plan`."""

# ruff: noqa: PLC0415 -- imports are made when a command runs, so that none pays for another

from __future__ import annotations

import dataclasses
import os
import shlex
import sys
import textwrap
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from serving.cli.options import PlanOptions, StartOptions, settings_for, wishes_from
from serving.cli.profile import Profiles
from serving.cli.runtime import catalogue_of
from serving.cli.show import print_rows, ranges, terminal_columns
from serving.cli.wanted import wanted_of
from serving.errors import FileMissing, NoFitError, UsageError
from serving.hardware import Machine, detect
from serving.hardware.described import described_machine
from serving.hardware.watch import require_gpu
from serving.planner import (
    AnyPlan,
    Engines,
    LlamacppPlan,
    NearestFit,
    NoFit,
    TransformersPlan,
    VllmPlan,
    Wishes,
    gib,
    plan,
    plan_fleet,
)
from serving.planner.text import counted
from serving.planner.types import host_bytes, sum_bytes
from serving.planner.vllm_layout import Layout
from serving.registry import Model, Variant
from serving.settings import Settings


def show_plan(name: str, config: Path | None, options: PlanOptions, *, as_json: bool, other: str | None = None) -> int:
    """Print the plan, or raise NoFitError; with JSON the refusal is printed as data first.

    With `other` the plan is for another machine, with every engine taken to be installed there: the file that
    `serve hardware --json` printed on it, or a kind of GPU and how many, such as `4xH100`.
    """
    settings = settings_for(config)
    model = catalogue_of(settings, os.environ).find(name)
    profiles = Profiles(settings, detect(), are_wanted=other is None)
    wishes = wishes_from(settings, options, profiles.wishes_of(model.name, options))
    machine, engines = machine_and_engines(settings, other, {wishes.backend})
    if settings.hardware.require_gpu:
        require_gpu(machine)
    outcome = plan(machine, model, wishes, engines)
    if as_json:
        sys.stdout.write(outcome.to_json() + "\n")
    if isinstance(outcome, NoFit):
        raise no_fit(outcome, machine, model)
    if not as_json:
        named = other is not None and not Path(other).exists()
        print_rows([("machine", assumed_line(machine) if named else machine_line(machine)), *facts(outcome)])
        print_rows([("profile", line) for line in profiles.lines()])
        sys.stdout.write("\n")
        print_rows(table(outcome))
        for remark in (*outcome.reasons, *(f"not {rejected.what}: {rejected.why}" for rejected in outcome.rejected)):
            width = terminal_columns() or len(remark) + 2
            sys.stdout.write(textwrap.fill(f"- {remark}", width, subsequent_indent="  ", break_on_hyphens=False) + "\n")
    return 0


def show_set(config: Path | None, options: PlanOptions, *, as_json: bool, other: str | None) -> int:
    """`serve plan` without a model: the set of the settings, planned as a whole. Raises NoFitError, UsageError.

    Weights need not be here, as for the plan of one.
    """
    settings = settings_for(config)
    if options != PlanOptions():
        hint = "name a model, or give each of the set its wishes in its `[[models]]` table"
        raise UsageError("flags that shape a plan go with one model", hint=hint)
    wanted = wanted_of(StartOptions(), settings)
    machine, engines = machine_and_engines(settings, other, {one.wishes.backend for one in wanted})
    outcome = plan_fleet(machine, wanted, engines)
    if isinstance(outcome, NoFit):
        raise no_fit(outcome, machine, next(one.model for one in wanted if one.model.name == outcome.model))
    if as_json:
        sys.stdout.write(f"[{', '.join(one.to_json() for one in outcome)}]\n")
        return 0
    print_rows([("machine", machine_line(machine))])
    for one in outcome:
        sys.stdout.write("\n")
        print_rows(facts(one))
    total, anonymous = (
        sum(sizes) for sizes in zip(*((one.total_bytes, one.bytes_of("anonymous")) for one in outcome), strict=True)
    )
    limit = "limit not known" if outcome[0].budget_bytes is None else f"{gib(outcome[0].budget_bytes)} allowed"
    sys.stdout.write(f"\nmemory of all  {gib(total)} ({gib(anonymous)} private), {limit}\n")
    return 0


def machine_and_engines(
    settings: Settings, other: str | None, wanted: Collection[str | None]
) -> tuple[Machine, Engines]:
    """This machine and what it can start; or the `other` one, with every engine taken to be installed there."""
    if other is not None:
        return described_machine(other), Engines(vllm=True, transformers=True, transformers_cuda=True)
    from serving.engines.installed import installed_engines

    machine = detect()
    return machine, installed_engines(machine, settings, wanted)


def machine_line(machine: Machine) -> str:
    """What a plan is made for, in a line."""
    cpu, usable = machine.cpu, machine.memory.usable_bytes
    memory = "free memory not known" if usable is None else f"{gib(usable)} of memory free"
    return f"{cpu.model or 'unknown CPU'}, {counted(cpu.parallel, 'core')}, {memory}, {_gpus(machine)}"


def assumed_line(machine: Machine) -> str:
    """The same for a machine of which the GPUs alone were named."""
    cores, free = counted(machine.cpu.parallel, "core"), gib(machine.memory.usable_bytes or 0)
    return f"{_gpus(machine)}; assumed beside them: {cores}, {free} of memory free"


def _gpus(machine: Machine) -> str:
    names = Counter(gpu.name or "GPU" for gpu in machine.gpus)
    return ", ".join(name if count == 1 else f"{count} × {name}" for name, count in names.items()) or "no GPU"


def serves(outcome: AnyPlan) -> str:
    """How many sequences of how many tokens, for people: a pool is not as large as all of them together could be."""
    together, each = f"{outcome.concurrency} at a time", counted(outcome.context, "token")
    if outcome.task != "generate":
        return f"{together}, up to {each} each"
    if outcome.concurrency * outcome.context <= outcome.kv_tokens:
        return f"{together}, {each} each"
    return f"{together}, up to {each} each, {outcome.kv_tokens} in all"


def facts(outcome: AnyPlan) -> list[tuple[str, str]]:
    """The plan as (what, value) for people."""
    rows = [
        ("model", f"{outcome.model}, {outcome.variant}, served by {outcome.engine}"),
        ("weights", weights_of(outcome)),
        ("serves", serves(outcome)),
        ("task", outcome.task),
    ]
    cache = f"{outcome.kv_tokens} tokens, {outcome.kv_dtype}"
    if isinstance(outcome, LlamacppPlan):
        cache = f"{outcome.kv_layout}, {cache}"
    rows.append(("cache", cache if outcome.kv_tokens else "none: a text is computed whole"))
    match outcome:
        case LlamacppPlan():
            cores = ranges(outcome.cores) or "any"
            threads = counted(outcome.threads, "thread")
            rows.append(("compute", f"{threads} on cores {cores}, idle ones {outcome.wait_policy}"))
            if outcome.gpu_layers:
                rows.append(("GPU", f"{counted(outcome.gpu_layers, 'layer')} on GPU {outcome.gpu}"))
        case VllmPlan():
            rows.append(("compute", vllm_compute(outcome)))
        case TransformersPlan():
            rows.append(("cache", f"{outcome.kv_tokens} tokens, as the model computes"))
            rows.append(("compute", transformers_compute(outcome)))
    if outcome.dummy:
        rows.append(("note", DUMMY_NOTE))
    return rows


def vllm_compute(outcome: VllmPlan) -> str:
    """What vLLM computes with, for people."""
    step = f"{outcome.step_tokens} tokens a step, {outcome.dtype}"
    if not outcome.gpus:
        return f"cores {ranges(outcome.cores) or 'any'}, {step}"
    gpus, layout = counted(len(outcome.gpus), "GPU"), Layout(outcome.tensor, outcome.pipeline, outcome.data)
    how = f" ({layout})" if layout.gpus > 1 else ""
    return f"{gpus}{how}, {outcome.memory_utilisation:.1%} of each one's memory, {step}"


def transformers_compute(outcome: TransformersPlan) -> str:
    """What PyTorch computes with, for people."""
    if outcome.gpu is not None:
        return f"GPU {outcome.gpu}, one request at a time"
    return f"{counted(outcome.threads, 'thread')} on cores {ranges(outcome.cores) or 'any'}, one request at a time"


DUMMY_NOTE = "DUMMY WEIGHTS: synthetic numbers, every answer is noise"


def weights_of(outcome: AnyPlan) -> str:
    """Where the weights are and how large, for people."""
    where = str(outcome.weights) if outcome.weights else "not on this host"
    return f"{where} ({gib(outcome.weights_bytes)})"


def table(outcome: AnyPlan | NoFit) -> list[tuple[str, str, str, str]]:
    """The memory table for people."""
    rows = [("MEMORY", "SIZE", "KIND", "HOW")]
    rows += [(line.name, gib(line.bytes), line.kind, line.formula) for line in outcome.memory]
    on_gpu = sum_bytes(outcome.memory, "gpu")
    if on_gpu:
        rows.append(("each GPU", gib(on_gpu), "", _limit(outcome.gpu_budget_bytes)))
    return [*rows, ("main memory", gib(host_bytes(outcome.memory)), "", _limit(outcome.budget_bytes))]


def _limit(size: int | None) -> str:
    return "what there is could not be read" if size is None else f"of {gib(size)}"


def plan_here(machine: Machine, model: Model, wishes: Wishes, engines: Engines) -> AnyPlan:
    """The plan with weights that are on this host.

    Raises NoFitError where none fits, or FileMissing, which says what this machine would serve and how to get it here.
    """
    wanted = [variant for variant in model.variants if wishes.variant in (None, variant.name)]
    if wanted and not any(variant.path for variant in wanted):
        on_paper = plan(machine, model, wishes, engines)
        if isinstance(on_paper, NoFit):
            raise no_fit(on_paper, machine, model)
        raise missing_weights(model, on_paper)
    outcome = plan(machine, model, dataclasses.replace(wishes, local=True), engines)
    if isinstance(outcome, NoFit):
        raise no_fit(outcome, machine, model)
    return outcome


def missing_weights(model: Model, on_paper: AnyPlan) -> FileMissing:
    """What is missing, how large it is, and the ways to get it here."""
    variant = next(variant for variant in model.variants if variant.name == on_paper.variant)
    others = [other for other in model.variants if other is not variant]
    size = f"{gib(on_paper.weights_bytes)}, {on_paper.weights_bytes} bytes"
    if variant.missing is not None:
        message = f"the weights of `{model.name}` are missing: `{variant.missing}` ({variant.name}) does not exist"
        hint = f"bring them there ({size}), or correct the `path` of variant `{variant.name}` in `{model.origin}`"
        return FileMissing(message, hint=hint)
    message = (
        f"the weights of `{model.name}` are not on this host: it would serve {variant.name} ({size}) "
        f"with {on_paper.engine}"
    )
    return FileMissing(message, hint="\n".join(_ways_here(model, variant, others)))


def _ways_here(model: Model, variant: Variant, others: list[Variant]) -> Iterator[str]:
    """How weights come onto this host and get their name, a command each."""
    name, file = shlex.quote(model.name), _file_name(model, variant)
    yield "bring them into the store (docs/store.md)"
    if variant.source is not None and " " not in variant.source:
        yield "  from the hub, or a mirror that HF_ENDPOINT names:"
        yield f"     serve models pull {name} --variant {variant.name}"
        yield "  from a disk, fetched elsewhere from"
        yield f"     {variant.source}:"
    else:
        yield f"  from a disk, once there is {variant.source or f'a {variant.format} of {model.title}'}:"
    yield f"     serve models import /media/{file} --name {name} --variant {variant.name}"
    if variant.format == "gguf":
        yield f"without bringing them in: serve --model /media/{file}"
        yield f"to measure this machine before that: serve --model {name} --dummy-weights"
    if others:
        yield f"other variants: {', '.join(map(_offer, others))}"


def _file_name(model: Model, variant: Variant) -> str:
    """What the weights are called where they come from."""
    name = (variant.source or "").rpartition("/")[2].partition("@")[0]
    if variant.format == "gguf":
        return name if name.endswith(".gguf") else f"{model.name}-{variant.name}.gguf"
    return name or model.name


def _offer(variant: Variant) -> str:
    return variant.name if variant.size_bytes is None else f"{variant.name} ({gib(variant.size_bytes)})"


def no_fit(refusal: NoFit, machine: Machine, model: Model) -> NoFitError:
    """The refusal as the error that ends the command, with what is wrong with the model's entry."""
    variant = f" ({refusal.variant})" if refusal.variant else ""
    hint = "it does not fit this machine in any variant"
    if refusal.short_bytes is None:
        hint = "`serve models list` shows what there is, `serve models show` the forms of one"
    if refusal.nearest:
        hint = "use " + ", or ".join(map(_way_out, refusal.nearest))
    elif refusal.short_bytes is not None:
        hint = f"{_more_memory(refusal, machine)}; {hint}"
    if refusal.enough:
        hint = f"{refusal.enough} would hold it; {hint}"
    hint = "; ".join([hint, *model.warnings])
    return NoFitError(f"cannot serve `{refusal.model}`{variant}: {refusal.reason}", hint=hint)


def _more_memory(refusal: NoFit, machine: Machine) -> str:
    """What could be done about memory that is short: freeing some is no way out where even all of it is too little."""
    on_gpu, short = sum_bytes(refusal.memory, "gpu"), refusal.short_bytes or 0
    if on_gpu > (refusal.gpu_budget_bytes or 0):
        needed, sizes, what = on_gpu, [gpu.memory_total_bytes for gpu in machine.gpus], "each GPU"
    else:
        needed, what = host_bytes(refusal.memory), "this machine"
        sizes = [machine.memory.total_bytes, machine.memory.limit_bytes]
    there = min((size for size in sizes if size is not None), default=None)
    if there is not None and needed > there:
        return f"use a machine with more memory ({what} has {gib(there)} in all)"
    return f"free {gib(short)} of memory, or use a machine with more"


def _way_out(fit: NearestFit) -> str:
    flags = [_flag(name, value) for name, value in fit.change]
    on_gpu = f", {gib(fit.gpu_bytes)} of each GPU" if fit.gpu_bytes else ""
    return f"{' '.join(flags)} ({gib(fit.total_bytes)}{on_gpu})"


def _flag(name: str, value: str | int | None) -> str:
    if name == "swa_full":
        return "`swa_full = false` in the settings"
    flag = f"--{name.replace('_', '-')}"
    return f"no `{flag}`" if value is None else f"`{flag} {value}`"
