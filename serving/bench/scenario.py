"""What is asked of a server, and when: scenario files, checked, and the timetable that they make.

A scenario and its seed say everything about a load before the first request is sent; `timetable` is a pure function of
them, so that two machines are asked the same.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import Field, ValidationError, model_validator

import serving
from serving.bench.lengths import Lengths, Table
from serving.bench.load import AnyLoad, Closed, Sweep, Trace
from serving.bench.samples import Objective
from serving.bench.work import AnyWork, Conversation, Line, Lines, Words, read_lines
from serving.errors import BadFile, BadSettings, FileMissing
from serving.settings.wording import mistake

_PACKAGE: Final = Path(serving.__file__).parent
_INSTALLED: Final = _PACKAGE / "scenarios"
SHIPPED: Final = _INSTALLED if _INSTALLED.exists() else _PACKAGE.parent / "benchmarks" / "scenarios"
"""Beside the package's modules when installed, at the top of the repository in a checkout."""
MOST_BYTES: Final = 1 << 30
"""Of a file that a scenario names."""
_ROUNDS: Final = 3
"""Requests that each client of a sweep's level sends at least."""
_LEAST: Final = 60
"""Requests of a level of a rate, which an interval wants."""
Milliseconds = Annotated[float, Field(gt=0, le=1e7)]


class ObjectiveTable(Table):
    """What a request must meet to count as of use."""

    ttft_ms: Milliseconds | None = None
    tpot_ms: Milliseconds | None = None
    e2e_ms: Milliseconds | None = None
    stall_ms: Milliseconds | None = None

    def objective(self) -> Objective:
        """The same in seconds."""
        told = (self.ttft_ms, self.tpot_ms, self.e2e_ms, self.stall_ms)
        return Objective(*(None if bound is None else bound / 1000 for bound in told))


