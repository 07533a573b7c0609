"""When requests are sent: so many clients, a rate, a ramp, a trace, or a search for where the server ends. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from serving.bench.lengths import Table

Rate = Annotated[float, Field(gt=0, le=1e5)]
MOST_CLIENTS: Final = 20_000


class Closed(Table):
    """So many clients, each of which asks again as soon as it has its answer."""

    kind: Literal["closed"]
    clients: int = Field(ge=1, le=MOST_CLIENTS)


class Open(Table):
    """Requests come when they come, whether the last ones are done or not."""

    kind: Literal["constant", "poisson", "gamma"]
    rate: Rate = Field(description="requests a second")
    burstiness: float = Field(default=1.0, gt=0, le=1000, description="of gamma: 1 is Poisson, less comes in bursts")

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


class Ramp(Table):
    """Requests at random, at a rate that grows (or falls) evenly from one to the other over the run."""

    kind: Literal["ramp"]
    start: Rate
    end: Rate

    def due(self, count: int, random: np.random.Generator) -> npt.NDArray[np.float64]:
        """When each of `count` requests is due, in seconds from the first.

        The run takes as long as `count` requests do at the mean of both rates. A Poisson process of a changing rate is
        one of rate 1 whose time is bent by the rate's integral (Çinlar, 1975).
        """
        waits = random.exponential(1.0, count)
        waits[0] = 0.0
        seen = np.cumsum(waits)
        slope = (self.end - self.start) * (self.end + self.start) / (2 * count)
        # the integral of start + slope·t is to be `seen`; past the end of a falling ramp the last rate goes on
        root = np.sqrt(np.maximum(self.start**2 + 2 * slope * seen, min(self.start, self.end) ** 2))
        return np.asarray(2 * seen / (self.start + root))


class Trace(Table):
    """Requests when somebody's were: lines of JSON, each with its time and its lengths (docs/bench.md)."""

    kind: Literal["trace"]
    path: str
    speed: float = Field(default=1.0, gt=0, le=1e4, description="2 replays it in half of its time")


class Sweep(Table):
    """Level after level until the server no longer holds, then between the last two."""

    kind: Literal["sweep"]
    over: Literal["clients", "rate"]
    least: float = Field(gt=0, le=1e5)
    most: float = Field(gt=0, le=1e5)
    share: float = Field(
        default=0.99, gt=0, le=1, description="of requests that must meet the objective, for a level to hold"
    )
    seconds: float = Field(
        default=120.0, gt=0, le=86400, description="that a level of a rate takes at most, whatever `requests` says"
    )
    gain: float = Field(
        default=1.05, gt=1, le=2, description="over the level before, in tokens/s, where there is no objective"
    )

    @model_validator(mode="after")
    def _order(self) -> Sweep:
        if self.least > self.most:
            message = f"least ({self.least:g}) exceeds most ({self.most:g})"
            raise ValueError(message)
        if self.over == "clients" and (self.least != int(self.least) or self.most > MOST_CLIENTS):
            message = f"clients are whole numbers, {MOST_CLIENTS} at most"
            raise ValueError(message)
        return self

    def at(self, level: float) -> Closed | Open:
        """The load of one level."""
        if self.over == "clients":
            return Closed(kind="closed", clients=int(level))
        return Open(kind="poisson", rate=level)


AnyLoad = Annotated[Closed | Open | Ramp | Trace | Sweep, Field(discriminator="kind")]
_FINE_ENOUGH: Final = 1.15
"""A search is over where the level that failed is at most so many times the one that held."""


def plan_level(sweep: Sweep, seen: Sequence[tuple[float, bool]]) -> float | None:
    """The next level to measure, None where the search is over. `seen`: levels measured, and whether each held."""
    held, failed = bracket(seen)
    if held is None:
        return sweep.least if failed is None else None
    if failed is None:
        upper = min(sweep.most, 2 * held)
        return upper if upper > held else None
    if failed <= _FINE_ENOUGH * held:
        return None
    middle = math.sqrt(held * failed)
    if sweep.over == "clients":
        middle = round(middle)
        return middle if held < middle < failed else None
    return middle


def bracket(seen: Sequence[tuple[float, bool]]) -> tuple[float | None, float | None]:
    """The highest level that held below the lowest that did not, and that one."""
    failed = min((level for level, has_held in seen if not has_held), default=None)
    held = max((level for level, has_held in seen if has_held and (failed is None or level < failed)), default=None)
    return held, failed
