"""The steps, one after the other. What one needs of another is handed on; where that failed it is not checked."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gpu.domains import measure_leaks
from benchmarks.gpu.environment import ask_nvidia_smi, environment_from
from benchmarks.gpu.outcome import (
    Outcome,
    Verdict,
    judge_capacity,
    judge_conformance,
    judge_detection,
    judge_leaks,
    judge_overhead,
    judge_plans,
    stages_of,
)
from benchmarks.gpu.served import ROOT, Served, Setting, ask_json, served
from benchmarks.machine import cpu_seconds
from benchmarks.peers.compare import Load, Measured, Words, measure
from serving.doctor.gather import ask_vllm
from serving.engines.installed import installed_engines, refuse_version
from serving.hardware import Machine, detect
from serving.planner import AnyPlan, NoFit, Wishes, plan
from serving.registry import load_catalogue
from serving.settings import Settings

SUITE = "tests/conformance"
SUITE_TIMEOUT_S = 3600
STEPS_OF_DEMO = ("start", "cache", "conformance", "overhead")
STEPS_OF_SHAPE = ("start", "cache", "overhead", "domains")


class Unchecked(Exception):
    """Why a step could not be checked."""


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked for."""

    vllm_python: str | None
    wheels: Path | None
    cpu: bool
    shapes: tuple[str, ...]
    concurrency: int
    rounds: int
    requests: int
    least_throughput: float
    kv_tolerance: float
    pairs: int
    """Of requests from two cache domains."""
    start_timeout_s: float
    cache: Path | None
    environment: dict[str, str]


@dataclass
class Run:
    """A run: what is asked for, what came of it so far."""

    options: Options
    scratch: Path
    say: Callable[[Outcome], None]
    outcomes: list[Outcome] = field(default_factory=list)
    versions: dict[str, Any] = field(default_factory=dict)
    machine: Machine = field(default_factory=detect)

    def step(self, name: str, act: Callable[[], Verdict]) -> Verdict | None:
        """Do it, and note what came of it; whatever it raises ends this step alone. None where it did not pass."""
        began = time.monotonic()
        try:
            verdict = act()
        except Unchecked as reason:
            verdict = Verdict("unchecked", str(reason))
        except Exception as failure:  # noqa: BLE001 - the rest is still to be checked
            verdict = Verdict("failed", f"{type(failure).__name__}: {failure}")
        self.note(name, verdict, time.monotonic() - began)
        return verdict if verdict.status == "passed" else None

    def note(self, name: str, verdict: Verdict, took_s: float = 0.0) -> None:
        """Keep and tell an outcome."""
        outcome = Outcome(name, verdict.status, verdict.why, verdict.figures, round(took_s, 1))
        self.outcomes.append(outcome)
        self.say(outcome)

    def leave_out(self, names: Iterator[str], why: str) -> None:
        """Steps that are not taken."""
        for name in names:
            self.note(name, Verdict("unchecked", why))


def run_all(options: Options, say: Callable[[Outcome], None]) -> Run:
    """Every step."""
    with tempfile.TemporaryDirectory(prefix="gpu-") as scratch:
        run = Run(options, Path(scratch), say)
        run.step("detection", detection)
        if not run.machine.gpus and not options.cpu:
            why = "there is no GPU here; with --cpu the same way is gone with vLLM's build for processors"
            run.leave_out(iter(["vllm", "doctor", "plans", *names_of(options)]), why)
            return run
        made: list[str] = []
        if run.step("vllm", lambda: installed(run, made)) is None:
            run.leave_out(iter(["doctor", "plans", *names_of(options)]), "no vLLM to run it with, see above")
            return run
        cache = options.cache or run.scratch / "cache"
        setting = Setting.write(run.scratch, made[0], cache, options.environment, options.start_timeout_s)
        run.step("doctor", lambda: doctor(setting))
        run.step("plans", lambda: plans(run, setting, Path(made[0])))
        serve_and_check(run, setting, "demo", STEPS_OF_DEMO)
        for shape in options.shapes:
            serve_and_check(run, setting, shape, STEPS_OF_SHAPE, "--dummy-weights")
        return run


def names_of(options: Options) -> list[str]:
    """Steps that need a running vLLM."""
    names = [f"demo: {step}" for step in STEPS_OF_DEMO]
    for shape in options.shapes:
        names += [f"{shape}: {step}" for step in STEPS_OF_SHAPE]
    return names


