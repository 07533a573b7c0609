"""`--fail-if 'ttft_p99 > 1.05x'`: bounds on results, read from a line of text and judged. Pure.

A bound names what must not be: FIGURE OP NUMBER UNIT. A ratio (`x`) is against the first result, and counts only where
the difference is real; what a result does not know breaks the bound, since nobody can tell that it holds.
"""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, cast

from serving.bench.record import Figure, Result, Stage
from serving.bench.report.compare import is_real, ratio_of, stages_matched
from serving.bench.report.figures import (
    NOT_ENOUGH,
    QUANTITIES,
    Unit,
    load_of,
    ratio_text,
    read_figure,
    shown,
    unit_name,
)
from serving.errors import UsageError

Op = Literal[">=", "<=", ">", "<"]
BoundUnit = Literal["x", "ms", "s", "%", ""]

_BEYOND: Final[dict[Op, Callable[[float, float], bool]]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_ALLOWED: Final[dict[str, tuple[Unit, ...]]] = {"ms": ("s",), "s": ("s",), "%": ("share",)}
_SCALE: Final = {"ms": 1e-3, "%": 1e-2}
_FIGURE: Final = re.compile(r"[A-Za-z0-9_]+")
_OP: Final = re.compile(r">=|<=|>|<")
_NUMBER: Final = re.compile(r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_UNIT: Final = re.compile(r"x|ms|s|%|$")
FIGURES: Final = (
    "figures: ttft, e2e, tpot, gap, stall, mean_gap_of_request, normalised_latency, each with _p50, _p90, _p99 or "
    "_mean (ttft, e2e and normalised_latency also as ttft_from_due_p99); "
    + ", ".join(name for name, quantity in QUANTITIES.items() if quantity.unit != "s")
)


@dataclass(frozen=True, slots=True)
class Bound:
    """What must not be."""

    figure: str
    """A name in `QUANTITIES`."""
    op: Op
    number: float
    """As it was written, in `unit`."""
    unit: BoundUnit
    """`x` for a ratio to the first result; empty for the figure's own unit: seconds, shares of 1, tokens/s, …"""

    def __str__(self) -> str:
        return f"{self.figure} {self.op} {repr(self.number).removesuffix('.0')}{self.unit}"

    @property
    def limit(self) -> float:
        """The number in the figure's own unit; of a ratio, the ratio."""
        return self.number * _SCALE.get(self.unit, 1.0)


@dataclass(frozen=True, slots=True)
class Break:
    """A bound that a result breaks."""

    bound: Bound
    name: str
    """Of the result."""
    why: str
    """What was found, in words."""

    def __str__(self) -> str:
        return f"`{self.name}` breaks `{self.bound}`: {self.why}"


def read_bound(text: str) -> Bound:
    """The bound that a text names. Raises UsageError with the place of what is wrong."""
    place, (name, start) = 0, _take(text, 0, _FIGURE, "a figure's name")
    quantity = QUANTITIES.get(name)
    if quantity is None:
        near = difflib.get_close_matches(name, QUANTITIES, 1)
        meant = f"did you mean `{near[0]}`? " if near else ""
        raise _wrong(text, start, f"`{name}` is no figure", hint=meant + FIGURES)
    op, place = _take(text, start + len(name), _OP, "one of > >= < <=")
    written, place = _take(text, place + len(op), _NUMBER, "a number")
    value = float(written)
    if not math.isfinite(value):
        raise _wrong(text, place, f"`{written}` is too large")
    unit, place = _take(text, place + len(written), _UNIT, "x, ms, s, % or nothing")
    if unit in _ALLOWED and quantity.unit not in _ALLOWED[unit]:
        raise _wrong(text, place, f"`{name}` is not measured in {unit}", hint="leave the unit away, or use x")
    if text[place + len(unit) :].strip():
        raise _wrong(text, place + len(unit), "nothing more is wanted")
    return Bound(name, cast("Op", op), value, cast("BoundUnit", unit))


def breaks(bound: Bound, results: Sequence[Result]) -> tuple[Break, ...]:
    """Where results break it: of a ratio, all but the first against it; of anything else, every one of them."""
    if bound.unit == "x":
        judged = [(other, _against(bound, results[0], other)) for other in results[1:]]
    else:
        judged = [(result, [_alone(bound, stage) for stage in result.stages]) for result in results]
    found = []
    for result, whys in judged:
        nothing = "cannot tell: it has no stage to judge" if bound.unit != "x" else "cannot tell: no load is the same"
        found += [Break(bound, result.name, why) for why in (whys or [nothing]) if why is not None]
    return tuple(found)


def _alone(bound: Bound, stage: Stage) -> str | None:
    figure, unit = read_figure(stage, bound.figure), QUANTITIES[bound.figure].unit
    if figure is None:
        return f"cannot tell: {NOT_ENOUGH} at {load_of(stage)}"
    if not _BEYOND[bound.op](figure.value, bound.limit):
        return None
    return f"{shown(figure.value, unit)} {unit_name(unit)} at {load_of(stage)}"


def _against(bound: Bound, first: Result, other: Result) -> list[str | None]:
    return [
        _ratio(bound, read_figure(base, bound.figure), read_figure(stage, bound.figure), load_of(stage))
        for base, stage in stages_matched(first, other)
    ]


def _ratio(bound: Bound, base: Figure | None, figure: Figure | None, load: str) -> str | None:
    if base is None or figure is None:
        return f"cannot tell: {NOT_ENOUGH} at {load}"
    ratio = ratio_of(figure, base)
    if ratio is None:
        # nothing against nothing is no difference, and something against nothing is more than any ratio
        ratio = Figure(value=1.0 if figure.value == base.value else math.inf)
    if not _BEYOND[bound.op](ratio.value, bound.limit) or is_real(ratio) is False:
        return None
    return f"{ratio_text(ratio)} at {load}"


def _take(text: str, place: int, pattern: re.Pattern[str], wanted: str) -> tuple[str, int]:
    """What matches from there, and where it begins; blanks before it are passed over."""
    while place < len(text) and text[place].isspace():
        place += 1
    found = pattern.match(text, place)
    if found is None:
        raise _wrong(text, place, f"{wanted} is wanted here")
    return found.group(), place


def _wrong(text: str, place: int, what: str, hint: str | None = None) -> UsageError:
    there = f"`{text[place:]}`" if text[place:].strip() else "its end"
    message = f"cannot read `{text}` at character {place + 1}, {there}: {what}"
    return UsageError(message, hint=hint or f"write it as `ttft_p99 > 1.05x` or `ttft_p99 > 200ms`; {FIGURES}")
