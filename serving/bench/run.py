"""A whole run: prepare, drive, and say what it was, level by level where it is a sweep."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Protocol

from serving.bench.counting import Asking, CountedBy, Counting, find_counting
from serving.bench.crew import Driven, Listener, crew_size, drive
from serving.bench.drive import Target
from serving.bench.identity import identify, only_model, still_answers
from serving.bench.load import Closed, Ramp, Sweep, Trace, bracket, plan_level
from serving.bench.meter import Meter
from serving.bench.prepare import prepare
from serving.bench.record import Saturation, Server, Stage
from serving.bench.result import Taken, level_of, stage_of
from serving.bench.samples import Objective, Sample
from serving.bench.scenario import Loaded, Scenario, Wanted, timetable
from serving.bench.stopping import stopping, unless_stopped
from serving.errors import EngineFailed
from serving.gateway.upstream import EngineBroke, Upstream
from serving.hardware.power import Meters

_LOADING_S: Final = 60.0


class RunListener(Listener, Protocol):
    """Told of the stages as well."""

    def on_prepare(self, done: int, of: int) -> None:
        """So many prompts are written."""

    def on_stage(self, scenario: Scenario) -> None:
        """A stage begins."""

    def on_stage_end(self, stage: Stage) -> None:
        """A stage has ended."""


@dataclass(slots=True)
class Measured:
    """What a run found."""

    model: str
    stages: list[Stage] = field(default_factory=list)
    samples: list[Mapping[int, Sample]] = field(default_factory=list)
    """Of each stage, by the number of the request."""
    warm_up: list[int] = field(default_factory=list)
    saturation: Saturation | None = None
    server: Server | None = None
    counted_by: CountedBy = "none"
    is_exact: bool = True
    processes: int = 1
    is_stopped: bool = False
    is_gone: bool = False
    """The server died on the way."""


async def measure(
    loaded: Loaded,
    target: Target,
    listener: RunListener,
    *,
    tokenizer: Path | None = None,
    processes: int | None = None,
    meters: Meters | None = None,
) -> Measured:
    """Run a scenario against a server. SIGINT and SIGTERM end it, and what was measured by then is kept.

    `meters` are those of the machine that serves. Raises EngineFailed where the server does not answer, and what
    `find_counting` does.
    """
    upstream, found = Upstream(target.origin), Measured(target.model)
    with stopping() as stop:
        try:
            counting, found.is_stopped = await unless_stopped(
                stop, _met(upstream, target, loaded, tokenizer, stop, found)
            )
            if counting is None:
                return found
            target = replace(target, model=found.model)
            run = _Run(loaded, target, counting, listener, stop, processes, meters, found)
            await run.all()
            if any(stage.requests.failed or stage.requests.truncated for stage in found.stages):
                found.is_gone = not await still_answers(upstream, target)
        except* EngineBroke as broke:
            # between two levels of a sweep those that were measured stay; before the first there is nothing to keep
            found.is_gone = True
            if not found.stages:
                words = "; ".join(dict.fromkeys(_words_of(broke)))
                message = f"`{target.origin}` does not answer: {words}"
                raise EngineFailed(message, hint="start the server first, or correct --url") from None
        finally:
            upstream.close()
    return found


def _words_of(broke: BaseExceptionGroup[EngineBroke]) -> Iterator[str]:
    for one in broke.exceptions:
        if isinstance(one, BaseExceptionGroup):
            yield from _words_of(one)
        else:
            yield one.message


async def _met(
    upstream: Upstream, target: Target, loaded: Loaded, tokenizer: Path | None, stop: asyncio.Event, found: Measured
) -> Counting:
    """Get to know the server: its model, what it is, that it answers, and who counts its tokens."""
    found.model = target.model or await only_model(upstream, target)
    target = replace(target, model=found.model)
    found.server = await identify(upstream, target)
    asking = Asking(upstream, target.model, loaded.scenario.route, target.head, target.timeout_s)
    await _until_it_answers(asking, target, stop)
    counting = await find_counting(asking, tokenizer)
    found.counted_by = counting.by
    return counting


async def _until_it_answers(asking: Asking, target: Target, stop: asyncio.Event) -> None:
    """Ask for one token; a server that is still loading is waited for. Raises EngineFailed where it refuses.

    A run against a server that refuses everything would measure how fast it does.
    """
    deadline = time.monotonic() + _LOADING_S
    while not stop.is_set():
        refusal = await asking.refusal()
        if refusal is None:
            return
        status, words = refusal
        if status != 503 or time.monotonic() > deadline:
            message = (
                f"`{target.origin}` refuses a request to `{target.model}`: status {status}{words and f': {words}'}"
            )
            raise EngineFailed(message, hint="see that it serves the model under this name; --key-file has its key")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await stop.wait()


@dataclass(slots=True)
class _Run:
    """One run's parts."""

    loaded: Loaded
    target: Target
    counting: Counting
    listener: RunListener
    stop: asyncio.Event
    processes: int | None
    meters: Meters | None
    found: Measured

    async def all(self) -> None:
        """Every stage."""
        scenario = self.loaded.scenario
        if not isinstance(scenario.load, Sweep):
            await self._stage(scenario)
            return
        sweep, seen = scenario.load, list[tuple[float, bool]]()
        while (level := plan_level(sweep, seen)) is not None and not self.stop.is_set():
            stage = await self._stage(scenario.at(level))
            if stage is None or not stage.is_whole:
                break
            seen.append((level, has_held(scenario, stage, self.found.stages[:-1])))
        self.found.saturation = saturation_of(scenario, seen, self.found.stages)

    async def _stage(self, scenario: Scenario) -> Stage | None:
        """Measure one; None where it was stopped before its first request."""
        wanted = timetable(scenario, self.loaded.lines)
        writing = prepare(scenario, wanted, self.target.model, self.counting, self.listener.on_prepare)
        prepared, self.found.is_stopped = await unless_stopped(self.stop, writing)
        if prepared is None:
            return None
        jobs, is_exact = prepared
        self.found.is_exact = self.found.is_exact and is_exact
        clients = scenario.load.clients if isinstance(scenario.load, Closed) else None
        size = self.processes or crew_size(clients, _rate_of(scenario, wanted), len(os.sched_getaffinity(0)))
        if clients is not None:
            size = min(size, clients)
        self.found.processes = max(self.found.processes, size)
        self.listener.on_stage(scenario)
        with Meter(self.meters) as meter:
            driven = await drive(self.target, jobs, clients, self.stop, self.listener, size)
        taken = Taken(
            tuple(sorted(driven.samples.items())),
            driven.began,
            driven.kept,
            meter.metered,
            await self._recounted(driven),
        )
        stage = stage_of(scenario, taken)
        self.found.is_stopped = driven.is_stopped
        self.found.stages.append(stage)
        self.found.samples.append(driven.samples)
        self.found.warm_up.append(scenario.warm_up)
        self.listener.on_stage_end(stage)
        return stage

    async def _recounted(self, driven: Driven) -> tuple[tuple[int, int], ...]:
        """Some answers' counts: by the server's usage, and by their text."""
        if self.counting.text is None:
            return ()
        found = []
        with contextlib.suppress(EngineBroke):  # a server that died leaves what was measured
            for number, text in sorted(driven.texts.items()):
                told = driven.samples[number].output_tokens
                if told is not None and text:
                    found.append((told, await self.counting.text(text)))
        return tuple(found)


