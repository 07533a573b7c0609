"""`serve --model …`: look at the machine, plan, say so in four lines, and hand over to the gateway."""

# ruff: noqa: PLC0415 -- imports are made when a command runs, so that none pays for another

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import logging
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import serving
from serving.cli.address import check_address
from serving.cli.last import FILE as LAST_START
from serving.cli.last import LastStart
from serving.cli.listen import JsonListener, TerminalListener
from serving.cli.options import StartOptions, settings_for
from serving.cli.plan import (
    DUMMY_NOTE,
    machine_line,
    no_fit,
    plan_here,
    serves,
    transformers_compute,
    vllm_compute,
)
from serving.cli.profile import Profiles
from serving.cli.runtime import cache_dir, runtime_dir
from serving.cli.wanted import elsewhere_of, wanted_of
from serving.cli.weights import hold_weights, with_weights
from serving.engines import llamacpp, transformers, vllm
from serving.engines.confinement.sealing import Sealed, seal
from serving.engines.installed import installed_engines
from serving.engines.runtime import socket_in
from serving.engines.spec import EngineSpec
from serving.errors import NoFitError
from serving.gateway.exposure import Openness, asks_keys, check_exposure, is_loopback
from serving.gguf import read_header
from serving.hardware import Machine, detect
from serving.hardware.watch import require_gpu
from serving.planner import (
    AnyPlan,
    Engines,
    LlamacppPlan,
    NoFit,
    TransformersPlan,
    VllmPlan,
    Wanted,
    Wishes,
    gib,
    plan,
    plan_fleet,
)
from serving.planner.llamacpp import crowded
from serving.planner.text import counted
from serving.registry import Model, model_from_file
from serving.registry.directory import template_of
from serving.settings import Settings
from serving.synthetic import write_description, write_dummy
from serving.telemetry.logs import facts, setup

log = logging.getLogger("serving.cli")
_NAME_CHARS: Final = 64


def start(options: StartOptions) -> int:
    """Serve until told to stop; returns the exit status. Raises ServingError before anything was started.

    The address is checked before the engine starts, so that a taken port costs no load.
    """
    flags = {
        "server.host": options.host,
        "server.port": options.port,
        "server.allow_insecure_bind": options.allow_insecure_bind,
        "access.open": options.open,
        "log.format": "json" if options.json else None,
        "sealed": options.sealed,
    }
    settings = settings_for(options.config, flags)
    setup(settings.log.format, settings.log.level)
    for_people = settings.log.format == "text"
    machine = detect()
    if settings.hardware.require_gpu:
        require_gpu(machine)
    elsewhere = elsewhere_of(options, settings)
    profiles = Profiles(settings, machine, are_wanted=options.profiles and not options.dummy_weights)
    wanted = () if options.engine_url else wanted_of(options, settings, elsewhere, profiles)
    engines = installed_engines(machine, settings, {one.wishes.backend for one in wanted})
    # What cannot be served is said before anything about the address; dummy weights are planned once they are there.
    outcomes: tuple[AnyPlan, ...] = ()
    stale: list[str] = []
    if not options.dummy_weights:
        try:
            outcomes = plan_all(machine, wanted, engines)
        except NoFitError as refusal:
            # what was tuned when more memory was free is no reason not to start
            stale = profiles.given_up(refusal)
            wanted = wanted_of(options, settings, elsewhere)
            outcomes = plan_all(machine, wanted, engines)
    # What would end the start in any case is said before anything is written, and before the plan is shown.
    check_address(settings.server.host, settings.server.port)
    settings = with_door(settings, is_demo=not elsewhere and all(map(ships, wanted)))
    runtime = runtime_dir(settings.paths.runtime_dir, os.environ)
    listener_of = _listeners(for_people=for_people)
    if options.dummy_weights:
        directory = cache_dir(settings.paths.cache_dir, os.environ) / "dummy"
        (one,) = wanted
        listener = listener_of(one.model.name, chats=True)
        made = with_dummy_weights(machine, one.model, one.wishes, engines, directory, listener)
        wanted = (dataclasses.replace(one, model=made),)
        outcomes = plan_all(machine, wanted, engines)
    crowds = (crowded(machine.cpu, one.wishes.threads) for one in wanted)
    remarks = dict.fromkeys([*filter(None, crowds), *(DUMMY_NOTE for outcome in outcomes if outcome.dummy)])
    of_models = [warning for one in wanted for warning in one.model.warnings]
    warnings = [*machine.warnings, *of_models, *_exposure(settings), *_unencrypted(elsewhere), *remarks, *stale]
    sealed, unlocked = shut_in(wanted, outcomes, elsewhere, settings, runtime, listener_of, paranoid=options.paranoid)
    warnings += unlocked
    _announce(machine, outcomes, elsewhere, warnings, profiles.lines(), sealed, for_people=for_people)

    from serving.gateway.run import run

    if outcomes:
        first = outcomes[0]
        chats = first.task == "generate" and first.weights is not None and template_at(first.weights) is not None
        listener = listener_of(
            first.model, chats=chats, task=first.task, dummy=first.dummy, keyed=not settings.access.open
        )
    else:
        listener = listener_of(elsewhere[0].model, chats=True, keyed=not settings.access.open)
    last = LastStart(runtime / LAST_START, outcomes)
    status = run(sealed.specs, settings, listener, machine.gpus, last.note)
    if for_people and status == 0:
        sys.stderr.write("stopped\n")
    return status