def detection() -> Verdict:
    """`serve hardware --json` against nvidia-smi."""
    status, hardware = ask_json("hardware")
    if hardware is None:
        return Verdict("failed", f"`serve hardware --json` ended with {status}, and printed no JSON")
    sliced = any(gpu["mig"] for gpu in hardware["gpus"])
    return judge_detection(hardware, None if sliced else ask_nvidia_smi())


def installed(run: Run, made: list[str]) -> Verdict:
    """The Python that has vLLM, made from wheels where those are given; appended to `made`."""
    options = run.options
    if options.wheels is not None:
        python = environment_from(options.wheels, run.scratch / "vllm")
    else:
        python = options.vllm_python or sys.executable
    install = ask_vllm(python)
    kept = dataclasses.asdict(install)
    run.versions = {name: kept[name] for name in kept if name not in ("python", "failure", "include")}
    if install.failure is not None:
        return Verdict("failed", f"the Python of --vllm-python cannot be asked: {install.failure}")
    if install.version is None:
        raise Unchecked("vLLM is not installed there: name its Python with --vllm-python, or give --wheels")
    if (refusal := refuse_version(install.version)) is not None:
        raise Unchecked(refusal)
    if install.cuda is None and not options.cpu:
        raise Unchecked(f"vLLM {install.version} is built for processors there: --cpu goes the same way with it")
    if install.cuda is not None and options.cpu:
        raise Unchecked(f"vLLM {install.version} is built for CUDA {install.cuda}: leave --cpu out, or name another")
    made.append(python)
    return Verdict("passed", figures=run.versions)


def doctor(setting: Setting) -> Verdict:
    """`serve doctor --json`: no problem, and what it warns of."""
    status, told = ask_json("doctor", "--config", str(setting.config))
    if told is None:
        return Verdict("failed", f"`serve doctor --json` ended with {status}, and printed no JSON")
    worth = [one for one in told["findings"] if one["status"] in ("problem", "warning")]
    lines = [f"{one['name']}: {one['found']}" for one in worth if one["status"] == "problem"]
    return Verdict("failed" if lines else "passed", "\n".join(lines), {"findings": worth})


def plans(run: Run, setting: Setting, python: Path) -> Verdict:
    """`serve plan` of what is served next; of the rest of the catalogue, whether it would fit."""
    names = ["demo", "llama3-8b", *(shape for shape in run.options.shapes if shape != "llama3-8b")]
    flags = ("--backend", "vllm", "--config", str(setting.config))
    asked = {name: ask_json("plan", name, *flags) for name in names}
    verdict = judge_plans(asked, needs_gpu=not run.options.cpu)
    ours = Settings.model_validate({"engines": {"vllm": {"python": str(python)}}})
    engines = installed_engines(run.machine, ours, {"vllm"})
    catalogue = load_catalogue()
    chats = [model.name for model in catalogue.models if model.kind == "chat"]
    wishes = Wishes(backend="vllm")
    fits = {name: summary_of(plan(run.machine, catalogue.find(name), wishes, engines)) for name in chats}
    printed = {name: without_paths(told or {}) for name, (_, told) in asked.items()}
    return dataclasses.replace(verdict, figures={"asked": printed, "fits": fits})


def summary_of(outcome: AnyPlan | NoFit) -> dict[str, Any]:
    """What is kept of a plan for a model that is not served here."""
    if isinstance(outcome, NoFit):
        return {"refused": outcome.reason}
    return {name: getattr(outcome, name) for name in ("variant", "context", "concurrency", "kv_tokens")}


def serve_and_check(run: Run, setting: Setting, name: str, steps: tuple[str, ...], *flags: str) -> None:
    """Start it, and take the steps that need it running."""
    checks = {"cache": cache, "conformance": conformance, "overhead": overhead, "domains": domains}
    began = time.monotonic()
    try:
        with served(setting, name, flags) as running:
            run.note(f"{name}: start", started(running), time.monotonic() - began)
            for step in steps[1:]:
                run.step(f"{name}: {step}", lambda: checks[step](run, running))  # noqa: B023 - at once
    except Exception as failure:  # noqa: BLE001 - the rest is still to be checked
        run.note(f"{name}: start", Verdict("failed", str(failure)), time.monotonic() - began)
        run.leave_out((f"{name}: {step}" for step in steps[1:]), "it did not start, see above")


