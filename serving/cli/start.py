"""`serve --model …`: look at the machine, plan, say so in four lines, and hand over to the gateway."""

# ruff: noqa: PLC0415 -- imports are made when a command runs, so that none pays for another

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import logging
import os
import sys
from pathlib import Path

import serving
from serving.cli.address import check_address
from serving.cli.listen import JsonListener, TerminalListener
from serving.cli.options import StartOptions, settings_for, wishes_from
from serving.cli.plan import DUMMY_NOTE, machine_line, no_fit, plan_here, serves, vllm_compute
from serving.cli.runtime import cache_dir, runtime_dir
from serving.engines import llamacpp, vllm
from serving.engines.installed import installed_engines
from serving.engines.runtime import state_directory
from serving.engines.spec import EngineSpec
from serving.errors import UsageError
from serving.gateway.exposure import check_exposure
from serving.gguf import read_header
from serving.hardware import Machine, detect
from serving.hardware.watch import require_gpu
from serving.planner import Engines, LlamacppPlan, NoFit, VllmPlan, Wishes, gib, plan
from serving.planner.llamacpp import crowded
from serving.planner.text import counted
from serving.registry import Model, load_catalogue, model_from_file
from serving.settings import Settings
from serving.store import write_dummy
from serving.telemetry.logs import facts, setup

log = logging.getLogger("serving.cli")


def start(options: StartOptions) -> int:
    """Serve until told to stop; returns the exit status. Raises ServingError before anything was started.

    The address is checked before the engine starts, so that a taken port costs no load.
    """
    flags = {
        "server.host": options.host,
        "server.port": options.port,
        "server.allow_insecure_bind": options.allow_insecure_bind,
        "log.format": "json" if options.json else None,
    }
    settings = settings_for(options.config, flags)
    setup(settings.log.format, settings.log.level)
    for_people = settings.log.format == "text"
    model = load_catalogue(settings.registry.site_file).find(options.model)
    machine = detect()
    if settings.hardware.require_gpu:
        require_gpu(machine)
    wishes = wishes_from(settings, options.plan)
    engines = installed_engines(machine, settings.engines.vllm.python, wants_vllm=wishes.backend == "vllm")
    if not options.dummy_weights:
        plan_here(machine, model, wishes, engines)  # what cannot be served is said before anything about the address
    # What would end the start in any case is said before anything is written, and before the plan is shown.
    check_address(settings.server.host, settings.server.port)
    check_exposure(settings.server.host, is_allowed=settings.server.allow_insecure_bind)
    runtime = runtime_dir(settings.paths.runtime_dir, os.environ)
    listener_of = _listeners(for_people=for_people)
    if options.dummy_weights:
        directory = cache_dir(settings.paths.cache_dir, os.environ) / "dummy"
        model = with_dummy_weights(machine, model, wishes, engines, directory, listener_of(model.name, chats=True))
    outcome = plan_here(machine, model, wishes, engines)
    remarks = (crowded(machine.cpu, wishes.threads), DUMMY_NOTE if outcome.dummy else None)
    warnings = [*machine.warnings, *model.warnings, *_exposure(settings), *filter(None, remarks)]
    _announce(machine, outcome, warnings, for_people=for_people)

    socket = runtime / f"engine-{os.getpid()}.sock"
    spec = spec_of(outcome, model, settings, socket)

    from serving.gateway.run import run

    task = outcome.task if isinstance(outcome, LlamacppPlan) else "generate"
    chats = task == "generate" and outcome.weights is not None and has_template(outcome.weights)
    listener = listener_of(outcome.model, chats=chats, task=task, dummy=outcome.dummy)
    status = run([spec], settings, listener, machine.gpus)
    if for_people and status == 0:
        sys.stderr.write("stopped\n")
    return status


def spec_of(outcome: LlamacppPlan | VllmPlan, model: Model, settings: Settings, socket: Path) -> EngineSpec:
    """How to start the engine that was planned. Raises BadSettings."""
    home = state_directory(socket)
    if isinstance(outcome, LlamacppPlan):
        return llamacpp.plan_engine(outcome, settings, socket, home, model=model, source=_source())
    return vllm.plan_engine(outcome, model, settings, socket, home, cache_dir(settings.paths.cache_dir, os.environ))


