"""A case that is wrong says where."""

from __future__ import annotations

import re
from copy import deepcopy
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from serving.economics.books import Market, PricedModel, find, holding
from serving.economics.reading import read_case
from serving.economics.statement import statement
from serving.errors import BadFile, UsageError
from tests.support.cases import NOTHING, ROOT, TODAY, api, case, load, market, own, tables


def changed(path: str, value: Any) -> dict[str, Any]:
    """The case of `tables` with one field otherwise; None takes it away."""
    content = deepcopy(tables())
    *parents, name = path.split(".")
    at: Any = content
    for parent in parents:
        at = at.setdefault(parent, {})
    if value is None:
        del at[name]
    else:
        at[name] = value
    return content


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("currency", "EURO", '`currency` = `"EURO"`: is no currency of ISO 4217; did you mean `EUR`?'),
        ("currency", "doubloon", '`currency` = `"doubloon"`: is no currency'),
        ("api.prices.input", -1, "`api.prices.input` = `-1`: must be at least 0"),
        ("api.prices.output", {"low": 3, "high": 2}, "`api.prices.output`: must not go down"),
        ("api.prices.output", {"low": 3}, "`api.prices.output`: must be a number, or a range"),
        ("api.prices.output", "ten", '`api.prices.output` = `"ten"`: must be a number, or a range'),
        ("api.prices.output", True, "`api.prices.output` = `true`: must be a number, or a range"),
        ("api.prices.outputs", 3, "table `[api.prices]` has no field `outputs`"),
        ("api.sections.data", None, "`api.sections.data` is missing"),
        ("api.sections.data", 5, "`api.sections.data` = `5`: must be `0`, or a table"),
        ("api.sections.data", {"x": {"people": 1}}, "`people` and `pay_per_month` go together"),
        ("own.sections", None, "`own.sections` is missing"),
        ("own.rented", None, "must be either `rented` or `bought`"),
        ("own.bought", {"price": 1, "months": 36}, "must be either `rented` or `bought`"),
        ("own.capacity.measured", "guessed", '`own.capacity.measured` = `"guessed"`'),
        ("own.capacity.decode_tokens_per_s", 0, "`own.capacity.decode_tokens_per_s` = `0`: must be more than 0"),
        ("own.spares", None, "`own.spares` is missing"),
        ("workload.turns", 0, "`workload.turns` = `0`: must be at least 1"),
        ("workload.cached", Decimal("1.5"), "`workload.cached` = `1.5`: must be at most 1"),
        ("workload.days_per_month", 32, "`days_per_month` must be at most 31"),
        ("workload.output_tokens_per_day", None, "`workload`: must have `input_tokens_per_day` and"),
        ("workload.tokens_per_day", 5, "`workload`: must have `input_tokens_per_day` and"),
        ("workload.growth_per_month", 4, "`workload.growth_per_month` = `4`: must be a share from -0.9 to 1"),
        ("workload.growth_per_month", -1, "`workload.growth_per_month` = `-1`: must be a share"),
        ("day", datetime(2026, 6, 1, 10, tzinfo=UTC), "must be a day such as `2027-01-31`"),
        ("api.sections.data", {}, "`api.sections.data`: must be `0`, or a table"),
        ("exchange", {"EUR": {"rate": 1, "day": TODAY, "source": "a bank"}}, "`exchange.EUR` is not used"),
        ("horizon_months", 0, "`horizon_months` = `0`: must be at least 1"),
        ("hybrid", {"outside": 2, "sections": NOTHING}, "`hybrid.outside` = `2`: must be at most 1"),
        ("title", "", '`title` = `""`: must not be empty'),
    ],
)
def test_a_wrong_input_names_the_field(path: str, value: Any, says: str) -> None:
    """And what may stand there."""
    with pytest.raises(BadFile, match=re.escape(says).replace("\\ ", " ")):
        load(changed(path, value))


def test_a_time_is_no_day_for_a_book_either() -> None:
    """Which is asked by day, before the case is checked."""
    content = tables(day=datetime(2026, 6, 1, 10, tzinfo=UTC), api=api(prices="vendor/large"))
    with pytest.raises(BadFile, match="must be a day such as"):
        load(content, book(entry()))


def test_shares_of_the_same_tokens_are_at_most_all() -> None:
    """What is read from a cache is not written to it."""
    work = tables()["workload"] | {"cached": {"low": 0, "high": Decimal("0.7")}, "cache_writes": Decimal("0.4")}
    with pytest.raises(BadFile, match="`cached` and `cache_writes`"):
        case(workload=work)


def test_a_machine_that_was_bought_is_fed() -> None:
    """Power is no part that may be forgotten."""
    bought = {name: each for name, each in own(bought={"price": 1000, "months": 36}).items() if name != "rented"}
    with pytest.raises(BadFile, match="`power` is missing"):
        case(own=bought)


