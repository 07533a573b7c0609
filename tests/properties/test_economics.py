"""What holds of every case: sums, units, more never costs less, and a break-even that is one."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from serving.economics.breakeven import break_even
from serving.economics.cash import cash_flow, pays_from
from serving.economics.curve import curve_of
from serving.economics.inputs import SECTIONS, Case
from serving.economics.statement import OPTIONS, Option, exact, fleet_at, options_of, statement
from serving.economics.uncertainty import draw, draw_cash, tornado
from serving.economics.values import certain, leaves, settle, uncertain
from tests.support.cases import case

ONE = Decimal(1)
TINY = Decimal("1e-12")


def decimals(least: str, most: str, places: int = 2) -> st.SearchStrategy[Decimal]:
    return st.decimals(Decimal(least), Decimal(most), places=places)


def figures(least: str, most: str, places: int = 2) -> st.SearchStrategy[Any]:
    """A figure, or a range."""
    single = decimals(least, most, places)
    pair = st.lists(single, min_size=2, max_size=2, unique=True).map(sorted)
    return st.one_of(single, pair.map(lambda ends: {"low": ends[0], "high": ends[1]}))


ITEMS = st.one_of(
    st.just(0),
    st.fixed_dictionaries(
        {"thing": st.fixed_dictionaries({"per_month": figures("0", "9000"), "once": figures("0", "90000")})}
    ),
    st.fixed_dictionaries(
        {"team": st.fixed_dictionaries({"people": figures("0.01", "5"), "pay_per_month": figures("1", "20000")})}
    ),
)
ALL_SECTIONS = st.fixed_dictionaries(dict.fromkeys(SECTIONS, ITEMS))
WORK = st.fixed_dictionaries(
    {
        "input_tokens_per_day": figures("0", "200000000", 0),
        "output_tokens_per_day": figures("1", "90000000", 0),
        "requests_per_day": figures("1", "100000", 0),
        "turns": figures("1", "20"),
        "reasoning": figures("0", "3"),
        "cached": figures("0", "0.5"),
        "cache_writes": figures("0", "0.5"),
        "batch": figures("0", "1"),
        "hours_per_day": figures("1", "24"),
        "days_per_week": figures("1", "7"),
        "peak": figures("1", "5"),
        "growth_per_month": figures("-0.05", "0.1"),
    }
)
API = st.fixed_dictionaries(
    {
        "prices": st.fixed_dictionaries(
            {"input": figures("0", "20"), "output": figures("0.01", "90")},
            optional={
                "cached_input": figures("0", "20"),
                "cache_write": figures("0", "25"),
                "batch_discount": figures("0", "1"),
            },
        ),
        "sections": ALL_SECTIONS,
    }
)
CAPACITY = st.fixed_dictionaries(
    {
        "prefill_tokens_per_s": figures("100", "50000"),
        "decode_tokens_per_s": figures("20", "9000"),
        "measured": st.sampled_from(["together", "apart"]),
        "used": figures("0.3", "1"),
        "prefix_reuse": figures("0", "0.9"),
    }
)
POWER = st.fixed_dictionaries(
    {
        "busy_w": figures("500", "9000"),
        "idle_w": figures("0", "500"),
        "pue": figures("1", "2"),
        "per_kwh": figures("0", "1"),
    }
)
RENTED = st.fixed_dictionaries(
    {
        "rented": st.fixed_dictionaries(
            {"per_gpu_hour": figures("0", "9"), "hours": st.sampled_from(["always", "busy"])}
        )
    },
    optional={"power": POWER},
)
BOUGHT = st.fixed_dictionaries(
    {
        "bought": st.fixed_dictionaries(
            {
                "price": figures("0", "400000"),
                "months": st.sampled_from([36, 60]),
                "residual": figures("0", "0.5"),
                "financing_per_year": figures("0", "0.3"),
                "maintenance_per_year": figures("0", "0.2"),
                "colocation_per_month": figures("0", "2000"),
            }
        ),
        "power": POWER,
    }
)
TUNING = st.fixed_dictionaries(
    {
        "data": figures("0", "50000"),
        "labour": figures("0", "50000"),
        "gpu_hours": figures("0", "1000"),
        "per_gpu_hour": figures("0", "9"),
        "useful_months": figures("1", "24"),
        "refresh": figures("0", "1"),
    }
)


@st.composite
def cases(drawing: st.DrawFn) -> Case:
    machine = drawing(st.one_of(RENTED, BOUGHT))
    own = machine | {
        "gpus": drawing(st.integers(1, 8)),
        "spares": drawing(st.integers(0, 3)),
        "capacity": drawing(CAPACITY),
        "sections": drawing(ALL_SECTIONS),
    }
    if drawing(st.booleans()):
        own["tuning"] = drawing(TUNING)
    hybrid = {"outside": drawing(figures("0", "1")), "sections": drawing(ALL_SECTIONS)}
    if drawing(st.booleans()):
        hybrid["outside_output"] = drawing(figures("0", "1"))
    return case(
        horizon_months=drawing(st.integers(1, 60)), workload=drawing(WORK), api=drawing(API), own=own, hybrid=hybrid
    )


@given(cases())
def test_parts_add_up_everywhere(found: Case) -> None:
    """Lines, sections and the total are one sum, in whole cents, and no line costs less than nothing."""
    for option in options_of(found):
        said = statement(found, option)
        assert sum(said.by_section.values()) == said.total == sum(line.per_month for line in said.lines)
        assert set(said.by_section) == set(SECTIONS)
        assert all(line.per_month >= 0 and line.per_month == round(line.per_month, 2) for line in said.lines)
        assert abs(said.total - exact(found, option)) <= Decimal("0.005") * len(said.lines)


@given(cases(), st.sampled_from(OPTIONS), decimals("0", "5"), decimals("0", "5"))
def test_more_work_never_costs_less(found: Case, option: Option, one: Decimal, other: Decimal) -> None:
    """Whoever does it."""
    less, more = sorted((one, other))
    assert exact(found, option, less) <= exact(found, option, more) + TINY


PRICES = st.sampled_from(["input", "cached_input", "cache_write", "output"])


@given(cases(), PRICES, decimals("0", "50"))
def test_a_higher_price_never_lowers_the_bill(found: Case, name: str, more: Decimal) -> None:
    """Of tokens, for whoever buys some."""
    assert found.api is not None
    before = getattr(found.api.prices, name) or found.api.prices.input
    prices = found.api.prices.model_copy(update={name: certain(before.likely + more)})
    dearer = found.model_copy(update={"api": found.api.model_copy(update={"prices": prices})})
    assert exact(dearer, "api") >= exact(found, "api")
    assert exact(dearer, "hybrid") >= exact(found, "hybrid")


@given(cases(), st.sampled_from(OPTIONS), decimals("0.01", "100"))
def test_money_has_one_dimension(found: Case, option: Option, rate: Decimal) -> None:
    """In another currency every figure is what it is times the rate: no amount is added to a plain number."""
    paths = ("prices", "per_month", "once", "pay_per_month", "per_gpu_hour", "price", "colocation_per_month", "per_kwh")
    costs = ("data", "labour")

    def is_money(path: str) -> bool:
        last = path.rsplit(".", 1)[-1]
        if ".prices." in path:
            return last != "batch_discount"
        return last in paths or (".tuning." in path and last in costs)

    every = {path: value for path, value in _all_figures(found).items() if is_money(path)}
    exchanged = settle(found, {path: value * rate for path, value in every.items()})
    assert abs(exact(exchanged, option) - exact(found, option) * rate) <= TINY * (1 + exact(found, option) * rate)


@given(cases(), st.sampled_from(OPTIONS), st.integers(2, 9))
def test_tokens_have_one_dimension(found: Case, option: Option, times: int) -> None:
    """Counted in units of so many tokens, with prices and capacities in the same, nothing costs otherwise."""
    every = _all_figures(found)
    counts = {path: each / times for path, each in every.items() if path.endswith(("tokens_per_day", "tokens_per_s"))}
    prices = {
        path: each * times for path, each in every.items() if ".prices." in path and not path.endswith("discount")
    }
    recounted = settle(found, counts | prices)
    assert abs(exact(recounted, option) - exact(found, option)) <= TINY * (1 + exact(found, option))


def _all_figures(found: Case) -> dict[str, Decimal]:
    """Each figure's likely value by its path."""
    return {path: value.likely for path, value in leaves(found)}


