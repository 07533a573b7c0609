"""Which way fits an organisation: a list of conditions that are not met, never a score. Pure.

Each way has conditions that have to hold, all of them; a way with an unmet one is not advised, and the condition says
why. It may be that none is advised: then nothing should be bought or built yet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Literal

from serving.economics.statement import Option

Data = Literal["public", "internal", "personal", "secret"]

STEADY: Final = Decimal(3)
"""Busiest hour over the mean: machines that stand idle most of the day cost what they cost at work."""
SPENT: Final = 5000
"""US dollars a month on an API: less pays for no engineer's quarter."""
TEAM: Final = Decimal("0.25")
"""Full-time posts that run servers: a quarter is what one machine takes in office hours."""
MONTHS: Final = 12
"""Horizon: shorter, what is set up is not paid back."""
EXAMPLES: Final = 1000
"""Labelled examples: fewer seldom change a model for the better."""
OUTSIDE: Final = Decimal("0.05")
"""Share of the work that may leave: less is no second way."""


@dataclass(frozen=True, slots=True)
class Situation:
    """What an organisation says of itself."""

    peak: Decimal
    """The busiest hour's load over the mean hour's."""
    api_per_month: Decimal
    """What an API costs, or would, in US dollars."""
    team: Decimal
    """Full-time posts for running it, there already."""
    is_on_call: bool
    """Somebody comes at night."""
    needs_nights: bool
    """The work does not wait until the morning."""
    data: Data
    """The most delicate that the work holds."""
    may_leave: Decimal
    """Share of the work whose data may leave, 0 to 1."""
    horizon_months: int
    examples: int
    """Labelled, for tuning a smaller model to the work."""
    needs_tuning: bool
    """An open model does not do the work as it is."""
    own_saves: Decimal | None = None
    """Share of the API's cost that owning saves at the low end of its interval; None where nobody worked it out."""
    both_save: Decimal | None = None
    """The same of having both."""
    both_save_of_own: Decimal | None = None
    """Share of what own machines alone cost that having both saves, at the low end of its interval."""

    @property
    def leaving(self) -> Decimal:
        """Share of the work that may leave: none of what is secret, whatever else was said."""
        return Decimal(0) if self.data == "secret" else self.may_leave


@dataclass(frozen=True, slots=True)
class Condition:
    """That is not met."""

    code: str
    asked: str
    """As a figure."""
    there: str


@dataclass(frozen=True, slots=True)
class Advice:
    """Of each way, the conditions that are not met; those with none are advised, in the order of least effort."""

    unmet: dict[Option, tuple[Condition, ...]]

    @property
    def advised(self) -> tuple[Option, ...]:
        """The ways with nothing in their way; none: do not."""
        return tuple(way for way, conditions in self.unmet.items() if not conditions)


def _percent(share: Decimal) -> str:
    return f"{(share * 100).normalize():f}%"


Rule = Callable[[Situation], Condition | None]


def advise(situation: Situation) -> Advice:
    """Every condition that is not met, way by way."""
    return Advice(
        {way: tuple(found for rule in rules for found in (rule(situation),) if found) for way, rules in RULES.items()}
    )


def _may_leave(it: Situation) -> Condition | None:
    if it.leaving < 1:
        return Condition("data", "100%", _percent(it.leaving))
    return None


def _some_may_leave(it: Situation) -> Condition | None:
    if it.leaving < OUTSIDE:
        return Condition("share", f"≥ {_percent(OUTSIDE)}", _percent(it.leaving))
    if it.leaving == 1 and it.data == "public":
        return Condition("share", "< 100%", "100%")
    return None


def _steady(it: Situation) -> Condition | None:
    if it.peak > STEADY:
        return Condition("load", f"≤ {STEADY}", f"{it.peak.normalize():f}")
    return None


def _spends(it: Situation) -> Condition | None:
    if it.leaving < 1:
        return None  # it stays inside whatever an API would cost
    return _saves(it.own_saves) if it.own_saves is not None else _spends_enough(it)


def _spends_on_both(it: Situation) -> Condition | None:
    """Against whatever the work would cost otherwise: machines alone, and an API where all may leave."""
    of_api = None
    if it.leaving == 1:
        of_api = _saves(it.both_save) if it.both_save is not None else _spends_enough(it)
    return of_api or _saves(it.both_save_of_own, "cost beside own")


def _spends_enough(it: Situation) -> Condition | None:
    if it.api_per_month < SPENT:
        return Condition("spend", f"≥ {SPENT}", f"{it.api_per_month.normalize():f}")
    return None


def _saves(share: Decimal | None, code: str = "cost") -> Condition | None:
    return Condition(code, "> 0%", _percent(share)) if share is not None and share <= 0 else None


def _team(it: Situation) -> Condition | None:
    if it.team < TEAM:
        return Condition("team", f"≥ {TEAM}", f"{it.team.normalize():f}")
    return None


def _on_call(it: Situation) -> Condition | None:
    if it.needs_nights and not it.is_on_call:
        return Condition("nights", "≥ 1", "0")
    return None


def _horizon(it: Situation) -> Condition | None:
    if it.horizon_months < MONTHS:
        return Condition("horizon", f"≥ {MONTHS}", str(it.horizon_months))
    return None


def _examples(it: Situation) -> Condition | None:
    if it.needs_tuning and it.examples < EXAMPLES:
        return Condition("examples", f"≥ {EXAMPLES}", str(it.examples))
    return None


_OF_MACHINES: Final[tuple[Rule, ...]] = (_steady, _team, _on_call, _horizon, _examples)
RULES: Final[dict[Option, tuple[Rule, ...]]] = {
    "api": (_may_leave,),
    "own": (_spends, *_OF_MACHINES),
    "hybrid": (_some_may_leave, _spends_on_both, *_OF_MACHINES),
}