def entry(**others: Any) -> PricedModel:
    return PricedModel.model_validate(
        {
            "name": "vendor/large",
            "class": "frontier",
            "from": date(2026, 1, 1),
            "checked": date(2026, 5, 1),
            "source": "a price list",
            "currency": "USD",
            "prices": {"input": 1, "output": 2},
            **others,
        }
    )


def book(*entries: PricedModel) -> Market:
    return Market(version=1, model=entries)


def test_two_days_give_two_bills() -> None:
    """An entry holds until the next of its name begins."""
    prices = book(entry(), entry(**{"from": date(2026, 5, 1), "prices": {"input": 2, "output": 4}}))

    def total(day: date) -> Decimal:
        return statement(load(tables(day=day, api=api(prices="vendor/large")), prices).case, "api").total

    assert total(date(2026, 4, 30)) * 2 == total(date(2026, 5, 1)) > 0
    with pytest.raises(UsageError, match="no price of `vendor/large` on 2025-12-31"):
        total(date(2025, 12, 31))


def test_what_a_later_entry_ended_does_not_come_back() -> None:
    """A price for a while is followed by a new one, or by none."""
    prices = book(entry(), entry(**{"from": date(2026, 2, 1), "until": date(2026, 3, 1)}))
    assert find(prices.model, "vendor/large", date(2026, 2, 28), what="model") == prices.model[1]
    with pytest.raises(UsageError, match="no price of `vendor/large` on 2026-03-01"):
        find(prices.model, "vendor/large", date(2026, 3, 1), what="model")
    assert holding(prices.model, date(2026, 1, 31)) == {"vendor/large": prices.model[0]}
    assert holding(prices.model, date(2026, 3, 1)) == {}


@pytest.mark.parametrize(
    "others",
    [
        [{}, {}],
        [{"until": date(2026, 6, 1)}, {"from": date(2026, 5, 31)}],
    ],
)
def test_days_that_overlap_are_refused(others: list[dict[str, Any]]) -> None:
    """Both entries are named."""
    with pytest.raises(ValueError, match=r"`model\.0` and `model\.1` overlap: both say what `vendor/large` costs"):
        book(*(entry(**each) for each in others))


def test_a_price_that_nobody_looked_at_is_stale() -> None:
    """After ninety days."""
    assert not entry(checked=date(2026, 3, 3)).is_stale(TODAY)
    assert entry(checked=date(2026, 3, 2)).is_stale(TODAY)
    loaded = load(tables(api=api(prices="vendor/large")), book(entry(checked=date(2026, 1, 2))))
    assert [(source.name, source.is_stale) for source in loaded.sources] == [("vendor/large", True)]


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    """Of models and of GPUs."""
    with pytest.raises(UsageError, match="no model `vendor/tiny`") as failure:
        load(tables(api=api(prices="vendor/tiny")), book(entry()))
    assert "`vendor/large`" in str(failure.value.hint)
    with pytest.raises(UsageError, match="no GPU `H900`"):
        load(tables(own=own(gpu="H900")), market())


def test_another_currency_needs_a_rate() -> None:
    """Which is dated, and named among the sources."""
    content = tables(currency="EUR", api=api(prices="vendor/large"))
    with pytest.raises(BadFile, match=r"`api\.prices` is in USD, and the case in EUR"):
        load(content, book(entry()))
    rate = {"rate": Decimal("0.5"), "day": date(2026, 1, 2), "source": "a bank"}
    loaded = load(content | {"exchange": {"USD": rate}}, book(entry()))
    assert loaded.case.api is not None
    assert loaded.case.api.prices.output.likely == 1
    assert [(each.name, each.is_stale) for each in loaded.sources] == [("vendor/large", False), ("USD/EUR", True)]


def test_a_gpu_of_the_book_has_its_price_and_power() -> None:
    """Where the case has none of its own."""
    without = own(gpu="L40S", rented={}, power={"idle_w": 50, "pue": 1, "per_kwh": 1}, gpus=2)
    loaded = load(tables(own=without), market())
    machine = loaded.case.own
    assert machine is not None
    assert machine.rented is not None
    assert machine.power is not None
    assert machine.rented.per_gpu_hour.low == Decimal("0.79")
    assert machine.power.busy_w.likely == 700
    said = load(tables(own=without | {"rented": {"per_gpu_hour": 1}}), market()).case.own
    assert said is not None
    assert said.rented is not None
    assert said.rented.per_gpu_hour.likely == 1


def test_the_shipped_case_and_book_are_sound() -> None:
    """Whatever the case names is in the book; and nobody looked at a price before there was one."""
    prices = market()
    named = read_case(ROOT / "configs" / "case.toml")
    found = load(named, prices)
    assert {each.name for each in found.sources} == {named["api"]["prices"], named["own"]["gpu"]}
    assert {each.class_ for each in prices.model} == {"frontier", "mini"}
    assert {"A100 80GB", "H100 SXM", "H200 SXM", "L40S", "L4", "B200"} <= {each.name for each in prices.gpu}
    assert all(each.checked >= each.from_.replace(day=1) for each in (*prices.model, *prices.gpu))