def started(running: Served) -> Verdict:
    """How long it took, and on what."""
    figures = {
        "ready_s": round(running.ready_s, 1),
        "engine_load_s": running.load_s,
        "stages": stages_of(running.stages),
        "plan": without_paths(running.plan),
    }
    if running.plan.get("engine") != "vllm":
        return Verdict("failed", f"planned for {running.plan.get('engine')}, not for vLLM", figures)
    if not running.stages:
        return Verdict("failed", "the start told of no stage", figures)
    return Verdict("passed", figures=figures)


def without_paths(plan: Mapping[str, Any]) -> dict[str, Any]:
    """A plan without what only this machine or the log knows of."""
    return {name: value for name, value in plan.items() if name not in ("weights", "level", "time", "logger")}


def cache(run: Run, running: Served) -> Verdict:
    """The planner's prediction against what vLLM holds, and what the GPUs then have left."""
    verdict = judge_capacity(running.plan["kv_tokens"], running.held_tokens(), run.options.kv_tolerance)
    gpus = detect().gpus
    left = {f"gpu{gpu.index}_free_bytes": gpu.memory_free_bytes for gpu in gpus}
    return dataclasses.replace(verdict, figures={**verdict.figures, **left})


def conformance(run: Run, running: Served) -> Verdict:
    """The suite, through the gateway."""
    lacking = [name for name in ("pytest", "openai", "pytest_timeout") if importlib.util.find_spec(name) is None]
    if lacking:
        raise Unchecked(f"{', '.join(lacking)}: not installed here (the `dev` extra brings them)")
    if not (ROOT / SUITE).is_dir():
        raise Unchecked(f"{SUITE} is not here: run it from a checkout")
    noted = run.scratch / "conformance.xml"
    argv = [sys.executable, "-m", "pytest", SUITE, "-k", "url and not llamacpp", f"--junitxml={noted}"]
    environment = {name: value for name, value in os.environ.items() if name != "SERVING_VLLM_PYTHON"}
    environment |= {"CONFORMANCE_URL": running.url, "CONFORMANCE_MODEL": str(running.plan["model"])}
    done = subprocess.run(
        [*argv, "-p", "no:cacheprovider"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SUITE_TIMEOUT_S,
        check=False,
    )
    if not noted.exists():
        return Verdict("failed", f"pytest ended with {done.returncode}:\n{(done.stdout + done.stderr)[-1500:]}")
    return judge_conformance(noted.read_text(encoding="utf-8"))


def overhead(run: Run, running: Served) -> Verdict:
    """Rounds through the gateway and straight to the engine's socket, which is the bare `vllm serve`: one process, one
    command line, so that only the gateway differs."""
    options, words = run.options, Words(int(time.time()))
    load = Load("unshared", shared=0, own=110)
    cpu_s: list[float] = []
    """Of the gateway, in each of its rounds."""

    async def one(socket: Path | None) -> Measured:
        url = running.url if socket is None else "http://engine"
        before = cpu_seconds(running.process.pid)
        measured = await measure(url, load, options.concurrency, options.requests, words, unix_socket=socket)
        if socket is None:
            cpu_s.append(cpu_seconds(running.process.pid) - before)
        return measured

    async def rounds() -> list[tuple[Measured, Measured]]:
        for socket in (None, running.socket):
            await one(socket)  # warm-up, not counted
        found = []
        for number in range(options.rounds):
            if number % 2:
                bare = await one(running.socket)
                gateway = await one(None)
            else:
                gateway = await one(None)
                bare = await one(running.socket)
            found.append((gateway, bare))
        return found

    chunks = options.concurrency * options.requests * load.output  # vLLM sends each token by itself
    found = asyncio.run(rounds())
    return judge_overhead(found, options.least_throughput, 1e6 * statistics.median(cpu_s) / chunks)


def domains(run: Run, running: Served) -> Verdict:
    """Nothing that one cache domain computed helps another, as far as tokens and the clock can tell."""
    return judge_leaks(measure_leaks(running.socket, str(running.plan["model"]), run.options.pairs))
