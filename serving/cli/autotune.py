"""`serve bench autotune`: which settings are fastest for a model on this very machine, by trying them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import uvloop

from serving.bench.drive import Target
from serving.bench.load import Closed, Sweep
from serving.bench.record import Stage
from serving.bench.run import Measured, measure
from serving.bench.scenario import Loaded, load_scenario, override
from serving.bench.served import Served, served
from serving.bench.tune import Choice, Knob, Trial, best_of, is_better, knobs_for, plan_trial, pooled, trial_of
from serving.cli.bench import START_TIMEOUT_S, STOPPED, flags_of
from serving.cli.bench_progress import RunProgress
from serving.cli.options import PlanOptions, settings_for
from serving.cli.profile import Profile, TunedWishes, as_json, fingerprint, profile_path, write_profile
from serving.cli.runtime import catalogue_of
from serving.cli.show import print_rows
from serving.engines.remote import origin_of
from serving.errors import EngineFailed, UsageError
from serving.hardware import Machine, detect
from serving.registry import Model

_SHARE: Final = 0.99
"""Of requests that must meet the scenario's objective, where it has one."""
_TRIALS: Final = 18
"""Trials that the budget is cut into: about as many as there are values to try once, and those that confirm."""
_LEAST_REQUESTS: Final = 60
_TURNS: Final = (False, True, True, False)
"""Whether the best is measured, in the confirmation."""
_FIRST_ROUNDS: Final = 4
"""Requests of each client in the run that finds how long a trial's are to be."""


@dataclass(frozen=True, slots=True)
class TuneOptions:
    """What `serve bench autotune` was asked."""

    model: str
    scenario: str = "chat"
    budget_s: float = 900.0
    output: Path | None = None
    dry_run: bool = False
    config: Path | None = None
    json: bool = False
    plan: PlanOptions = field(default_factory=PlanOptions)


def autotune(options: TuneOptions) -> int:
    """Try settings until the time is spent, and keep the best; returns the exit status.

    Raises ServingError where not even the plan without a profile can be measured.
    """
    loaded = load_scenario(options.scenario)
    if isinstance(loaded.scenario.load, Sweep):
        raise UsageError(f"`{options.scenario}` is a sweep", hint="tune for one load: `chat`, or a file of your own")
    settings, machine = settings_for(options.config), detect()
    model = catalogue_of(settings, os.environ).find(options.model)
    with RunProgress() as progress:
        tuner = _Tuner(options, loaded, machine, model, progress)
        is_stopped = tuner.run()
        base = tuner.trials[0]
        if base.tokens_per_s is None:
            raise EngineFailed(f"`{options.model}` cannot be measured: {base.why}", hint="see that `serve` starts it")
        best, gain, is_stopped = tuner.confirmed(is_stopped=is_stopped)
    profile = Profile(
        model=model.name,
        machine=fingerprint(machine),
        backend=tuner.plan["engine"],
        wishes=TunedWishes.model_validate(_whole(best.choice, options.plan)),
        scenario=options.scenario,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        gain=gain,
    )
    told = {
        "profile": as_json(profile),
        "trials": [asdict(trial) for trial in tuner.trials],
        "confirmation": [asdict(trial) for trial in tuner.confirmation],
        "stopped": is_stopped,
    }
    text = json.dumps(told, indent=1) + "\n"
    if options.output is not None:
        options.output.write_text(text, encoding="utf-8")
    path = profile_path(settings, model.name)
    if not options.dry_run:
        # where the plan itself is best there is nothing to keep, and what an earlier search found is no longer so
        write_profile(path, profile if best.choice else None)
    if options.json:
        sys.stdout.write(text)
    else:
        _show(tuner.trials, best, profile, None if options.dry_run else path)
    return STOPPED if is_stopped else 0


def _whole(choice: Choice, plan: PlanOptions) -> dict[str, str | int]:
    """The best choice together with what was fixed by flags while it was found."""
    fixed = {name: value for name in TunedWishes.model_fields if (value := getattr(plan, name)) is not None}
    return {**fixed, **choice}


