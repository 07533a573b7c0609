"""What is asked of a server, and when: scenario files, checked, and the timetable that they make.

A scenario and its seed say everything about a load before the first request is sent; `timetable` is a pure function of
them, so that two machines are asked the same.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

import serving
from serving.bench.samples import Objective
from serving.errors import BadSettings, FileMissing
from serving.settings.wording import mistake

_PACKAGE: Final = Path(serving.__file__).parent
_INSTALLED: Final = _PACKAGE / "scenarios"
SHIPPED: Final = _INSTALLED if _INSTALLED.exists() else _PACKAGE.parent / "benchmarks" / "scenarios"
"""Beside the package's modules when installed, at the top of the repository in a checkout."""
Tokens = Annotated[int, Field(ge=1, le=1 << 20)]
Rate = Annotated[float, Field(gt=0, le=1e5)]
Milliseconds = Annotated[float, Field(gt=0, le=1e7)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Fixed(_Table):
    """Always the same length."""

    kind: Literal["fixed"]
    tokens: Tokens

    def draw(self, count: int, _random: np.random.Generator) -> npt.NDArray[np.int64]:
        """`count` lengths."""
        return np.full(count, self.tokens, dtype=np.int64)


class _Bounded(_Table):
    least: Tokens = 1
    most: Tokens

    @model_validator(mode="after")
    def _order(self) -> _Bounded:
        if self.least > self.most:
            message = f"least ({self.least}) exceeds most ({self.most})"
            raise ValueError(message)
        return self

    def _within(self, lengths: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        return np.clip(np.rint(lengths), self.least, self.most).astype(np.int64)


class Normal(_Bounded):
    """Lengths around a mean."""

    kind: Literal["normal"]
    mean: Tokens
    deviation: float = Field(ge=0, le=1 << 20)

    def draw(self, count: int, random: np.random.Generator) -> npt.NDArray[np.int64]:
        """`count` lengths."""
        return self._within(random.normal(self.mean, self.deviation, count))


class LogNormal(_Bounded):
    """Mostly short, some long: what people send and what models answer."""

    kind: Literal["lognormal"]
    median: Tokens
    sigma: float = Field(ge=0, le=5, description="spread of the logarithm")

    def draw(self, count: int, random: np.random.Generator) -> npt.NDArray[np.int64]:
        """`count` lengths."""
        return self._within(self.median * np.exp(random.normal(0, self.sigma, count)))


class Empirical(_Table):
    """Lengths that were seen elsewhere, drawn again."""

    kind: Literal["empirical"]
    tokens: tuple[Tokens, ...] = Field(min_length=1, max_length=1 << 20)

    def draw(self, count: int, random: np.random.Generator) -> npt.NDArray[np.int64]:
        """`count` lengths."""
        return random.choice(np.array(self.tokens, dtype=np.int64), count)


Lengths = Annotated[Fixed | Normal | LogNormal | Empirical, Field(discriminator="kind")]


class Closed(_Table):
    """So many clients, each of which asks again as soon as it has its answer."""

    kind: Literal["closed"]
    clients: int = Field(ge=1, le=1000)


class Open(_Table):
    """Requests come when they come, whether the last ones are done or not."""

    kind: Literal["constant", "poisson", "gamma"]
    rate: Rate = Field(description="requests a second")
    burstiness: float = Field(1.0, gt=0, le=1000, description="of gamma: 1 is Poisson, less comes in bursts")

    @model_validator(mode="after")
    def _only_gamma(self) -> Open:
        if self.kind != "gamma" and self.burstiness != 1.0:
            message = f"burstiness goes with `gamma`, not with `{self.kind}`"
            raise ValueError(message)
        return self

    def due(self, count: int, random: np.random.Generator) -> npt.NDArray[np.float64]:
        """When each of `count` requests is due, in seconds from the first."""
        if self.kind == "constant":
            return np.arange(count) / self.rate
        shape = self.burstiness
        waits = random.gamma(shape, 1 / (shape * self.rate), count)
        waits[0] = 0.0
        return np.asarray(np.cumsum(waits))


class ObjectiveTable(_Table):
    """What a request must meet to count as of use."""

    ttft_ms: Milliseconds | None = None
    tpot_ms: Milliseconds | None = None
    e2e_ms: Milliseconds | None = None
    stall_ms: Milliseconds | None = None

    def objective(self) -> Objective:
        """The same in seconds."""
        told = (self.ttft_ms, self.tpot_ms, self.e2e_ms, self.stall_ms)
        return Objective(*(None if bound is None else bound / 1000 for bound in told))


class Scenario(_Table):
    """A scenario file."""

    title: str = Field(min_length=1, max_length=200)
    route: Literal["chat", "completions"] = "chat"
    seed: int = Field(1, ge=0, lt=1 << 32)
    requests: int = Field(ge=1, le=1_000_000, description="measured ones")
    warm_up: int = Field(0, ge=0, le=100_000, description="requests before them, which are not counted")
    shared_prefix: int = Field(0, ge=0, le=1 << 20, description="tokens that all prompts begin with, of their length")
    load: Annotated[Closed | Open, Field(discriminator="kind")]
    prompt: Lengths
    output: Lengths
    objective: ObjectiveTable = ObjectiveTable()


@dataclass(frozen=True, slots=True)
class Wanted:
    """One request to come."""

    number: int
    due: float | None
    """Seconds after the first; None where a client sends it as soon as it is free."""
    prompt_tokens: int
    output_tokens: int


def timetable(scenario: Scenario) -> tuple[Wanted, ...]:
    """Every request, the warm-up's first, in the order in which they are sent."""
    count = scenario.warm_up + scenario.requests
    arrivals, prompts, outputs = (np.random.default_rng([scenario.seed, stream]) for stream in range(3))
    due: Sequence[float | None] = [None] * count
    if isinstance(scenario.load, Open):
        due = [float(when) for when in scenario.load.due(count, arrivals)]
    # a prompt has its own word beside what all share
    lengths = np.maximum(scenario.prompt.draw(count, prompts), scenario.shared_prefix + 1)
    wanted = scenario.output.draw(count, outputs)
    return tuple(
        Wanted(number, when, int(prompt), int(output))
        for number, (when, prompt, output) in enumerate(zip(due, lengths, wanted, strict=True))
    )


def load_scenario(name: str) -> tuple[Scenario, str]:
    """A scenario by its name, where it ships, or by its file's path; and the digest of the file.

    Raises FileMissing, or BadSettings with the field that is wrong.
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
        return Scenario.model_validate(tomllib.loads(raw.decode())), hashlib.sha256(raw).hexdigest()
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSettings(f"`{path}` is not TOML: {error}", hint="see docs/bench.md") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise BadSettings(f"`{path}`: `{field}`: {mistake(first)}", hint="see docs/bench.md") from None
