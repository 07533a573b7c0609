"""When money is spent."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from serving.economics.cash import cash_flow, pays_from
from serving.economics.curve import mean_month
from serving.economics.inputs import Case
from tests.support.cases import NOTHING, api, case, own, tables

POWER = {"busy_w": 0, "idle_w": 0, "pue": 1, "per_kwh": 0}


def bought(horizon: int, growth: str = "0", **machine: Any) -> Case:
    table = own(bought={"price": 36_000, "months": 36, **machine}, power=POWER)
    del table["rented"]
    work = tables()["workload"] | {"growth_per_month": Decimal(growth)}
    return case(own=table, horizon_months=horizon, workload=work)


def test_machines_are_bought_again_when_they_are_written_off() -> None:
    """Two in the first month, two in the thirty-seventh; at the end a third of those is still in them."""
    flow = cash_flow(bought(60), "own")
    assert {month: paid for month, paid in enumerate(flow.months, 1) if paid} == {1: 72_000, 37: 72_000}
    assert (flow.worth, flow.total) == (24_000, 120_000)
    assert set(flow.machines) == {2}


def test_what_is_left_of_an_old_machine_comes_back_when_it_is_replaced() -> None:
    """And nothing is left in one that is as old as it gets, but its residual."""
    flow = cash_flow(bought(37, residual=Decimal("0.1")), "own")
    worth = 36_000 - Decimal(36_000 - 3_600) / 36
    expected = {1: Decimal(72_000), 37: Decimal(72_000 - 2 * 3_600)}
    assert {month: paid for month, paid in enumerate(flow.months, 1) if paid} == expected
    assert flow.worth == 2 * worth
    assert cash_flow(bought(36, residual=Decimal("0.1")), "own").worth == 7_200


def test_growing_work_buys_the_next_machine_in_the_month_that_needs_it() -> None:
    """Work that doubles every month: 0.01 of a machine is more than one in the eighth."""
    flow = cash_flow(bought(9, growth="1"), "own")
    assert flow.machines == (2, 2, 2, 2, 2, 2, 2, 3, 4)
    assert [paid > 0 for paid in flow.months] == [True, *[False] * 6, True, True]


def test_work_that_doubles_for_years_buys_any_number_of_machines() -> None:
    """They are counted, not listed."""
    flow = cash_flow(bought(36, growth="1"), "own")
    assert flow.machines[-1] > 10**8
    assert sum(flow.months) == 36_000 * flow.machines[-1]


def shrinking(horizon: int) -> Case:
    """Four bought machines, of which the work needs half as many each month."""
    table = own(bought={"price": 36_000, "months": 36, "colocation_per_month": 100}, power=POWER)
    del table["rented"]
    table["capacity"] = {"prefill_tokens_per_s": 20, "decode_tokens_per_s": 20, "measured": "together"}
    work = tables()["workload"] | {"growth_per_month": Decimal("-0.5")}
    return case(own=table, horizon_months=horizon, workload=work)


def test_shrinking_work_gives_no_machine_back() -> None:
    """What was bought stays until it is written off."""
    flow = cash_flow(shrinking(4), "own")
    assert flow.machines == (4, 4, 4, 4)
    assert flow.months == (4 * 36_000 + 400, 400, 400, 400)


def test_shrinking_work_buys_fewer_machines_again() -> None:
    """And the mean month is of those that are there: no longer written off than they are paid for."""
    found = shrinking(72)
    there = cash_flow(found, "own").machines
    assert there == (*[4] * 36, *[2] * 36)
    assert mean_month(found, "own") == (1000 + 100) * Decimal(sum(there)) / 72


def test_tuning_is_paid_when_it_is_made() -> None:
    """At once, and again as it ages."""
    tuning = {
        "data": 1000,
        "labour": 200,
        "gpu_hours": 10,
        "per_gpu_hour": 3,
        "useful_months": 5,
        "refresh": Decimal("0.5"),
    }
    machine = own(tuning=tuning, rented={"per_gpu_hour": 0})
    flow = cash_flow(case(own=machine, horizon_months=12), "own")
    assert {month: paid for month, paid in enumerate(flow.months, 1) if paid} == {1: 1230, 6: 615, 11: 615}


def test_tuning_may_be_made_more_often_than_monthly() -> None:
    """However often: each month pays for as many times as fall into it."""
    tuning = {"data": 1, "labour": 0, "gpu_hours": 0, "per_gpu_hour": 0, "useful_months": Decimal("0.4")}
    machine = own(tuning=tuning, rented={"per_gpu_hour": 0})
    assert cash_flow(case(own=machine, horizon_months=4), "own").months == tuple(map(Decimal, (3, 2, 3, 2)))
    machine["tuning"] |= {"useful_months": Decimal("1e-9")}
    assert cash_flow(case(own=machine, horizon_months=2), "own").total == 2 * 10**9


def test_a_way_has_paid_for_itself_when_it_never_falls_behind_again() -> None:
    """Not at the first month that looks so, when the next machine undoes it."""
    once = {**NOTHING, "engineering": {"set up": {"once": 2000}}}
    found = case(
        api=api(prices={"input": 10, "output": 30}),
        own=own(rented={"per_gpu_hour": Decimal("0.5")}, sections=once),
        horizon_months=24,
    )
    dear, cheap = cash_flow(found, "api"), cash_flow(found, "own")
    month = pays_from(dear, cheap)
    assert month is not None
    assert cheap.cumulative[month - 1] <= dear.cumulative[month - 1]
    assert cheap.cumulative[month - 2] > dear.cumulative[month - 2]
    assert pays_from(cheap, dear) is None
