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
from serving.cli.plan import DUMMY_NOTE, no_fit, plan_here
from serving.cli.runtime import cache_dir, runtime_dir
from serving.engines.installed import installed_engines
from serving.engines.llamacpp import plan_engine
from serving.engines.runtime import state_directory
from serving.errors import NoFitError
from serving.gguf import read_header
from serving.hardware import Machine, detect
from serving.hardware.watch import require_gpu
from serving.planner import Engines, LlamacppPlan, NoFit, Wishes, gib, plan
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
    engines = installed_engines(machine)
    wishes = wishes_from(settings, options.plan)
    if not options.dummy_weights:
        plan_here(machine, model, wishes, engines)  # what cannot be served is said before anything about the address
    check_address(settings.server.host, settings.server.port)
    listener_of = _listeners(for_people=for_people)
    if options.dummy_weights:
        directory = cache_dir(settings.paths.cache_dir, os.environ) / "dummy"
        model = with_dummy_weights(machine, model, wishes, engines, directory, listener_of(model.name, chats=True))
    outcome = plan_here(machine, model, wishes, engines)
    if not isinstance(outcome, LlamacppPlan) or outcome.weights is None:
        message = f"`{model.name}` is planned for vLLM, which this version does not start yet"
        raise NoFitError(message, hint="`--backend llamacpp` serves it from the CPU")
    warnings = [*machine.warnings, *_exposure(settings), *([DUMMY_NOTE] if outcome.dummy else [])]
    _announce(machine, outcome, warnings, for_people=for_people)

    runtime = runtime_dir(settings.paths.runtime_dir, os.environ)
    socket = runtime / f"engine-{os.getpid()}.sock"
    spec = plan_engine(outcome, settings, socket, state_directory(socket), source=_source())

    from serving.gateway.run import run

    chats = outcome.task == "generate" and read_header(outcome.weights).text("tokenizer.chat_template") is not None
    listener = listener_of(outcome.model, chats=chats, task=outcome.task, dummy=outcome.dummy)
    return run([spec], settings, listener, machine.gpus)


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
    on_paper = plan(machine, model, dataclasses.replace(wishes, backend="llamacpp"), engines)
    if isinstance(on_paper, NoFit):
        raise no_fit(on_paper)
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


def _announce(machine: Machine, outcome: LlamacppPlan, warnings: list[str], *, for_people: bool) -> None:
    if not for_people:
        _log(machine, outcome, warnings)
        return
    lines = [*(f"warning   {warning}" for warning in warnings), *summary(machine, outcome)]
    sys.stderr.write("\n".join(lines) + "\n")
    sys.stderr.flush()


def _log(machine: Machine, outcome: LlamacppPlan, warnings: list[str]) -> None:
    cpu, memory = machine.cpu, machine.memory
    for warning in warnings:
        log.warning("warning", extra=facts(what=warning))
    log.info(
        "machine",
        extra=facts(cpu=cpu.model, cores=cpu.parallel, memory_bytes=memory.usable_bytes, gpus=len(machine.gpus)),
    )
    log.info(
        "plan",
        extra=facts(
            model=outcome.model,
            variant=outcome.variant,
            engine=outcome.engine,
            context=outcome.context,
            concurrency=outcome.concurrency,
            kv_layout=outcome.kv_layout,
            kv_tokens=outcome.kv_tokens,
            kv_dtype=outcome.kv_dtype,
            threads=outcome.threads,
            wait_policy=outcome.wait_policy,
            weights=str(outcome.weights),
            load_mode=outcome.load_mode,
            gpu_layers=outcome.gpu_layers,
            dummy_weights=outcome.dummy,
            total_bytes=outcome.total_bytes,
            anonymous_bytes=outcome.bytes_of("anonymous"),
            budget_bytes=outcome.budget_bytes,
        ),
    )


def summary(machine: Machine, outcome: LlamacppPlan) -> list[str]:
    """What was detected and what was planned, in four lines."""
    cpu = machine.cpu
    cores = f"{cpu.parallel} core{'s' if cpu.parallel != 1 else ''}"
    usable = machine.memory.usable_bytes
    memory = "free memory not known" if usable is None else f"{gib(usable)} of memory free"
    gpus = ", ".join(gpu.name or "GPU" for gpu in machine.gpus) or "no GPU"
    total, anonymous = outcome.total_bytes, outcome.bytes_of("anonymous")
    size = gib(outcome.weights_bytes)
    cache = f"KV cache {outcome.kv_layout}, {outcome.kv_dtype}" if outcome.kv_tokens else "no cache"
    limit = "limit not known" if outcome.budget_bytes is None else f"{gib(outcome.budget_bytes)} allowed"
    return [
        f"machine   {cpu.model or 'unknown CPU'}, {cores}, {memory}, {gpus}",
        f"model     {outcome.model} {outcome.variant} ({size}), served by {outcome.engine}",
        f"plan      {outcome.concurrency} at a time, {outcome.context} tokens each; {cache}; {outcome.threads} threads",
        f"memory    {gib(total)} planned ({gib(anonymous)} private), {limit}",
    ]


def _source() -> Path | None:
    """The directory of this package where the interpreter does not have it installed, as in a checkout."""
    parent = Path(serving.__file__).resolve().parent.parent
    installed = any(parent == Path(entry).resolve() for entry in sys.path if entry.endswith("-packages"))
    return None if installed else parent
