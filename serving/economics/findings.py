"""All that a case says, worked out once: what commands print, pages show and programs read. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from serving.economics.breakeven import BreakEven, break_even
from serving.economics.cash import CashFlow, cash_flow, pays_from
from serving.economics.curve import mean_month
from serving.economics.inputs import Case
from serving.economics.reading import Loaded, Source
from serving.economics.statement import Option, Statement, options_of, statement
from serving.economics.uncertainty import CASH_DRAWS, DRAWS, Drawn, Paid, Swing, draw, draw_cash, tornado
from serving.economics.verdict import Verdict, verdict_of


@dataclass(frozen=True, slots=True)
class Findings:
    """A case, worked out."""

    case: Case
    today: date
    sources: tuple[Source, ...]
    notes: tuple[str, ...]
    """What speaks against the inputs."""
    is_bill_alone: bool
    """Of an API's tokens: nothing was said of the other sections."""
    statements: tuple[Statement, ...]
    """One for each option, at the likely figures."""
    drawn: Drawn
    swings: tuple[Swing, ...]
    """By width. Of what owning costs beyond the API, where there are both; else of the one option's cost."""
    likely: Decimal
    """The same at the likely figures."""
    break_even: BreakEven | None
    """None where there are not both."""
    flows: tuple[CashFlow, ...]
    pays_from: dict[Option, int | None]
    """By each option beside the API: the month from which less was paid for it in all; empty without an API."""
    paid: dict[Option, Paid]
    """The same when all ranges are drawn."""
    verdict: Verdict

    @property
    def served_per_day(self) -> Decimal:
        """Tokens of the case's mean day that people asked and were answered: what its volumes are counted in."""
        return self.statements[0].month.served / self.case.workload.days_per_month.likely


def work_out(
    loaded: Loaded,
    today: date,
    *,
    notes: tuple[str, ...] = (),
    is_bill_alone: bool = False,
    draws: int = DRAWS,
    seed: int = 1,
) -> Findings:
    """Everything about a case."""
    case = loaded.case
    names = options_of(case)
    flows = {name: cash_flow(case, name) for name in names}
    drawn = draw(case, draws=draws, seed=seed)
    has_both = "api" in names and "own" in names
    moved = _beyond_api if has_both else lambda each: mean_month(each, names[0])
    return Findings(
        case=case,
        today=today,
        sources=loaded.sources,
        notes=notes,
        is_bill_alone=is_bill_alone,
        statements=tuple(statement(case, name) for name in names),
        drawn=drawn,
        swings=tornado(case, moved),
        likely=moved(case),
        break_even=break_even(case) if has_both else None,
        flows=tuple(flows.values()),
        pays_from={name: pays_from(flows["api"], flows[name]) for name in names if "api" in names and name != "api"},
        paid=draw_cash(case, draws=min(draws, CASH_DRAWS), seed=seed),
        verdict=verdict_of(drawn),
    )


def _beyond_api(case: Case) -> Decimal:
    return mean_month(case, "own") - mean_month(case, "api")