def plan_all(machine: Machine, wanted: tuple[Wanted, ...], engines: Engines) -> tuple[AnyPlan, ...]:
    """The plans, with weights that are on this host. Raises NoFitError or FileMissing, naming the model."""
    if len(wanted) == 1:
        return (plan_here(machine, wanted[0].model, wanted[0].wishes, engines),)
    for one in wanted:
        plan_here(machine, one.model, one.wishes, engines)  # what does not even fit alone is said as such
    local = [dataclasses.replace(one, wishes=dataclasses.replace(one.wishes, local=True)) for one in wanted]
    outcome = plan_fleet(machine, local, engines)
    if isinstance(outcome, NoFit):
        model = next(one.model for one in wanted if one.model.name == outcome.model)
        raise no_fit(outcome, machine, model)
    return outcome


def shut_in(
    wanted: Sequence[Wanted],
    outcomes: Sequence[AnyPlan],
    elsewhere: Sequence[EngineSpec],
    settings: Settings,
    runtime: Path,
    listener_of: type[TerminalListener | JsonListener],
    *,
    paranoid: bool,
) -> tuple[Sealed, list[str]]:
    """All engines as they are to be started, with weights that were verified; and sentences on those that could not be.

    Raises Unverified for weights that are not what was locked, NotSealed, BadSettings.
    """
    listeners: dict[str, TerminalListener | JsonListener] = {}

    def on_share(model: str, share: float) -> None:
        listener = listeners.setdefault(model, listener_of(model, chats=True))
        listener.on_progress(model, share, "verifying weights")

    held = hold_weights(outcomes, settings, paranoid=paranoid, on_share=on_share)
    specs = [
        with_weights(spec_of(outcome, one.model, settings, socket_in(runtime, f"engine-{os.getpid()}{suffix}")), of_it)
        for suffix, one, outcome, of_it in zip(_suffixes(), wanted, outcomes, held, strict=False)
    ]
    unlocked = [
        f"nobody has accepted these weights: {of_it.unlocked}"
        for outcome, of_it in zip(outcomes, held, strict=True)
        if of_it.unlocked is not None and not outcome.dummy
    ]
    return seal([*specs, *elsewhere], settings.sealed, runtime), unlocked


def _suffixes() -> Iterator[str]:
    """What tells the engines of one start apart: nothing for the first."""
    yield ""
    yield from (f"-{number}" for number in itertools.count(1))


