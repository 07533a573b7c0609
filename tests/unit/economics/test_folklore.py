"""What is said of costs everywhere, checked against the bands of early 2026 that ship."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from serving.economics.inputs import Case
from serving.economics.statement import Option, exact, statement
from serving.economics.values import settle, uncertain
from tests.support.cases import api, load, market, own, tables


def bill(millions_in: int | Decimal, millions_out: int | Decimal, prices: str = "frontier", **work: Any) -> Case:
    tokens = {
        "input_tokens_per_day": Decimal(millions_in) * 10**6,
        "output_tokens_per_day": Decimal(millions_out) * 10**6,
    }
    content = tables(workload=tokens | work, api=api(prices=f"seeds-2026/{prices}"))
    return load({name: each for name, each in content.items() if name != "own"}, market()).case


def ends(case: Case) -> tuple[Decimal, Decimal]:
    cheap, dear = (
        settle(case, {path: getattr(value, end) for path, value in uncertain(case)}) for end in ("low", "high")
    )
    return statement(cheap, "api").total, statement(dear, "api").total


def test_five_million_tokens_a_day_cost_375_to_2250() -> None:
    """150 M a month: all of it input at the cheap end, all of it output at the dear end. Never three thousand."""
    assert ends(bill(5, 0))[0] == Decimal("375.00")
    assert ends(bill(0, 5))[1] == Decimal("2250.00")
    assert ends(bill(Decimal("3.75"), Decimal("1.25"))) == (Decimal("656.25"), Decimal("1125.00"))


@pytest.mark.parametrize(
    ("turns", "cheap", "dear"),
    [(6, "1593.75", "3000.00"), (14, "3093.75", "6000.00"), (17, "3656.25", "7125.00"), (35, "7031.25", "13875.00")],
)
def test_history_that_is_sent_again_makes_thousands_of_it(turns: int, cheap: str, dear: str) -> None:
    """Three thousand from 6 turns at the dear end and 14 at the cheap one; seven from 17 and 35."""
    assert ends(bill(Decimal("3.75"), Decimal("1.25"), turns=turns)) == (Decimal(cheap), Decimal(dear))


def test_output_alone_with_input_on_top_makes_thousands_of_it() -> None:
    """5 M of output a day, and three times as much input."""
    assert ends(bill(15, 5)) == (Decimal("2625.00"), Decimal("4500.00"))


def test_the_dearest_models_make_thousands_of_it() -> None:
    """At 15 for input and 75 for output."""
    assert ends(bill(Decimal("3.75"), Decimal("1.25"), "opus")) == (Decimal("4500.00"), Decimal("4500.00"))


def test_ten_thousand_a_month_begin_at_44_to_76_million_a_day() -> None:
    """At three parts input and one output."""

    def at(millions: str) -> tuple[Decimal, Decimal]:
        return ends(bill(Decimal(millions) * 3 / 4, Decimal(millions) / 4))

    assert at("44.44")[1] < 10_000 < at("44.45")[1]
    assert at("76.19")[0] < 10_000 < at("76.20")[0]


OFFICE = {
    "input_tokens_per_day": 60_000_000,
    "output_tokens_per_day": 20_000_000,
    "hours_per_day": 10,
    "days_per_week": 5,
    "peak": 2,
}


def saved(workload: dict[str, Any], option: Option = "own", **machine: Any) -> Decimal:
    content = tables(workload=workload, api=api(prices="seeds-2026/frontier"), own=own(**machine))
    case = load(content, market()).case
    return 1 - exact(case, option) / exact(case, "api")


def sections(**said: Any) -> dict[str, Any]:
    return {**own()["sections"], **said}


ENGINEER = {"people": {"people": Decimal("0.25"), "pay_per_month": 12_000}}


def test_forty_to_sixty_percent_are_saved_with_two_gpus_and_a_quarter_of_an_engineer() -> None:
    """In office hours, with a spare machine."""
    small = sections(engineering=ENGINEER)
    machine = {
        "rented": {"per_gpu_hour": Decimal("2.95")},
        "capacity": own()["capacity"] | {"decode_tokens_per_s": 2500},
    }
    assert Decimal("0.4") < saved(OFFICE, **machine, sections=small) < Decimal("0.6")


def test_what_goes_out_of_a_hybrid_has_a_mix_of_its_own() -> None:
    """A tenth of the input and half of the output outside: each at its price, and the rest on the machines."""
    hybrid = {"outside": Decimal("0.1"), "outside_output": Decimal("0.5"), "sections": own()["sections"]}
    found = load(tables(hybrid=hybrid)).case
    lines = {line.name: line for line in statement(found, "hybrid").lines}
    assert lines["tokens.input"].quantity == Decimal("3.75") * 30 * 10**6 / 10
    assert lines["tokens.output"].quantity == Decimal("1.25") * 30 * 10**6 / 2
    assert lines["tokens.input"].per_month == Decimal("28.12")  # 28.125, to the even cent
    assert lines["tokens.output"].per_month == Decimal("187.50")
    fleet = statement(found, "hybrid").fleet
    assert fleet is not None
    assert fleet.load == max(Decimal("3.75") * 9 / 10 / 8000, Decimal("1.25") / 2 / 1500) * 10**6 / 86_400


def test_they_are_not_saved_around_the_clock_or_with_sixteen_gpus() -> None:
    """Five posts make a rota; two machines of eight cost more than the API."""
    rota = sections(operational_risk={"rota": {"people": 5, "pay_per_month": 12_000}})
    assert saved(OFFICE | {"hours_per_day": 24, "days_per_week": 7}, sections=rota) < 0
    assert saved(OFFICE, gpus=8, rented={"per_gpu_hour": Decimal("1.5")}, sections=sections(engineering=ENGINEER)) < 0