@given(cases(), st.sampled_from(OPTIONS), decimals("0", "30", 3))
def test_four_figures_say_what_an_option_costs_at_any_volume(found: Case, option: Option, times: Decimal) -> None:
    """As its statement does; and the mean month is the mean of the months."""
    curve = curve_of(found, option)
    fleet = fleet_at(found, option, times)
    needed = None if fleet is None else fleet.needed
    assert abs(curve.at(times, needed) - exact(found, option, times)) <= TINY * (1 + exact(found, option, times))
    growth, spares = found.workload.growth_per_month.likely, 0 if found.own is None else found.own.spares
    there = cash_flow(found, option).machines  # as many as are paid for, when work shrinks too
    months = [
        exact(found, option, (1 + growth) ** month, None if option == "api" else count - spares)
        for month, count in enumerate(there)
    ]
    mean = sum(months, Decimal(0)) / found.horizon_months
    assert abs(curve.mean_month(found.horizon_months, growth) - mean) <= TINY * (1 + mean)


@given(cases())
def test_break_even_is_where_both_cost_the_same(found: Case) -> None:
    """To the last digit at each meeting, and on the right side of the first and the last."""
    point = break_even(found)
    for meeting in point.meetings:
        api, own = exact(found, "api", meeting.scale), exact(found, "own", meeting.scale, meeting.needed)
        assert abs(api - own) <= TINY * (1 + api)
        assert abs(api - meeting.cost) <= TINY * (1 + api)
    for volume in (point.first, point.always_from):
        if volume is not None:
            api, own = exact(found, "api", volume), exact(found, "own", volume, _needed(found, volume))
            assert own <= api + TINY * (1 + api)