def _rate_of(scenario: Scenario, wanted: Sequence[Wanted]) -> float:
    """Requests a second, at most; 0 where clients decide."""
    if isinstance(scenario.load, Trace):
        last = wanted[-1].due or 0.0
        return len(wanted) / last if last else 0.0
    return max(scenario.load.start, scenario.load.end) if isinstance(scenario.load, Ramp) else level_of(scenario)


def has_held(scenario: Scenario, stage: Stage, before: Sequence[Stage]) -> bool:
    """Whether the server held a level of a sweep. Pure.

    With an objective: enough requests met it. Without: by a rate, latency did not go on growing; by clients, the level
    brought more tokens a second than all lower ones.
    """
    load = scenario.load
    assert isinstance(load, Sweep)  # noqa: S101 - the caller has one
    if scenario.objective.objective() != Objective():
        share = stage.goodput.share if stage.goodput is not None else None
        return share is not None and share.value >= load.share
    if stage.requests.completed < stage.requests.total * load.share:
        return False
    if load.over == "rate":
        return stage.steady is not False
    speed = stage.rates.output_tokens_per_s
    best = max(
        (
            one.rates.output_tokens_per_s.value
            for one in before
            if one.level < stage.level and one.rates.output_tokens_per_s
        ),
        default=0.0,
    )
    return speed is not None and speed.value >= load.gain * best


def saturation_of(scenario: Scenario, seen: Sequence[tuple[float, bool]], stages: Sequence[Stage]) -> Saturation:
    """Where the sweep found the end. Pure."""
    load = scenario.load
    assert isinstance(load, Sweep)  # noqa: S101 - the caller has one
    held, failed = bracket(seen)
    if scenario.objective.objective() != Objective():
        why = f"at least {load.share:.1%} of requests met the objective"
    elif load.over == "rate":
        why = "latency did not go on growing"
    else:
        why = f"tokens a second were at least {load.gain:g} times those of every lower level"
    speeds = [stage.rates.output_tokens_per_s for stage in stages if stage.rates.output_tokens_per_s is not None]
    most = max(speeds, key=lambda figure: figure.value, default=None)
    return Saturation(over=load.over, held=held, failed=failed, why=why, most_output_tokens_per_s=most)
