"""`serve bench run`: a scenario against a server, and its result."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib.metadata
import ipaddress
import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import uvloop

import serving
from serving.bench import record
from serving.bench.drive import Target
from serving.bench.record import Client, Prompts, Result, Started
from serving.bench.run import Measured, measure
from serving.bench.scenario import Loaded, load_scenario, override
from serving.bench.served import Served, digest_of, served
from serving.cli.bench_page import page
from serving.cli.bench_progress import RunProgress
from serving.cli.options import PlanOptions, settings_for
from serving.doctor.gather import ask_vllm
from serving.engines.remote import origin_of, read_key
from serving.engines.spec import Origin
from serving.errors import EngineFailed, UsageError
from serving.hardware import detect
from serving.hardware.described import described_machine
from serving.hardware.power import Meters

STOPPED: Final = 130
START_TIMEOUT_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What `serve bench run` was asked."""

    scenario: str
    url: str | None = None
    model: str | None = None
    output: Path | None = None
    samples: Path | None = None
    name: str | None = None
    key_file: Path | None = None
    tokenizer: Path | None = None
    machine: str | None = None
    processes: int | None = None
    requests: int | None = None
    timeout_s: float = 600.0
    dummy_weights: bool = False
    config: Path | None = None
    json: bool = False
    plan: PlanOptions = field(default_factory=PlanOptions)


def run(options: RunOptions) -> int:
    """Run a scenario, write and show its result; returns the exit status.

    Raises ServingError for what cannot be run at all, and EngineFailed, with the result written, where no request was
    completed.
    """
    loaded = override(load_scenario(options.scenario), options.requests)
    _check(options)
    with RunProgress() as progress, _server(options, progress) as (target, started):
        is_here = started is not None or _is_loopback(target.origin)
        meters = Meters() if is_here else None
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                found = runner.run(
                    measure(
                        loaded,
                        target,
                        progress,
                        tokenizer=options.tokenizer,
                        processes=options.processes,
                        meters=meters,
                    )
                )
        finally:
            if meters is not None:
                meters.close()
    result = _result(options, loaded, target, started, found, is_here=is_here)
    _write(options, result, found)
    sys.stdout.write(result.to_json() if options.json else page(result))
    if found.is_stopped:
        return STOPPED
    if found.is_gone:
        message = f"`{target.origin}` no longer answers: it died on the way"
        raise EngineFailed(message, hint="the result has what was measured until then; the server's log has the cause")
    if not result.completed:
        raise EngineFailed("no request was completed", hint="the result says what became of them")
    return 0


def _check(options: RunOptions) -> None:
    """Refuse what makes no sense before anything is started. Raises UsageError."""
    for path in filter(None, (options.output, options.samples)):
        if not path.parent.is_dir():
            raise UsageError(f"`{path}` cannot be written: its directory does not exist", hint="make it first")
    if options.url is None:
        if options.model is None:
            hint = "`--url http://host:port` for a server that runs, `--model NAME` for one to be started"
            raise UsageError("there is nothing to measure", hint=hint)
        if options.key_file is not None or options.machine is not None:
            raise UsageError("`--key-file` and `--machine` go with `--url`", hint="leave them out")
        return
    if options.plan != PlanOptions() or options.dummy_weights or options.config is not None:
        message = "flags that shape a plan go to a server that is started here, and `--url` names one that runs"
        raise UsageError(message, hint="leave them out, or leave `--url` out")


@contextlib.contextmanager
def _server(options: RunOptions, progress: RunProgress) -> Iterator[tuple[Target, Started | None]]:
    """The server under test: the one that is named, or one that is started for the time of the block."""
    if options.url is not None:
        key = None if options.key_file is None else read_key(options.key_file)
        yield Target(origin_of(options.url), options.model or "", key, options.timeout_s), None
        return
    flags = ["--model", options.model or "", *flags_of(options.plan)]
    flags += ["--dummy-weights"] if options.dummy_weights else []
    flags += ["--config", str(options.config)] if options.config is not None else []
    with served(flags, START_TIMEOUT_S, progress.on_start) as running:
        yield Target(origin_of(running.url), "", running.key, options.timeout_s), _started(running, options, progress)


def flags_of(plan: PlanOptions) -> Iterator[str]:
    """The command line that these wishes stand for."""
    for wish in fields(plan):
        value = getattr(plan, wish.name)
        if value is not None:
            yield f"--{wish.name.replace('_', '-')}"
            yield str(value)


def _started(running: Served, options: RunOptions, progress: RunProgress) -> Started:
    plan = {name: value for name, value in running.plan.items() if name not in ("time", "level", "logger")}
    weights = plan.get("weights")
    digest = None
    if isinstance(weights, str):
        progress.on_start("adding up the weights' digest")
        with contextlib.suppress(OSError):
            digest = digest_of(Path(weights))
        plan["weights"] = Path(weights).name  # a result travels: where it lay on this host is nobody's business
    return Started(
        command=running.command,
        plan=plan,
        engine=_engine(str(plan.get("engine")), options.config),
        ready_s=running.ready_s,
        load_s=running.load_s,
        weights=plan.get("weights"),
        weights_sha256=digest,
        dummy_weights=options.dummy_weights,
    )


def _engine(name: str, config: Path | None) -> record.Server:
    """What computes, and of which version; None for one that nobody tells."""
    version = None
    if name == "llamacpp":
        version = f"llama-cpp-python {importlib.metadata.version('llama-cpp-python')}"
    elif name == "vllm":
        version = ask_vllm(str(settings_for(config).engines.vllm.python or sys.executable)).version
    return record.Server(name=name, version=version)


def _is_loopback(origin: Origin) -> bool:
    try:
        return ipaddress.ip_address(origin.host).is_loopback
    except ValueError:
        return origin.host == "localhost"


def _result(
    options: RunOptions, loaded: Loaded, target: Target, started: Started | None, found: Measured, *, is_here: bool
) -> Result:
    machine: dict[str, Any] | None = None
    if options.machine is not None:
        machine = json.loads(described_machine(options.machine).to_json())
    elif is_here:
        machine = json.loads(detect().to_json())
    return Result(
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        version=serving.__version__,
        name=options.name or ("" if options.output is None else options.output.stem),
        target=record.Target(url=str(target.origin), model=found.model, server=found.server, started=started),
        machine=machine,
        client=Client(processes=found.processes, cores=len(os.sched_getaffinity(0)), is_on_the_servers_machine=is_here),
        scenario=loaded.scenario.model_dump(exclude_none=True),
        scenario_sha256=loaded.sha256,
        prompts=Prompts(exact=found.is_exact, counted_by=found.counted_by),
        stages=tuple(found.stages),
        saturation=found.saturation,
    )


def _write(options: RunOptions, result: Result, found: Measured) -> None:
    """The result, and the samples: times and counts, never text."""
    if options.output is not None:
        options.output.write_text(result.to_json(), encoding="utf-8")
    if options.samples is not None:
        with options.samples.open("w", encoding="utf-8") as file:
            file.writelines(f"{json.dumps(line)}\n" for line in _lines(found))


def _lines(found: Measured) -> Iterator[Mapping[str, object]]:
    for at, (samples, warm_up) in enumerate(zip(found.samples, found.warm_up, strict=True)):
        for number, sample in sorted(samples.items()):
            yield {"stage": at, "number": number, "warm_up": number < warm_up, **dataclasses.asdict(sample)}