def spec_of(outcome: AnyPlan, model: Model, settings: Settings, socket: Path) -> EngineSpec:
    """How to start the engine that was planned. Raises BadSettings."""
    home = socket.parent
    if isinstance(outcome, LlamacppPlan):
        return llamacpp.plan_engine(outcome, settings, socket, home, model=model, source=_source())
    if isinstance(outcome, TransformersPlan):
        return transformers.plan_engine(outcome, settings, socket, home, source=_source())
    cache = cache_of(cache_dir(settings.paths.cache_dir, os.environ), outcome.model)
    return vllm.plan_engine(outcome, model, settings, socket, home, cache)


def cache_of(directory: Path, model: str) -> Path:
    """Where the engine of that model keeps what it compiles: its own, since the next start runs what is found there."""
    spelt = re.sub(r"[^A-Za-z0-9._-]+", "_", model)[:_NAME_CHARS]
    return directory / "engines" / f"{spelt}-{hashlib.sha256(model.encode()).hexdigest()[:8]}"


def template_at(weights: Path) -> str | None:
    """The chat template of a weight file, or of a directory of them; None where it has none."""
    if not weights.is_dir():
        return read_header(weights).text("tokenizer.chat_template")
    return template_of(weights) or None


def with_dummy_weights(
    machine: Machine,
    model: Model,
    wishes: Wishes,
    engines: Engines,
    directory: Path,
    listener: TerminalListener | JsonListener,
) -> Model:
    """The model with synthetic weights in place of its own, written to `directory` unless they are there.

    llama.cpp reads a whole file of them; vLLM makes the numbers itself from a directory that describes the shape.
    Raises NoFitError where machine or disk is too small, UsageError for a shape that is not known.
    """
    on_paper = plan(machine, model, wishes, engines)
    if isinstance(on_paper, NoFit):
        raise no_fit(on_paper, machine, model)
    variant = next(variant for variant in model.variants if variant.name == on_paper.variant)
    if isinstance(on_paper, VllmPlan):
        described = write_description(model, variant, directory)
        here = dataclasses.replace(variant, path=described)
        # its tokenizer is not the model's, so no parser would find the tokens that it goes by
        return dataclasses.replace(model, variants=(here,), dummy=True, tool_parser=None, reasoning_parser=None)
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


def is_closed(settings: Settings) -> bool:
    """Whether only those are served who are known, over a wire that nobody else reads."""
    tls = settings.server.tls
    return tls.client_ca is not None or (tls.certificate is not None and not settings.access.open)


def with_door(settings: Settings, *, is_demo: bool) -> Settings:
    """The settings with what they leave open about keys and the record. Raises UnsafeBind."""
    given = Openness(
        host=settings.server.host,
        wish=settings.access.open,
        is_demo=is_demo,
        is_sealed=settings.sealed == "require",
        knows_clients=settings.server.tls.client_ca is not None,
    )
    keys = asks_keys(given)
    decided = settings.model_copy(update={"access": settings.access.model_copy(update={"open": not keys})})
    check_exposure(given.host, is_allowed=is_closed(decided) or settings.server.allow_insecure_bind)
    return decided


def ships(one: Wanted) -> bool:
    """Whether it is the demo model of this package."""
    return (one.model.name, one.model.origin) == ("demo", "catalogue")


def _exposure(settings: Settings) -> list[str]:
    found = []
    host = settings.server.host
    if settings.access.open:
        whoever = "is on this host" if settings.server.tls.client_ca is None else "shows a certificate"
        found.append(f"no key is asked for: whoever {whoever} may use what is served here")
    elif not settings.keeps_record:
        found.append("no record is kept of who asks for what (audit.enabled)")
    if not is_closed(settings) and not is_loopback(host):
        found.append(f"listening on {host} without TLS: what is asked and answered travels readable")
    return found


