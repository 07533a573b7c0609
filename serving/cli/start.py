"""`serve --model …`: look at the machine, plan, say so in four lines, and hand over to the gateway."""

# ruff: noqa: PLC0415 -- imports are made when a command runs, so that none pays for another

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import sys
from pathlib import Path

import serving
from serving.cli.address import check_address
from serving.cli.listen import JsonListener, TerminalListener
from serving.cli.options import StartOptions, settings_for, wishes_from
from serving.cli.plan import check_weights, no_fit
from serving.cli.runtime import runtime_dir
from serving.engines.llamacpp import plan_engine
from serving.engines.runtime import state_directory
from serving.gguf import read_header
from serving.hardware import Machine, detect
from serving.planner import NoFit, Plan, gib, plan
from serving.registry import load_catalogue
from serving.settings import Settings
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
    check_weights(model, options.plan)
    machine = detect()
    outcome = plan(machine, model, wishes_from(settings, options.plan))
    if isinstance(outcome, NoFit):
        raise no_fit(outcome)
    check_address(settings.server.host, settings.server.port)
    warnings = [*machine.warnings, *_exposure(settings)]
    _announce(machine, outcome, warnings, for_people=for_people)

    runtime = runtime_dir(settings.paths.runtime_dir, os.environ)
    socket = runtime / f"engine-{os.getpid()}.sock"
    spec = plan_engine(outcome, settings, socket, state_directory(socket), source=_source())

    from serving.gateway.run import run

    chats = read_header(outcome.weights).text("tokenizer.chat_template") is not None
    return run([spec], settings, TerminalListener(outcome.model, chats=chats) if for_people else JsonListener())


def _exposure(settings: Settings) -> list[str]:
    host = settings.server.host
    with contextlib.suppress(ValueError):
        if not ipaddress.ip_address(host).is_loopback:
            return [f"listening on {host} without keys: whoever reaches the port may use the models"]
    return []


def _announce(machine: Machine, outcome: Plan, warnings: list[str], *, for_people: bool) -> None:
    if not for_people:
        _log(machine, outcome, warnings)
        return
    lines = [*(f"warning   {warning}" for warning in warnings), *summary(machine, outcome)]
    sys.stderr.write("\n".join(lines) + "\n")
    sys.stderr.flush()


def _log(machine: Machine, outcome: Plan, warnings: list[str]) -> None:
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
            load_mode=outcome.load_mode,
            total_bytes=outcome.total_bytes,
            anonymous_bytes=outcome.bytes_of("anonymous"),
            budget_bytes=outcome.budget_bytes,
        ),
    )


def summary(machine: Machine, outcome: Plan) -> list[str]:
    """What was detected and what was planned, in four lines."""
    cpu = machine.cpu
    cores = f"{cpu.parallel} core{'s' if cpu.parallel != 1 else ''}"
    usable = machine.memory.usable_bytes
    memory = "free memory not known" if usable is None else f"{gib(usable)} of memory free"
    gpus = ", ".join(gpu.name or "GPU" for gpu in machine.gpus) or "no GPU"
    total, anonymous = outcome.total_bytes, outcome.bytes_of("anonymous")
    size = gib(outcome.weights.stat().st_size)
    cache = f"KV cache {outcome.kv_layout}, {outcome.kv_dtype}"
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