class _Tuner:
    """Runs trials, one server after the other."""

    def __init__(
        self, options: TuneOptions, loaded: Loaded, machine: Machine, model: Model, progress: RunProgress
    ) -> None:
        self._options = options
        self._loaded = loaded
        self._machine = machine
        self._model = model
        self._progress = progress
        self._deadline = time.monotonic() + options.budget_s
        self.trials: list[Trial] = []
        self.confirmation: list[Trial] = []
        """The first choice and the best once more, in turns."""
        self.plan: Mapping[str, Any] = {}
        """Of the first trial."""
        self._longest = 0.0

    def run(self) -> bool:
        """Until the time is spent or nothing is left to try; whether it was stopped before."""
        knobs: Sequence[Knob] = ()
        while (choice := plan_trial(knobs, self.trials)) is not None:
            began = time.monotonic()
            if self.trials and began + (1 + len(_TURNS)) * self._longest > self._deadline:
                break
            stage, is_stopped = self._measured(choice)
            if is_stopped:
                if not self.trials:
                    raise KeyboardInterrupt
                return True
            if isinstance(stage, str):
                self.trials.append(Trial(choice, why=stage))
                if len(self.trials) == 1:
                    break
                continue
            self.trials.append(trial_of(choice, stage, _SHARE))
            if len(self.trials) == 1:
                knobs = self._knobs()
            self._longest = max(self._longest, time.monotonic() - began)
        return False

    def confirmed(self, *, is_stopped: bool) -> tuple[Trial, float | None, bool]:
        """The best, what it gains, and whether it was stopped.

        Trials that lie minutes apart differ by what else the machine did, and the best of many is the luckiest of them;
        so plan and best are measured again in turns, and the plan stays where the best is not better there too.
        """
        base, best = self.trials[0], best_of(self.trials) or self.trials[0]
        if best is base or is_stopped:
            return (base, None, is_stopped) if best is base else (best, None, True)
        for is_best in _TURNS:
            choice = best.choice if is_best else base.choice
            stage, is_stopped = self._measured(choice)
            if is_stopped:
                return best, None, True
            self.confirmation.append(
                Trial(choice, why=stage) if isinstance(stage, str) else trial_of(choice, stage, _SHARE)
            )
        sides = [
            pooled([one for one, which in zip(self.confirmation, _TURNS, strict=True) if which is is_best])
            for is_best in (False, True)
        ]
        if not is_better(sides[1], sides[0]):
            return base, None, False
        return best, (sides[1].tokens_per_s or 0.0) / (sides[0].tokens_per_s or 1e-9), False

    def _knobs(self) -> tuple[Knob, ...]:
        engine = self.plan["engine"]
        variants = [one.name for one in self._model.variants if one.path is not None and engine in one.backends]
        load, cpu = self._loaded.scenario.load, self._machine.cpu
        threads = sorted({max(1, cpu.parallel // 2), cpu.parallel, len(cpu.usable)})
        fixed = [one.name for one in fields(PlanOptions) if getattr(self._options.plan, one.name) is not None]
        clients = load.clients if isinstance(load, Closed) else 16
        return knobs_for(self.plan, variants, threads, clients, fixed)

    def _measured(self, choice: Choice) -> tuple[Stage | str, bool]:
        """One trial's stage, or why there is none; and whether it was stopped."""
        what = ", ".join(f"{name} {value}" for name, value in choice.items()) or "as planned"
        self._progress.on_start(f"trial {len(self.trials) + 1}: {what}")
        try:
            with served(tuple(self._flags(choice)), START_TIMEOUT_S) as running:
                if not self.plan:
                    self.plan = running.plan
                    self._fit_length(running)
                found = self._drive(running, self._loaded)
        except EngineFailed as failure:
            return failure.message, False
        if found.is_stopped or not found.stages:
            return "stopped", True
        return found.stages[0], False

    def _flags(self, choice: Choice) -> Iterator[str]:
        yield from ("--model", self._options.model, "--no-profile", *flags_of(self._options.plan))
        for name, value in choice.items():
            yield from (f"--{name.replace('_', '-')}", str(value))
        if self._options.config is not None:
            yield from ("--config", str(self._options.config))

    def _drive(self, running: Served, loaded: Loaded) -> Measured:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(measure(loaded, Target(origin_of(running.url), "", running.key), self._progress))

    def _fit_length(self, running: Served) -> None:
        """Give each trial as many requests as its share of the time allows, by the speed of a short run."""
        scenario = self._loaded.scenario
        load = scenario.load
        count = _FIRST_ROUNDS * (load.clients if isinstance(load, Closed) else 4) * scenario.turns
        short = override(self._loaded, min(count, scenario.requests))
        began = time.monotonic()
        found = self._drive(running, short)
        took = time.monotonic() - began
        each = (took + running.ready_s) / max(1, short.scenario.requests + scenario.warm_up)
        room = self._options.budget_s / _TRIALS - running.ready_s
        fits = max(_LEAST_REQUESTS, int(room / each)) // scenario.turns * scenario.turns
        if found.stages:
            self._loaded = override(self._loaded, max(scenario.turns, min(scenario.requests, fits)))


def _show(trials: Sequence[Trial], best: Trial, profile: Profile, path: Path | None) -> None:
    """The trials as lines for a person."""
    rows = []
    for trial in trials:
        what = ", ".join(f"{name} {value}" for name, value in trial.choice.items()) or "as planned"
        if trial.tokens_per_s is None:
            rows.append((what, f"failed: {trial.why}"))
            continue
        spread = "" if trial.low95 is None else f" (95%: {trial.low95:,.0f} to {trial.high95:,.0f})"
        objective = "" if trial.meets else ", misses the objective"
        mark = "  best" if trial is best and len(trials) > 1 else ""
        rows.append((what, f"{trial.tokens_per_s:,.0f} tokens/s{spread}{objective}{mark}"))
    print_rows(rows)
    gain = "" if profile.gain is None else f", {profile.gain:.2f} × the plan without it"
    sys.stdout.write(f"\nbest: {', '.join(f'{n} {v}' for n, v in profile.wishes.told.items()) or 'as planned'}{gain}\n")
    if "variant" in best.choice:
        sys.stdout.write("Variants differ in what they answer, too: `--variant` keeps one, and tunes the rest.\n")
    if len(trials) == 1:
        sys.stdout.write("The time allowed for nothing beside the plan: give it more by `--budget`.\n")
    elif path is not None and not best.choice:
        sys.stdout.write("Nothing is better than the plan itself by more than chance: no profile is kept.\n")
    elif path is not None:
        sys.stdout.write(f"`serve --model {profile.model}` uses it from now on: {path}\n")