def has_template(weights: Path) -> bool:
    """Whether a weight file, or a directory of them, carries a chat template."""
    if not weights.is_dir():
        return read_header(weights).text("tokenizer.chat_template") is not None
    if any((weights / name).exists() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    with contextlib.suppress(OSError):
        return '"chat_template"' in (weights / "tokenizer_config.json").read_text(encoding="utf-8", errors="replace")
    return False


def with_dummy_weights(
    machine: Machine,
    model: Model,
    wishes: Wishes,
    engines: Engines,
    directory: Path,
    listener: TerminalListener | JsonListener,
) -> Model:
    """The model with synthetic weights in place of its own, written to `directory` unless they are there.

    Raises NoFitError where machine or disk is too small, UsageError for a shape that is not known.
    """
    if wishes.backend == "vllm":
        message = "`--dummy-weights` are made for llama.cpp, and `--backend vllm` is asked for"
        raise UsageError(message, hint="leave out `--backend`, or `--dummy-weights`")
    on_paper = plan(machine, model, dataclasses.replace(wishes, backend="llamacpp"), engines)
    if isinstance(on_paper, NoFit):
        raise no_fit(on_paper, machine, model)
    variant = next(variant for variant in model.variants if variant.name == on_paper.variant)
    path = write_dummy(
        model,
        variant,
        directory,
        lambda share: listener.on_progress(model.name, share, f"writing dummy weights to {directory}"),
    )
    made = model_from_file(path)
    variants = tuple(dataclasses.replace(each, name=variant.name) for each in made.variants)
    return dataclasses.replace(made, name=model.name, variants=variants)


def _listeners(*, for_people: bool) -> type[TerminalListener | JsonListener]:
    return TerminalListener if for_people else JsonListener


def _exposure(settings: Settings) -> list[str]:
    host = settings.server.host
    with contextlib.suppress(ValueError):
        if not ipaddress.ip_address(host).is_loopback:
            return [f"listening on {host} without keys: whoever reaches the port may use the models"]
    return []


def _announce(machine: Machine, outcome: LlamacppPlan | VllmPlan, warnings: list[str], *, for_people: bool) -> None:
    if not for_people:
        _log(machine, outcome, warnings)
        return
    lines = [*(f"warning   {warning}" for warning in warnings), *summary(machine, outcome)]
    sys.stderr.write("\n".join(lines) + "\n")
    sys.stderr.flush()


def _log(machine: Machine, outcome: LlamacppPlan | VllmPlan, warnings: list[str]) -> None:
    cpu, memory = machine.cpu, machine.memory
    for warning in warnings:
        log.warning("warning", extra=facts(what=warning))
    log.info(
        "machine",
        extra=facts(cpu=cpu.model, cores=cpu.parallel, memory_bytes=memory.usable_bytes, gpus=len(machine.gpus)),
    )
    own = ("cores", "memory", "rejected", "reasons")
    values = {field.name: getattr(outcome, field.name) for field in dataclasses.fields(outcome)}
    told = {
        name: str(value) if isinstance(value, Path | tuple) else value
        for name, value in values.items()
        if name not in own
    }
    totals = {"total_bytes": outcome.total_bytes, "anonymous_bytes": outcome.bytes_of("anonymous")}
    log.info("plan", extra=facts(**told, **totals, gpu_bytes=outcome.bytes_of("gpu")))


def summary(machine: Machine, outcome: LlamacppPlan | VllmPlan) -> list[str]:
    """What was detected and what was planned, in four lines."""
    total, anonymous = outcome.total_bytes, outcome.bytes_of("anonymous")
    size = gib(outcome.weights_bytes)
    if isinstance(outcome, LlamacppPlan):
        cache = f"KV cache {outcome.kv_layout}, {outcome.kv_dtype}" if outcome.kv_tokens else "no cache"
        how = f"{cache}; {counted(outcome.threads, 'thread')}"
    else:
        how = vllm_compute(outcome)
    limit = "limit not known" if outcome.budget_bytes is None else f"{gib(outcome.budget_bytes)} allowed"
    return [
        f"machine   {machine_line(machine)}",
        f"model     {outcome.model} {outcome.variant} ({size}), served by {outcome.engine}",
        f"plan      {serves(outcome)}; {how}",
        f"memory    {gib(total)} planned ({gib(anonymous)} private), {limit}",
    ]


def _source() -> Path | None:
    """The directory of this package where the interpreter does not have it installed, as in a checkout."""
    parent = Path(serving.__file__).resolve().parent.parent
    installed = any(parent == Path(entry).resolve() for entry in sys.path if entry.endswith("-packages"))
    return None if installed else parent
