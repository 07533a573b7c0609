"""Figures that may be uncertain, as a case has them, and how each is drawn or fixed. Pure.

An uncertain figure is a triangle: nothing below `low`, nothing above `high`, most often `likely`. It is the least that
somebody has to know to say anything, and says no more than was known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Final, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator

_FIELDS: Final = frozenset({"low", "likely", "high"})
_HINT: Final = "must be a number, or a range such as `{ low = 2, high = 5 }` with or without `likely`"
_LEAST_GROWTH: Final = Decimal("-0.9")
_MOST: Final = Decimal(10) ** 18
"""More than any figure here can be; what is larger is a slip of the finger."""


@dataclass(frozen=True, slots=True)
class Value:
    """A figure, or a range of which it is."""

    low: Decimal
    likely: Decimal
    high: Decimal

    @property
    def is_certain(self) -> bool:
        """It is one figure."""
        return self.low == self.high

    def at(self, quantile: Decimal) -> Decimal:
        """The figure below which `quantile` (0 to 1) of the triangle lies; 0 is `low`, 1 is `high`."""
        span = self.high - self.low
        if span == 0:
            return self.likely
        left = self.likely - self.low
        if quantile * span < left:
            return self.low + (quantile * span * left).sqrt()
        return self.high - ((1 - quantile) * span * (self.high - self.likely)).sqrt()


def certain(figure: Decimal | int) -> Value:
    """A figure that is known."""
    exact = Decimal(figure)
    return Value(exact, exact, exact)


def _value(given: object) -> Value:
    if isinstance(given, Value):
        return given
    if not isinstance(given, dict):
        return certain(_number(given))
    if given.keys() - _FIELDS or not {"low", "high"} <= given.keys():
        raise ValueError(_HINT)
    low, high = _number(given["low"]), _number(given["high"])
    likely = _number(given["likely"]) if "likely" in given else (low + high) / 2
    if not low <= likely <= high:
        raise ValueError(f"must not go down from `low` to `likely` to `high`: {low}, {likely}, {high}")
    return Value(low, likely, high)


def _number(given: object) -> Decimal:
    if isinstance(given, bool) or not isinstance(given, int | Decimal):
        raise ValueError(_HINT)  # noqa: TRY004 -- pydantic makes a finding of it
    number = Decimal(given)
    if not number.is_finite() or abs(number) > _MOST:
        raise ValueError("must be a finite number of a size that is met")
    return number


def _between(least: int, most: int | None = None) -> Callable[[Value], Value]:
    def check(value: Value) -> Value:
        if value.low < least:
            raise ValueError(f"must be at least {least}")
        if most is not None and value.high > most:
            raise ValueError(f"must be at most {most}")
        return value

    return check


def _more_than_nothing(value: Value) -> Value:
    if value.low <= 0:
        raise ValueError("must be more than 0")
    return value


def _growing(value: Value) -> Value:
    if not (value.low >= _LEAST_GROWTH and value.high <= 1):
        raise ValueError(f"must be a share from {_LEAST_GROWTH} to 1: 4 in a hundred is 0.04")
    return value


Amount = Annotated[Value, BeforeValidator(_value), AfterValidator(_between(0))]
"""Nothing, or more."""
Positive = Annotated[Value, BeforeValidator(_value), AfterValidator(_more_than_nothing)]
Share = Annotated[Value, BeforeValidator(_value), AfterValidator(_between(0, 1))]
SomeShare = Annotated[Positive, AfterValidator(_between(0, 1))]
"""A share that is more than nothing."""
AtLeastOne = Annotated[Value, BeforeValidator(_value), AfterValidator(_between(1))]
Growth = Annotated[Value, BeforeValidator(_value), AfterValidator(_growing)]
"""A share by which something grows; less than nothing where it shrinks."""

Tree = TypeVar("Tree", bound=BaseModel)


def settle(tree: Tree, figures: Mapping[str, Decimal]) -> Tree:
    """The same with each range that `figures` names, by its path, fixed at its figure; the others as they are."""
    settled: Tree = _rebuilt(tree, "", {path: certain(figure) for path, figure in figures.items()})
    return settled


def uncertain(tree: BaseModel) -> tuple[tuple[str, Value], ...]:
    """Each range with its path, such as `own.machine.rented.per_gpu_hour`, in the order of the file's fields."""
    return tuple((path, value) for path, value in leaves(tree) if not value.is_certain)


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Value]]:
    """Each figure of a case or a part of one with its path, ranges and others."""
    if isinstance(node, Value):
        yield path, node
        return
    for name, each in _members(node):
        yield from leaves(each, f"{path}.{name}" if path else name)


def _members(node: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(node, BaseModel):
        yield from ((name, getattr(node, name)) for name in type(node).model_fields)
    elif isinstance(node, Mapping):
        yield from node.items()


def _rebuilt(node: Any, path: str, fixed: Mapping[str, Value]) -> Any:
    if isinstance(node, Value):
        return fixed.get(path, node)
    changed = {
        name: new
        for name, each in _members(node)
        for new in (_rebuilt(each, f"{path}.{name}" if path else name, fixed),)
        if new is not each
    }
    if not changed:
        return node
    return node.model_copy(update=changed) if isinstance(node, BaseModel) else {**node, **changed}