def _needed(found: Case, volume: Decimal) -> int | None:
    """Machines at a volume; at the end of a stair those of that stair, whatever a last digit says."""
    fleet = fleet_at(found, "own", volume * (1 - TINY))
    return None if fleet is None else fleet.needed


@given(cases(), decimals("0.001", "60", 3))
def test_before_the_first_owning_costs_more_and_after_the_last_it_never_does(found: Case, scale: Decimal) -> None:
    """At any volume that is tried."""
    point = break_even(found)
    assume(exact(found, "api", ONE) > exact(found, "api", Decimal(0)))
    api, own = exact(found, "api", scale), exact(found, "own", scale)
    slack = TINY * (1 + api)
    if point.first is None or scale < point.first * (1 - TINY):
        assert own > api - slack
    if point.always_from is not None and scale > point.always_from * (1 + TINY):
        assert own <= api + slack


@given(cases())
def test_cash_is_what_statements_say_spread_otherwise(found: Case) -> None:
    """Without growth and over the whole life of what was bought, both come to the same sum."""
    assert found.own is not None
    life = found.own.bought.months if found.own.bought is not None else 12
    still = settle(found, {"workload.growth_per_month": Decimal(0)}).model_copy(update={"horizon_months": life})
    for option in options_of(still):
        spent = cash_flow(still, option)
        assert len(spent.months) == life
        assert abs(spent.total - exact(still, option) * life) <= Decimal("0.01") * (life + 1)
        assert pays_from(spent, spent) == 1


@settings(max_examples=25)
@given(cases())
def test_every_draw_lies_between_the_ends(found: Case) -> None:
    """The same seed gives the same draws; shares of draws are of all; a swing is at the ends of one range."""
    drawn = draw(found, draws=40, seed=7)
    assert drawn == draw(found, draws=40, seed=7)
    assert sum(drawn.cheapest.values()) == 1
    for spread in drawn.totals.values():
        assert spread.least <= spread.low <= spread.middle <= spread.high <= spread.most
    for option, paid in draw_cash(found, draws=8, seed=7).items():
        assert paid.total.least <= paid.total.low <= paid.total.high <= paid.total.most
        assert 0 <= paid.never <= 1
        assert (paid.months is None) == (paid.never == 1) or option == "api"
        assert paid.months is None or 1 <= paid.months[0] <= paid.months[1] <= found.horizon_months
    swings = tornado(found, lambda each: exact(each, "own"))
    assert {swing.path for swing in swings} == {path for path, _ in uncertain(found)}
    assert [swing.width for swing in swings] == sorted((swing.width for swing in swings), reverse=True)
