"""How long prompts and answers are, in tokens. Pure."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

Tokens = Annotated[int, Field(ge=1, le=1 << 20)]


class Table(BaseModel):
    """A table of a scenario file: nothing unknown in it, no number that is none."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Fixed(Table):
    """Always the same length."""

    kind: Literal["fixed"]
    tokens: Tokens

    def draw(self, count: int, _random: np.random.Generator) -> npt.NDArray[np.int64]:
        """`count` lengths."""
        return np.full(count, self.tokens, dtype=np.int64)


class _Bounded(Table):
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


class Empirical(Table):
    """Lengths that were seen elsewhere, drawn again."""

    kind: Literal["empirical"]
    tokens: tuple[Tokens, ...] = Field(min_length=1, max_length=1 << 20)

    def draw(self, count: int, random: np.random.Generator) -> npt.NDArray[np.int64]:
        """`count` lengths."""
        return random.choice(np.array(self.tokens, dtype=np.int64), count)


Lengths = Annotated[Fixed | Normal | LogNormal | Empirical, Field(discriminator="kind")]