def _unencrypted(elsewhere: Sequence[EngineSpec]) -> list[str]:
    """What travels readable to servers beyond this host."""
    found = []
    for spec in elsewhere:
        origin = spec.origin
        if origin is not None and not origin.is_tls and not is_loopback(origin.host):
            found.append(f"requests to `{spec.model}` travel unencrypted to {origin}")
    return found


def _announce(
    machine: Machine,
    outcomes: Sequence[AnyPlan],
    elsewhere: Sequence[EngineSpec],
    warnings: list[str],
    tuned: list[str],
    sealed: Sealed,
    *,
    for_people: bool,
) -> None:
    if not for_people:
        _log(machine, outcomes, warnings)
        for line in tuned:
            log.info("profile", extra=facts(what=line))
        for spec in elsewhere:
            log.info("elsewhere", extra=facts(model=spec.model, url=str(spec.origin)))
        log.info("sealed", extra=facts(mode=sealed.mode, by=sealed.by, active=", ".join(sealed.active)))
        for name, why in sealed.missing:
            log.warning("layer missing", extra=facts(layer=name, why=why))
        return
    plans = [line for outcome in outcomes for line in summary(outcome)]
    plans += [f"model     {spec.model}, served by {spec.origin}" for spec in elsewhere]
    plans += [f"profile   {line}" for line in tuned]
    plans += [f"sealed    {line}" for line in sealed.lines()]
    lines = [*(f"warning   {warning}" for warning in warnings), f"machine   {machine_line(machine)}", *plans]
    sys.stderr.write("\n".join(lines) + "\n")
    sys.stderr.flush()


def _log(machine: Machine, outcomes: Sequence[AnyPlan], warnings: list[str]) -> None:
    cpu, memory = machine.cpu, machine.memory
    for warning in warnings:
        log.warning("warning", extra=facts(what=warning))
    log.info(
        "machine",
        extra=facts(cpu=cpu.model, cores=cpu.parallel, memory_bytes=memory.usable_bytes, gpus=len(machine.gpus)),
    )
    for outcome in outcomes:
        own = ("cores", "memory", "rejected", "reasons", "dummy")
        values = {field.name: getattr(outcome, field.name) for field in dataclasses.fields(outcome)}
        told = {
            name: str(value) if isinstance(value, Path | tuple) else value
            for name, value in values.items()
            if name not in own
        }
        totals = {
            "dummy_weights": outcome.dummy,
            "total_bytes": outcome.total_bytes,
            "anonymous_bytes": outcome.bytes_of("anonymous"),
        }
        log.info("plan", extra=facts(**told, **totals, gpu_bytes=outcome.bytes_of("gpu")))


def summary(outcome: AnyPlan) -> list[str]:
    """What was planned, in three lines."""
    total, anonymous = outcome.total_bytes, outcome.bytes_of("anonymous")
    size = gib(outcome.weights_bytes)
    if isinstance(outcome, LlamacppPlan):
        cache = f"KV cache {outcome.kv_layout}, {outcome.kv_dtype}" if outcome.kv_tokens else "no cache"
        how = f"{cache}; {counted(outcome.threads, 'thread')}"
    elif isinstance(outcome, VllmPlan):
        how = vllm_compute(outcome)
    else:
        how = transformers_compute(outcome)
    limit = "limit not known" if outcome.budget_bytes is None else f"{gib(outcome.budget_bytes)} allowed"
    return [
        f"model     {outcome.model} {outcome.variant} ({size}), served by {outcome.engine}",
        f"plan      {serves(outcome)}; {how}",
        f"memory    {gib(total)} planned ({gib(anonymous)} private), {limit}",
    ]


def _source() -> Path | None:
    """The directory of this package where the interpreter does not have it installed, as in a checkout."""
    parent = Path(serving.__file__).resolve().parent.parent
    installed = any(parent == Path(entry).resolve() for entry in sys.path if entry.endswith("-packages"))
    return None if installed else parent