class Scenario(Table):
    """A scenario file."""

    title: str = Field(min_length=1, max_length=200)
    route: Literal["chat", "completions"] = "chat"
    seed: int = Field(default=1, ge=0, lt=1 << 32)
    requests: int = Field(ge=1, le=1_000_000, description="measured ones; in each level of a sweep, of a trace at most")
    warm_up: int = Field(default=0, ge=0, le=100_000, description="requests before them, which are not counted")
    shared_prefix: int = Field(
        default=0, ge=0, le=1 << 20, description="tokens that all prompts begin with, of their length"
    )
    load: AnyLoad
    work: AnyWork = Words()
    prompt: Lengths | None = Field(default=None, description="not wanted where a trace or a file says it")
    output: Lengths | None = Field(default=None, description="likewise")
    objective: ObjectiveTable = ObjectiveTable()

    @model_validator(mode="after")
    def _fits_together(self) -> Scenario:
        is_told = isinstance(self.load, Trace) or isinstance(self.work, Lines)
        for name in ("prompt", "output"):
            if getattr(self, name) is None and not is_told:
                raise ValueError(f"`{name}` is missing: how long it is, in tokens")
        if isinstance(self.work, Conversation):
            self._check_conversation(self.work)
        if self.route == "completions" and self.work.kind not in ("words", "file", "rag"):
            raise ValueError(f"work of the kind `{self.work.kind}` goes with the route `chat`")
        if isinstance(self.load, Trace) and isinstance(self.work, Lines):
            raise ValueError("a trace brings its own requests: leave the work of the kind `file` out")  # noqa: TRY004
        return self

    def _check_conversation(self, work: Conversation) -> None:
        if isinstance(self.load, Trace):
            raise ValueError("a trace has no conversations: each of its lines is a request")  # noqa: TRY004
        for name in ("requests", "warm_up"):
            if getattr(self, name) % work.turns:
                raise ValueError(f"`{name}` ({getattr(self, name)}) is no multiple of the turns ({work.turns})")

    @property
    def turns(self) -> int:
        """Requests that follow from each other."""
        return self.work.turns if isinstance(self.work, Conversation) else 1

    def at(self, level: float) -> Scenario:
        """One level of a sweep, as a scenario of its own, whose prompts are not those of another level."""
        if not isinstance(self.load, Sweep):
            raise TypeError("it is no sweep")
        load = self.load.at(level)
        count = self.requests
        if isinstance(load, Closed):
            count = max(count, _ROUNDS * load.clients * self.turns)
        else:
            count = min(count, max(_LEAST, round(level * self.load.seconds)))
        count = max(1, count // self.turns) * self.turns
        seed = (self.seed + 1 + round(1000 * level)) % (1 << 32)
        return self.model_copy(update={"load": load, "requests": count, "seed": seed})


@dataclass(frozen=True, slots=True)
class Loaded:
    """A scenario, and what lies in the files that it names."""

    scenario: Scenario
    sha256: str
    """Of the scenario file and those that it names."""
    lines: tuple[Line, ...] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """One request to come."""

    number: int
    due: float | None
    """Seconds after the first; None where it is sent as soon as a client is free, or the turn before is answered."""
    prompt_tokens: int | None
    """None where the request is a user's own."""
    output_tokens: int | None
    """None where the answer ends by itself."""
    line: Line | None = None
    """What a file says of it."""


def timetable(scenario: Scenario, lines: Sequence[Line] = ()) -> tuple[Wanted, ...]:
    """Every request, the warm-up's first, in the order in which they are sent; turns of a conversation in a row.

    `lines` are those of the trace or the user's file. Raises BadFile where a trace lacks a time.
    """
    count = scenario.warm_up + scenario.requests
    arrivals, prompts, outputs, order = (np.random.default_rng([scenario.seed, stream]) for stream in range(4))
    if isinstance(scenario.load, Trace):
        return _replayed(scenario, lines, count)
    due: list[float | None] = [None] * count
    if not isinstance(scenario.load, Closed | Sweep):
        due[:: scenario.turns] = (float(when) for when in scenario.load.due(count // scenario.turns, arrivals))
    chosen: list[Line | None] = [None] * count
    if isinstance(scenario.work, Lines):
        places = np.arange(len(lines))
        if scenario.work.shuffled:
            order.shuffle(places)
        chosen = [lines[places[number % len(lines)]] for number in range(count)]
    drawn = None if scenario.prompt is None else scenario.prompt.draw(count, prompts)
    answers = None if scenario.output is None else scenario.output.draw(count, outputs)
    # a prompt has its own word beside what all share
    least = scenario.shared_prefix + 1
    return tuple(
        Wanted(
            number,
            due[number],
            None if drawn is None or line is not None else max(int(drawn[number]), least),
            _told_or(line, None if answers is None else int(answers[number])),
            line,
        )
        for number, line in enumerate(chosen)
    )


def _told_or(line: Line | None, drawn: int | None) -> int | None:
    return drawn if line is None or line.output_tokens is None else line.output_tokens


def _replayed(scenario: Scenario, lines: Sequence[Line], count: int) -> tuple[Wanted, ...]:
    """A trace's first requests, in the order of their time."""
    if any(line.at_s is None for line in lines):
        raise BadFile("a line of the trace has no time", hint="give each `at_s`, in seconds, or `timestamp`, in ms")
    ordered = sorted(lines, key=lambda line: line.at_s or 0.0)[:count]
    begin, speed = ordered[0].at_s or 0.0, getattr(scenario.load, "speed", 1.0)
    prompts, outputs = (np.random.default_rng([scenario.seed, stream]) for stream in (1, 2))
    drawn = None if scenario.prompt is None else scenario.prompt.draw(len(ordered), prompts)
    answers = None if scenario.output is None else scenario.output.draw(len(ordered), outputs)
    found = []
    for number, line in enumerate(ordered):
        prompt = line.prompt_tokens or (None if drawn is None else int(drawn[number]))
        output = _told_or(line, None if answers is None else int(answers[number]))
        if not line.asked and (prompt is None or output is None):
            message = "a line of the trace has neither a request nor lengths, and the scenario none for it"
            raise BadFile(message, hint="give it `prompt_tokens` and `output_tokens`, or the scenario both tables")
        own = line if line.asked else None
        due = ((line.at_s or 0.0) - begin) / speed
        found.append(Wanted(number, due, None if own else max(prompt or 1, scenario.shared_prefix + 1), output, own))
    return tuple(found)


def load_scenario(name: str) -> Loaded:
    """A scenario by its name, where it ships, or by its file's path.

    Raises FileMissing, BadSettings with the field that is wrong, or BadFile for a file that it names.
    """
    path = Path(name)
    if not path.suffix:
        path = SHIPPED / f"{name}.toml"
    try:
        raw = path.read_bytes()
    except OSError as error:
        known = ", ".join(f"`{each.stem}`" for each in sorted(SHIPPED.glob("*.toml")))
        message = f"no scenario `{name}`: {error.strerror or 'it cannot be read'}"
        raise FileMissing(message, hint=f"{known} ship; a path ends in .toml") from None
    try:
        scenario = Scenario.model_validate(tomllib.loads(raw.decode()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSettings(f"`{path}` is not TOML: {error}", hint="see docs/bench.md") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        where = f"`{path}`: `{field}`" if field else f"`{path}`"
        raise BadSettings(f"{where}: {mistake(first)}", hint="see docs/bench.md") from None
    digest = hashlib.sha256(raw)
    lines: tuple[Line, ...] = ()
    for table in (scenario.load, scenario.work):
        if isinstance(table, Trace | Lines):
            content = _content_of(path.parent / table.path)
            digest.update(content)
            lines = read_lines(content.decode(errors="replace"), table.path)
    if isinstance(scenario.load, Trace):
        found = len(timetable(scenario, lines))  # and what is wrong with it is said now
        if scenario.warm_up >= found:
            message = f"`{path}`: all {found} requests of the trace are `warm_up` ({scenario.warm_up})"
            raise BadSettings(message, hint="make it less")
        scenario = scenario.model_copy(update={"requests": found - scenario.warm_up})
    elif any(not line.asked for line in lines):
        raise BadFile(f"`{path}`: a line of its file asks for nothing", hint="give each line `messages` or `prompt`")
    return Loaded(scenario, digest.hexdigest(), lines)


def override(loaded: Loaded, requests: int | None) -> Loaded:
    """The same with another number of requests, which its digest then says too."""
    if requests is None:
        return loaded
    tables = {**loaded.scenario.model_dump(), "requests": requests}
    try:
        scenario = Scenario.model_validate(tables)
    except ValidationError as error:
        raise BadSettings(f"{requests} requests: {mistake(error.errors(include_url=False)[0])}") from None
    digest = hashlib.sha256(f"{loaded.sha256} requests {requests}".encode()).hexdigest()
    return replace(loaded, scenario=scenario, sha256=digest)


def _content_of(path: Path) -> bytes:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise BadFile(f"`{path}` is larger than {MOST_BYTES} bytes", hint="cut it")
        return path.read_bytes()
    except OSError as error:
        hint = "a path in a scenario is relative to the scenario's file"
        raise FileMissing(f"cannot read `{path}`: {error.strerror}", hint=hint) from None
